//! Parses the command line, runs, and turns the result into an exit code.

use anyhow::Result;
use clap::{CommandFactory, Parser, error::ErrorKind};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use std::process::ExitCode;
use tlssniff::cli::Cli;
use tlssniff::config::{Config, Surroundings, UsageError};
use tlssniff::extcap;
use tlssniff::generate::generate;
use tlssniff::run::{Outcome, run};
use tlssniff::sink::escape::shown;
use tlssniff::sink::output::is_broken_pipe;

fn main() -> ExitCode {
    let error = match start() {
        Ok(Outcome::Code(code)) => return ExitCode::from(code),
        Ok(Outcome::Signal(signal)) => return die_of(signal),
        Err(error) => error,
    };
    if let Some(UsageError(message)) = error.downcast_ref() {
        Cli::command()
            .error(ErrorKind::ArgumentConflict, message)
            .exit();
    }
    // Whoever read our output has seen enough: no error of ours.
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("tlssniff: {}", shown(&format!("{error:#}")));
    ExitCode::FAILURE
}

fn start() -> Result<Outcome> {
    let Some(args) = extcap::translate(std::env::args_os(), &mut std::io::stdout())? else {
        return Ok(Outcome::Code(0));
    };
    let cli = Cli::parse_from(args);
    if let Some(what) = cli.generate {
        generate(what, &mut std::io::stdout().lock())?;
        return Ok(Outcome::Code(0));
    }
    run(Config::new(cli, &Surroundings::of_this_process())?)
}

/// Ends as the command did, so that a shell sees the same; without a core file of ours.
fn die_of(number: i32) -> ExitCode {
    if let Ok(signal) = Signal::try_from(number) {
        let mut set = SigSet::empty();
        set.add(signal);
        // Whatever fails here, the exit code below tells the same in a shell's terms.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        let _ = set.thread_unblock();
        let _ = raise(signal);
    }
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}
