//! Splits the output over several files (`-C`, `-G`, `-W`, `-z`).
//!
//! Names and counts are tcpdump's: `FILE`, `FILE1`, `FILE2` …; with `-W` a ring of zero-padded
//! numbers; with `-G` the name is a strftime(3) format. The writer above hands over whole blocks,
//! so that a full disk never leaves half of one behind.

use crate::event::Nanos;
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Bytes kept back before they are handed to the operating system.
const BUFFER: usize = 256 * 1024;
/// A file is written in multiples of this, also from its beginning: the kernel fills pages (on
/// tmpfs larger units) of which a write covers only a part with zeros first.
const PIECE: usize = 64 * 1024;

/// When to begin a new file, and what becomes of the old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// `-C`: begin a new file once this many bytes are in it.
    pub size: Option<u64>,
    /// `-G`: begin a new file after this many seconds of capture time.
    pub seconds: Option<u64>,
    /// `-W`: with `size` the length of the ring, with `seconds` alone the number of files.
    pub count: Option<u32>,
    /// `-z`: run `command file` at low priority for each file that another one follows.
    pub command: Option<String>,
}

/// `-G -W`: the last file is full. The run ends as if it had been interrupted, with status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimitReached;

impl fmt::Display for FileLimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of files given with -W is written")
    }
}

impl std::error::Error for FileLimitReached {}

/// Turns a strftime(3) format and a time into a name, in the local time zone.
pub type NameAt = Box<dyn Fn(&str, Nanos) -> String>;

enum Target {
    File(File),
    Stream(Box<dyn Write>),
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::File(file) => file.write(bytes),
            Target::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::File(_) => Ok(()),
            Target::Stream(stream) => stream.flush(),
        }
    }
}

/// Where the next file's name comes from.
struct Series {
    pattern: PathBuf,
    rotation: Rotation,
    name_at: NameAt,
    /// tcpdump's two counters: of `-C` within one period, and of periods.
    by_size: u32,
    by_time: u32,
    /// Capture time at which the current period began; `None` before the first packet.
    since: Option<Nanos>,
}

/// The file, pipe or series of files that blocks are written to.
pub struct Output {
    target: Target,
    name: String,
    series: Option<Series>,
    buffer: Vec<u8>,
    /// Where blocks end within `buffer`.
    ends: Vec<usize>,
    /// Bytes handed to the operating system for this file, and how many of them are whole blocks.
    written: u64,
    whole: u64,
    failed: bool,
    children: Vec<Child>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Says why a capture must not go to a terminal, if `path` (`-`: standard output) is one.
/// The caller ends with status 2.
pub fn refuse_terminal(path: &Path) -> Result<()> {
    let is_terminal = if path == Path::new("-") {
        io::stdout().is_terminal()
    } else {
        // Only what exists and is no regular file can be a terminal; a FIFO must not be opened
        // here, because that would wait for its reader.
        std::fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device())
            && File::open(path).is_ok_and(|f| f.is_terminal())
    };
    if is_terminal {
        bail!(
            "write the capture to the terminal: it is binary; name a file (-w out.pcapng) or a \
             pipe (-w - | wireshark -k -i -)"
        );
    }
    Ok(())
}

impl Output {
    /// Any stream: standard output, a socket, a `Vec` in a test. `name` is for messages.
    pub fn stream(stream: Box<dyn Write>, name: &str) -> Output {
        Output::new(Target::Stream(stream), name.to_owned(), None)
    }

    /// Creates `path` (mode 0600, emptied if it exists) or the first file of the series that
    /// `rotation` makes of it; `now` is for its name.
    pub fn create(path: &Path, rotation: Rotation, name_at: NameAt, now: Nanos) -> Result<Output> {
        let series = Series {
            pattern: path.to_owned(),
            rotation,
            name_at,
            by_size: 0,
            by_time: 0,
            since: None,
        };
        let name = series.name(now);
        let file = create_file(&name)?;
        Ok(Output::new(
            Target::File(file),
            name.display().to_string(),
            Some(series),
        ))
    }

