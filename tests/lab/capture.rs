//! Reads `--json` lines back into connections: two byte streams each, with their gaps.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a capture says, after checks that hold for every capture.
#[derive(Debug, Default)]
pub struct Capture {
    pub lines: Vec<Value>,
    pub conns: BTreeMap<u64, Conn>,
    /// The last line.
    pub stats: Stats,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Stats {
    pub captured: u64,
    pub shown: u64,
    pub dropped: u64,
    pub dropped_bytes: u64,
    pub truncated: u64,
}

/// One connection: the facts that any of its lines told, and the bytes of all of them.
#[derive(Debug, Default)]
pub struct Conn {
    pub id: u64,
    pub pid: u32,
    pub comm: String,
    pub exe: Option<String>,
    pub lib: Option<String>,
    pub local: Option<String>,
    pub remote: Option<String>,
    pub transport: Option<String>,
    pub role: Option<String>,
    pub version: Option<String>,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Why its beginning may be missing.
    pub unseen: Option<String>,
    pub out: Half,
    pub input: Half,
    pub opened: bool,
    pub shut: bool,
    pub closed: bool,
}

/// One direction. Bytes of a gap are zero in `bytes`.
#[derive(Debug, Default)]
pub struct Half {
    pub bytes: Vec<u8>,
    pub gaps: Vec<Gap>,
    /// Lines of data.
    pub events: u64,
    /// Bytes that `-s` cut.
    pub cut: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub off: u64,
    pub len: u64,
    pub cause: String,
}

impl Half {
    /// Bytes that the capture accounts for, seen or known to be missing.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn lost(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.len).sum()
    }

    pub fn crc(&self) -> u32 {
        crc32(&self.bytes)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn extend(&mut self, off: u64, len: u64, bytes: &[u8], line: &Value) {
        assert_eq!(off, self.len(), "stream offset jumps without a gap: {line}");
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(usize::try_from(off + len).unwrap(), 0);
    }
}

impl Conn {
    /// `CLIENT_ADDR>SERVER_ADDR` as this end sees it, for messages.
    pub fn addresses(&self) -> String {
        let side = |addr: &Option<String>| addr.clone().unwrap_or_else(|| "?".into());
        format!("{}>{}", side(&self.local), side(&self.remote))
    }

    /// Takes what a line says about the connection; facts never change once told.
    fn learn(&mut self, line: &Value) {
        let facts = [
            (&mut self.exe, &line["proc"]["exe"]),
            (&mut self.lib, &line["tls"]["lib"]),
            (&mut self.local, &line["conn"]["local"]),
            (&mut self.remote, &line["conn"]["remote"]),
            (&mut self.transport, &line["conn"]["transport"]),
            (&mut self.role, &line["conn"]["role"]),
            (&mut self.version, &line["tls"]["version"]),
            (&mut self.sni, &line["tls"]["sni"]),
            (&mut self.alpn, &line["tls"]["alpn"]),
            (&mut self.unseen, &line["conn"]["unseen"]),
        ];
        for (fact, told) in facts {
            if let Some(told) = told.as_str() {
                if let Some(known) = fact {
                    assert_eq!(known, told, "a fact changed: {line}");
                }
                *fact = Some(told.to_owned());
            }
        }
    }
}

impl Capture {
    /// Reads a file of JSON lines whose last line is the statistics.
    pub fn read(path: &Path) -> Capture {
        let text = fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("read the capture {}: {error}", path.display()));
        Capture::parse(&text)
    }

