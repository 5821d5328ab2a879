//! What `--redact` hides is in no output, and Wireshark decodes what is left.

use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use tlssniff::event::{Conn, Data, Dir, Event, Flavor, Kind, Lib, Proc, Role, Totals, Transport};
use tlssniff::sink::Sink;
use tlssniff::sink::pcapng::{Format, Framing, Options, PcapSink};
use tlssniff::sink::rotate::{Output, Rotation};

const SECRET: &str = "S3cr3tOpenSesame";

fn conn(id: u64, alpn: &str) -> Conn {
    Conn {
        id,
        proc: Rc::new(Proc {
            pid: 4242,
            comm: "curl".to_owned(),
            ..Proc::default()
        }),
        lib: Rc::new(Lib {
            flavor: Flavor::OpenSsl,
            path: "/usr/lib/libssl.so.3".to_owned(),
            version: None,
        }),
        transport: Transport::Tcp {
            local: ([10, 0, 0, 2], 40000 + id as u16).into(),
            remote: ([10, 0, 0, 3], 443).into(),
        },
        addr_source: None,
        role: Some(Role::Client),
        version: Some(0x0303),
        sni: Some("h".to_owned()),
        alpn: Some(alpn.to_owned()),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A file with an exchange in HTTP/1 and one in HTTP/2.
fn write_capture(path: &Path) {
    let name_at = Box::new(|pattern: &str, _| pattern.to_owned());
    let output = Output::create(path, Rotation::default(), name_at, 0).unwrap();
    let options = Options {
        format: Format::Pcapng,
        framing: Framing::Tls,
        hardware: String::new(),
        os: String::new(),
        comment: String::new(),
        filter: None,
        packet_buffered: false,
        may_join_late: false,
    };
    let mut sink = PcapSink::new(output, options).unwrap();
    let json = format!("{{\"password\": \"{SECRET}\", \"name\": \"me\"}}");
    let request = format!(
        "POST /login?token={SECRET} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {SECRET}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    let response =
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: sid={SECRET}\r\nContent-Length: 0\r\n\r\n");
    // GET https /, :authority h, authorization entered into the table.
    let mut block = vec![
        0x82,
        0x87,
        0x84,
        0x41,
        1,
        b'h',
        0x40 | 23,
        SECRET.len() as u8,
    ];
    block.extend(SECRET.as_bytes());
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(4, 0, 0, &[]),
    ]
    .concat();
    // The second request refers to it.
    let again = [0x82, 0x87, 0x84, 0xbf, 0xbe];
    let (one, two) = (conn(1, "http/1.1"), conn(2, "h2"));
    let calls = [
        (&one, Dir::Out, request.into_bytes()),
        (&one, Dir::In, response.into_bytes()),
        (&two, Dir::Out, hello),
        (&two, Dir::In, frame(4, 0, 0, &[])),
        (&two, Dir::Out, frame(1, 5, 1, &block)),
        (&two, Dir::In, frame(1, 4, 1, &[0x88])),
        (&two, Dir::In, frame(0, 1, 1, json.as_bytes())),
        (&two, Dir::Out, frame(1, 5, 3, &again)),
        (&two, Dir::In, frame(1, 5, 3, &[0x89])),
    ];
    let mut offsets = std::collections::HashMap::new();
    let mut ts = 1_790_000_000_000_000_000;
    for (conn, dir, bytes) in &calls {
        ts += 1_000_000;
        let off = offsets.entry((conn.id, *dir)).or_insert(0);
        let len = bytes.len() as u64;
        let kind = Kind::Data(Data {
            dir: *dir,
            off: *off,
            len,
            call_len: len,
            call_off: 0,
            goid: 0,
            bytes,
        });
        *off += len;
        let func = "SSL_write";
        let event = Event {
            ts,
            conn,
            tid: 4242,
            func,
            kind,
        };
        sink.event(&event).unwrap();
    }
    sink.finish(&Totals::default()).unwrap();
}

fn tlssniff(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn no_output_has_the_secret_and_a_capture_file_is_read_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (before, after, har) = (path("before"), path("after"), path("har"));
    write_capture(Path::new(&before));
    let redact = "--redact=password,token";
    assert!(tlssniff(&["-A", "-r", &before]).contains(SECRET));
    for args in [
        &["-A"][..],
        &["-vv"],
        &["-X"],
        &["--raw", "-A"],
        &["--json"],
    ] {
        let text = tlssniff(&[args, &[redact, "-r", &before]].concat());
        assert!(
            !text.contains(SECRET) && !text.contains("S3cr3t"),
            "{args:?}: {text}"
        );
        assert!(text.contains("***"), "{args:?}: {text}");
    }
    tlssniff(&[redact, "-r", &before, "-w", &after, "--har", &har]);
    let len = |path: &str| std::fs::read(path).unwrap();
    for file in [&after, &har] {
        let bytes = len(file);
        let is_in = bytes.windows(6).any(|window| window == b"S3cr3t");
        assert!(!is_in && !bytes.is_empty(), "{file}");
    }
    let told = |path: &str| tlssniff(&["-t", "-r", path]).replace(SECRET, &"*".repeat(16));
    assert_eq!(told(&before), told(&after));

    let fields = [
        "http.authorization",
        "http.set_cookie",
        "http2.headers.authorization",
        "http2.header.value",
    ];
    let mut command = Command::new("tshark");
    command.args(["-n", "-Y", "http || http2", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = match command.args(["-r", &after]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            eprintln!("NOT RUN: tshark: {error}");
            return;
        }
    };
    let stars = "*".repeat(16);
    assert!(output.contains(&"*".repeat(23)), "Authorization: {output}");
    assert!(output.contains(&"*".repeat(20)), "Set-Cookie: {output}");
    let in_http2 = output
        .lines()
        .filter(|line| line.contains(&format!("\t{stars}\t")));
    assert_eq!(in_http2.count(), 2, "by value and by index: {output}");
    assert!(!output.contains("S3cr3t"), "{output}");
}
