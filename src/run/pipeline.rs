//! What each record of the ring goes through: connections, who they belong to, outputs.

use crate::event::Totals;
use crate::flow::ConnTable;
use crate::flow::wait::Waiting;
use crate::ring::{self, Raw};
use crate::run::outputs::Outputs;
use crate::run::people::People;
use crate::run::summary;
use anyhow::{Error, Result};
use std::time::Instant;

/// What the ring's callback works on.
#[derive(Debug)]
pub struct Pipeline {
    pub table: ConnTable,
    pub people: People,
    pub outputs: Outputs,
    pub waiting: Waiting,
    /// The first error of a sink; the ring's callback cannot return it.
    pub error: Option<Error>,
}

impl Pipeline {
    pub fn record(&mut self, record: &[u8]) -> Result<()> {
        let Pipeline {
            table,
            people,
            outputs,
            waiting,
            ..
        } = self;
        match ring::decode(record) {
            Some(Raw::Hold { tgid, ticket, ts }) => {
                log::debug!("process {tgid} is held");
                people.release(tgid, ticket, ts)
            }
            Some(Raw::Exec { tgid, ts }) => {
                log::debug!("process {tgid} executes a program");
                people.look_at_running(tgid, ts);
                Ok(())
            }
            Some(raw) => {
                if let Raw::Conn(conn) = &raw
                    && waiting.awaits(conn.conn)
                    && let Some(address) = conn.address()
                {
                    table.found_address(address);
                }
                if !waiting.takes(record, &raw, Instant::now) {
                    table.record(raw, people, &mut |event| outputs.event(event))?;
                }
                self.tell_waiting()
            }
            None => {
                log::debug!("a record of {} bytes that makes no sense", record.len());
                Ok(())
            }
        }
    }

    /// Tells what need not wait any longer.
    pub fn tell_waiting(&mut self) -> Result<()> {
        while !self.waiting.is_empty()
            && let Some(record) = self.waiting.next(Instant::now())
        {
            self.tell(&record)?;
        }
        Ok(())
    }

    /// Tells all that waits.
    pub fn tell_all(&mut self) -> Result<()> {
        while let Some(record) = self.waiting.pop() {
            self.tell(&record)?;
        }
        Ok(())
    }

    fn tell(&mut self, record: &[u8]) -> Result<()> {
        let Pipeline {
            table,
            people,
            outputs,
            ..
        } = self;
        match ring::decode(record) {
            Some(raw) => table.record(raw, people, &mut |event| outputs.event(event)),
            None => Ok(()),
        }
    }

    /// What the process ran until this time (since boot) is no more.
    pub fn program_ended(&mut self, pid: u32, until: u64) -> Result<()> {
        if self.waiting.has_of(pid) {
            self.tell_all()?;
        }
        self.waiting.forget_process(pid);
        let Pipeline {
            table,
            people,
            outputs,
            ..
        } = self;
        let gone = table.program_ended(pid, until, people, &mut |event| outputs.event(event))?;
        for key in gone {
            people.bpf.forget_conn(&key);
        }
        people.forget_program(pid);
        Ok(())
    }

    pub fn totals(&self) -> Totals {
        summary::totals(
            &self.table.totals,
            &self.people.bpf.counters(),
            self.outputs.shown(),
            self.people.in_time.late,
        )
    }
}
