//! The protocol of `MySQL` and `MariaDB`: commands, and what became of them.

use super::detect::{First, Look, Side};
use super::lines::{Grammar, Last, Piece, Told};
use super::message::Protocol;
use super::phrase::{self, HIDDEN, Phrase};
use super::reader::Reader;
use std::collections::HashMap;

const HEADER: usize = 4;
/// A payload of this length goes on in the next packet.
const MAX_PAYLOAD: u32 = 0xff_ffff;
/// Statements of a connection whose text is remembered, and how much of each.
const MAX_NAMED: usize = 256;
const MAX_SQL: usize = 1024;

const CONNECT_WITH_DB: u32 = 1 << 3;
const COMPRESS: u32 = 1 << 5;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const LENENC_AUTH: u32 = 1 << 21;
const QUERY_ATTRIBUTES: u32 = 1 << 27;
/// In a status: another result follows.
const MORE_RESULTS: u16 = 1 << 3;

#[derive(Debug, Default)]
pub struct Mysql {
    state: State,
    has_attributes: bool,
    /// By the numbers that the server gave them.
    statements: HashMap<u32, Vec<u8>>,
    prepared: Option<Vec<u8>>,
    /// The client's last packet was as long as packets are: the next one belongs to it.
    is_continued: [bool; 2],
    rows: u64,
    row_bytes: u64,
    columns: u64,
}

/// What the server says next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing that we know the meaning of.
    #[default]
    Idle,
    Login,
    /// The first packet of the answer to a command.
    Answer,
    PrepareAnswer,
    /// A text and nothing else.
    Text,
    /// So many descriptions of columns, then perhaps an end of them.
    Columns(u64),
    Rows,
}

impl Grammar for Mysql {
    const PROTOCOL: Protocol = Protocol::Mysql;

    fn piece(&self, _side: Side, bytes: &[u8]) -> Piece {
        match Reader::new(bytes).u24_le() {
            Some(len) => Piece::Len(u64::from(len).saturating_add(HEADER as u64)),
            None => Piece::More,
        }
    }

    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool {
        let mut reader = Reader::new(head);
        let whole = reader.u24_le();
        let sequence = reader.u8().unwrap_or_default();
        let [of_client, of_server] = &mut self.is_continued;
        let is_continued = match side {
            Side::Client => of_client,
            Side::Server => of_server,
        };
        let belongs = std::mem::replace(is_continued, whole == Some(MAX_PAYLOAD));
        if belongs {
            self.row_bytes = self.row_bytes.saturating_add(len);
            return true;
        }
        let len = len.saturating_sub(HEADER as u64);
        match side {
            Side::Client if sequence == 0 => self.command(reader, told),
            Side::Client if is_login(head) => self.login(reader, told).is_some(),
            // Answers of a login method, the content of a file: secrets, or no commands.
            Side::Client => true,
            Side::Server => self.server(reader, len, told),
        }
    }

    fn lost(&mut self, _side: Side) -> Option<Phrase> {
        self.state = State::Idle;
        self.is_continued = [false; 2];
        self.prepared = None;
        self.rows = 0;
        self.row_bytes = 0;
        None
    }

    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        match side {
            Side::Client => is_command(bytes),
            Side::Server => is_first_answer(bytes),
        }
    }
}

impl Mysql {
    fn login(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) -> Option<()> {
        let capabilities = reader.u32_le()?;
        if capabilities & COMPRESS != 0 {
            return None;
        }
        self.has_attributes = capabilities & QUERY_ATTRIBUTES != 0;
        reader.take(28)?;
        let mut phrase = Phrase::of("login").pair("user", reader.zero_ended());
        let password = if capabilities & LENENC_AUTH != 0 {
            number(&mut reader)
        } else {
            reader.u8().map(u64::from)
        };
        let has_password = password.and_then(|len| reader.take(usize::try_from(len).ok()?));
        if capabilities & CONNECT_WITH_DB != 0 && has_password.is_some() {
            phrase = phrase.pair(
                "database",
                reader.zero_ended().filter(|name| !name.is_empty()),
            );
        }
        told.ask(0, phrase);
        self.state = State::Login;
        Some(())
    }

