//! Lists processes and what can be captured of them (`-D`).

use crate::discovery::{FileId, Mapping, ProcFs, Process, dark, load};
use crate::event::Flavor;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

/// What a classifier says of a library in a file that probes can be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachable {
    pub flavor: Flavor,
    /// As it stands in the file. Foreign.
    pub version: Option<String>,
    /// How its functions were found, where that is worth telling.
    pub found_by: Option<&'static str>,
    /// What will be missed for all that; makes the row [`Status::Partly`].
    pub limits: Vec<String>,
}

/// Looks into a file's content, mapped under a path: what is there to attach to? An error
/// means that it could not be made sense of.
pub type Classify<'a> = dyn FnMut(&[u8], &str) -> Result<Vec<Attachable>> + 'a;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Attachable,
    /// Attachable, but not all that it does with TLS will be seen.
    Partly,
    /// Not to be captured.
    Dark,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Attachable => "attachable",
            Status::Partly => "partly",
            Status::Dark => "dark",
        }
    }
}

/// One library in a file of a process; or the process, when it has no TLS file that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub pid: u32,
    /// Foreign.
    pub command: String,
    pub uid: u32,
    /// The name of `uid`, or its digits.
    pub user: String,
    /// The library or executable, in the process's own mount namespace. Foreign.
    pub path: Option<String>,
    /// A flavor's name, or that of another implementation.
    pub library: Option<String>,
    /// Foreign.
    pub version: Option<String>,
    pub status: Status,
    /// Why not, or what not. Foreign in part.
    pub reason: Option<String>,
    pub remedy: Option<String>,
}

/// Whom to list.
#[allow(missing_debug_implementations)] // closures
pub struct Scope<'a> {
    pub wanted: &'a dyn Fn(&Process) -> bool,
    /// Also those in which no TLS was found (`-v`, `-p`).
    pub with_empty: bool,
    pub user_name: &'a dyn Fn(u32) -> Option<String>,
}

/// What was found out about a file, whoever maps it.
#[derive(Clone, Debug)]
enum Finding {
    Target(Attachable),
    Dark(dark::Dark),
    Unknown(String),
}

/// Lists all processes in scope but kernel threads and ourselves, by pid; of each its attachable
/// files first. Each distinct file is read once.
///
/// # Errors
/// Only when /proc cannot be listed: a process that ends meanwhile is left out, and what cannot be
/// read becomes a row that says so.
pub fn scan(proc: &ProcFs, scope: &Scope<'_>, classify: &mut Classify<'_>) -> Result<Vec<Row>> {
    // Our own file holds the strings by which we recognise others.
    let own = std::fs::metadata("/proc/self/exe").map(|meta| FileId {
        dev: meta.dev(),
        ino: meta.ino(),
    });
    let mut files: HashMap<FileId, Rc<[Finding]>> =
        own.into_iter().map(|own| (own, Rc::default())).collect();
    let mut users: HashMap<u32, String> = HashMap::new();
    let mut rows = Vec::new();
    for pid in proc.pids()? {
        let Ok(process) = proc.process(pid) else {
            continue;
        };
        if pid == std::process::id() || process.is_kernel_thread || !(scope.wanted)(&process) {
            continue;
        }
        let user = users
            .entry(process.uid)
            .or_insert_with(|| (scope.user_name)(process.uid).unwrap_or(process.uid.to_string()));
        let blank = Row {
            pid,
            command: process.comm.clone(),
            uid: process.uid,
            user: user.clone(),
            path: None,
            library: None,
            version: None,
            status: Status::Dark,
            reason: None,
            remedy: None,
        };
        let mappings = match proc.exec_mappings(pid) {
            Ok(mappings) => mappings,
            Err(_) if !proc.exists(pid) => continue,
            Err(error) => {
                rows.push(Row {
                    reason: Some(format!("{error:#}")),
                    remedy: Some("run as root, or with CAP_SYS_PTRACE".into()),
                    ..blank
                });
                continue;
            }
        };
        let exe = proc.exe(pid).ok();
        let begin = rows.len();
        for mapping in &mappings {
            let is_program = exe.as_deref() == Some(&mapping.path);
            let findings = files
                .entry(mapping.id)
                .or_insert_with(|| examine(proc, pid, mapping, is_program, classify).into());
            let of_file = findings.iter();
            rows.extend(of_file.map(|finding| row_of(&blank, &mapping.path, finding)));
        }
        if let Some(own) = rows.get_mut(begin..) {
            own.sort_by_key(|row| row.status == Status::Dark);
        }
        if rows.len() == begin && scope.with_empty {
            rows.push(Row {
                path: exe.map(|path| path.to_string_lossy().into_owned()),
                reason: Some("no TLS library mapped (yet)".into()),
                ..blank
            });
        }
    }
    Ok(rows)
}

