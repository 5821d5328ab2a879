//! What the protocols have in common of which a command and its answer are told in a line each:
//! pieces are put together, losses survived, answers found their commands.

use super::detect::Side;
use super::message::{Asked, Message, Part, Protocol, Subject};
use super::phrase::Phrase;
use super::{At, Context, Dialog, half, other};
use crate::event::Dir;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::rc::Rc;

/// Commands of one connection that may wait for their answers.
const MAX_ASKED: usize = 1024;

/// How long the next piece of a half is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes.
    Len(u64),
    /// That stands in bytes that have not come.
    More,
    /// These bytes are not this protocol.
    Wrong,
}

/// What makes a protocol: where its pieces end, and what they say. Total: the bytes are foreign.
pub trait Grammar: Debug + Default {
    const PROTOCOL: Protocol;
    /// Bytes of a piece that are put together and looked at; the rest is passed over.
    const HEAD: usize = 4096;
    /// An answer names the command that it is for, so that losses do not matter.
    const IS_KEYED: bool = false;

    /// Where the piece ends that begins with these bytes, of which there is at least one.
    fn piece(&self, side: Side, bytes: &[u8]) -> Piece;

    /// Takes the beginning of a piece of `len` bytes: [`Grammar::HEAD`] of them, or fewer when the
    /// others were lost. False when it makes no sense.
    fn take(&mut self, side: Side, head: &[u8], len: u64, told: &mut Told<'_, '_>) -> bool;

    /// Bytes of the half were lost, and it begins anew. What it was about to say, as far as that
    /// is known: nothing may vanish.
    fn lost(&mut self, _side: Side) -> Option<Phrase> {
        None
    }

    /// Whether a call of this half certainly begins with a piece.
    fn begins(&self, side: Side, bytes: &[u8]) -> bool {
        are_pieces(&Self::default(), side, bytes)
    }
}

/// Whether bytes are nothing but pieces, the last one whole.
pub fn are_pieces<G: Grammar>(grammar: &G, side: Side, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let Piece::Len(len) = grammar.piece(side, rest) else {
            return false;
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match rest.get(len..) {
            Some(after) if len > 0 => rest = after,
            _ => return false,
        }
    }
    !bytes.is_empty()
}

/// Both halves of a connection.
#[derive(Debug)]
pub struct Lines<G> {
    client: Dir,
    grammar: G,
    halves: [Half; 2],
    pairs: Pairs,
}

#[derive(Debug, Default)]
struct Half {
    /// The beginning of a piece that is not whole, and when it came.
    head: Vec<u8>,
    since: At,
    /// Bytes of the last piece that are still to come, and are passed over.
    skip: u64,
    /// Until a call begins with a piece.
    is_lost: bool,
}

/// Commands without an answer.
#[derive(Debug, Default)]
struct Pairs {
    waiting: VecDeque<Waiting>,
    /// When the answer began that is being read.
    answer: Option<(Dir, At)>,
    /// A command was sent while another had no answer.
    is_pipelined: bool,
    /// Something was lost of pipelined commands: nothing can be told any more.
    is_blind: bool,
    /// When the last answer without a command began: its command may be told late.
    orphan: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    key: u64,
    asked: Rc<Asked>,
    is_answered: bool,
    /// Its answer may have been lost.
    is_unsure: bool,
}

impl<G: Grammar + 'static> Lines<G> {
    pub fn boxed(client: Dir) -> Box<dyn Dialog> {
        Box::new(Lines {
            client,
            grammar: G::default(),
            halves: Default::default(),
            pairs: Pairs::default(),
        })
    }
}

