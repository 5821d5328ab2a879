//! PostgreSQL's protocol 3 (its manual, chapter "Frontend/Backend Protocol"): statements, what
//! became of them, errors with SQLSTATE, notifications.

use super::detect::{First, Look, Match, Side, starts};
use super::lines::{Grammar, Last, Piece, Told, are_pieces};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};
use super::reader::Reader;
use std::collections::HashMap;

/// Longest startup packet that a server takes.
const MAX_STARTUP: u32 = 10_000;
/// Longest message (the server's `MaxAllocSize`).
const MAX_MESSAGE: u32 = 1 << 30;
/// Statements and portals of a connection whose text is remembered.
const MAX_NAMED: usize = 256;
/// Remembered of a statement: more than a line shows.
const MAX_SQL: usize = 1024;

const CANCEL: u32 = 80_877_102;
const TYPES_OF_CLIENT: &[u8] = b"QPBECDHSFXpdcf";
const TYPES_OF_SERVER: &[u8] = b"RSKZTDCENAI123sntGHWVvdc";

/// The kinds of commands, in the low bits of their keys; the batch is above them.
const STARTUP: u64 = 0;
const STATEMENT: u64 = 1;
const PARSE: u64 = 2;
/// A simple query: it may hold several statements, all answered before `ReadyForQuery`.
const QUERY: u64 = 3;
const KINDS: u64 = 4;

#[derive(Debug, Default)]
pub struct Postgres {
    /// By the names that the client gave them, the empty one too.
    statements: HashMap<Vec<u8>, Vec<u8>>,
    portals: HashMap<Vec<u8>, Vec<u8>>,
    /// A statement that was parsed and not executed so far.
    parsed: Option<Vec<u8>>,
    /// What the client sends up to a Sync is one batch, which the server ends with `ReadyForQuery`.
    batch: u64,
    rows: u64,
    row_bytes: u64,
    version: Option<Vec<u8>>,
}

impl Grammar for Postgres {
    const PROTOCOL: Protocol = Protocol::Postgres;

    fn piece(&self, side: Side, bytes: &[u8]) -> Piece {
        let mut reader = Reader::new(bytes);
        let types = match side {
            Side::Client => TYPES_OF_CLIENT,
            Side::Server => TYPES_OF_SERVER,
        };
        match bytes.first() {
            Some(0) if side == Side::Client => match reader.u32() {
                Some(len) if !(8..=MAX_STARTUP).contains(&len) => Piece::Wrong,
                Some(len) => Piece::Len(len.into()),
                None => Piece::More,
            },
            Some(kind) if types.contains(kind) => {
                reader.u8();
                match reader.u32() {
                    Some(len) if !(4..MAX_MESSAGE).contains(&len) => Piece::Wrong,
                    Some(len) => Piece::Len(u64::from(len).saturating_add(1)),
                    None => Piece::More,
                }
            }
            _ => Piece::Wrong,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let mut reader = Reader::new(head);
        match side {
            Side::Client if head.first() == Some(&0) => self.startup(reader, told).is_some(),
            Side::Client => {
                let kind = reader.u8().unwrap_or_default();
                reader.take(4);
                self.client(kind, reader, told);
                true
            }
            Side::Server => {
                let kind = reader.u8().unwrap_or_default();
                reader.take(4);
                self.server(kind, reader, len.saturating_sub(5), told);
                true
            }
        }
    }

    fn lost(&mut self, side: Side) -> Option<Phrase> {
        self.rows = 0;
        self.row_bytes = 0;
        let parsed = self.parsed.take().filter(|_| side == Side::Client)?;
        Some(Phrase::of("parse").word(phrase::sql(&parsed).into_line()))
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        match side {
            Side::Client => is_batch(bytes),
            Side::Server => are_pieces(self, side, bytes),
        }
    }
}

impl Postgres {
    fn startup(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) -> Option<()> {
        reader.u32()?;
        let code = reader.u32()?;
        if code == CANCEL {
            told.single(Phrase::of("cancel").pair("pid", reader.u32().map(|pid| pid.to_string())));
            return Some(());
        }
        if code >> 16 != 3 {
            return None;
        }
        let mut phrase = Phrase::of("startup");
        while let Some(name) = reader.zero_ended().filter(|name| !name.is_empty()) {
            let Some(value) = reader.zero_ended() else {
                break;
            };
            if matches!(name, b"user" | b"database" | b"application_name") {
                phrase = phrase.word(name).join("=").join(value);
            }
        }
        told.ask(self.key(STARTUP), phrase);
        Some(())
    }