fn examine(
    proc: &ProcFs,
    pid: u32,
    mapping: &Mapping,
    is_program: bool,
    classify: &mut Classify<'_>,
) -> Vec<Finding> {
    let bytes = match proc.open_mapping(pid, mapping).and_then(|file| load(&file)) {
        Ok(bytes) => bytes,
        // Most mappings have nothing to do with TLS: one that cannot be read is worth a row only
        // when it is called like a library that has.
        Err(error) if is_named_like_tls(&mapping.path) => {
            return vec![Finding::Unknown(format!("{error:#}"))];
        }
        Err(_) => return Vec::new(),
    };
    let dark = || dark::recognise(&bytes, &mapping.path, is_program).into_iter();
    match classify(&bytes, &mapping.path.to_string_lossy()) {
        Ok(targets) if targets.is_empty() => dark().map(Finding::Dark).collect(),
        Ok(targets) => targets.into_iter().map(Finding::Target).collect(),
        Err(error) => dark()
            .map(|_| Finding::Unknown(format!("{error:#}")))
            .collect(),
    }
}

fn is_named_like_tls(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().to_lowercase().starts_with("libssl"))
}

fn row_of(blank: &Row, path: &Path, finding: &Finding) -> Row {
    let row = Row {
        path: Some(path.to_string_lossy().into_owned()),
        ..blank.clone()
    };
    match finding {
        Finding::Target(target) => Row {
            library: Some(target.flavor.name().into()),
            version: target.version.clone(),
            status: match target.limits.is_empty() {
                true => Status::Attachable,
                false => Status::Partly,
            },
            reason: told(target),
            ..row
        },
        Finding::Dark(dark) => Row {
            library: Some(dark.library.into()),
            version: dark.version.clone(),
            reason: Some(dark.reason.into()),
            remedy: dark.remedy.map(Into::into),
            ..row
        },
        Finding::Unknown(error) => Row {
            reason: Some(error.clone()),
            ..row
        },
    }
}

