//! Recorded traffic of real programs: the messages are those of the golden files, and an
//! independent reader, Wireshark's dissectors, sees the same ones.
//!
//! `tests/fixtures/messages/record` records anew; `BLESS=1 cargo test --test messages` takes what
//! comes out as golden.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/messages")
}

fn captures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "pcapng"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

fn tlssniff(args: &[&str], file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
        .args(args)
        .arg("-r")
        .arg(file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn recorded_traffic_is_told_as_it_was_before() {
    let is_blessed = std::env::var_os("BLESS").is_some();
    for file in captures() {
        let golden = file.with_extension("txt");
        let text = tlssniff(&["-t", "--color", "never"], &file);
        if is_blessed {
            std::fs::write(&golden, &text).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap();
        for (line, wanted) in text.lines().zip(wanted.lines()) {
            assert_eq!(line, wanted, "{}", golden.display());
        }
        assert_eq!(text.lines().count(), wanted.lines().count());
    }
}

/// Both ends of one message stream: who sent it, to whom, and in HTTP/2 the stream.
type Place = (String, String, u64);

/// The messages of one sender in one stream, in order.
type Told = BTreeMap<Place, Vec<Head>>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    /// `GET /path` or `200`.
    first: String,
    headers: Vec<(String, String)>,
    /// The content, decompressed, in hex.
    content: String,
    /// The path of the request that this answers.
    answers: Option<String>,
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn decoded(body: &Value) -> String {
    let bytes = match body["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => unbase64(&string(&body["bytes"])),
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').chars() {
        bits = bits << 6 | digits.find(digit).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// The part of an URL from the path on.
fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| &rest[at..]).to_owned()
}

/// What tlssniff tells.
fn told(file: &Path) -> Told {
    let mut told = Told::new();
    let mut streamed: BTreeMap<Place, String> = BTreeMap::new();
    // Where both ends were captured, Wireshark sees their connection once.
    let mut conns: BTreeMap<[String; 2], u64> = BTreeMap::new();
    for line in tlssniff(&["--json"], file).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let conn = &line["conn"];
        let mut ends = [string(&conn["local"]), string(&conn["remote"])];
        ends.sort();
        let id = conn["id"].as_u64().unwrap_or(0);
        if *conns.entry(ends).or_insert(id) != id {
            continue;
        }
        let kind = string(&line["type"]);
        let is_streamed = kind == "message" && line["proto"] == "grpc";
        if kind != "request" && kind != "response" && !is_streamed {
            continue;
        }
        let (local, remote) = (
            string(&line["conn"]["local"]),
            string(&line["conn"]["remote"]),
        );
        let ends = if line["dir"] == "out" {
            (local, remote)
        } else {
            (remote, local)
        };
        let stream = line["stream"].as_u64().unwrap_or(0);
        if is_streamed {
            // The response whose content it is will be told at the end of the stream.
            *streamed.entry((ends.0, ends.1, stream)).or_default() += &decoded(&line["body"]);
            continue;
        }
        let http = &line["http"];
        let first = match kind.as_str() {
            "request" => format!(
                "{} {}",
                string(&http["method"]),
                path_of(&string(&http["url"]))
            ),
            _ => http["status"].to_string(),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for pairs in [&http["headers"], &http["trailers"]] {
            for pair in pairs.as_array().into_iter().flatten() {
                headers.push((string(&pair[0]).to_lowercase(), string(&pair[1])));
            }
        }
        headers.sort();
        let head = Head {
            first,
            headers,
            content: decoded(&line["body"]),
            answers: line["request"]["url"].as_str().map(path_of),
        };
        told.entry((ends.0, ends.1, stream)).or_default().push(head);
    }
    for (place, content) in streamed {
        told.get_mut(&place).unwrap().last_mut().unwrap().content += &content;
    }
    told
}

/// One element of PDML.
struct Element {
    name: String,
    show: String,
    /// The label, in which line ends are escaped.
    label: String,
    /// Bytes that it stands for, in hex.
    value: String,
}

fn element(line: &str) -> Option<Element> {
    let attribute = |name: &str| {
        let at = line.find(&format!(" {name}=\""))? + name.len() + 3;
        let rest = &line[at..];
        let value = &rest[..rest.find('"').unwrap_or(rest.len())];
        Some(
            value
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#x27;", "'")
                .replace("&amp;", "&"),
        )
    };
    Some(Element {
        name: attribute("name")?,
        show: attribute("show").unwrap_or_default(),
        label: attribute("showname").unwrap_or_default(),
        value: attribute("value").unwrap_or_default(),
    })
}

/// What Wireshark tells; `None` when it is not installed.
fn dissected(file: &Path) -> Option<Told> {
    let output = Command::new("tshark")
        .args(["-n", "-T", "pdml", "-Y", "http || http2", "-r"])
        .arg(file)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT RUN: comparison with tshark, which is not installed");
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success());
    let mut told = Told::new();
    let mut packet = Packet::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if line.contains("</packet>") {
            packet.end_http2(&mut told);
            packet.end_http1(&mut told);
            packet = Packet::default();
        } else if let Some(element) = element(line) {
            packet.element(element, &mut told);
        }
    }
    Some(told)
}

/// The packet that is being read.
#[derive(Debug, Default)]
struct Packet {
    hosts: Vec<String>,
    ports: Vec<String>,
    is_http2: bool,
    is_part: bool,
    is_http1: bool,
    /// HTTP/2: stream, pseudo fields, and content of the frame.
    stream: u64,
    pseudo: BTreeMap<String, String>,
    headers: Vec<(String, String)>,
    name: String,
    content: String,
    http1: Head,
}

impl Packet {
    fn place(&self) -> Place {
        let end = |at: usize| format!("{}:{}", self.hosts[at], self.ports[at]);
        (end(0), end(1), self.stream)
    }

    fn element(&mut self, element: Element, told: &mut Told) {
        let show = element.show;
        match element.name.as_str() {
            "ip.src" | "ip.dst" => self.hosts.push(show),
            "ipv6.src" | "ipv6.dst" => self.hosts.push(format!("[{show}]")),
            "tcp.srcport" | "tcp.dstport" => self.ports.push(show),
            "http2.stream" => {
                self.end_http2(told);
                self.is_http2 = true;
                self.is_part = element.label.contains("partial entity body");
            }
            "http2.streamid" => self.stream = show.parse().unwrap(),
            "http2.header.name" => self.name = show,
            "http2.header.value" => {
                let name = std::mem::take(&mut self.name);
                if name.starts_with(':') {
                    self.pseudo.insert(name, show);
                } else {
                    self.headers.push((name, show));
                }
            }
            // Parts are shown again with the last one, put together.
            "http2.data.data" if !self.is_part && element.value.len() > self.content.len() => {
                self.content = element.value;
            }
            "http" => {
                self.end_http1(told);
                self.is_http1 = true;
            }
            "http.request.method" => self.http1.first = show,
            "http.request.uri" => self.http1.first += &format!(" {}", path_of(&show)),
            "http.response.code" => self.http1.first = show,
            "http.request.line" | "http.response.line" => {
                let (name, value) = element.label.split_once(':').unwrap();
                let value = value.trim_end_matches("\\r\\n").trim();
                self.http1
                    .headers
                    .push((name.to_lowercase(), value.to_owned()));
            }
            "http.file_data" => self.http1.content = element.value,
            "http.response_for.uri" => self.http1.answers = Some(path_of(&show)),
            _ => {}
        }
    }

    fn end_http2(&mut self, told: &mut Told) {
        if !std::mem::take(&mut self.is_http2) || self.stream == 0 {
            return;
        }
        let place = self.place();
        let pseudo = std::mem::take(&mut self.pseudo);
        let mut headers = std::mem::take(&mut self.headers);
        let content = std::mem::take(&mut self.content);
        let of_stream = told.entry(place).or_default();
        let first = match (pseudo.get(":method"), pseudo.get(":status")) {
            (Some(method), _) => Some(format!("{method} {}", pseudo[":path"])),
            (None, status) => status.cloned(),
        };
        if let Some(first) = first {
            of_stream.push(Head {
                first,
                ..Head::default()
            });
        }
        if let Some(last) = of_stream.last_mut() {
            last.headers.append(&mut headers);
            last.headers.sort();
            last.content += &content;
        }
    }

    fn end_http1(&mut self, told: &mut Told) {
        if std::mem::take(&mut self.is_http1) {
            let mut head = std::mem::take(&mut self.http1);
            head.headers.sort();
            if !head.first.is_empty() {
                told.entry(self.place()).or_default().push(head);
            }
        }
    }
}

#[test]
fn wireshark_sees_the_same_messages() {
    let (mut compared, mut contents, mut coded, mut http1) = (0, 0, 0, 0);
    for file in captures() {
        let Some(wireshark) = dissected(&file) else {
            return;
        };
        let ours = told(&file);
        let name = file.display();
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            wireshark
                .iter()
                .filter(|(_, heads)| !heads.is_empty())
                .map(|(place, _)| place)
                .collect::<Vec<_>>(),
            "{name}: streams"
        );
        for (place, heads) in &ours {
            let theirs = &wireshark[place];
            assert_eq!(heads.len(), theirs.len(), "{name}: {place:?}");
            for (ours, theirs) in heads.iter().zip(theirs) {
                assert_eq!(ours.first, theirs.first, "{name}: {place:?}");
                assert_eq!(ours.headers, theirs.headers, "{name}: {place:?}");
                // Wireshark gives the content of HTTP/1 only where there is some.
                if place.2 > 0 || !theirs.content.is_empty() {
                    assert_eq!(ours.content, theirs.content, "{name}: {place:?}");
                    contents += usize::from(!ours.content.is_empty());
                    http1 += usize::from(place.2 == 0 && !ours.content.is_empty());
                    let is_coded = ours
                        .headers
                        .iter()
                        .any(|(name, _)| name == "content-encoding");
                    coded += usize::from(is_coded && !ours.content.is_empty());
                }
                if place.2 == 0 && ours.first != "405" {
                    // nginx refuses a method before it has read the request to its end;
                    // Wireshark takes that for the answer to the request before.
                    assert_eq!(ours.answers, theirs.answers, "{name}: {place:?}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "only {compared} messages were compared");
    assert!(contents > 200, "only {contents} contents were compared");
    assert!(http1 > 3, "only {http1} of them were in HTTP/1");
    assert!(coded > 100, "only {coded} of them were compressed");
}

/// In HTTP/2 the answer must be that to the request of its stream.
#[test]
fn each_response_names_the_request_of_its_own_stream() {
    for file in captures() {
        let told = told(&file);
        for ((from, to, stream), heads) in told.iter().filter(|((_, _, stream), _)| *stream > 0) {
            for head in heads.iter().filter(|head| head.answers.is_some()) {
                let asked = &told[&(to.clone(), from.clone(), *stream)];
                let path = head.answers.clone().unwrap();
                assert!(
                    asked.iter().any(|asked| asked.first.ends_with(&path)),
                    "{}: {path} on stream {stream}",
                    file.display()
                );
            }
        }
    }
}

fn har(file: &Path, filter: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{}-{}.har",
        file.file_stem().unwrap().to_string_lossy(),
        filter.len()
    ));
    tlssniff(&["--har", path.to_str().unwrap(), filter], file);
    let har: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    har["log"]["entries"].as_array().unwrap().clone()
}

/// The request itself does not pass the filter, and its body is looked for all the same.
#[test]
fn a_filter_on_responses_keeps_the_bodies_of_their_requests() {
    let http1 = fixtures().join("curl-http1.pcapng");
    let entries = har(&http1, "status == 404 and method == POST");
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    let sent = &entry["request"];
    let json = r#"{"ok":true,"list":[1,{"a":"b"}]}"#;
    assert_eq!(sent["postData"]["text"], json, "{sent}");
    assert_eq!(sent["bodySize"], json.len());
    let entries = har(&fixtures().join("grpc.pcapng"), "response and grpc");
    assert!(!entries.is_empty());
    for entry in entries {
        assert!(entry["request"]["bodySize"].as_u64() > Some(4), "{entry}");
        assert!(entry["request"]["postData"]["text"].is_string(), "{entry}");
    }
    for filter in [
        "http.req.body contains list",
        "http.req.size > 1 and method == POST",
    ] {
        let told = tlssniff(&["-t", filter], &http1);
        assert_eq!(told.lines().count(), 2, "{filter}: {told}");
        assert!(told.contains(" 404 POST "), "{told}");
    }
}

/// Each letter brings what it names and nothing else; -A without letters brings all.
#[test]
fn parts_that_are_named_stand_under_the_lines() {
    let file = fixtures().join("curl-http1.pcapng");
    let shown = |args: &[&str]| {
        let words = [&["-t", "--color", "never", "method == POST"], args].concat();
        let told = tlssniff(&words, &file);
        let marks = [
            "\tPOST /x HTTP/1.1",
            "\t{",
            "\tHTTP/1.1 404 Not Found",
            "<hr><center>nginx",
        ];
        marks.map(|mark| told.contains(mark))
    };
    assert_eq!(shown(&["--print-parts=H"]), [true, false, false, false]);
    assert_eq!(shown(&["--print-parts=B"]), [false, true, false, false]);
    assert_eq!(shown(&["--print-parts=h"]), [false, false, true, false]);
    assert_eq!(shown(&["--print-parts=b"]), [false, false, false, true]);
    assert_eq!(shown(&["--print-parts=m"]), [false; 4]);
    assert_eq!(
        shown(&["--print-parts=Hb", "-A"]),
        [true, false, false, true]
    );
    assert_eq!(shown(&["--print-parts=HBhb"]), [true; 4]);
    assert_eq!(shown(&["--headers", "--body"]), [true; 4]);
    assert_eq!(shown(&["-A"]), [true; 4]);
    let refused = Command::new(env!("CARGO_BIN_EXE_tlssniff"))
        .args(["--print-parts=Hx", "-r", "nothing"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("'x' is none of H, B"), "{stderr}");
}
