//! The sequence numbers of one made-up TCP connection.

use crate::sink::packet::{ACK, FIN, Link, PSH, SYN, Segment};
use std::net::SocketAddr;

/// The peer acknowledges after this many bytes or packets on its own account, so that no reader
/// has to keep more of them.
const ACK_BYTES: u32 = 1 << 20;
const ACK_PACKETS: u32 = 64;

/// Longest jump of a sequence number: beyond 2^31 it would look like a step back.
const JUMP: u64 = 1 << 30;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

impl End {
    pub fn peer(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Half {
    addr: SocketAddr,
    /// Sequence number of the next segment.
    next: u32,
    /// End of what is in the file: all that the peer may acknowledge.
    seen: u32,
    /// What the peer has not acknowledged yet.
    bytes: u32,
    packets: u32,
    has_ended: bool,
}

/// One TCP connection.
#[derive(Clone, Debug)]
pub struct Flow {
    client: Half,
    server: Half,
    pub local: End,
    /// Its packets are not to be taken for TCP: another connection's packets have the same bytes.
    pub is_hidden: bool,
    ident: u16,
}

impl Flow {
    /// `seed` makes the initial sequence numbers, so that a later flow between the same ports is
    /// taken for another one.
    pub fn new(client: SocketAddr, server: SocketAddr, local: End, seed: u64) -> Flow {
        // The finaliser of splitmix64 spreads consecutive seeds over all numbers.
        let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 31;
        let half = |addr, next| Half {
            addr,
            next,
            seen: next,
            bytes: 0,
            packets: 0,
            has_ended: false,
        };
        Flow {
            client: half(client, mixed as u32),
            server: half(server, (mixed >> 32) as u32),
            local,
            is_hidden: false,
            ident: 0,
        }
    }

    fn half(&self, end: End) -> &Half {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    fn half_mut(&mut self, end: End) -> &mut Half {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    pub fn has_ended(&self, end: End) -> bool {
        self.half(end).has_ended
    }

    /// The three packets that open the connection.
    pub fn handshake(&mut self, pid: u32, conn: u64) -> [Segment; 3] {
        let mut open = |end, flags| {
            let mut segment = self.segment(end, 0, pid, conn);
            segment.flags = flags;
            if flags & SYN != 0 {
                self.advance(end, 1);
            }
            segment
        };
        let mut syn = open(End::Client, SYN);
        syn.ack = 0;
        [syn, open(End::Server, SYN | ACK), open(End::Client, ACK)]
    }

    /// A segment of `len` payload bytes; the empty one acknowledges only.
    pub fn segment(&mut self, from: End, len: u32, pid: u32, conn: u64) -> Segment {
        let (sender, peer) = (*self.half(from), *self.half(from.peer()));
        let acknowledged = self.half_mut(from.peer());
        (acknowledged.bytes, acknowledged.packets) = (0, 0);
        self.ident = self.ident.wrapping_add(1);
        if len > 0 {
            self.advance(from, len);
        }
        Segment {
            link: Link {
                pid,
                conn,
                is_outbound: from == self.local,
            },
            src: sender.addr,
            dst: peer.addr,
            seq: sender.next,
            ack: peer.seen,
            flags: if len > 0 { PSH | ACK } else { ACK },
            is_hidden: self.is_hidden,
            ident: self.ident,
        }
    }

    /// The end of what `from` sends.
    pub fn fin(&mut self, from: End, pid: u32, conn: u64) -> Segment {
        let mut segment = self.segment(from, 0, pid, conn);
        segment.flags = FIN | ACK;
        self.advance(from, 1);
        self.half_mut(from).has_ended = true;
        segment
    }

    fn advance(&mut self, end: End, len: u32) {
        let half = self.half_mut(end);
        half.next = half.next.wrapping_add(len);
        half.seen = half.next;
        half.bytes = half.bytes.saturating_add(len);
        half.packets += 1;
    }

    /// Leaves out `len` bytes of what `from` sends.
    pub fn skip(&mut self, from: End, len: u64) {
        let half = self.half_mut(from);
        half.next = half.next.wrapping_add(len.min(JUMP) as u32);
    }

    /// True when the peer of `from` should acknowledge now.
    pub fn wants_ack(&self, from: End) -> bool {
        let half = self.half(from);
        !self.is_hidden && (half.bytes >= ACK_BYTES || half.packets >= ACK_PACKETS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow::new(
            "10.0.0.1:1".parse().unwrap(),
            "10.0.0.2:2".parse().unwrap(),
            End::Client,
            0,
        )
    }

    #[test]
    fn each_end_acknowledges_what_the_other_has_sent() {
        let mut flow = flow();
        let [syn, syn_ack, ack] = flow.handshake(1, 1);
        assert_eq!((syn.flags, syn.ack), (SYN, 0));
        assert_eq!(
            (syn_ack.flags, syn_ack.ack),
            (SYN | ACK, syn.seq.wrapping_add(1))
        );
        assert_eq!(
            (ack.seq, ack.ack),
            (syn.seq.wrapping_add(1), syn_ack.seq.wrapping_add(1))
        );
        let request = flow.segment(End::Client, 100, 1, 1);
        assert_eq!((request.seq, request.ack), (ack.seq, ack.ack));
        let response = flow.segment(End::Server, 50, 1, 1);
        assert_eq!(
            (response.seq, response.ack),
            (ack.ack, ack.seq.wrapping_add(100))
        );
        let fin = flow.fin(End::Client, 1, 1);
        assert_eq!(fin.seq, ack.seq.wrapping_add(100));
        let last = flow.fin(End::Server, 1, 1);
        assert_eq!(last.ack, fin.seq.wrapping_add(1));
    }

    #[test]
    fn missing_bytes_are_not_acknowledged_before_the_next_ones_are_seen() {
        let mut flow = flow();
        let [.., ack] = flow.handshake(1, 1);
        flow.skip(End::Client, 500);
        assert_eq!(flow.segment(End::Server, 1, 1, 1).ack, ack.seq);
        let next = flow.segment(End::Client, 10, 1, 1);
        assert_eq!(next.seq, ack.seq.wrapping_add(500));
        assert_eq!(
            flow.segment(End::Server, 1, 1, 1).ack,
            next.seq.wrapping_add(10)
        );
    }

    #[test]
    fn numbers_wrap_after_four_gibibytes() {
        let mut flow = flow();
        let [.., ack] = flow.handshake(1, 1);
        for _ in 0..1 << 17 {
            flow.segment(End::Client, 1 << 15, 1, 1);
        }
        assert_eq!(flow.segment(End::Client, 1, 1, 1).seq, ack.seq);
    }

    #[test]
    fn a_long_monologue_is_acknowledged_now_and_then() {
        let mut flow = flow();
        flow.handshake(1, 1);
        let packets = (1..).find(|_| {
            flow.segment(End::Server, 1, 1, 1);
            flow.wants_ack(End::Server)
        });
        assert!(packets.unwrap() <= ACK_PACKETS);
        flow.segment(End::Client, 0, 1, 1);
        assert!(!flow.wants_ack(End::Server));
        flow.segment(End::Server, ACK_BYTES, 1, 1);
        assert!(flow.wants_ack(End::Server));
    }
}
