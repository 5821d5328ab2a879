//! Numbers the reads and writes, and tells which pieces belong to one.

use crate::event::{Data, Dir};
use std::collections::HashMap;

/// Where a piece stands in its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of the call, counted from 1.
    pub number: u64,
    /// The first piece of its call that arrived.
    pub is_first: bool,
}

/// The calls of which more pieces are to come: at most one per half of a connection.
#[derive(Debug, Default)]
pub struct Calls {
    count: u64,
    open: HashMap<(u64, Dir), Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// Stream offset at which the call ends.
    end: u64,
}

impl Calls {
    /// Takes the next piece of data of connection `conn`.
    pub fn piece(&mut self, conn: u64, data: &Data<'_>) -> Piece {
        let piece_end = data.off.saturating_add(data.len);
        let rest = data.call_len.saturating_sub(data.call_off).max(data.len);
        let call_end = data.off.saturating_add(rest);
        if self.open.is_empty() && piece_end == call_end {
            return self.begin();
        }
        self.advance((conn, data.dir), data.off, piece_end, Some(call_end))
    }

    /// Takes a gap of `len` bytes at `off`; it counts as a call of its own unless it lies in one.
    pub fn gap(&mut self, conn: u64, dir: Dir, off: u64, len: u64) -> Piece {
        if self.open.is_empty() {
            return self.begin();
        }
        self.advance((conn, dir), off, off.saturating_add(len), None)
    }

    /// The connection has ended.
    pub fn close(&mut self, conn: u64) {
        if !self.open.is_empty() {
            self.open.retain(|&(id, _), _| id != conn);
        }
    }

    fn begin(&mut self) -> Piece {
        self.count += 1;
        Piece {
            number: self.count,
            is_first: true,
        }
    }

    fn advance(&mut self, half: (u64, Dir), off: u64, end: u64, call_end: Option<u64>) -> Piece {
        let piece = match self.open.get(&half).filter(|open| off < open.end) {
            Some(open) => Piece {
                number: open.number,
                is_first: false,
            },
            None => {
                let piece = self.begin();
                match call_end {
                    Some(end) => self.open.insert(
                        half,
                        Open {
                            number: piece.number,
                            end,
                        },
                    ),
                    None => self.open.remove(&half),
                };
                piece
            }
        };
        if self.open.get(&half).is_some_and(|open| end >= open.end) {
            self.open.remove(&half);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(calls: &mut Calls, conn: u64, off: u64, len: u64, call: (u64, u64)) -> (u64, bool) {
        let (call_len, call_off) = call;
        let data = Data {
            dir: Dir::Out,
            off,
            len,
            call_len,
            call_off,
            goid: 0,
            bytes: b"",
        };
        let piece = calls.piece(conn, &data);
        (piece.number, piece.is_first)
    }

    #[test]
    fn pieces_of_one_call_share_its_number() {
        let mut calls = Calls::default();
        assert_eq!(piece(&mut calls, 1, 0, 10, (10, 0)), (1, true));
        assert_eq!(piece(&mut calls, 1, 10, 10, (25, 0)), (2, true));
        assert_eq!(
            piece(&mut calls, 2, 0, 10, (10, 0)),
            (3, true),
            "another connection between"
        );
        assert_eq!(piece(&mut calls, 1, 20, 10, (25, 10)), (2, false));
        assert_eq!(piece(&mut calls, 1, 30, 5, (25, 20)), (2, false));
        assert_eq!(piece(&mut calls, 1, 35, 5, (5, 0)), (4, true));
        assert!(calls.open.is_empty());
    }

    #[test]
    fn a_call_whose_first_piece_is_lost_begins_with_the_next() {
        let mut calls = Calls::default();
        assert!(calls.gap(1, Dir::Out, 0, 10).is_first);
        assert_eq!(piece(&mut calls, 1, 10, 10, (30, 10)), (2, true));
        assert_eq!(piece(&mut calls, 1, 20, 10, (30, 20)), (2, false));
    }

    #[test]
    fn a_gap_within_a_call_belongs_to_it() {
        let mut calls = Calls::default();
        assert_eq!(piece(&mut calls, 1, 0, 10, (30, 0)), (1, true));
        let gap = calls.gap(1, Dir::Out, 10, 20);
        assert_eq!((gap.number, gap.is_first), (1, false));
        assert!(calls.open.is_empty(), "the gap reached the end of the call");
    }

    #[test]
    fn nothing_is_kept_of_a_closed_connection() {
        let mut calls = Calls::default();
        piece(&mut calls, 1, 0, 10, (30, 0));
        calls.close(1);
        assert!(calls.open.is_empty());
    }

    #[test]
    fn impossible_numbers_are_survived() {
        let mut calls = Calls::default();
        piece(&mut calls, 1, u64::MAX, u64::MAX, (0, u64::MAX));
        piece(&mut calls, 1, 0, 0, (u64::MAX, 0));
        calls.gap(1, Dir::Out, u64::MAX, u64::MAX);
    }
}
