//! Talks to itself over TLS by rustls and by an OpenSSL in the same file, and prints what it passed.

mod openssl;
mod verifier;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const PLAIN: usize = 300_000;
const ODD: usize = 100_000;

/// Bytes that passed in one direction.
#[derive(Default)]
struct Sum {
    len: usize,
    crc: u32,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let mut crc = !self.crc;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
            }
        }
        self.crc = !crc;
    }
}

/// One end of a connection.
struct End<S> {
    stream: S,
    out: Sum,
    input: Sum,
    role: &'static str,
    version: &'static str,
    local: String,
    remote: String,
}

impl<S: Read + Write> End<S> {
    fn new(stream: S, socket: &TcpStream, role: &'static str, version: &'static str) -> End<S> {
        End {
            stream,
            out: Sum::default(),
            input: Sum::default(),
            role,
            version,
            local: socket.local_addr().unwrap().to_string(),
            remote: socket.peer_addr().unwrap().to_string(),
        }
    }

    /// No two places of a stream are alike.
    fn bytes(&self, len: usize) -> Vec<u8> {
        let at = |n| (((self.out.len + n) as u64 * 2_654_435_761) >> 13) as u8;
        (0..len).map(at).collect()
    }

    fn send(&mut self, len: usize) {
        let bytes = self.bytes(len);
        for piece in bytes.chunks(70_000) {
            self.stream.write_all(piece).unwrap();
        }
        self.stream.flush().unwrap();
        self.out.add(&bytes);
    }

    fn send_pieces(&mut self, len: usize) {
        let bytes = self.bytes(len);
        let mut done = 0;
        while done < len {
            let rest = &bytes[done..];
            let (one, more) = rest.split_at(rest.len() / 3);
            let (two, three) = more.split_at(more.len() / 2);
            let pieces = [one, &[], two, three].map(IoSlice::new);
            done += self.stream.write_vectored(&pieces).unwrap();
        }
        self.stream.flush().unwrap();
        self.out.add(&bytes);
    }

    fn receive(&mut self, len: usize) {
        let mut bytes = vec![0; len];
        for piece in bytes.chunks_mut(9000) {
            self.stream.read_exact(piece).unwrap();
        }
        self.input.add(&bytes);
    }

    fn report(&self) {
        let End {
            role,
            version,
            local,
            remote,
            out,
            input,
            ..
        } = self;
        println!(
            "{{\"name\":\"rustls\",\"pid\":{},\"role\":\"{role}\",\"transport\":\"tcp\",\
             \"local\":\"{local}\",\"remote\":\"{remote}\",\"version\":\"{version}\",\"sni\":\"\",\
             \"alpn\":\"\",\"out\":{{\"len\":{},\"crc\":{}}},\"in\":{{\"len\":{},\"crc\":{}}}}}",
            std::process::id(),
            out.len,
            out.crc,
            input.len,
            input.crc
        );
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn client<S: Read + Write>(mut end: End<S>) -> End<S> {
    end.send(PLAIN);
    end.receive(PLAIN / 2);
    end.send_pieces(ODD);
    end.receive(5);
    end
}

fn server<S: Read + Write>(mut end: End<S>) -> End<S> {
    end.receive(PLAIN);
    end.send(PLAIN / 2);
    end.receive(ODD);
    end.send(5);
    end
}

fn by_rustls(
    version: &'static rustls::SupportedProtocolVersion,
    name: &'static str,
    files: [&str; 2],
) {
    let cert = CertificateDer::pem_file_iter(files[0]).unwrap();
    let key = PrivateKeyDer::from_pem_file(files[1]).unwrap();
    let of_server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(cert.map(Result::unwrap).collect(), key)
        .unwrap();
    let of_client = ClientConfig::builder_with_protocol_versions(&[version])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier::Trusting))
        .with_no_client_auth();
    let (near, far) = tcp_pair();
    let serving = std::thread::spawn(move || {
        let connection = ServerConnection::new(Arc::new(of_server)).unwrap();
        let socket = far.try_clone().unwrap();
        let mut end = server(End::new(
            StreamOwned::new(connection, far),
            &socket,
            "server",
            name,
        ));
        end.stream.conn.send_close_notify();
        end.stream.flush().unwrap();
        end
    });
    let to = "127.0.0.1".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(of_client), to).unwrap();
    let socket = near.try_clone().unwrap();
    let stream = Box::new(StreamOwned::new(connection, near));
    let mut end = End::new(stream, &socket, "client", name);
    // Before the handshake: it waits in the connection.
    let early = end.bytes(100);
    end.stream.conn.writer().write_all(&early).unwrap();
    end.out.add(&early);
    end.send(PLAIN - early.len());
    end.receive(PLAIN / 2);
    // The connection moves in memory.
    let End {
        stream, out, input, ..
    } = end;
    let mut end = End::new(*stream, &socket, "client", name);
    (end.out, end.input) = (out, input);
    end.send_pieces(ODD);
    end.receive(5);
    end.stream.conn.send_close_notify();
    end.stream.flush().unwrap();
    let other = serving.join().unwrap();
    end.report();
    other.report();
}

fn by_openssl(files: [&str; 2]) {
    let context = openssl::Context::new(files);
    let (near, far) = tcp_pair();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            server(End::new(context.accept(&far), &far, "server", "1.3")).report();
        });
        client(End::new(context.connect(&near), &near, "client", "1.3")).report();
        serving.join().unwrap();
    });
}

fn wait_for_go() {
    if std::env::var_os("ODD_GATE").is_some() {
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let files = [arguments[0].as_str(), arguments[1].as_str()];
    wait_for_go();
    // Twice: the memory of the first connections is used again.
    for _ in 0..2 {
        by_rustls(&rustls::version::TLS13, "1.3", files);
        by_rustls(&rustls::version::TLS12, "1.2", files);
        by_openssl(files);
    }
}