impl<G: Grammar> Dialog for Lines<G> {
    fn data(
        &mut self,
        dir: Dir,
        at: At,
        bytes: &[u8],
        is_start: bool,
        context: &mut Context<'_>,
    ) -> usize {
        if self.half(dir).is_lost {
            if !is_start || !self.grammar.begins(self.side(dir), bytes) {
                return 0;
            }
            self.half(dir).is_lost = false;
        }
        let mut used = 0usize;
        loop {
            let half = self.half(dir);
            let rest = bytes.get(used..).unwrap_or_default();
            let skipped = usize::try_from(half.skip).unwrap_or(usize::MAX);
            let skipped = skipped.min(rest.len());
            half.skip = half.skip.saturating_sub(skipped as u64);
            used = used.saturating_add(skipped);
            let rest = rest.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                return bytes.len();
            }
            match self.step(dir, at, rest, context) {
                Some(count) => used = used.saturating_add(count),
                None => {
                    self.lose(dir, at, context);
                    return used;
                }
            }
        }
    }

    fn gap(&mut self, dir: Dir, at: At, len: u64, context: &mut Context<'_>) {
        if let Some(skip) = self.half(dir).skip.checked_sub(len) {
            self.half(dir).skip = skip;
            return;
        }
        // The beginning of a piece may say enough, and where the next one begins.
        let side = self.side(dir);
        let since = self.half(dir).since;
        let head = std::mem::take(&mut self.half(dir).head);
        if !head.is_empty()
            && let Piece::Len(whole) = self.grammar.piece(side, &head)
            && let Some(skip) = whole
                .checked_sub(head.len() as u64)
                .and_then(|rest| rest.checked_sub(len))
            && let Some(more) = self.take(dir, at, &head, whole, true, context)
        {
            self.half(dir).skip = skip.saturating_add(more);
            return;
        }
        context.give_back(dir, since, head);
        self.lose(dir, at, context);
    }

    fn end(&mut self, dir: Option<Dir>, at: At, context: &mut Context<'_>) {
        for each in [Dir::Out, Dir::In] {
            if dir.is_none_or(|dir| dir == each) {
                self.incomplete(each, at, context);
            }
        }
        if dir.is_none() {
            self.pairs.settle(|_| true, at, G::PROTOCOL, context);
        }
    }
}

impl<G: Grammar> Lines<G> {
    fn half(&mut self, dir: Dir) -> &mut Half {
        let [out, input] = &mut self.halves;
        if half(dir) == 0 { out } else { input }
    }