/// How its functions were found, and what will be missed.
fn told(target: &Attachable) -> Option<String> {
    let limits = target.limits.iter().map(String::as_str);
    let all: Vec<&str> = target.found_by.into_iter().chain(limits).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Writes an aligned table with a head. `escape` makes foreign text fit for a terminal.
pub fn write_table(
    rows: &[Row],
    escape: &dyn Fn(&str) -> String,
    out: &mut dyn Write,
) -> io::Result<()> {
    let head = ["PID", "COMMAND", "USER", "TLS", "VERSION", "STATUS", "FILE"].map(String::from);
    let cells = |row: &Row| {
        let optional = |text: &Option<String>| text.as_deref().map_or("-".into(), escape);
        let mut last = row.path.as_deref().map_or(String::new(), escape);
        let why: Vec<String> = [&row.reason, &row.remedy]
            .into_iter()
            .flatten()
            .map(|text| escape(text))
            .collect();
        if !why.is_empty() {
            let gap = if last.is_empty() { "" } else { "  " };
            last.push_str(&format!("{gap}({})", why.join("; ")));
        }
        [
            row.pid.to_string(),
            escape(&row.command),
            escape(&row.user),
            optional(&row.library),
            optional(&row.version),
            row.status.name().into(),
            last,
        ]
    };
    let lines: Vec<_> = std::iter::once(head)
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Numbers stand to the right, and nothing is put after the last column.
            match column {
                0 => text.push_str(&format!("{cell:>width$}  ")),
                6 => text.push_str(cell),
                _ => text.push_str(&format!("{cell:<width$}  ")),
            }
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Writes one JSON object per row; what is not known is left out.
pub fn write_json(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    for row in rows {
        let with = |pairs: Vec<(&str, Value)>| {
            let known = pairs.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                known
                    .map(|(name, value)| (name.into(), value))
                    .collect::<Map<_, _>>(),
            )
        };
        let proc = with(vec![
            ("pid", json!(row.pid)),
            ("comm", json!(row.command)),
            ("uid", json!(row.uid)),
            ("user", json!(row.user)),
        ]);
        let tls = with(vec![
            ("lib", json!(row.library)),
            ("version", json!(row.version)),
            ("path", json!(row.path)),
        ]);
        let object = with(vec![
            ("v", json!(1)),
            ("type", json!("target")),
            ("proc", proc),
            ("tls", tls),
            ("status", json!(row.status.name())),
            ("reason", json!(row.reason)),
            ("remedy", json!(row.remedy)),
        ]);
        writeln!(out, "{object}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::Instant;
    use test_tag::tag;

    /// A /proc in which each process maps some of the files that are written beside it.
    struct FakeProc(tempfile::TempDir);

    impl FakeProc {
        fn new(files: &[(&str, &[u8])]) -> FakeProc {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("files")).unwrap();
            for (name, content) in files {
                fs::write(dir.path().join("files").join(name), content).unwrap();
            }
            FakeProc(dir)
        }

        /// The first of `maps` is the executable.
        fn process(&self, pid: u32, comm: &str, flags: u32, maps: &[&str]) {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 0 20 0 1 0 9");
            fs::write(dir.join("stat"), stat).unwrap();
            fs::write(dir.join("status"), "Uid:\t0\t33\t0\t0\n").unwrap();
            symlink(self.0.path().join("files"), dir.join("root")).unwrap();
            let mut text = String::new();
            for (n, name) in maps.iter().enumerate() {
                let ino = fs::metadata(self.0.path().join("files").join(name))
                    .unwrap()
                    .ino();
                text += &format!("{n}000-{n}fff r-xp 0 fe:2 {ino}   /{name}\n");
            }
            fs::write(dir.join("maps"), text).unwrap();
            if let Some(exe) = maps.first() {
                symlink(format!("/{exe}"), dir.join("exe")).unwrap();
            }
        }

        /// Says of contents: `good…` is OpenSSL, `half…` too but not all of it, `bad…` is broken.
        fn scan(&self, with_empty: bool) -> (Vec<Row>, u32) {
            let mut looks = 0;
            let scope = Scope {
                wanted: &|process| process.comm != "hidden",
                with_empty,
                user_name: &|uid| (uid == 33).then(|| "www".into()),
            };
            let rows = scan(&ProcFs::new(self.0.path()), &scope, &mut |bytes, _| {
                looks += 1;
                let limits = if bytes.starts_with(b"half") {
                    vec!["no SSL BIOs".into()]
                } else {
                    vec![]
                };
                if bytes.starts_with(b"bad") {
                    bail!("section headers end beyond the file")
                }
                let version = Some("OpenSSL 3.0.17".to_string());
                let is_target = bytes.starts_with(b"good") || bytes.starts_with(b"half");
                let library = is_target.then_some(Attachable {
                    flavor: Flavor::OpenSsl,
                    version,
                    found_by: None,
                    limits,
                });
                Ok(library.into_iter().collect())
            });
            (rows.unwrap(), looks)
        }
    }

    const FILES: &[(&str, &[u8])] = &[
        ("curl", b"plain"),
        ("libssl.so.3", b"good"),
        ("liboldssl.so", b"half"),
        ("libgnutls.so.30", b"GNUTLS_DEBUG_LEVEL"),
        ("broken.so", b"bad /ssl_lib.c"),
        ("nonsense.bin", b"bad"),
        ("reqwest", b"/rustls-0.23.5/src"),
    ];

    #[test]
    fn each_process_is_listed_with_what_it_has() {
        let fake = FakeProc::new(FILES);
        fake.process(
            10,
            "curl",
            0,
            &["curl", "libgnutls.so.30", "libssl.so.3", "nonsense.bin"],
        );
        fake.process(11, "old", 0, &["curl", "liboldssl.so"]);
        fake.process(12, "reqwest", 0, &["reqwest"]);
        fake.process(13, "broken", 0, &["curl", "broken.so"]);
        fake.process(14, "empty", 0, &["curl"]);
        fake.process(15, "hidden", 0, &["curl", "libssl.so.3"]);
        fake.process(16, "kthread", 0x0020_0000, &[]);
        fake.process(std::process::id(), "us", 0, &["curl", "libssl.so.3"]);
        let (rows, looks) = fake.scan(false);
        assert_eq!(looks, FILES.len() as u32, "each file once");
        let short: Vec<_> = rows
            .iter()
            .map(|r| {
                (
                    r.pid,
                    r.path.as_deref().unwrap(),
                    r.library.as_deref(),
                    r.status,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                (10, "/libssl.so.3", Some("openssl"), Status::Attachable),
                (10, "/libgnutls.so.30", Some("gnutls"), Status::Dark),
                (11, "/liboldssl.so", Some("openssl"), Status::Partly),
                (12, "/reqwest", Some("rustls"), Status::Dark),
                (13, "/broken.so", None, Status::Dark),
            ]
        );
        assert_eq!(rows[2].reason.as_deref(), Some("no SSL BIOs"));
        assert_eq!(rows[3].version.as_deref(), Some("0.23.5"));
        assert_eq!(
            rows[4].reason.as_deref(),
            Some("section headers end beyond the file")
        );
        let (rows, _) = fake.scan(true);
        let empty: Vec<_> = rows.iter().filter(|row| row.library.is_none()).collect();
        assert_eq!(empty.len(), 2);
        assert_eq!(empty[1].pid, 14);
        assert_eq!(
            empty[1].reason.as_deref(),
            Some("no TLS library mapped (yet)")
        );
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_says_so_and_one_that_ended_is_left_out() {
        let fake = FakeProc::new(FILES);
        fake.process(10, "closed", 0, &["curl"]);
        let maps = fake.0.path().join("10/maps");
        fs::remove_file(&maps).unwrap();
        fs::create_dir(&maps).unwrap();
        fs::create_dir(fake.0.path().join("11")).unwrap();
        let (rows, _) = fake.scan(false);
        assert_eq!(rows.len(), 1);
        assert!(
            rows[0].reason.as_deref().unwrap().contains("10/maps"),
            "{rows:?}"
        );
        assert!(
            rows[0]
                .remedy
                .as_deref()
                .unwrap()
                .contains("CAP_SYS_PTRACE")
        );
    }

    #[test]
    fn an_unreadable_tls_library_is_listed_with_the_error() {
        let fake = FakeProc::new(FILES);
        fake.process(10, "curl", 0, &["curl", "libssl.so.3"]);
        fs::remove_file(fake.0.path().join("files/libssl.so.3")).unwrap();
        fs::remove_file(fake.0.path().join("files/curl")).unwrap();
        let (rows, _) = fake.scan(false);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].path.as_deref(), rows[0].status),
            (Some("/libssl.so.3"), Status::Dark)
        );
        assert!(
            rows[0].reason.as_deref().unwrap().contains("libssl.so.3"),
            "{rows:?}"
        );
    }

    #[test]
    fn the_table_is_aligned_and_escapes_what_is_foreign() {
        let fake = FakeProc::new(FILES);
        fake.process(10, "cu\x1brl", 0, &["curl", "libssl.so.3"]);
        fake.process(1234, "old", 0, &["curl", "liboldssl.so"]);
        fake.process(1235, "reqwest", 0, &["reqwest"]);
        let mut out = Vec::new();
        write_table(
            &fake.scan(false).0,
            &|text| text.replace('\x1b', "^["),
            &mut out,
        )
        .unwrap();
        let expected = "  \
 PID  COMMAND  USER  TLS      VERSION         STATUS      FILE
  10  cu^[rl   www   openssl  OpenSSL 3.0.17  attachable  /libssl.so.3
1234  old      www   openssl  OpenSSL 3.0.17  partly      /liboldssl.so  (no SSL BIOs)
1235  reqwest  www   rustls   0.23.5          dark        /reqwest  (rustls is inside, but its \
functions were not found; use a build with symbols, or with native-tls (OpenSSL) if the program offers one)
";
        assert_eq!(
            String::from_utf8(out).unwrap().trim_start(),
            expected.trim_start()
        );
    }

    #[test]
    fn json_has_one_object_per_row_without_unknowns() {
        let fake = FakeProc::new(FILES);
        fake.process(10, "cu\x1brl", 0, &["curl", "libssl.so.3"]);
        let mut out = Vec::new();
        write_json(&fake.scan(false).0, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(
            lines,
            [json!({
                "v": 1,
                "type": "target",
                "proc": {"pid": 10, "comm": "cu\x1brl", "uid": 33, "user": "www"},
                "tls": {"lib": "openssl", "version": "OpenSSL 3.0.17", "path": "/libssl.so.3"},
                "status": "attachable",
            })]
        );
    }

    #[tag(root)]
    #[test]
    fn this_machine_is_listed_within_a_second_per_500_processes() {
        let scope = Scope {
            wanted: &|_| true,
            with_empty: true,
            user_name: &|uid| Some(uid.to_string()),
        };
        let mut bytes_seen = 0;
        let begin = Instant::now();
        let rows = scan(&ProcFs::default(), &scope, &mut |bytes, _| {
            bytes_seen += bytes.len();
            Ok(Vec::new())
        })
        .unwrap();
        let took = begin.elapsed();
        eprintln!("{} rows, {bytes_seen} bytes, {took:?}", rows.len());
        assert!(!rows.is_empty());
        // Generous: a debug build on a busy machine.
        assert!(took.as_secs() < 10, "{took:?}");
    }
}