    pub fn parse(text: &str) -> Capture {
        let mut capture = Capture::default();
        let mut ended = false;
        for line in text.lines() {
            assert!(!ended, "a line after the statistics: {line}");
            let value: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("not a JSON line ({error}): {line}"));
            assert_eq!(value["v"], 1, "{line}");
            if value["type"] == "stats" {
                ended = true;
                capture.stats = Stats {
                    captured: value["captured"].as_u64().expect(line),
                    shown: value["shown"].as_u64().expect(line),
                    dropped: value["dropped"].as_u64().expect(line),
                    dropped_bytes: value["dropped_bytes"].as_u64().expect(line),
                    truncated: value["truncated"].as_u64().expect(line),
                };
            } else {
                capture.take(&value);
            }
            capture.lines.push(value);
        }
        assert!(
            ended,
            "the last line is not the statistics; {} lines",
            capture.lines.len()
        );
        capture
    }

    fn take(&mut self, line: &Value) {
        let id = line["conn"]["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("no conn: {line}"));
        let pid = line["proc"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("no pid: {line}"));
        let pid = u32::try_from(pid).unwrap();
        let conn = self.conns.entry(id).or_insert_with(|| Conn {
            id,
            pid,
            comm: line["proc"]["comm"].as_str().unwrap_or_default().to_owned(),
            ..Conn::default()
        });
        assert_eq!(conn.pid, pid, "conn {id} changed its process: {line}");
        assert!(!conn.closed, "a line of conn {id} after its end: {line}");
        conn.learn(line);
        match line["type"].as_str() {
            Some("open") => conn.opened = true,
            Some("shutdown") => conn.shut = true,
            Some("close") => conn.closed = true,
            Some(kind @ ("data" | "gap")) => {
                let half = match line["dir"].as_str() {
                    Some("in") => &mut conn.input,
                    Some("out") => &mut conn.out,
                    _ => panic!("no direction: {line}"),
                };
                let off = line["off"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("no off: {line}"));
                let len = &line[if kind == "gap" { "lost" } else { "len" }];
                let len = len.as_u64().unwrap_or_else(|| panic!("no length: {line}"));
                if kind == "gap" {
                    half.extend(off, len, &[], line);
                    half.gaps.push(Gap {
                        off,
                        len,
                        cause: line["cause"].as_str().unwrap_or_default().to_owned(),
                    });
                } else {
                    let bytes = payload(&line["data"]);
                    let kept = bytes.len() as u64;
                    assert!(kept <= len, "more bytes than len: {line}");
                    assert_eq!(line["truncated"], kept < len, "{line}");
                    half.extend(off, len, &bytes, line);
                    half.events += 1;
                    half.cut += len - kept;
                }
            }
            _ => panic!("unknown type: {line}"),
        }
    }

    /// The connections of one process that carried anything.
    pub fn of(&self, pid: u32) -> Vec<&Conn> {
        self.conns
            .values()
            .filter(|conn| conn.pid == pid && conn.out.len() + conn.input.len() > 0)
            .collect()
    }

    /// The connections of all processes with this name that carried anything.
    pub fn of_comm(&self, comm: &str) -> Vec<&Conn> {
        self.conns
            .values()
            .filter(|conn| conn.comm == comm && conn.out.len() + conn.input.len() > 0)
            .collect()
    }

    /// Lines of one type, in order.
    pub fn lines_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// Fails if anything was lost.
    pub fn assert_complete(&self) {
        for conn in self.conns.values() {
            let lost = conn.out.lost() + conn.input.lost();
            assert_eq!(lost, 0, "gaps in #{} {}[{}]", conn.id, conn.comm, conn.pid);
        }
        let Stats {
            dropped,
            dropped_bytes,
            truncated,
            ..
        } = self.stats;
        assert_eq!((dropped, dropped_bytes, truncated), (0, 0, 0));
    }
}

/// The bytes of `{"text": …}` or `{"bytes": base64}`.
pub fn payload(data: &Value) -> Vec<u8> {
    match (data["text"].as_str(), data["bytes"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(base64)) => decode_base64(base64),
        _ => panic!("neither text nor bytes: {data}"),
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    assert_eq!(text.len() % 4, 0, "base64 without padding");
    let (mut bits, mut count) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("not base64: {character:#x}"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

/// CRC-32 as in zlib, which the test programs use.
pub fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::OnceLock<[u32; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table = [0; 256];
        for (i, entry) in (0u32..).zip(&mut table) {
            *entry = (0..8).fold(i, |c, _| {
                if c & 1 == 1 {
                    0xedb8_8320 ^ c >> 1
                } else {
                    c >> 1
                }
            });
        }
        table
    });
    !bytes.iter().fold(!0, |crc: u32, byte| {
        table[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    })
}
