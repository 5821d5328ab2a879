//! Answers HTTP requests over TLS: axum ADDR DIR.

use axum_server::tls_rustls::RustlsConfig;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let (addr, dir) = (args.next().unwrap(), args.next().unwrap());
    let config = RustlsConfig::from_pem_file(format!("{dir}/cert.pem"), format!("{dir}/key.pem"));
    let app = axum::Router::new().fallback(|| async { "hello" });
    axum_server::bind_rustls(addr.parse().unwrap(), config.await.unwrap())
        .serve(app.into_make_service())
        .await
        .unwrap();
}
