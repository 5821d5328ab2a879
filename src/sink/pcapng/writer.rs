//! Puts frames into blocks, blocks into files, and before them what each file begins with.

use super::{Format, Options, block, comment};
use crate::event::{Conn, Dir, Lib, Nanos, Proc, Totals};
use crate::sink::rotate::Output;
use anyhow::Result;
use std::collections::HashMap;
use std::rc::Rc;

/// Processes whose interfaces are remembered; beyond, they are described once more.
const INTERFACES: usize = 4096;

/// Packets into blocks into the output.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) output: Output,
    pub(super) options: Options,
    /// Counts files, from 0.
    pub(super) file: u32,
    pub(super) comment: String,
    pub(super) last: Nanos,
    /// By process id.
    interfaces: HashMap<u32, Vec<Interface>>,
    interface_count: u32,
}

/// A process, the file with its TLS functions, and the number of their interface in the file.
type Interface = (Rc<Proc>, Rc<Lib>, u32);

/// Whose packet it is.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) ts: Nanos,
    pub(super) interface: u32,
    pub(super) pid: u32,
    pub(super) conn: u64,
}

impl Writer {
    /// Writes the file header at once.
    pub(super) fn new(output: Output, options: Options) -> Result<Writer> {
        let mut writer = Writer {
            output,
            options,
            file: 0,
            comment: String::new(),
            last: 0,
            interfaces: HashMap::new(),
            interface_count: 0,
        };
        writer.header()?;
        Ok(writer)
    }

    pub(super) fn frame(
        &mut self,
        owner: Owner,
        dir: Option<Dir>,
        frame: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> Result<()> {
        let (format, comment) = (self.options.format, &self.comment);
        self.output.block(|out| match format {
            Format::Pcapng => block::packet(out, owner.interface, owner.ts, dir, comment, frame),
            Format::Pcap => block::classic_packet(out, owner.ts, frame),
        })
    }

    fn header(&mut self) -> Result<()> {
        if self.options.format == Format::Pcap {
            return self.output.block(block::classic_header);
        }
        let options = &self.options;
        let about = format!("{} framing={}", comment::FORMAT, options.framing.name());
        let application = concat!("tlssniff ", env!("CARGO_PKG_VERSION"));
        let mut texts = vec![
            (block::SHB_HARDWARE, options.hardware.as_str()),
            (block::SHB_OS, &options.os),
            (block::SHB_APPLICATION, application),
            (block::COMMENT, &about),
            (block::COMMENT, &options.comment),
        ];
        texts.retain(|(_, text)| !text.is_empty());
        self.output.block(|out| block::section(out, &texts))?;
        // Some interface must be there for the statistics, and for readers that wait for one.
        let description = "the whole capture: its counts are in the statistics of this interface";
        let texts = [
            (block::IF_NAME, "tlssniff"),
            (block::IF_DESCRIPTION, description),
        ];
        self.interface_count = 1;
        self.interfaces.clear();
        let filter = self.options.filter.as_deref();
        self.output
            .block(|out| block::interface(out, &texts, filter))
    }

    /// The number of the interface of a process and library, which is described first if it is new.
    pub(super) fn interface(&mut self, conn: &Conn) -> Result<u32> {
        if self.options.format == Format::Pcap {
            return Ok(0);
        }
        if let Some(known) = self.interfaces.get(&conn.proc.pid) {
            let mut same = known
                .iter()
                .filter(|(p, l, _)| *p == conn.proc && *l == conn.lib);
            if let Some((.., id)) = same.next() {
                return Ok(*id);
            }
        }
        let Proc { pid, comm, exe, .. } = &*conn.proc;
        let (mut name, mut description) = (String::new(), String::new());
        comment::escape(&mut name, comm);
        name.push_str(&format!("[{pid}]"));
        if let Some(exe) = exe {
            comment::escape(&mut description, exe);
            description.push_str(", ");
        }
        for word in conn
            .lib
            .version
            .as_deref()
            .unwrap_or(conn.lib.flavor.name())
            .split(' ')
        {
            comment::escape(&mut description, word);
            description.push(' ');
        }
        description.push('(');
        comment::escape(&mut description, &conn.lib.path);
        description.push_str(&format!("), pid {pid}"));
        let comment = comment::interface(&conn.proc, &conn.lib);
        let texts = [
            (block::IF_NAME, name.as_str()),
            (block::IF_DESCRIPTION, &description),
            (block::IF_OS, &self.options.os),
            (block::COMMENT, &comment),
        ];
        let filter = self.options.filter.as_deref();
        self.output
            .block(|out| block::interface(out, &texts, filter))?;
        let id = self.interface_count;
        self.interface_count += 1;
        if self.interfaces.len() >= INTERFACES {
            self.interfaces.clear();
        }
        let facts = (Rc::clone(&conn.proc), Rc::clone(&conn.lib), id);
        self.interfaces.entry(*pid).or_default().push(facts);
        Ok(id)
    }

    pub(super) fn statistics(&mut self, totals: &Totals) -> Result<()> {
        if self.options.format == Format::Pcap {
            return Ok(());
        }
        let Totals {
            captured,
            shown,
            dropped,
            dropped_bytes,
            truncated,
            late,
        } = *totals;
        let comment = format!(
            "captured={captured} shown={shown} dropped={dropped} dropped_bytes={dropped_bytes} \
             truncated={truncated} late={late}"
        );
        let counts = [captured.saturating_add(dropped), shown, dropped];
        let last = self.last;
        self.output
            .block(|out| block::statistics(out, 0, last, counts, &comment))
    }

    pub(super) fn next_file(&mut self, now: Nanos) -> Result<()> {
        self.output.rotate(now)?;
        self.file += 1;
        self.header()
    }
}
