//! Real servers in directories of their own, on ports that the kernel picked.

use super::{
    LIMIT, Running, certificate, find_program, new_dir, open_to_all, programs, wait_until,
};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A server that answers on `address()`, until it is dropped.
#[derive(Debug)]
pub struct Server {
    pub running: Running,
    pub host: &'static str,
    pub port: u16,
    pub dir: TempDir,
}

/// A port of 127.0.0.1 that was free a moment ago. Few of the ports below the ephemeral range are
/// used by anyone, so nothing takes it before the server does.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    (0..1000)
        .map(|_| 12_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

impl Server {
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The server and its workers.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid()];
        pids.extend(self.running.children());
        pids
    }

    /// `-p` with all of them.
    pub fn pid_list(&self) -> String {
        let pids: Vec<String> = self.pids().iter().map(u32::to_string).collect();
        pids.join(",")
    }

    fn start(mut command: Command, dir: TempDir, port: u16) -> Server {
        let mut running = Running::start(&mut command, dir.path());
        wait_until(&format!("{command:?} listens"), LIMIT, || {
            if let Some(status) = running.ended() {
                panic!(
                    "{command:?}: {status}: {}{}",
                    running.stdout_text(),
                    running.stderr_text()
                );
            }
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Server {
            running,
            host: "127.0.0.1",
            port,
            dir,
        }
    }

    /// A program of tests/programs that says `port N` itself.
    fn announced(command: &mut Command) -> Server {
        let dir = new_dir();
        let mut running = Running::start(command, dir.path());
        let line = running.wait_line(LIMIT, |line| line.starts_with("port "));
        Server {
            running,
            host: "127.0.0.1",
            port: line[5..].parse().unwrap(),
            dir,
        }
    }
}

/// Keeps the books of each connection and prints them when it ends.
pub fn python_threaded() -> Server {
    Server::announced(python("threaded_server.py").arg("127.0.0.1"))
}

/// The same over memory BIOs.
pub fn python_asyncio() -> Server {
    Server::announced(python("asyncio_server.py").arg("127.0.0.1"))
}

pub fn node() -> Server {
    let mut command = Command::new("/usr/bin/node");
    Server::announced(
        command
            .arg(programs().join("node_server.js"))
            .arg("127.0.0.1"),
    )
}

/// The system's Python with a script of tests/programs.
pub fn python(script: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    // no compiled files beside the sources
    command.arg("-B").arg(programs().join(script));
    command
}

/// The log line of one request of nginx or apache: enough to know each connection to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub remote: String,
    pub received: u64,
    pub sent: u64,
}

/// Reads `REMOTE RECEIVED SENT` lines.
pub fn access_log(server: &Server) -> Vec<Logged> {
    let text = fs::read_to_string(server.dir.path().join("access.log")).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            Logged {
                remote: fields[0].to_owned(),
                received: fields[1].parse().unwrap(),
                sent: fields[2].parse().unwrap(),
            }
        })
        .collect()
}

/// nginx with HTTP/2 and keep-alive; `document_root` has `small` (1,000 bytes) and `large` (5 MB).
pub fn nginx(workers: usize) -> Server {
    let dir = new_dir();
    let port = free_port();
    let root = dir.path();
    write_documents(root);
    let path = root.display();
    let certificate = certificate();
    let config = format!(
        "worker_processes {workers};
daemon off;
pid {path}/pid;
error_log {path}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  log_format books '$remote_addr:$remote_port $request_length $bytes_sent';
  access_log {path}/access.log books;
  keepalive_requests 1000000;
  client_body_temp_path {path}/t1; proxy_temp_path {path}/t2; fastcgi_temp_path {path}/t3;
  uwsgi_temp_path {path}/t4; scgi_temp_path {path}/t5;
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=4096;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    root {path}/www;
  }}
}}
",
        cert = certificate.cert.display(),
        key = certificate.key.display(),
    );
    fs::write(root.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(find_program("nginx").expect("nginx is installed"));
    command.arg("-e").arg(root.join("error.log"));
    command
        .arg("-p")
        .arg(root)
        .arg("-c")
        .arg(root.join("nginx.conf"));
    let server = Server::start(command, dir, port);
    wait_until("nginx has its workers", Duration::from_secs(10), || {
        server.running.children().len() == workers
    });
    server
}

fn write_documents(root: &Path) {
    let documents = root.join("www");
    fs::create_dir(&documents).unwrap();
    open_to_all(&documents);
    for (name, len) in [("small", 1000), ("large", 5_000_000)] {
        let file = documents.join(name);
        fs::write(&file, super::body(len)).unwrap();
        open_to_all(&file);
    }
}

/// apache2 with `mod_ssl` and its own configuration; the same documents.
pub fn apache() -> Server {
    let dir = new_dir();
    let port = free_port();
    let root = dir.path();
    write_documents(root);
    let path = root.display();
    let certificate = certificate();
    let modules: String = [
        "mpm_event",
        "authz_core",
        "authn_core",
        "ssl",
        "socache_shmcb",
        "log_config",
        "logio",
        "unixd",
        "mime",
    ]
    .iter()
    .filter(|name| Path::new(&format!("/usr/lib/apache2/modules/mod_{name}.so")).exists())
    .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
    .collect();
    let config = format!(
        "{modules}
ServerRoot {path}
ServerName lab.test
PidFile {path}/pid
ErrorLog {path}/error.log
DefaultRuntimeDir {path}
User www-data
Group www-data
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
Listen 127.0.0.1:{port}
TypesConfig /dev/null
LogFormat \"%a:%{{remote}}p %I %O\" books
CustomLog {path}/access.log books
DocumentRoot {path}/www
KeepAlive On
SSLEngine On
SSLCertificateFile {cert}
SSLCertificateKeyFile {key}
<Directory />
Require all granted
</Directory>
",
        cert = certificate.cert.display(),
        key = certificate.key.display(),
    );
    fs::write(root.join("apache.conf"), config).unwrap();
    let mut command = Command::new(find_program("apache2").expect("apache2 is installed"));
    command
        .arg("-DFOREGROUND")
        .arg("-f")
        .arg(root.join("apache.conf"));
    Server::start(command, dir, port)
}

