//! Where the length-prefixed messages of gRPC begin and end in one half of a stream
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use crate::proto::At;
use crate::proto::message::Message;

/// Set by gRPC-Web in the prefix of trailers that stand in the body.
const TRAILERS: u8 = 0x80;

/// The messages of a half.
#[derive(Debug, Default)]
pub struct Prefixed {
    /// What there is of a message's five bytes of prefix, and what of the message is to come.
    prefix: Vec<u8>,
    left: u64,
    /// Messages that have ended.
    pub count: u64,
    /// When the first one began, and when it ended.
    pub first: (At, At),
    /// They are told one by one, as they come.
    pub is_streamed: bool,
    /// The one that is being read then.
    pub open: Option<Message>,
    /// Bytes were lost, and with them where the next message begins.
    pub is_lost: bool,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// So many of them belong to one message.
    pub used: usize,
    /// Which ends with them.
    pub is_end: bool,
}

impl Prefixed {
    /// Whether a message begins with these bytes, and none has begun before.
    pub fn begins(&self, bytes: &[u8]) -> bool {
        let is_between = self.left == 0 && self.prefix.is_empty() && !self.is_lost;
        is_between && bytes.first().is_some_and(|flags| flags & TRAILERS == 0)
    }

    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if self.is_lost {
            return Step {
                used: bytes.len(),
                is_end: false,
            };
        }
        let mut used = 0;
        if self.left == 0 {
            used = 5usize.saturating_sub(self.prefix.len()).min(bytes.len());
            self.prefix
                .extend_from_slice(bytes.get(..used).unwrap_or_default());
            let &[_, a, b, c, d] = self.prefix.as_slice() else {
                return Step {
                    used,
                    is_end: false,
                };
            };
            self.left = u32::from_be_bytes([a, b, c, d]).into();
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let more = most.min(bytes.len().saturating_sub(used));
        self.left -= more as u64;
        let is_end = self.left == 0;
        if is_end {
            let flags = self.prefix.first().copied().unwrap_or_default();
            self.count += u64::from(flags & TRAILERS == 0);
            self.prefix.clear();
        }
        Step {
            used: used + more,
            is_end,
        }
    }

    /// `len` bytes were not seen.
    pub fn skip(&mut self, len: u64) {
        if len < self.left {
            self.left -= len;
        } else {
            self.is_lost = true;
        }
        if let Some(open) = &mut self.open {
            open.body.miss(len);
        }
    }
}
