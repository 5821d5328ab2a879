//! Gets URLs one after the other over one connection.

fn main() {
    let client = reqwest::blocking::Client::builder()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    for url in std::env::args().skip(1) {
        client.get(url).send().unwrap().bytes().unwrap();
    }
}
