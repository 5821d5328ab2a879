//! What an expression means: a tree of tests.

use super::fields::Field;
use super::pattern::{Needle, Regexp};
use crate::event::Dir;
use crate::proto::{Part, Protocol};
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// True when all are; so `All` of nothing is always true.
    All(Vec<Expr>),
    /// True when one is.
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

/// One question about an event or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Net(Side, Net),
    Port(Side, Numbers),
    Pid(Numbers),
    Uid(Numbers),
    /// A pattern for [`super::glob_match`].
    Comm(String),
    Dir(Dir),
    /// A message of HTTP, of whatever version.
    Http,
    Protocol(Protocol),
    Part(Part),
    /// The field has a value.
    Present(Place),
    Compare(Box<Compare>),
}

/// A comparison of a field with what was written behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub place: Place,
    /// It has a value, and none that passes.
    pub is_negated: bool,
    pub with: Value,
}

/// A field, and of header fields which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub field: Field,
    pub key: String,
}

/// What a value passes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Being one of these. Sizes are bytes, times nanoseconds, flags 0 and 1.
    Numbers(Numbers),
    /// Lying in one of these.
    Nets(Vec<Net>),
    /// Being one of these.
    Texts(Vec<Vec<u8>>),
    /// Likewise, where upper and lower case are the same.
    Names(Vec<Vec<u8>>),
    Contains(Needle),
    Matches(Regexp),
}

/// Which end of the connection a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Either,
    /// The sender of the event.
    Src,
    /// Its receiver.
    Dst,
}

/// A block of addresses; one address is a block with all bits fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    addr: IpAddr,
    bits: u8,
}

impl Net {
    /// `None` when the address has fewer than `bits` bits. Bits beyond are ignored.
    pub fn new(addr: IpAddr, bits: u8) -> Option<Net> {
        (bits <= width(addr)).then_some(Net { addr, bits })
    }

    /// The block that is this address alone.
    pub fn single(addr: IpAddr) -> Net {
        Net {
            addr,
            bits: width(addr),
        }
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        let differing = match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.bits)
    }
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// A list of numbers and ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// First and last, both included.
    ranges: Vec<(u64, u64)>,
}

impl Numbers {
    pub fn new(ranges: Vec<(u64, u64)>) -> Numbers {
        Numbers { ranges }
    }

    pub fn contains(&self, number: u64) -> bool {
        self.ranges
            .iter()
            .any(|&(first, last)| (first..=last).contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(net: &str, bits: u8, addr: &str) -> bool {
        Net::new(net.parse().unwrap(), bits)
            .unwrap()
            .contains(addr.parse().unwrap())
    }

    #[test]
    fn a_block_ends_at_its_last_bit() {
        assert!(holds("10.1.2.3", 8, "10.255.255.255"));
        assert!(!holds("10.1.2.3", 8, "11.0.0.0"));
        assert!(holds("10.0.0.2", 31, "10.0.0.3"));
        assert!(!holds("10.0.0.2", 31, "10.0.0.4"));
        assert!(holds("0.0.0.0", 0, "255.1.2.3"));
        assert!(holds("2001:db8::", 33, "2001:db8:7fff::"));
        assert!(!holds("2001:db8::", 33, "2001:db8:8000::"));
        assert!(!holds("0.0.0.0", 0, "::1"), "the families do not mix");
    }

    #[test]
    fn a_block_has_no_more_bits_than_its_address() {
        assert!(Net::new("10.0.0.0".parse().unwrap(), 33).is_none());
        assert!(Net::new("::".parse().unwrap(), 128).is_some());
        assert!(Net::new("::".parse().unwrap(), 129).is_none());
    }
}
