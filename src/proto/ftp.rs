//! The control connection of FTP over TLS (RFC 959, 4217): commands and replies.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told, are_pieces};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};

const VERBS: &[&str] = &[
    "USER", "PASS", "ACCT", "CWD", "CDUP", "SMNT", "REIN", "QUIT", "PORT", "PASV", "TYPE", "STRU",
    "MODE", "RETR", "STOR", "STOU", "APPE", "ALLO", "REST", "RNFR", "RNTO", "ABOR", "DELE", "RMD",
    "MKD", "PWD", "LIST", "NLST", "SITE", "SYST", "STAT", "HELP", "NOOP", "FEAT", "OPTS", "AUTH",
    "PBSZ", "PROT", "CCC", "EPRT", "EPSV", "MDTM", "SIZE", "MLST", "MLSD", "HOST", "LANG", "CLNT",
    "MFMT", "HASH",
];

/// Replies that no other protocol of this kind has.
const TYPICAL: &[&str] = &[
    "150 ",
    "200 PBSZ",
    "226 ",
    "227 ",
    "229 ",
    "230 Login",
    "257 \"",
    "331 ",
];

#[derive(Debug, Default)]
pub struct Ftp {
    /// The first line of a reply of several.
    reply: Option<Vec<u8>>,
}

impl Grammar for Ftp {
    const PROTOCOL: Protocol = Protocol::Ftp;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let is_sane = match side {
            Side::Server if self.reply.is_some() => !line.contains(&0),
            Side::Server => is_reply(line),
            Side::Client => match end {
                Some(_) => is_command(line),
                None => phrase::is_text(line),
            },
        };
        match end {
            _ if !is_sane => Piece::Wrong,
            Some(end) => Piece::Len(end as u64),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], _len: u64, told: &mut Told<'_, '_>) -> bool {
        let line = head.trim_ascii_end();
        if side == Side::Client {
            let phrase = match verb(line) {
                Some(verb @ ("PASS" | "ACCT")) => Phrase::of(verb).word(HIDDEN),
                _ => Phrase::of(line),
            };
            told.ask(0, phrase);
            return true;
        }
        if let Some(first) = &self.reply {
            // Lines between the first and the last may be anything (RFC 959, section 4.2).
            let is_last = line.get(..3) == first.get(..3) && line.get(3) == Some(&b' ');
            if !is_last {
                return true;
            }
        } else if line.get(3) == Some(&b'-') {
            told.begin_answer();
            self.reply = Some(line.to_vec());
            return true;
        }
        let first = self.reply.take();
        let shown = first.as_deref().unwrap_or(line);
        let text = shown.get(4..).unwrap_or_default();
        let phrase = Phrase::of(line.get(..3).unwrap_or_default()).word(text);
        match line.first() {
            Some(b'2') if told.oldest().is_none() => told.single(phrase),
            // Another reply follows at the end of the transfer.
            Some(b'1') => told.answer_oldest(Last::No, phrase),
            _ => told.answer_oldest(Last::Yes, phrase),
        }
        true
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        if side == Side::Server {
            self.reply = None;
        }
        None
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        let line = bytes.split(|&byte| byte == b'\n').next();
        let is_sure = side == Side::Server || line.is_some_and(|line| verb(line).is_some());
        is_sure && are_pieces(&Ftp::default(), side, bytes)
    }
}

/// Three or four letters, as all commands are: servers refuse those that they do not know.
fn is_command(line: &[u8]) -> bool {
    let word = line.split(u8::is_ascii_whitespace).next();
    let word = word.unwrap_or_default();
    let is_word = matches!(word.len(), 3 | 4) && word.iter().all(u8::is_ascii_alphabetic);
    is_word && phrase::is_text(line)
}

fn verb(line: &[u8]) -> Option<&'static str> {
    let word = line.split(u8::is_ascii_whitespace).next()?;
    let is = |verb: &&&str| word.eq_ignore_ascii_case(verb.as_bytes());
    VERBS.iter().find(is).copied()
}

/// `150 text`, or the beginning of such.
fn is_reply(line: &[u8]) -> bool {
    let is_code = line.iter().take(3).enumerate().all(|(at, byte)| match at {
        0 => (b'1'..=b'6').contains(byte),
        1 => (b'0'..=b'5').contains(byte),
        _ => byte.is_ascii_digit(),
    });
    let mark = line.get(3);
    let is_mark = mark.is_none_or(|byte| matches!(byte, b' ' | b'-' | b'\r' | b'\n'));
    is_code && is_mark && !line.contains(&0)
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    let is_likely = first.is_likely("ftp", &[21, 990]);
    let is_whole = bytes.ends_with(b"\n") && phrase::is_text(bytes);
    if !is_whole {
        return Look::No;
    }
    let line = bytes.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    if first.side != Some(Side::Client) && is_reply(line) && line.len() > 3 {
        let says_so = line
            .windows(3)
            .any(|word| word.eq_ignore_ascii_case(b"FTP"));
        let is_typical = TYPICAL
            .iter()
            .any(|begin| line.starts_with(begin.as_bytes()));
        if is_typical || line.starts_with(b"220") && (says_so || is_likely) {
            return Look::Is(Side::Server);
        }
    }
    // With explicit TLS the greeting was in the clear, and this comes first.
    let is_first = line == b"PBSZ 0" || line.starts_with(b"PROT ") && line.len() == 6;
    let is_command = is_first || is_likely && verb(line).is_some();
    if first.side != Some(Side::Server) && is_command {
        return Look::Is(Side::Client);
    }
    Look::No
}