    fn key(&self, kind: u64) -> u64 {
        self.batch.saturating_mul(KINDS).saturating_add(kind)
    }

    fn client(&mut self, kind: u8, mut reader: Reader<'_>, told: &mut Told<'_, '_>) {
        match kind {
            b'Q' => {
                told.ask(self.key(QUERY), phrase::sql(text(&mut reader)));
                self.batch = self.batch.saturating_add(1);
            }
            b'P' => {
                self.flush(told);
                let name = text(&mut reader);
                let sql = text(&mut reader);
                remember(&mut self.statements, name, sql);
                self.parsed = Some(sql.get(..MAX_SQL).unwrap_or(sql).to_vec());
            }
            b'B' => {
                let portal = text(&mut reader);
                let statement = text(&mut reader);
                let sql = self.statements.get(statement).cloned().unwrap_or_default();
                remember(&mut self.portals, portal, &sql);
            }
            b'E' => {
                let sql = self
                    .portals
                    .get(text(&mut reader))
                    .filter(|sql| !sql.is_empty());
                if sql == self.parsed.as_ref() {
                    self.parsed = None;
                }
                let phrase = match sql {
                    Some(sql) => phrase::sql(sql),
                    None => Phrase::of("execute"),
                };
                told.ask(self.key(STATEMENT), phrase);
            }
            b'F' => {
                told.ask(self.key(STATEMENT), Phrase::of("function call"));
                self.batch = self.batch.saturating_add(1);
            }
            b'S' => {
                self.flush(told);
                self.batch = self.batch.saturating_add(1);
            }
            b'H' => self.flush(told),
            b'p' => told.single(Phrase::of("password").word(HIDDEN)),
            b'X' => told.single(Phrase::of("terminate")),
            b'f' => told.single(Phrase::of("copy failed:").word(text(&mut reader))),
            _ => {}
        }
    }

    /// A statement was prepared, to be executed later.
    fn flush(&mut self, told: &mut Told<'_, '_>) {
        if let Some(sql) = self.parsed.take() {
            told.ask(
                self.key(PARSE),
                Phrase::of("parse").word(phrase::sql(&sql).into_line()),
            );
        }
    }

    fn server(&mut self, kind: u8, mut reader: Reader<'_>, len: u64, told: &mut Told<'_, '_>) {
        match kind {
            b'D' => {
                told.begin_answer();
                self.rows = self.rows.saturating_add(1);
                self.row_bytes = self.row_bytes.saturating_add(len);
            }
            b'T' | b'G' | b'H' | b'W' | b'R' => told.begin_answer(),
            b'S' if text(&mut reader) == b"server_version" => {
                self.version = Some(text(&mut reader).to_vec());
            }
            b'C' => {
                let phrase = self.with_rows(Phrase::of(text(&mut reader)), false);
                told.answer_oldest(last(told), phrase);
            }
            b's' => {
                let phrase = self.with_rows(Phrase::of("suspended"), true);
                told.answer_oldest(Last::Yes, phrase);
            }
            b'I' => told.answer_oldest(last(told), Phrase::of("empty query")),
            b'V' => told.answer_oldest(Last::No, Phrase::of("function result").size(len)),
            b'1' if told.oldest().is_some_and(|key| key % KINDS == PARSE) => {
                told.answer_oldest(Last::Yes, Phrase::of("parsed"));
            }
            b'E' => {
                self.with_rows(Phrase::new(), false);
                told.answer_oldest(Last::No, notice(reader));
            }
            b'N' => told.single(notice(reader)),
            b'A' => {
                reader.u32();
                let channel = text(&mut reader);
                told.single(
                    Phrase::of("notification")
                        .word(channel)
                        .word(text(&mut reader)),
                );
            }
            b'Z' => self.ready(told),
            _ => {}
        }
    }

