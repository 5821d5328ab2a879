//! Evaluates an expression on an event or a message.

use super::ast::{Compare, Expr, Side, Test, Value};
use super::fields::Of;
use super::values::{Seen, What};
use super::{glob_match, looks_at};
use crate::event::{Conn, Dir, Event, Kind};
use crate::proto::{Message, Protocol};
use std::net::SocketAddr;

/// Whether the event passes; see [`super::Filter::matches`].
pub fn matches(expr: &Expr, event: &Event<'_>) -> bool {
    let passes = |dir, what| holds(expr, &Seen::new(event.conn, dir, what));
    match event.kind {
        Kind::Data(ref data) => passes(data.dir, What::Data(event, data)),
        Kind::Gap { dir, len, .. } => passes(dir, What::Gap(event, len)),
        // The close_notify goes out.
        Kind::Shutdown => passes(Dir::Out, What::Nothing),
        Kind::Open | Kind::Close => {
            passes(Dir::Out, What::Nothing) || passes(Dir::In, What::Nothing)
        }
    }
}

/// Likewise of a message.
pub fn matches_message(expr: &Expr, conn: &Conn, message: &Message) -> bool {
    holds(expr, &Seen::new(conn, message.dir, What::Message(message)))
}

/// Whether an exchange of these messages passes: each test by any of them, so that what is asked of
/// the request and what is asked of the response go together, and `not` means neither.
pub fn matches_exchange(expr: &Expr, conn: &Conn, messages: &[&Message]) -> bool {
    let seen: Vec<Seen<'_>> = messages
        .iter()
        .map(|message| Seen::new(conn, message.dir, What::Message(message)))
        .collect();
    holds_of_any(expr, &seen)
}

fn holds_of_any(expr: &Expr, seen: &[Seen<'_>]) -> bool {
    match expr {
        Expr::All(terms) => terms.iter().all(|term| holds_of_any(term, seen)),
        Expr::Any(terms) => terms.iter().any(|term| holds_of_any(term, seen)),
        Expr::Not(term) => !holds_of_any(term, seen),
        Expr::Test(test) => seen.iter().any(|seen| passes(test, seen)),
    }
}

/// What it comes to for everything of the connection's process; `None`: that depends.
pub fn holds_of_process(expr: &Expr, conn: &Conn) -> Option<bool> {
    let all = |terms: &[Expr], neutral: bool| {
        let mut result = Some(neutral);
        for term in terms {
            match holds_of_process(term, conn) {
                Some(holds) if holds != neutral => return Some(!neutral),
                None => result = None,
                Some(_) => {}
            }
        }
        result
    };
    match expr {
        Expr::All(terms) => all(terms, true),
        Expr::Any(terms) => all(terms, false),
        Expr::Not(term) => Some(!holds_of_process(term, conn)?),
        Expr::Test(test) if looks_at(test).0 == Of::Proc => {
            Some(passes(test, &Seen::new(conn, Dir::Out, What::Nothing)))
        }
        Expr::Test(_) => None,
    }
}

fn holds(expr: &Expr, seen: &Seen<'_>) -> bool {
    match expr {
        Expr::All(terms) => terms.iter().all(|term| holds(term, seen)),
        Expr::Any(terms) => terms.iter().any(|term| holds(term, seen)),
        Expr::Not(term) => !holds(term, seen),
        Expr::Test(test) => passes(test, seen),
    }
}

fn passes(test: &Test, seen: &Seen<'_>) -> bool {
    let proc = &seen.conn.proc;
    match test {
        Test::Net(side, net) => end(seen, *side, |addr| net.contains(addr.ip())),
        Test::Port(side, ports) => end(seen, *side, |addr| ports.contains(addr.port().into())),
        Test::Pid(pids) => pids.contains(proc.pid.into()),
        Test::Uid(uids) => proc.uid.is_some_and(|uid| uids.contains(uid.into())),
        Test::Comm(pattern) => glob_match(pattern, &proc.comm),
        Test::Dir(wanted) => *wanted == seen.dir,
        Test::Http => seen
            .message()
            .is_some_and(|message| message.subject.http().is_some()),
        Test::Protocol(protocol) => seen
            .message()
            .is_some_and(|message| speaks(message.protocol, *protocol)),
        Test::Part(part) => seen.message().is_some_and(|message| message.part == *part),
        Test::Present(place) => seen.has(place),
        Test::Compare(compare) => compares(compare, seen),
    }
}

/// Whether what is spoken is the protocol, or is spoken over it.
fn speaks(spoken: Protocol, protocol: Protocol) -> bool {
    spoken == protocol || (spoken == Protocol::Grpc && protocol == Protocol::Http2)
}

/// Whether one of the field's values passes; negated, whether it has some and none does.
fn compares(compare: &Compare, seen: &Seen<'_>) -> bool {
    let place = &compare.place;
    let passes = match &compare.with {
        Value::Numbers(numbers) => seen.numbers(place, &mut |number| numbers.contains(number)),
        Value::Nets(nets) => {
            seen.addrs(place, &mut |addr| nets.iter().any(|net| net.contains(addr)))
        }
        Value::Texts(texts) => {
            seen.texts(place, &mut |text| texts.iter().any(|wanted| wanted == text))
        }
        Value::Names(names) => seen.texts(place, &mut |text| {
            names.iter().any(|name| name.eq_ignore_ascii_case(text))
        }),
        Value::Contains(needle) => seen.texts(place, &mut |text| needle.is_in(text)),
        Value::Matches(regexp) => seen.texts(place, &mut |text| regexp.is_match(text)),
    };
    match compare.is_negated {
        true => !passes && seen.has(place),
        false => passes,
    }
}

/// Whether the end that is meant has an address that passes.
fn end(seen: &Seen<'_>, side: Side, passes: impl Fn(SocketAddr) -> bool) -> bool {
    seen.ends(side).into_iter().flatten().any(passes)
}

#[cfg(test)]
#[path = "eval_tests.rs"]
mod tests;
