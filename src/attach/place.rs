//! Links a plan's probes to the programs they run.

use crate::bpf::{Bpf, Kind, types};
use crate::event::{Dir, Role};
use crate::plan::{
    Action, Count, GoAt, GoCall, Plan, Probe, RustlsBytes, RustlsCall, Site, SiteCost,
};
use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Probes in place; dropping it takes them out.
pub(super) type Link = OwnedFd;

/// An open file and the process that its breakpoints are for (0: all).
pub(super) struct Place {
    pub path: String,
    pub pid: u32,
}

/// The process that the breakpoints were for: there is no use in trying them one by one.
fn has_ended(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.raw_os_error() == Some(libc::ESRCH))
    })
}

impl Place {
    pub fn link_plan(&self, bpf: &mut Bpf, target: u32, plan: &Plan) -> Result<Vec<Link>> {
        let of = |wanted: Program| -> Vec<(&Probe, u64)> {
            plan.probes
                .iter()
                .enumerate()
                .filter(|(_, probe)| program(probe.action) == wanted)
                .filter_map(|(index, probe)| Some((probe, cookie_of(target, plan, index)?)))
                .collect()
        };
        let calls = of(Program::Call);
        let mut links = if bpf.features.sessions {
            self.link_probes(bpf, Kind::Call, &calls)?
        } else {
            // Returns first: a call whose return is not seen would never end.
            let mut links = self.link_probes(bpf, Kind::Return, &calls)?;
            links.extend(self.link_probes(bpf, Kind::Enter, &calls)?);
            links
        };
        links.extend(self.link_probes(bpf, Kind::Event, &of(Program::Event))?);
        let (writes, events) = (of(Program::RustlsWrite), of(Program::RustlsEvent));
        links.extend(self.link_rustls(bpf, &writes, &events)?);
        // Returns first: an entry whose return is not seen would be told of at the next one.
        links.extend(self.link_all(bpf, Kind::GoReturn, &of(Program::GoReturn))?);
        links.extend(self.link_all(bpf, Kind::GoEnter, &of(Program::GoEnter))?);
        Ok(links)
    }

    fn link_rustls(
        &self,
        bpf: &mut Bpf,
        writes: &[(&Probe, u64)],
        events: &[(&Probe, u64)],
    ) -> Result<Vec<Link>> {
        if writes.is_empty() && events.is_empty() {
            return Ok(Vec::new());
        }
        // Old kernels lack it; said here, it does not look like a refusal of one probe.
        bpf.has_program(Kind::RustlsEvent)?;
        // What says that a connection begins must be there before what says that it moves data.
        let mut links = self.link_all(bpf, Kind::RustlsEvent, events)?;
        if bpf.features.sessions {
            links.extend(self.link_all(bpf, Kind::RustlsCall, writes)?);
        } else {
            links.extend(self.link_all(bpf, Kind::RustlsReturn, writes)?);
            links.extend(self.link_all(bpf, Kind::RustlsEnter, writes)?);
        }
        Ok(links)
    }

    /// All or none of them.
    fn link_all(&self, bpf: &mut Bpf, kind: Kind, probes: &[(&Probe, u64)]) -> Result<Vec<Link>> {
        let sites: Vec<(u64, u64)> = probes
            .iter()
            .map(|(probe, cookie)| (probe.site.file_offset, *cookie))
            .collect();
        match sites.is_empty() {
            true => Ok(Vec::new()),
            false => self.link(bpf, kind, &sites),
        }
    }

    /// All in one link; one by one, at the next best site, when the kernel refuses one of them.
    fn link_probes(
        &self,
        bpf: &mut Bpf,
        kind: Kind,
        probes: &[(&Probe, u64)],
    ) -> Result<Vec<Link>> {
        let mut sites: Vec<(u64, u64)> = probes
            .iter()
            .map(|(probe, cookie)| (probe.site.file_offset, *cookie))
            .collect();
        // Aliases of one function would report each call twice.
        sites.sort_by_key(|(offset, _)| *offset);
        sites.dedup_by_key(|(offset, _)| *offset);
        if sites.is_empty() {
            return Ok(Vec::new());
        }
        let refusal = match self.link(bpf, kind, &sites) {
            Ok(links) => return Ok(links),
            Err(error) if has_ended(&error) => return Err(error),
            Err(error) => error,
        };
        let mut links = Vec::new();
        for (probe, cookie) in probes {
            match self.link_somewhere(bpf, kind, probe, *cookie) {
                Ok(more) => links.extend(more),
                Err(error) => log::warn!("{}: {error:#}", probe.func),
            }
        }
        if links.is_empty() {
            return Err(refusal);
        }
        Ok(links)
    }

    /// While another tracer sits at a site with arguments of its own, the kernel refuses ours
    /// (`ref_ctr_offset mismatch` in the kernel log); another site of the function works.
    fn link_somewhere(
        &self,
        bpf: &mut Bpf,
        kind: Kind,
        probe: &Probe,
        cookie: u64,
    ) -> Result<Vec<Link>> {
        let mut refusal = None;
        for site in std::iter::once(&probe.site).chain(&probe.fallbacks) {
            match self.link(bpf, kind, &[(site.file_offset, cookie)]) {
                Ok(links) => {
                    tell_cost(&probe.func, site);
                    return Ok(links);
                }
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error),
            None => bail!("no site to attach to"),
        }
    }