    fn ready(&mut self, told: &mut Told<'_, '_>) {
        if told.oldest().is_some_and(|key| key % KINDS == STARTUP) {
            let version = self.version.take();
            told.answer_oldest(Last::Yes, Phrase::of("ready").pair("version", version));
            return;
        }
        let oldest = told.oldest().map(|key| key / KINDS);
        if let Some(batch) = oldest.filter(|batch| *batch < self.batch) {
            told.settle(|key| key / KINDS <= batch);
        }
    }

    /// Forgets the rows that were counted, and tells them.
    fn with_rows(&mut self, phrase: Phrase, counts: bool) -> Phrase {
        let rows = std::mem::take(&mut self.rows);
        let size = std::mem::take(&mut self.row_bytes);
        match (rows, counts) {
            (0, _) => phrase,
            (_, true) => phrase.word(rows.to_string()).size(size),
            (_, false) => phrase.size(size),
        }
    }
}

fn last(told: &Told<'_, '_>) -> Last {
    if told.oldest().is_some_and(|key| key % KINDS == QUERY) {
        Last::No
    } else {
        Last::Yes
    }
}

fn remember(known: &mut HashMap<Vec<u8>, Vec<u8>>, name: &[u8], sql: &[u8]) {
    if known.len() < MAX_NAMED || known.contains_key(name) {
        let sql = sql.get(..MAX_SQL).unwrap_or(sql);
        known.insert(name.to_vec(), sql.to_vec());
    }
}

/// A string up to its zero byte, or to the end where that is missing.
fn text<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    match reader.zero_ended() {
        Some(text) => text,
        None => reader.take_up_to(usize::MAX),
    }
}

/// `ERROR 42P01 relation "x" does not exist`
fn notice(mut reader: Reader<'_>) -> Phrase {
    let [mut severity, mut code, mut message] = [b"".as_slice(); 3];
    while let Some(field) = reader.u8().filter(|field| *field != 0) {
        let value = text(&mut reader);
        match field {
            // Not translated, unlike S.
            b'V' => severity = value,
            b'S' if severity.is_empty() => severity = value,
            b'C' => code = value,
            b'M' => message = value,
            _ => {}
        }
    }
    Phrase::of(severity).word(code).word(message)
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    if first.side != Some(Side::Server) {
        match startup(bytes) {
            Match::Whole => return Look::Is(Side::Client),
            Match::Part => return Look::Part,
            Match::No => {}
        }
        if is_batch(bytes) {
            return Look::Is(Side::Client);
        }
    }
    if first.side != Some(Side::Client) && is_answer(bytes) {
        return Look::Is(Side::Server);
    }
    Look::No
}

/// A startup packet with a user, or a request to cancel.
fn startup(bytes: &[u8]) -> Match {
    const PROTOCOL_3_AND_USER: &[u8] = b"\0\x03\0\0user\0";
    let mut reader = Reader::new(bytes);
    let Some(len) = reader.u32() else {
        return Match::No;
    };
    if !(16..=MAX_STARTUP).contains(&len) {
        return Match::No;
    }
    if len == 16 && bytes.len() == 16 && reader.u32() == Some(CANCEL) {
        return Match::Whole;
    }
    starts(bytes.get(4..).unwrap_or_default(), PROTOCOL_3_AND_USER)
}

/// A query, or a batch of the extended protocol up to its end.
fn is_batch(bytes: &[u8]) -> bool {
    if !are_pieces(&Postgres::default(), Side::Client, bytes) {
        return false;
    }
    let body = bytes.get(5..).unwrap_or_default();
    match bytes.first() {
        Some(b'Q') => {
            let text = body.strip_suffix(b"\0").unwrap_or_default();
            phrase::is_text(text) && phrase::is_sql(text)
        }
        Some(b'P' | b'B' | b'D' | b'E') => {
            bytes.ends_with(b"S\0\0\0\x04") || bytes.ends_with(b"H\0\0\0\x04")
        }
        _ => false,
    }
}

/// Messages of a server up to `ReadyForQuery`.
fn is_answer(bytes: &[u8]) -> bool {
    let end = bytes.len().checked_sub(6).and_then(|at| bytes.get(at..));
    let is_ready = matches!(end, Some([b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E']));
    is_ready && are_pieces(&Postgres::default(), Side::Server, bytes)
}