    fn side(&self, dir: Dir) -> Side {
        if dir == self.client {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// The bytes that were used, at least one; `None` when they are not this protocol.
    fn step(&mut self, dir: Dir, at: At, bytes: &[u8], context: &mut Context<'_>) -> Option<usize> {
        let side = self.side(dir);
        let half = self.half(dir);
        if half.head.is_empty() {
            half.since = at;
            let wanted = match self.grammar.piece(side, bytes) {
                Piece::Len(0) | Piece::Wrong => return None,
                Piece::Len(len) => Some((head_of::<G>(len), len)),
                Piece::More if bytes.len() >= G::HEAD => return None,
                Piece::More => None,
            };
            if let Some((wanted, len)) = wanted
                && let Some(head) = bytes.get(..wanted)
            {
                let skip = self.take(dir, at, head, len, false, context)?;
                self.half(dir).skip = skip.saturating_add(len.saturating_sub(wanted as u64));
                return Some(wanted);
            }
            self.half(dir).head.extend_from_slice(bytes);
            return Some(bytes.len());
        }
        let before = half.head.len();
        let room = G::HEAD.saturating_sub(before);
        half.head
            .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let since = half.since;
        let mut head = std::mem::take(&mut half.head);
        match self.grammar.piece(side, &head) {
            Piece::Len(len) if len > 0 && head.len() >= head_of::<G>(len) => {
                let wanted = head_of::<G>(len);
                let whole = head.get(..wanted).unwrap_or(&head);
                if let Some(skip) = self.take(dir, at, whole, len, false, context) {
                    self.half(dir).skip = skip.saturating_add(len.saturating_sub(wanted as u64));
                    return Some(wanted.saturating_sub(before));
                }
            }
            Piece::More if head.len() >= G::HEAD => {}
            Piece::Len(0) | Piece::Wrong => {}
            Piece::More | Piece::Len(_) => {
                self.half(dir).head = head;
                return Some(bytes.len().min(room));
            }
        }
        head.truncate(before);
        context.give_back(dir, since, head);
        None
    }

    /// The bytes after the piece that the grammar wants to have passed over.
    fn take(
        &mut self,
        dir: Dir,
        at: At,
        head: &[u8],
        len: u64,
        is_cut: bool,
        context: &mut Context<'_>,
    ) -> Option<u64> {
        let side = self.side(dir);
        let since = self.half(dir).since;
        let is_deaf = self.half(other(dir)).is_lost;
        let mut told = Told {
            protocol: G::PROTOCOL,
            is_keyed: G::IS_KEYED,
            dir,
            since,
            at,
            is_cut,
            is_deaf,
            skip: 0,
            pairs: &mut self.pairs,
            context,
        };
        self.grammar
            .take(side, head, len, &mut told)
            .then_some(told.skip)
    }

    /// Where the next piece begins is not known any more.
    fn lose(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        self.incomplete(dir, at, context);
        self.half(dir).is_lost = true;
        self.pairs.lose(G::IS_KEYED);
    }

    /// Nothing more of what the half has begun will come: it is told or shown as far as it goes.
    fn incomplete(&mut self, dir: Dir, at: At, context: &mut Context<'_>) {
        let side = self.side(dir);
        let half = self.half(dir);
        let since = half.since;
        half.skip = 0;
        context.give_back(dir, since, std::mem::take(&mut half.head));
        if let Some(phrase) = self.grammar.lost(side) {
            let subject = Rc::new(Subject::Line(phrase.into_line()));
            let mut message = Message::begin(G::PROTOCOL, Part::Single, dir, since, subject);
            message.is_cut = true;
            context.finish(message, at);
        }
        if let Some((_, since)) = self.pairs.answer.take_if(|(of, _)| *of == dir) {
            let subject = Rc::new(Subject::Line(b"incomplete answer".to_vec()));
            let mut message = Message::begin(G::PROTOCOL, Part::Response, dir, since, subject);
            message.is_cut = true;
            let asker = other(dir);
            let oldest = self.pairs.waiting.front_mut();
            // Only where answers come in order it is known whose this is.
            if let Some(waiting) = oldest.filter(|waiting| waiting.asked.dir == asker)
                && !G::IS_KEYED
            {
                waiting.is_answered = true;
                message.asked = Some(Rc::clone(&waiting.asked));
            }
            context.finish(message, at);
        }
    }
}

/// Bytes that are looked at of a piece of this length.
fn head_of<G: Grammar>(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(G::HEAD)
}

impl Pairs {
    fn lose(&mut self, is_keyed: bool) {
        self.answer = None;
        if is_keyed {
            for waiting in &mut self.waiting {
                waiting.is_unsure = true;
            }
            return;
        }
        // Who does not send ahead has had the answers before the next command.
        self.waiting.clear();
        self.is_blind |= self.is_pipelined;
    }

    /// The commands that this picks wait no more; those without an answer are told.
    fn settle(
        &mut self,
        is_settled: impl Fn(u64) -> bool,
        at: At,
        protocol: Protocol,
        context: &mut Context<'_>,
    ) {
        self.waiting.retain(|waiting| {
            if !is_settled(waiting.key) {
                return true;
            }
            if !waiting.is_answered && !waiting.is_unsure {
                let (dir, subject) = (waiting.asked.dir, Rc::clone(&waiting.asked.subject));
                let mut message = Message::begin(protocol, Part::Unanswered, dir, at, subject);
                message.asked = Some(Rc::clone(&waiting.asked));
                context.finish(message, at);
            }
            false
        });
    }
}

/// Takes what a piece says.
#[derive(Debug)]
pub struct Told<'a, 'b> {
    protocol: Protocol,
    is_keyed: bool,
    dir: Dir,
    since: At,
    at: At,
    /// Bytes of the piece were lost.
    pub is_cut: bool,
    /// Nothing is understood of the other half at present.
    is_deaf: bool,
    /// Bytes after the piece that are to be passed over.
    pub skip: u64,
    pairs: &'a mut Pairs,
    context: &'a mut Context<'b>,
}

/// Whether more answers to the same command will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Yes,
    No,
}

impl Told<'_, '_> {
    fn message(&self, part: Part, since: At, phrase: Phrase) -> Message {
        let subject = Rc::new(Subject::Line(phrase.into_line()));
        let mut message = Message::begin(self.protocol, part, self.dir, since, subject);
        message.is_cut = self.is_cut;
        message
    }

