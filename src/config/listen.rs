//! Where to serve the capture, and whom (`--listen`).

use super::{Surroundings, usage};
use crate::cli::Cli;
use crate::sink::escape;
use crate::sink::serve::Listen;
use anyhow::Result;
use nix::unistd::Uid;
use std::net::{Ipv4Addr, ToSocketAddrs};

/// `--listen`: a port alone is one of this machine.
pub(super) fn listen(cli: &Cli, around: &Surroundings) -> Result<Option<Listen>> {
    let Some(text) = &cli.listen else {
        return Ok(None);
    };
    let found = match text.parse::<u16>() {
        Ok(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.to_socket_addrs().ok().and_then(|mut all| all.next()),
    };
    let Some(addr) = found else {
        return usage(format!(
            "--listen: '{}' is no address; give a port, or an address and a port (127.0.0.1:5555)",
            escape::shown(text)
        ));
    };
    if !addr.ip().is_loopback() && !cli.listen_anyone {
        return usage(format!(
            "--listen {addr} can be reached from other machines, and what is served is plaintext; \
             listen on 127.0.0.1 and come through ssh -L, or add --listen-anyone"
        ));
    }
    let own = Uid::effective().as_raw();
    let sudo = (around.env)("SUDO_UID").and_then(|uid| uid.to_str()?.parse().ok());
    Ok(Some(Listen {
        addr,
        users: (!cli.listen_anyone)
            .then(|| [Some(0), Some(own), sudo].into_iter().flatten().collect()),
    }))
}
