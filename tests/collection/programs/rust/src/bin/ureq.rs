//! Gets URLs one after the other over one connection.

fn main() {
    let tls = ureq::tls::TlsConfig::builder()
        .disable_verification(true)
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .build()
        .into();
    for url in std::env::args().skip(1) {
        agent.get(url).call().unwrap().body_mut().read_to_vec().unwrap();
    }
}
