//! `-D`: what could be captured of whom, and why not.

use crate::config::{Config, Format, Who};
use crate::discovery::cgroup::Cgroup;
use crate::discovery::elf::Elf;
use crate::discovery::listing::{self, Attachable, Row, Scope};
use crate::discovery::{ProcFs, Process};
use crate::event::Flavor;
use crate::filter::glob_match;
use crate::plan;
use crate::run::Outcome;
use crate::run::outputs::text_target;
use crate::run::people::cgroup;
use crate::sink::escape::shown;
use crate::tui::Scan;
use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};
use std::io::Write;

/// # Errors
/// /proc cannot be read, or none of the processes asked for exists.
pub fn list(config: &Config) -> Result<Outcome> {
    let proc = ProcFs::default();
    if let Some(missing) = config.who.pids.iter().find(|pid| !proc.exists(**pid)) {
        bail!("list process {missing}: there is no such process (-p)");
    }
    let group = cgroup(&config.who)?;
    let scope = Scope {
        wanted: &|process| is_wanted(&config.who, group.as_ref(), &proc, process),
        with_empty: config.verbose > 0 || !config.who.pids.is_empty(),
        user_name: &|uid| Some(User::from_uid(Uid::from_raw(uid)).ok()??.name),
    };
    let rows = listing::scan(&proc, &scope, &mut classifier())?;
    let mut to = text_target(config.output.file.as_deref())?;
    write(&rows, config.output.format, &mut to).context("write the list")?;
    Ok(Outcome::Code(0))
}

/// Lists them again and again, for the user interface.
pub fn scanner(who: Who) -> Scan {
    Box::new(move || {
        let proc = ProcFs::default();
        let group = cgroup(&who)?;
        let scope = Scope {
            wanted: &|process| is_wanted(&who, group.as_ref(), &proc, process),
            with_empty: !who.pids.is_empty(),
            user_name: &|uid| Some(User::from_uid(Uid::from_raw(uid)).ok()??.name),
        };
        listing::scan(&proc, &scope, &mut classifier())
    })
}

fn write(rows: &[Row], format: Format, to: &mut dyn Write) -> std::io::Result<()> {
    let mut text = Vec::new();
    match format {
        Format::Text => listing::write_table(rows, &shown, &mut text)?,
        Format::Json => listing::write_json(rows, &mut text)?,
    }
    to.write_all(&text)
}

fn is_wanted(who: &Who, group: Option<&Cgroup>, proc: &ProcFs, process: &Process) -> bool {
    let exe = || proc.exe(process.pid).ok();
    let path = || proc.cgroup(process.pid).ok().flatten();
    group.is_none_or(|group| path().is_some_and(|path| group.holds(&path)))
        && (who.pids.is_empty() || who.pids.contains(&process.pid))
        && who.uid.is_none_or(|uid| uid == process.uid)
        && who
            .comm
            .as_ref()
            .is_none_or(|glob| glob_match(glob, &process.comm))
        && who
            .exe
            .as_ref()
            .is_none_or(|wanted| exe().as_ref() == Some(wanted))
}

/// Says what of a file can be attached to, with the version that a file before it may have told.
pub fn classifier() -> impl FnMut(&[u8], &str) -> Result<Vec<Attachable>> {
    let mut crypto_version = None;
    move |bytes, path| classify(bytes, path, &mut crypto_version)
}

/// libssl.so.3 does not state its version, but libcrypto, which is mapped before or beside it, does.
fn classify(
    bytes: &[u8],
    path: &str,
    crypto_version: &mut Option<String>,
) -> Result<Vec<Attachable>> {
    let elf = Elf::parse(bytes)?;
    if plan::layout::bio_layout(&elf).is_some() {
        *crypto_version = plan::openssl::version(&elf, Flavor::OpenSsl);
    }
    let plans = plan::plan(&elf, path)?.into_iter();
    let attachable = plans.map(|plan| Attachable {
        version: plan.version.or_else(|| {
            let known = crypto_version.clone();
            known.filter(|_| plan.flavor.has_libcrypto())
        }),
        flavor: plan.flavor,
        found_by: plan.found_by,
        limits: plan.notes,
    });
    Ok(attachable.collect())
}
