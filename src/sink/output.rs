//! Collects lines and hands them to the operating system in few writes.

use anyhow::{Context, Result};
use std::io::Write;

const FULL: usize = 64 * 1024;

/// Lines on their way to `W`. What is in the buffer when it is dropped is lost: call
/// [`Output::flush`].
#[derive(Debug)]
pub struct Output<W: Write> {
    to: W,
    buf: Vec<u8>,
    per_line: bool,
}

impl<W: Write> Output<W> {
    /// With `per_line` every line is handed on as soon as it is complete (`-l`, or a terminal).
    pub fn new(to: W, per_line: bool) -> Self {
        Output {
            to,
            buf: Vec::with_capacity(FULL + 4096),
            per_line,
        }
    }

    /// Where to append.
    pub fn buf(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// The lines of one event are complete.
    pub fn end_event(&mut self) -> Result<()> {
        if self.per_line || self.buf.len() >= FULL {
            return self.flush();
        }
        Ok(())
    }

    /// Hands everything on. The [`std::io::Error`] stays in the chain, so that the caller can
    /// tell a closed pipe from a full disk.
    pub fn flush(&mut self) -> Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let written = self.to.write_all(&self.buf);
        self.buf.clear();
        written
            .and_then(|()| self.to.flush())
            .context("write the output")
    }
}

/// Whether nobody reads any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn lines_wait_for_a_flush() {
        let mut to = Vec::new();
        let mut output = Output::new(&mut to, false);
        output.buf().extend_from_slice(b"a\n");
        output.end_event().unwrap();
        assert!(output.to.is_empty());
        output.flush().unwrap();
        assert_eq!(to, b"a\n");
    }

    #[test]
    fn line_buffered_hands_on_each_line() {
        let mut to = Vec::new();
        let mut output = Output::new(&mut to, true);
        output.buf().extend_from_slice(b"a\n");
        output.end_event().unwrap();
        assert_eq!(to, b"a\n");
    }

    #[test]
    fn buffer_does_not_grow_without_end() {
        let mut to = Vec::new();
        let mut output = Output::new(&mut to, false);
        for _ in 0..FULL {
            output.buf().extend_from_slice(b"line\n");
            output.end_event().unwrap();
            assert!(output.buf.len() < FULL);
        }
    }

    #[test]
    fn a_closed_pipe_can_be_told_from_other_errors() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::new(Closed, true);
        output.buf().push(b'\n');
        let error = output.end_event().unwrap_err();
        let cause = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
    }
}
