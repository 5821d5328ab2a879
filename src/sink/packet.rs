//! Makes up Ethernet, IP and TCP around plaintext, and reads it back.
//!
//! The made-up MAC addresses hold what a file without comments could not: the source or
//! destination that begins with 02 is the captured program (its pid follows), the one that begins
//! with 06 its peer (the number of the connection follows).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// Most TCP payload of one packet: an IPv4 packet has at most 65535 bytes.
pub const PAYLOAD: usize = 65_535 - 20 - 20;

/// IEEE 802 local experimental Ethertype 1: what is not to be taken for TCP.
pub const EXPERIMENTAL: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

/// Length of the Ethernet header.
pub const ETHERNET: usize = 14;

/// `02:74:6c:` (`tl`) and `06:74:6c:`, both locally administered.
const LOCAL: [u8; 3] = [0x02, 0x74, 0x6c];
const REMOTE: [u8; 3] = [0x06, 0x74, 0x6c];

/// Who a packet is about, as its MAC addresses tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The low 24 bits of the process id and of the connection number.
    pub pid: u32,
    pub conn: u64,
    /// Sent by the captured program.
    pub is_outbound: bool,
}

/// The headers of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub link: Link,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Not to be taken for TCP: sent with the Ethertype [`EXPERIMENTAL`].
    pub is_hidden: bool,
    /// IPv4 identification.
    pub ident: u16,
}

/// Appends an Ethernet header.
pub fn ethernet(out: &mut Vec<u8>, link: Link, ethertype: u16) {
    let [_, pid @ ..] = link.pid.to_be_bytes();
    let [_, conn @ ..] = (link.conn as u32).to_be_bytes();
    let (local, remote) = ((LOCAL, pid), (REMOTE, conn));
    let (src, dst) = if link.is_outbound {
        (local, remote)
    } else {
        (remote, local)
    };
    for part in [dst.0, dst.1, src.0, src.1] {
        out.extend_from_slice(&part);
    }
    out.extend_from_slice(&ethertype.to_be_bytes());
}

/// Appends a packet with a payload of `len` bytes (at most [`PAYLOAD`]), of which `write` appends
/// as many as were kept. Returns the length that the whole packet has.
pub fn append(
    out: &mut Vec<u8>,
    segment: &Segment,
    len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let options: &[u8] = match segment.flags & SYN != 0 {
        // Maximum segment size 65495, no-operation, window scale 14 (RFC 7323): a window of 1 GiB,
        // which a capture without losses never fills.
        true => &[2, 4, 0xff, 0xd7, 1, 3, 3, 14],
        false => &[],
    };
    let start = out.len();
    let tcp_len = 20 + options.len() + len;
    let (src, dst) = (segment.src.ip(), segment.dst.ip());
    let pseudo = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ethernet(out, segment.link, segment.ethertype(IPV4));
            let at = out.len();
            out.extend_from_slice(&[0x45, 0]);
            out.extend_from_slice(&((20 + tcp_len) as u16).to_be_bytes());
            out.extend_from_slice(&segment.ident.to_be_bytes());
            out.extend_from_slice(&[0x40, 0, 64, TCP, 0, 0]);
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            let checksum = !fold(sum(out.get(at..).unwrap_or_default()));
            put(out, at + 10, checksum);
            sum(&src.octets()) + sum(&dst.octets())
        }
        _ => {
            let (src, dst) = (v6(src).octets(), v6(dst).octets());
            ethernet(out, segment.link, segment.ethertype(IPV6));
            out.extend_from_slice(&[0x60, 0, 0, 0]);
            out.extend_from_slice(&(tcp_len as u16).to_be_bytes());
            out.extend_from_slice(&[TCP, 64]);
            out.extend_from_slice(&src);
            out.extend_from_slice(&dst);
            sum(&src) + sum(&dst)
        }
    };
    let tcp = out.len();
    out.extend_from_slice(&segment.src.port().to_be_bytes());
    out.extend_from_slice(&segment.dst.port().to_be_bytes());
    out.extend_from_slice(&segment.seq.to_be_bytes());
    out.extend_from_slice(&segment.ack.to_be_bytes());
    out.push((((20 + options.len()) / 4) << 4) as u8);
    out.push(segment.flags);
    out.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(options);
    let whole = out.len() - start + len;
    write(out);
    // Bytes that were not kept count as zeros: nobody can check the sum of a cut packet.
    let all = pseudo + u64::from(TCP) + tcp_len as u64 + sum(out.get(tcp..).unwrap_or_default());
    put(out, tcp + 16, !fold(all));
    whole
}

