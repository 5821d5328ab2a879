//! Whose a TCP connection of this machine is: `/proc/net/tcp` and `/proc/net/tcp6`.
//!
//! Their format is in `Documentation/networking/proc_net_tcp.rst` of the kernel: a line to a socket,
//! with both addresses as 32-bit words in the machine's byte order, and the user's number.

use anyhow::{Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The user who has the end at `local` of the connection with `remote`, if it is in our network
/// namespace.
///
/// # Errors
/// The kernel's table cannot be read.
pub fn owner(local: SocketAddr, remote: SocketAddr) -> Result<Option<u32>> {
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(path) {
            Ok(table) => {
                if let Some(user) = find(&table, local, remote) {
                    return Ok(Some(user));
                }
            }
            // Without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        }
    }
    Ok(None)
}

fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let wanted = [plain(local), plain(remote)];
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let ends = [address(words.next()?)?, address(words.next()?)?];
        // After the addresses: state, queues, timer, retransmissions.
        let user = words.nth(4)?.parse().ok()?;
        (ends == wanted).then_some(user)
    })
}

/// A socket of IPv6 has an IPv4 peer as `::ffff:a.b.c.d`.
fn plain(addr: SocketAddr) -> (IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

/// `0100007F:1F90`
fn address(word: &str) -> Option<(IpAddr, u16)> {
    let (host, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..host.len()).step_by(8) {
        let word = u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some((ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_connection_is_told() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                continue;
            };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let us = nix::unistd::Uid::effective().as_raw();
            assert_eq!(owner(here, there).unwrap(), Some(us), "{host}");
            assert_eq!(owner(here, here).unwrap(), None);
        }
    }

    #[test]
    fn a_line_that_makes_no_sense_is_nobody_s() {
        let line = "   0: 0100007F:1F90 0200007F:0016 01 00000000:00000000 00:00000000 00000000  1000        0 1 1";
        let (a, b): (SocketAddr, SocketAddr) = (
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.2:22".parse().unwrap(),
        );
        assert_eq!(find(line, a, b), Some(1000));
        for end in 0..60 {
            assert_eq!(find(&line[..end], a, b), None, "{end}");
        }
        assert_eq!(find("0: 0100007:1F90 :: é:é 1 1 1 1 1", a, b), None);
    }
}