    fn new(target: Target, name: String, series: Option<Series>) -> Output {
        Output {
            target,
            name,
            series,
            buffer: Vec::with_capacity(2 * BUFFER),
            ends: Vec::new(),
            written: 0,
            whole: 0,
            failed: false,
            children: Vec::new(),
        }
    }

    /// Adds the one whole block that `write` appends. The file is only ever cut between blocks.
    pub fn block(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        write(&mut self.buffer);
        let len = self.buffer.len();
        self.ends.push(len);
        if len < BUFFER {
            return Ok(());
        }
        let beyond = match self.target {
            Target::File(_) => (self.written % PIECE as u64) as usize + len,
            Target::Stream(_) => 0,
        };
        self.hand_on(len - beyond % PIECE)
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.hand_on(self.buffer.len())?;
        if self.failed {
            return Ok(());
        }
        self.target
            .flush()
            .with_context(|| format!("write {}", self.name))
    }

    /// True if a packet of this time belongs into the next file.
    pub fn is_due(&mut self, now: Nanos) -> bool {
        let size = self.written + self.buffer.len() as u64;
        let Some(series) = &mut self.series else {
            return false;
        };
        series.is_over(now) || series.rotation.size.is_some_and(|limit| size > limit)
    }

    /// Ends this file and begins the next.
    ///
    /// # Errors
    /// [`FileLimitReached`] when `-W` allows no further one; the finished file is complete.
    pub fn rotate(&mut self, now: Nanos) -> Result<()> {
        self.flush()?;
        let Some(series) = &mut self.series else {
            return Ok(());
        };
        let finished = std::mem::take(&mut self.name);
        let next = series.advance(now);
        if let Some(command) = series.rotation.command.clone() {
            self.run(&command, &finished)?;
        }
        let Some(next) = next else {
            self.name = finished;
            self.failed = true;
            return Err(FileLimitReached.into());
        };
        self.target = Target::File(create_file(&next)?);
        self.name = next.display().to_string();
        self.written = 0;
        self.whole = 0;
        Ok(())
    }

    /// tcpdump's "at low priority". The command is not waited for; those that have ended are
    /// collected at the next rotation.
    fn run(&mut self, command: &str, file: &str) -> Result<()> {
        self.children
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let child = Command::new("nice")
            .args(["-n", "19", command, file])
            .spawn()
            .with_context(|| format!("run `{command} {file}` (-z)"))?;
        self.children.push(child);
        Ok(())
    }

    /// Hands on the first `upto` bytes of the buffer.
    fn hand_on(&mut self, upto: usize) -> Result<()> {
        if self.failed {
            self.buffer.clear();
            self.ends.clear();
            return Ok(());
        }
        let mut done = 0;
        while let Some(rest) = self.buffer.get(done..upto).filter(|rest| !rest.is_empty()) {
            let error = match self.target.write(rest) {
                Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(self.give_up(done, error));
        }
        self.whole = self.whole_at(done);
        self.written += done as u64;
        self.buffer.drain(..done);
        self.ends.retain(|end| *end > done);
        self.ends.iter_mut().for_each(|end| *end -= done);
        Ok(())
    }

    /// Where in the file the last whole block ends once `done` bytes of the buffer are in it.
    fn whole_at(&self, done: usize) -> u64 {
        let ended = self.ends.partition_point(|end| *end <= done);
        match self.ends.get(..ended).and_then(<[usize]>::last) {
            Some(end) => self.written + *end as u64,
            None => self.whole,
        }
    }

    /// Cuts the file back to its last whole block and reports the error; later blocks are
    /// thrown away, because the error has been told and ends the run.
    fn give_up(&mut self, done: usize, error: io::Error) -> anyhow::Error {
        self.failed = true;
        self.written = self.whole_at(done);
        let mut outcome = "";
        if let Target::File(file) = &self.target
            && file.set_len(self.written).is_ok()
        {
            outcome = " (what is in it stays readable)";
        }
        anyhow::Error::new(error).context(format!("write {}{outcome}", self.name))
    }
}

impl Series {
    /// True once a `-G` period has passed; the first packet starts the first period.
    fn is_over(&mut self, now: Nanos) -> bool {
        let since = *self.since.get_or_insert(now);
        let seconds = self.rotation.seconds;
        seconds.is_some_and(|s| now.saturating_sub(since) >= s.saturating_mul(1_000_000_000))
    }