impl Segment {
    fn ethertype(&self, natural: u16) -> u16 {
        if self.is_hidden {
            EXPERIMENTAL
        } else {
            natural
        }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn put(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The one's complement sum of RFC 1071, over big-endian 16-bit words; not negated.
fn sum(bytes: &[u8]) -> u64 {
    // In the machine's byte order, and swapped only in the end (RFC 1071, 2.B): that is what the
    // compiler can do with several words at a time.
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for word in &mut words {
        // 32-bit words have the same sum: 2^16 is 1 modulo 2^16-1.
        let word: [u8; 4] = word.try_into().unwrap_or_default();
        total += u64::from(u32::from_ne_bytes(word));
    }
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(words.remainder()) {
        *place = *byte;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A packet that [`append`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub segment: Segment,
    /// The part of the payload that was kept.
    pub payload: &'a [u8],
    /// Length of the whole payload, from the IP header.
    pub len: usize,
}

/// Who a frame is about; `None` if its MAC addresses are not ours.
pub fn read_link(frame: &[u8]) -> Option<Link> {
    let (dst, rest) = frame.split_first_chunk::<6>()?;
    let src = rest.first_chunk::<6>()?;
    let number = |[_, _, _, high, middle, low]: [u8; 6]| u32::from_be_bytes([0, high, middle, low]);
    let is_outbound = src.starts_with(&LOCAL);
    let (local, remote) = if is_outbound { (src, dst) } else { (dst, src) };
    if !local.starts_with(&LOCAL) || !remote.starts_with(&REMOTE) {
        return None;
    }
    Some(Link {
        pid: number(*local),
        conn: u64::from(number(*remote)),
        is_outbound,
    })
}

/// Reads a frame back; `None` if it is not one of ours or its headers are cut off.
pub fn read(frame: &[u8]) -> Option<Packet<'_>> {
    let link = read_link(frame)?;
    let (header, ip) = frame.split_at_checked(ETHERNET)?;
    let ethertype = u16::from_be_bytes(*header.last_chunk()?);
    let is_hidden = ethertype == EXPERIMENTAL;
    let version = ip.first()? >> 4;
    let (src, dst, tcp, tcp_len, ident): (IpAddr, IpAddr, _, _, _) = match version {
        4 if is_hidden || ethertype == IPV4 => {
            let (header, tcp) = ip.split_first_chunk::<20>()?;
            let [0x45, _, l0, l1, i0, i1, _, _, _, TCP, _, _, addrs @ ..] = header else {
                return None;
            };
            let src: [u8; 4] = *addrs.first_chunk()?;
            let dst: [u8; 4] = *addrs.last_chunk()?;
            let len = usize::from(u16::from_be_bytes([*l0, *l1])).checked_sub(20)?;
            (
                src.into(),
                dst.into(),
                tcp,
                len,
                u16::from_be_bytes([*i0, *i1]),
            )
        }
        6 if is_hidden || ethertype == IPV6 => {
            let (header, tcp) = ip.split_first_chunk::<40>()?;
            let [_, _, _, _, l0, l1, TCP, _, addrs @ ..] = header else {
                return None;
            };
            let src: [u8; 16] = *addrs.first_chunk()?;
            let dst: [u8; 16] = *addrs.last_chunk()?;
            (
                src.into(),
                dst.into(),
                tcp,
                usize::from(u16::from_be_bytes([*l0, *l1])),
                0,
            )
        }
        _ => return None,
    };
    let [
        p0,
        p1,
        q0,
        q1,
        s0,
        s1,
        s2,
        s3,
        a0,
        a1,
        a2,
        a3,
        offset,
        flags,
        ..,
    ] = *tcp.first_chunk::<20>()?;
    let header_len = usize::from(offset >> 4) * 4;
    let len = tcp_len.checked_sub(header_len)?;
    let payload = tcp.get(header_len..)?;
    let segment = Segment {
        link,
        src: SocketAddr::new(src, u16::from_be_bytes([p0, p1])),
        dst: SocketAddr::new(dst, u16::from_be_bytes([q0, q1])),
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        is_hidden,
        ident,
    };
    Some(Packet {
        segment,
        payload: payload.get(..len).unwrap_or(payload),
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(src: &str, dst: &str) -> Segment {
        Segment {
            link: Link {
                pid: 4242,
                conn: 17,
                is_outbound: true,
            },
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            seq: 0xffff_fff0,
            ack: 7,
            flags: PSH | ACK,
            is_hidden: false,
            ident: 3,
        }
    }

    /// The one's complement sum by its definition: over a correct packet it is all ones.
    fn plain_sum(pseudo: &[u8], bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for part in [pseudo, bytes] {
            for pair in part.chunks(2) {
                sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                sum = (sum & 0xffff) + (sum >> 16);
            }
        }
        sum as u16
    }

    #[test]
    fn checksums_are_right_for_every_length_of_the_tail() {
        for len in [0, 1, 2, 3, 4, 5, 1459, PAYLOAD] {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7 + 255) as u8).collect();
            let mut frame = Vec::new();
            append(
                &mut frame,
                &segment("10.0.0.2:43210", "93.184.216.34:443"),
                len,
                |out| {
                    out.extend_from_slice(&payload);
                },
            );
            let (ip, tcp) = frame[ETHERNET..].split_at(20);
            assert_eq!(plain_sum(&[], ip), 0xffff);
            let mut pseudo = ip[12..20].to_vec();
            pseudo.extend_from_slice(&[0, TCP]);
            pseudo.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
            assert_eq!(plain_sum(&pseudo, tcp), 0xffff, "payload of {len}");
        }
    }

    #[test]
    fn a_packet_comes_back_whatever_its_family() {
        let v6 = ("[2001:db8::1]:43210", "[2001:db8::2]:443");
        for (src, dst) in [("10.0.0.2:43210", "93.184.216.34:443"), v6] {
            for is_hidden in [false, true] {
                let mut sent = segment(src, dst);
                sent.is_hidden = is_hidden;
                sent.ident = if sent.src.is_ipv4() { 3 } else { 0 };
                let mut frame = Vec::new();
                let whole = append(&mut frame, &sent, 5, |out| out.extend_from_slice(b"hello"));
                assert_eq!(whole, frame.len());
                let back = read(&frame).unwrap();
                assert_eq!(
                    back,
                    Packet {
                        segment: sent,
                        payload: b"hello",
                        len: 5
                    }
                );
            }
        }
    }

    #[test]
    fn a_cut_packet_says_how_long_it_was() {
        let mut frame = Vec::new();
        let sent = segment("10.0.0.2:1", "10.0.0.3:2");
        let whole = append(&mut frame, &sent, 1000, |out| out.extend_from_slice(b"abc"));
        assert_eq!(whole, frame.len() + 997);
        let back = read(&frame).unwrap();
        assert_eq!((back.payload, back.len), (b"abc".as_slice(), 1000));
    }

    #[test]
    fn a_frame_cut_off_in_its_headers_is_refused() {
        for (src, dst) in [("10.0.0.2:1", "10.0.0.3:2"), ("[::1]:1", "[::1]:2")] {
            let mut frame = Vec::new();
            let mut sent = segment(src, dst);
            sent.flags = SYN;
            append(&mut frame, &sent, 0, |_| ());
            for cut in 0..frame.len() {
                assert!(read(&frame[..cut]).is_none(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_frame_of_somebody_else_is_refused() {
        let mut frame = Vec::new();
        append(&mut frame, &segment("10.0.0.2:1", "10.0.0.3:2"), 0, |_| ());
        frame[0] ^= 0x80;
        assert_eq!(read(&frame), None);
    }
}