    /// False when it is no command.
    fn command(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) -> bool {
        let Some(code) = reader.u8() else {
            return false;
        };
        let rest = reader.rest();
        let phrase = match code {
            0x01 => return single(told, "quit"),
            0x02 => Phrase::of("use").word(rest),
            0x03 => phrase::sql(self.without_attributes(rest)),
            0x04 => Phrase::of("field list")
                .word(rest.split(|&byte| byte == 0).next().unwrap_or_default()),
            0x08 => Phrase::of("shutdown"),
            0x09 => Phrase::of("statistics"),
            0x0a => Phrase::of("process info"),
            0x0c => Phrase::of("kill").pair("id", reader.u32_le().map(|id| id.to_string())),
            0x0d => Phrase::of("debug"),
            0x0e => Phrase::of("ping"),
            0x11 => {
                let user = reader.zero_ended();
                Phrase::of("change user").pair("user", user).word(HIDDEN)
            }
            0x12 | 0x1e => Phrase::of("binlog dump"),
            0x15 => Phrase::of("register replica"),
            0x16 => {
                self.prepared = Some(rest.get(..MAX_SQL).unwrap_or(rest).to_vec());
                let sql = phrase::sql(rest).into_line();
                Phrase::of("prepare").word(sql)
            }
            0x17 => self.statement(&mut reader).unwrap_or(Phrase::of("execute")),
            0x18 => return single(told, "send long data"),
            0x19 => {
                let id = reader.u32_le();
                if let Some(id) = id {
                    self.statements.remove(&id);
                }
                let phrase = Phrase::of("close statement");
                told.single(phrase.pair("id", id.map(|id| id.to_string())));
                return true;
            }
            0x1a => Phrase::of("reset statement"),
            0x1b => Phrase::of("set option"),
            0x1c => Phrase::of("fetch"),
            0x1f => Phrase::of("reset connection"),
            0xfa => Phrase::of("bulk execute"),
            _ => return false,
        };
        self.state = match code {
            0x16 => State::PrepareAnswer,
            0x09 => State::Text,
            0x11 => State::Login,
            0x04 => State::Columns(u64::MAX),
            0x1c => State::Rows,
            _ => State::Answer,
        };
        self.rows = 0;
        self.row_bytes = 0;
        told.ask(0, phrase);
        true
    }

    /// The text of a query behind its attributes, of which mostly there are none.
    fn without_attributes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let may_have = self.has_attributes || !phrase::is_sql(text);
        text.strip_prefix(b"\0\x01")
            .filter(|_| may_have)
            .unwrap_or(text)
    }

    fn statement(&self, reader: &mut Reader<'_>) -> Option<Phrase> {
        let id = reader.u32_le()?;
        Some(phrase::sql(self.statements.get(&id)?))
    }

    /// False when the answer makes no sense.
    fn server(&mut self, mut reader: Reader<'_>, len: u64, told: &mut Told<'_, '_>) -> bool {
        let first = reader.rest().first().copied();
        // The end of columns or rows: EOF, or OK in its place.
        let is_end = first == Some(0xfe) && len < u64::from(MAX_PAYLOAD);
        match (self.state, first) {
            (State::Idle, _) => {}
            (State::Text, _) => self.finish(Phrase::of(reader.rest()), told),
            (_, Some(0xff)) => self.finish(error(reader), told),
            (State::Login | State::Answer, Some(0)) => self.ok(reader, told),
            (State::Login, _) => told.begin_answer(),
            (State::PrepareAnswer, Some(0)) => self.prepare_answer(reader, told),
            (State::PrepareAnswer, _) => return false,
            (State::Answer, Some(0xfb)) => told.begin_answer(),
            (State::Answer, Some(0xfe)) => self.finish(Phrase::of("ok"), told),
            (State::Answer, _) => {
                told.begin_answer();
                let Some(columns) = number(&mut reader) else {
                    return false;
                };
                self.columns = columns;
                // MariaDB may leave the descriptions out that it sent before.
                self.state = match reader.u8() {
                    Some(0) => State::Rows,
                    _ => State::Columns(columns),
                };
            }
            (State::Columns(u64::MAX), _) if is_end => self.finish(Phrase::of("ok"), told),
            (State::Columns(u64::MAX), _) => {}
            (State::Columns(0), _) if is_end && len == 5 => {
                self.state = State::Rows;
                reader.take(3);
                // A cursor is open: the rows are fetched one by one.
                let status = reader.u16_le().unwrap_or_default();
                if status & (1 << 6) != 0 {
                    self.finish(Phrase::of("cursor"), told);
                }
            }
            (State::Columns(0) | State::Rows, _) if is_end => {
                reader.u8();
                let status = if len == 5 {
                    reader.u16_le();
                    reader.u16_le()
                } else {
                    number(&mut reader);
                    number(&mut reader);
                    reader.u16_le()
                };
                self.end_rows(status.unwrap_or_default(), told);
            }
            (State::Columns(0) | State::Rows, _) => {
                self.state = State::Rows;
                self.rows = self.rows.saturating_add(1);
                self.row_bytes = self.row_bytes.saturating_add(len);
            }
            (State::Columns(left), _) => self.state = State::Columns(left.saturating_sub(1)),
        }
        true
    }

    fn end_rows(&mut self, status: u16, told: &mut Told<'_, '_>) {
        let rows = std::mem::take(&mut self.rows);
        let size = std::mem::take(&mut self.row_bytes);
        let phrase = Phrase::of("rows").word(rows.to_string()).size(size);
        if status & MORE_RESULTS != 0 {
            self.state = State::Answer;
            told.answer_oldest(Last::No, phrase);
        } else {
            self.finish(phrase, told);
        }
    }

    fn ok(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) {
        reader.u8();
        let affected = number(&mut reader).filter(|rows| *rows > 0);
        let id = number(&mut reader).filter(|id| *id > 0);
        let status = reader.u16_le().unwrap_or_default();
        let phrase = Phrase::of("ok")
            .pair("affected", affected.map(|rows| rows.to_string()))
            .pair("id", id.map(|id| id.to_string()));
        if status & MORE_RESULTS != 0 && self.state == State::Answer {
            told.answer_oldest(Last::No, phrase);
        } else {
            self.finish(phrase, told);
        }
    }

    fn prepare_answer(&mut self, mut reader: Reader<'_>, told: &mut Told<'_, '_>) {
        reader.u8();
        let id = reader.u32_le();
        if let (Some(id), Some(sql)) = (id, self.prepared.take())
            && self.statements.len() < MAX_NAMED
        {
            self.statements.insert(id, sql);
        }
        let phrase = Phrase::of("prepared").pair("id", id.map(|id| id.to_string()));
        self.finish(phrase, told);
    }

    fn finish(&mut self, phrase: Phrase, told: &mut Told<'_, '_>) {
        self.state = State::Idle;
        told.answer_oldest(Last::Yes, phrase);
    }
}