    /// The next name, or `None` when `-W` allows no further file.
    fn advance(&mut self, now: Nanos) -> Option<PathBuf> {
        if self.is_over(now) {
            self.since = Some(now);
            self.by_size = 0;
            self.by_time += 1;
            // As in tcpdump, -W limits the number of files only where -C does not number them.
            let numbered = self.rotation.size.is_some();
            if !numbered
                && self
                    .rotation
                    .count
                    .is_some_and(|count| self.by_time >= count)
            {
                return None;
            }
        } else {
            self.by_size += 1;
            if self
                .rotation
                .count
                .is_some_and(|count| self.by_size >= count)
            {
                self.by_size = 0;
            }
        }
        Some(self.name(now))
    }

    fn name(&self, now: Nanos) -> PathBuf {
        let mut name = match self.rotation.seconds {
            Some(_) => (self.name_at)(&self.pattern.to_string_lossy(), now).into(),
            None => self.pattern.clone().into_os_string(),
        };
        let width = match (self.rotation.size, self.rotation.count) {
            (Some(_), Some(count)) => digits(count.saturating_sub(1)),
            _ => 0,
        };
        if self.by_size > 0 || width > 0 {
            name.push(format!("{:0width$}", self.by_size));
        }
        name.into()
    }
}

/// Decimal digits of `number`; none for 0, as tcpdump's `-W 1` adds no number.
fn digits(number: u32) -> usize {
    number.checked_ilog10().map_or(0, |log| log as usize + 1)
}

pub fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Waits for its reader. Creates nothing: where everybody may write, the kernel lets root not even
/// try that with somebody else's FIFO (`fs.protected_fifos`), and whoever names it may not be
/// trusted with other files.
///
/// # Errors
/// There is none.
pub fn open_fifo(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let meta = file
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    ensure!(meta.file_type().is_fifo(), "{} is no FIFO", path.display());
    Ok(file)
}

fn create_file(path: &Path) -> Result<File> {
    if is_fifo(path) {
        return open_fifo(path);
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .with_context(|| format!("create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const SECOND: Nanos = 1_000_000_000;

    fn at(pattern: &str, now: Nanos) -> String {
        pattern.replace("%s", &(now / SECOND).to_string())
    }

    fn add(output: &mut Output, block: &[u8]) -> Result<()> {
        output.block(|out| out.extend_from_slice(block))
    }

    fn files(dir: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    /// Writes one block a second and returns what `-C -G -W` made of it.
    fn series(pattern: &str, rotation: Rotation, blocks: &[&str]) -> (Vec<(String, String)>, bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(pattern);
        let mut output = Output::create(&path, rotation, Box::new(at), 0).unwrap();
        let mut ended = false;
        for (second, block) in blocks.iter().enumerate() {
            let now = second as u64 * SECOND;
            if output.is_due(now)
                && let Err(error) = output.rotate(now)
            {
                assert!(error.is::<FileLimitReached>(), "{error:#}");
                ended = true;
                break;
            }
            add(&mut output, block.as_bytes()).unwrap();
        }
        output.flush().unwrap();
        (files(dir.path()), ended)
    }

    fn names(found: &[(String, String)]) -> Vec<&str> {
        found.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn files_of_a_size_are_numbered_from_the_second_on() {
        let rotation = Rotation {
            size: Some(1),
            ..Rotation::default()
        };
        let (found, _) = series("f", rotation, &["aa", "bb", "cc"]);
        assert_eq!(names(&found), ["f", "f1", "f2"]);
        assert_eq!(found[1].1, "bb");
    }

    #[test]
    fn a_ring_is_zero_padded_and_wraps() {
        let rotation = Rotation {
            size: Some(1),
            count: Some(11),
            ..Rotation::default()
        };
        let blocks: Vec<String> = (0..12).map(|n| format!("block {n}")).collect();
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        let (found, _) = series("f", rotation, &blocks);
        assert_eq!(found.len(), 11);
        assert_eq!(found[0], ("f00".to_owned(), "block 11".to_owned()));
        assert_eq!(found[10], ("f10".to_owned(), "block 10".to_owned()));
    }

    #[test]
    fn files_of_a_period_are_named_by_their_time_and_limited_in_number() {
        let rotation = Rotation {
            seconds: Some(2),
            count: Some(2),
            ..Rotation::default()
        };
        let (found, ended) = series("f%s", rotation, &["a", "b", "c", "d", "e"]);
        assert_eq!(names(&found), ["f0", "f2"]);
        assert_eq!(found[1].1, "cd");
        assert!(ended);
    }

    #[test]
    fn the_command_gets_the_name_of_each_finished_file() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("z");
        std::fs::write(&script, "#!/bin/sh\necho $(nice) > $1.done\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        let rotation = Rotation {
            size: Some(1),
            command: Some(script.display().to_string()),
            ..Rotation::default()
        };
        let path = dir.path().join("f");
        let mut output = Output::create(&path, rotation, Box::new(at), 0).unwrap();
        add(&mut output, b"aa").unwrap();
        output.rotate(1).unwrap();
        for child in &mut output.children {
            assert!(child.wait().unwrap().success());
        }
        let done = std::fs::read_to_string(dir.path().join("f.done")).unwrap();
        assert_eq!(done.trim(), "19");
    }

    #[test]
    fn files_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        Output::create(&path, Rotation::default(), Box::new(at), 0).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_failed_write_leaves_whole_blocks_and_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut output = Output::create(&path, Rotation::default(), Box::new(at), 0).unwrap();
        add(&mut output, b"first").unwrap();
        output.flush().unwrap();
        add(&mut output, b"second").unwrap();
        add(&mut output, b"third").unwrap();
        // What a full disk does: a part is written, then comes the error.
        let Target::File(file) = &mut output.target else {
            panic!()
        };
        file.write_all(b"secondth").unwrap();
        let error = output.give_up(8, io::Error::from(io::ErrorKind::StorageFull));
        assert!(
            format!("{error:#}").contains(path.to_str().unwrap()),
            "{error:#}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "firstsecond");
        add(&mut output, b"fourth").unwrap();
        output.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "firstsecond");
    }

    #[test]
    fn blocks_across_writes_are_whole_in_the_end_and_cut_off_at_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut output = Output::create(&path, Rotation::default(), Box::new(at), 0).unwrap();
        let block: Vec<u8> = (0..PIECE / 3).map(|n| n as u8).collect();
        let mut all = Vec::new();
        while all.len() < 5 * BUFFER {
            add(&mut output, &block).unwrap();
            all.extend_from_slice(&block);
            let written = std::fs::read(&path).unwrap();
            assert!(written.len().is_multiple_of(PIECE) && all.starts_with(&written));
        }
        let whole = output.written as usize / block.len() * block.len();
        assert_ne!(whole as u64, output.written, "a block lies across the end");
        output.give_up(0, io::Error::from(io::ErrorKind::StorageFull));
        assert!(std::fs::read(&path).unwrap() == all[..whole]);
    }

    #[test]
    fn a_full_device_is_named_in_the_error() {
        let path = Path::new("/dev/full");
        let mut output = Output::create(path, Rotation::default(), Box::new(at), 0).unwrap();
        add(&mut output, b"x").unwrap();
        let error = output.flush().unwrap_err();
        assert!(
            format!("{error:#}").starts_with("write /dev/full"),
            "{error:#}"
        );
        output.flush().unwrap();
    }

    #[test]
    fn a_file_is_no_terminal() {
        refuse_terminal(Path::new("/dev/null")).unwrap();
        refuse_terminal(Path::new("/nowhere/at/all")).unwrap();
    }
}