    /// Something that is no command and no answer.
    pub fn single(&mut self, phrase: Phrase) {
        let message = self.message(Part::Single, self.since, phrase);
        self.context.finish(message, self.at);
    }

    /// A command that waits for its answer.
    pub fn ask(&mut self, key: u64, phrase: Phrase) {
        let message = self.message(Part::Request, self.since, phrase);
        let subject = Rc::clone(&message.subject);
        let asked = Rc::new(Asked::new(message.ts, self.dir, subject));
        self.context.finish(message, self.at);
        let pairs = &mut *self.pairs;
        if !self.is_keyed {
            let is_late = pairs.orphan.take().is_some_and(|ts| asked.ts < ts);
            if is_late || pairs.is_blind {
                return;
            }
            // Who does not send ahead has had the answers before; one call is one batch.
            if self.is_deaf {
                let batch = asked.ts;
                pairs.waiting.retain(|waiting| waiting.asked.ts == batch);
            }
            pairs.is_pipelined |= pairs.waiting.iter().any(|waiting| !waiting.is_answered);
        }
        pairs.waiting.push_back(Waiting {
            key,
            asked,
            is_answered: false,
            is_unsure: false,
        });
        if pairs.waiting.len() > MAX_ASKED {
            pairs.waiting.pop_front();
        }
    }

    /// The key of the oldest command without an answer.
    pub fn oldest(&self) -> Option<u64> {
        self.pairs.waiting.front().map(|waiting| waiting.key)
    }

    /// An answer of several pieces begins, or goes on.
    pub fn begin_answer(&mut self) {
        self.pairs.answer.get_or_insert((self.dir, self.since));
    }

    /// The answer to the oldest command.
    pub fn answer_oldest(&mut self, last: Last, phrase: Phrase) {
        let asker = other(self.dir);
        let oldest = self.pairs.waiting.front();
        let at = oldest
            .filter(|waiting| waiting.asked.dir == asker)
            .map(|_| 0);
        self.answer(at, last, phrase);
    }

    /// The answer to the command with this key.
    pub fn answer_key(&mut self, key: u64, last: Last, phrase: Phrase) {
        let asker = other(self.dir);
        let mut waiting = self.pairs.waiting.iter();
        let at = waiting.position(|waiting| waiting.key == key && waiting.asked.dir == asker);
        self.answer(at, last, phrase);
    }

    fn answer(&mut self, at: Option<usize>, last: Last, phrase: Phrase) {
        let since = self
            .pairs
            .answer
            .take()
            .map_or(self.since, |(_, since)| since);
        let mut message = self.message(Part::Response, since, phrase);
        match at.and_then(|at| self.pairs.waiting.get_mut(at)) {
            Some(waiting) => {
                waiting.is_answered = true;
                message.asked = Some(Rc::clone(&waiting.asked));
            }
            None => self.pairs.orphan = Some(since.ts),
        }
        if last == Last::Yes
            && let Some(at) = at
        {
            self.pairs.waiting.remove(at);
        }
        self.context.finish(message, self.at);
    }

    /// The commands that this picks get no more answers.
    pub fn settle(&mut self, is_settled: impl Fn(u64) -> bool) {
        self.pairs.answer = None;
        self.pairs
            .settle(is_settled, self.at, self.protocol, self.context);
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