    /// `sites`: where in the file, and the cookie there.
    pub fn link(&self, bpf: &mut Bpf, kind: Kind, sites: &[(u64, u64)]) -> Result<Vec<Link>> {
        const REFUSED: &str = "the kernel refused the probes (is another tracer attached there?)";
        let path = CString::new(self.path.as_bytes())?;
        let links = bpf.link(kind, &path, self.pid, sites);
        links.context(REFUSED)
    }
}

fn tell_cost(func: &str, site: &Site) {
    if site.cost == SiteCost::SingleStepped {
        log::debug!(
            "{func}: attached at a single-stepped instruction: {}",
            site.reason
        );
    }
}

/// Which BPF program a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// A session: entry and return.
    Call,
    Event,
    /// A session.
    RustlsWrite,
    RustlsEvent,
    GoEnter,
    GoReturn,
}

fn program(action: Action) -> Program {
    match action {
        Action::Data(..) | Action::Handshake(_) | Action::Negotiate => Program::Call,
        Action::Go {
            at: GoAt::Return | GoAt::Defer,
            ..
        } => Program::GoReturn,
        Action::Go { .. } => Program::GoEnter,
        Action::Rustls(RustlsCall::Write(_)) => Program::RustlsWrite,
        Action::Rustls(_) => Program::RustlsEvent,
        _ => Program::Event,
    }
}

/// Of a plan's probe. Entry and returns of a function go by one number.
pub(super) fn cookie_of(target: u32, plan: &Plan, index: usize) -> Option<u64> {
    let probe = plan.probes.get(index)?;
    let same = plan.probes.iter().position(|p| p.func == probe.func);
    Some(cookie(target, same.unwrap_or(index), probe.action))
}

/// As bpf/abi.h lays it out: action, count or role, function, target.
fn cookie(target: u32, func: usize, action: Action) -> u64 {
    use types::{ts_action, ts_count, ts_go_site, ts_role, ts_rustls_bytes};
    let (action, detail) = match action {
        Action::Data(dir, count) => {
            let action = match dir {
                Dir::Out => ts_action::TS_ACT_WRITE,
                Dir::In => ts_action::TS_ACT_READ,
            };
            let kind = match count {
                Count::Return | Count::OutArg(_) => ts_count::TS_CNT_RETURN,
                Count::SendfileReturn => ts_count::TS_CNT_SENDFILE,
                Count::WideReturn => ts_count::TS_CNT_RETURN_WIDE,
                Count::ReturnAhead => ts_count::TS_CNT_RETURN_AHEAD,
                Count::UnlessPeek => ts_count::TS_CNT_UNLESS_PEEK,
                Count::Whole => ts_count::TS_CNT_WHOLE,
                Count::Vector(_) => ts_count::TS_CNT_VECTOR,
                Count::ShortVector => ts_count::TS_CNT_SHORT_VECTOR,
                Count::ToldBefore => ts_count::TS_CNT_TOLD_BEFORE,
            };
            (
                action,
                kind.0 | u32::from(count.argument().unwrap_or_default()),
            )
        }
        Action::Handshake(role) => {
            let role = match role {
                None => ts_role::TS_ROLE_UNKNOWN,
                Some(Role::Client) => ts_role::TS_ROLE_CLIENT,
                Some(Role::Server) => ts_role::TS_ROLE_SERVER,
            };
            (ts_action::TS_ACT_HANDSHAKE, role.0)
        }
        Action::Negotiate => (
            ts_action::TS_ACT_HANDSHAKE,
            types::ts_handshake::TS_HS_ZERO.0,
        ),
        Action::Free => (ts_action::TS_ACT_FREE, 0),
        Action::Clear => (ts_action::TS_ACT_CLEAR, 0),
        Action::Shutdown => (ts_action::TS_ACT_SHUTDOWN, 0),
        Action::Rebind => (ts_action::TS_ACT_REBIND, 0),
        Action::Rustls(call) => {
            let bytes = |bytes| match bytes {
                RustlsBytes::Slice => ts_rustls_bytes::TS_RUSTLS_SLICE.0,
                RustlsBytes::Chunks => ts_rustls_bytes::TS_RUSTLS_CHUNKS.0,
                RustlsBytes::Payload => ts_rustls_bytes::TS_RUSTLS_PAYLOAD.0,
                RustlsBytes::Message => ts_rustls_bytes::TS_RUSTLS_MESSAGE.0,
            };
            match call {
                RustlsCall::Write(of) => (ts_action::TS_ACT_WRITE, bytes(of)),
                RustlsCall::Read(of) => (ts_action::TS_ACT_READ, bytes(of)),
                RustlsCall::Start => (ts_action::TS_ACT_CLEAR, 0),
                RustlsCall::Drop => (ts_action::TS_ACT_FREE, 0),
            }
        }
        Action::Go { call, at, abi0 } => {
            let action = match call {
                GoCall::Move(Dir::Out) => ts_action::TS_ACT_WRITE,
                GoCall::Move(Dir::In) => ts_action::TS_ACT_READ,
                GoCall::Close => ts_action::TS_ACT_FREE,
                GoCall::CloseWrite => ts_action::TS_ACT_SHUTDOWN,
                GoCall::Handshake => ts_action::TS_ACT_CLEAR,
            };
            let site = match (at, abi0) {
                (GoAt::Defer, _) => ts_go_site::TS_GO_DEFERRED,
                (_, true) => ts_go_site::TS_GO_ABI0,
                (_, false) => ts_go_site::TS_GO_REGISTERS,
            };
            (action, site.0)
        }
    };
    u64::from(action.0)
        | u64::from(detail) << 8
        | (func as u64 & 0xffff) << 16
        | u64::from(target) << 32
}