/// `openssl s_server` with these arguments, e.g. `-rev` or `-www`.
pub fn s_server(args: &[&str]) -> Server {
    let port = free_port();
    let certificate = certificate();
    let mut command = Command::new("/usr/bin/openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
    command
        .arg(&certificate.cert)
        .arg("-key")
        .arg(&certificate.key)
        .args(args);
    // a connection without TLS, made to see whether it listens, would end `-naccept 1`
    let dir = new_dir();
    let mut running = Running::start(&mut command, dir.path());
    running.wait_line(LIMIT, |line| line.starts_with("ACCEPT"));
    Server {
        running,
        host: "127.0.0.1",
        port,
        dir,
    }
}

/// redis on a TLS port only.
pub fn redis() -> Server {
    let dir = new_dir();
    let port = free_port();
    let certificate = certificate();
    let mut command = Command::new("/usr/bin/redis-server");
    command.args([
        "--port",
        "0",
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--tls-port",
    ]);
    command.arg(port.to_string()).arg("--dir").arg(dir.path());
    command.arg("--tls-cert-file").arg(&certificate.cert);
    command.arg("--tls-key-file").arg(&certificate.key);
    command.arg("--tls-ca-cert-file").arg(&certificate.cert);
    command.args(["--tls-auth-clients", "no"]);
    Server::start(command, dir, port)
}

/// The directory of `PostgreSQL`'s programs, which Debian keeps out of the path.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .find(|path| path.join("initdb").exists())
}

/// A private `PostgreSQL` cluster that speaks TLS; any user may log in from the loopback.
pub fn postgres() -> Server {
    let dir = new_dir();
    let port = free_port();
    let programs = postgres_programs().expect("postgresql is installed");
    let user = nix::unistd::User::from_name("postgres")
        .unwrap()
        .expect("user postgres");
    let data = dir.path().join("data");
    let as_postgres = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .current_dir("/");
        command.env("LC_ALL", "C");
        command
    };
    // the way to it must be open to the user
    for ancestor in dir.path().ancestors().skip(1) {
        use std::os::unix::fs::PermissionsExt;
        let mode = ancestor.metadata().unwrap().permissions().mode();
        assert!(
            mode & 0o001 != 0,
            "{} is closed to user postgres",
            ancestor.display()
        );
    }
    let mut init = as_postgres("initdb");
    init.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "-D"])
        .arg(&data);
    Running::start(&mut init, dir.path()).wait_success(LIMIT);
    for (from, to) in [
        (&certificate().cert, "server.crt"),
        (&certificate().key, "server.key"),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let to = data.join(to);
        fs::copy(from, &to).unwrap();
        nix::unistd::chown(&to, Some(user.uid), Some(user.gid)).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut command = as_postgres("postgres");
    command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    command.args([
        "-c",
        "ssl=on",
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "fsync=off",
    ]);
    command
        .arg("-c")
        .arg(format!("unix_socket_directories={}", data.display()));
    let server = Server::start(command, dir, port);
    wait_until("postgres takes connections", LIMIT, || {
        server
            .running
            .stderr_text()
            .contains("ready to accept connections")
    });
    server
}

/// GnuTLS's own server, which says back what it is told.
pub fn gnutls_echo() -> Server {
    let (dir, port) = (new_dir(), free_port());
    let certificate = certificate();
    let mut command = Command::new(find_program("gnutls-serv").expect("gnutls-serv is installed"));
    command.args(["--echo", "--port", &port.to_string(), "--x509certfile"]);
    command.arg(&certificate.cert);
    command.arg("--x509keyfile").arg(&certificate.key);
    Server::start(command, dir, port)
}

/// NSS's own server, with a database in its directory that clients can use too.
pub fn selfserv() -> Server {
    let (dir, port) = (new_dir(), free_port());
    let certificate = certificate();
    let run = |program: &str, args: &[&str]| {
        let program = find_program(program).expect("NSS's tools are installed");
        let mut command = Command::new(program);
        let output = command.current_dir(dir.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    run("certutil", &["-N", "-d", "sql:.", "--empty-password"]);
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    let pack = format!("pkcs12 -export -in {cert} -inkey {key} -name lab -out p12 -passout pass:");
    run("openssl", &pack.split(' ').collect::<Vec<_>>());
    run("pk12util", &["-i", "p12", "-d", "sql:.", "-W", ""]);
    let mut command = Command::new(find_program("selfserv").expect("selfserv is installed"));
    command.args(["-n", "lab", "-V", "tls1.2:", "-p", &port.to_string(), "-d"]);
    command.arg(format!("sql:{}", dir.path().display()));
    Server::start(command, dir, port)
}