fn single(told: &mut Told<'_, '_>, text: &str) -> bool {
    told.single(Phrase::of(text));
    true
}

/// `ERROR 1146 42S02 Table 'a.b' doesn't exist`
fn error(mut reader: Reader<'_>) -> Phrase {
    reader.u8();
    let code = reader.u16_le().unwrap_or_default();
    let rest = reader.rest();
    let phrase = Phrase::of("ERROR").word(code.to_string());
    match rest
        .strip_prefix(b"#")
        .and_then(|rest| rest.split_at_checked(5))
    {
        Some((state, text)) => phrase.word(state).word(text),
        None => phrase.word(rest),
    }
}

/// A length-encoded number.
fn number(reader: &mut Reader<'_>) -> Option<u64> {
    match reader.u8()? {
        0xfc => reader.u16_le().map(u64::from),
        0xfd => reader.u24_le().map(u64::from),
        0xfe => reader.u64_le(),
        0xfb | 0xff => None,
        small => Some(small.into()),
    }
}

pub fn look(first: &First<'_>) -> Look {
    let bytes = first.bytes;
    if first.side == Some(Side::Server) {
        return Look::No;
    }
    if is_login(bytes) || is_query(bytes) {
        return Look::Is(Side::Client);
    }
    // Servers read the header by itself.
    let is_header = match bytes {
        [low, _, 0, 1 | 2] => *low >= 32 || first.is_likely("mysql", PORTS),
        [_, _, 0, 0] => first.is_likely("mysql", PORTS),
        _ => false,
    };
    if is_header { Look::Part } else { Look::No }
}

const PORTS: &[u16] = &[3306];

/// The answer to the server's handshake, the first packet inside TLS: 19 bytes of it are zero.
fn is_login(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let Some(len) = reader.u24_le() else {
        return false;
    };
    let sequence = reader.u8();
    let capabilities = reader.u32_le().unwrap_or_default();
    let wanted = PROTOCOL_41 | SSL;
    if !(33..4096).contains(&len)
        || !matches!(sequence, Some(1 | 2))
        || capabilities & wanted != wanted
    {
        return false;
    }
    reader.take(5);
    let filler = reader.take(19).unwrap_or(b"x");
    reader.take(4);
    let user = reader.zero_ended().unwrap_or(b"\0");
    filler.iter().all(|&byte| byte == 0) && phrase::is_text(user)
}

/// A query in one packet, and nothing after it.
fn is_query(bytes: &[u8]) -> bool {
    let Some(body) = one_packet(bytes) else {
        return false;
    };
    match body.split_first() {
        Some((0x03 | 0x16, text)) => phrase::is_sql(text.strip_prefix(b"\0\x01").unwrap_or(text)),
        _ => false,
    }
}

/// A command in one packet.
fn is_command(bytes: &[u8]) -> bool {
    let fixed = |body: &[u8]| match body.first() {
        Some(0x01 | 0x09 | 0x0d | 0x0e | 0x1f) => body.len() == 1,
        Some(0x17) => body.len() >= 10,
        Some(0x19 | 0x1a) => body.len() == 5,
        _ => false,
    };
    is_query(bytes) || one_packet(bytes).is_some_and(fixed)
}

/// The payload, when its sequence begins.
fn one_packet(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    let len = reader.u24_le()?;
    let sequence = reader.u8()?;
    let body = reader.rest();
    (sequence == 0 && u32::try_from(body.len()) == Ok(len)).then_some(body)
}

/// The first packet of an answer.
fn is_first_answer(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let Some(len) = reader.u24_le() else {
        return false;
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let is_first = reader.u8() == Some(1);
    let body = reader.rest();
    match body.first() {
        Some(0) => is_first && len >= 7 && body.len() == len,
        Some(0xff) => is_first && len >= 3 && body.len() == len,
        Some(_) => is_first && len == 1 && body.len() > len,
        None => false,
    }
}
