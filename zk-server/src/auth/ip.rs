//! The `ip` scheme: addresses and ranges of addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of a connection's peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// A link-local address with its zone: it means something on one network only, and matches no range.
    Zoned(Ipv6Addr, u32),
}

impl From<SocketAddr> for Peer {
    fn from(peer: SocketAddr) -> Self {
        match peer {
            SocketAddr::V4(peer) => Peer::V4(*peer.ip()),
            SocketAddr::V6(peer) => match (peer.ip().to_ipv4_mapped(), peer.scope_id()) {
                (Some(ip), _) => Peer::V4(ip),
                (None, 0) => Peer::V6(*peer.ip()),
                (None, zone) => Peer::Zoned(*peer.ip(), zone),
            },
        }
    }
}

impl fmt::Display for Peer {
    /// As Java writes addresses: all eight groups of an IPv6 address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = |ip: &Ipv6Addr| ip.segments().map(|group| format!("{group:x}")).join(":");
        match self {
            Peer::V4(ip) => write!(f, "{ip}"),
            Peer::V6(ip) => f.write_str(&groups(ip)),
            Peer::Zoned(ip, zone) => write!(f, "{}%{zone}", groups(ip)),
        }
    }
}

/// An id of the `ip` scheme in an ACL: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IpRange {
    V4(Ipv4Addr, u32),
    V6(Ipv6Addr, u32),
}

impl IpRange {
    /// Reads `address` or `address/bits`; `None` if it is not valid.
    ///
    /// The numbers are Java's: `01.2.3.4` and `+1.2.3.4/+8` are fine. An IPv6 address has no dotted tail, no
    /// zone and no brackets.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (address, bits) = match id.split_once('/') {
            Some((address, bits)) => (address, Some(u32::try_from(bits.parse::<i32>().ok()?).ok()?)),
            None => (id, None),
        };
        let range = if address.contains(':') {
            let plain = !address.contains('.');
            IpRange::V6(plain.then(|| address.parse().ok())??, bits.unwrap_or(Ipv6Addr::BITS))
        } else {
            IpRange::V4(parse_v4(address)?, bits.unwrap_or(Ipv4Addr::BITS))
        };
        let (IpRange::V4(_, bits) | IpRange::V6(_, bits)) = range;
        let bits_max = if matches!(range, IpRange::V4(..)) { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        (bits <= bits_max).then_some(range)
    }

    /// Whether the peer is in the range. The families never mix.
    pub(super) fn contains(self, peer: Peer) -> bool {
        match (self, peer) {
            (IpRange::V4(range, bits), Peer::V4(peer)) => {
                let differ = range.to_bits() ^ peer.to_bits();
                differ.leading_zeros() >= bits
            }
            (IpRange::V6(range, bits), Peer::V6(peer)) => {
                let differ = range.to_bits() ^ peer.to_bits();
                differ.leading_zeros() >= bits
            }
            _ => false,
        }
    }
}

fn parse_v4(address: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = address.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        for id in [
            "1.2.3.4",
            "0.0.0.0",
            "255.255.255.255",
            "10.0.0.0/8",
            "1.2.3.4/0",
            "1.2.3.4/32",
            "01.2.3.4",
            "+1.2.3.4",
            "-0.2.3.4",
            "1.2.3.4/+8",
            "1.2.3.4/08",
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "::/0",
            "2001:db8::/32",
            "::1/128",
            "1:2:3:4:5:6:7:8",
            "0001:2:3:4:5:6:7:ABCD",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "::ffff:102:304",
        ] {
            assert!(IpRange::parse(id).is_some(), "{id:?}");
        }
        for id in [
            "",
            "/",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4.",
            ".1.2.3.4",
            "1..3.4",
            "256.2.3.4",
            "-1.2.3.4",
            "a.b.c.d",
            " 1.2.3.4",
            "1.2.3.4/",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/x",
            "1.2.3.4/8/8",
            "/8",
            "1",
            "0x1.2.3.4",
            "99999999999.2.3.4",
            ":",
            ":::",
            "::1::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4::5:6:7:8",
            "1:2:3:4:5:6:7:8::",
            "12345::",
            "g::",
            "::1/129",
            "::1/",
            "::1/-1",
            "::ffff:1.2.3.4",
            "1:2:3:4:5:6:1.2.3.4",
            "fe80::1%2",
            "fe80::1%eth0",
            "[::1]",
            ":1",
            "1:",
        ] {
            assert_eq!(IpRange::parse(id), None, "{id:?}");
        }
    }

    #[test]
    fn matching() {
        for (id, peer, expected) in [
            ("1.2.3.4", "1.2.3.4:1", true),
            ("01.2.3.4", "1.2.3.4:1", true),
            ("1.2.3.4", "1.2.3.5:1", false),
            ("1.2.3.4/31", "1.2.3.5:1", true),
            ("1.2.3.4/31", "1.2.3.6:1", false),
            ("10.9.8.7/8", "10.1.2.3:1", true),
            ("10.0.0.0/8", "11.1.2.3:1", false),
            ("10.128.0.0/9", "10.127.255.255:1", false),
            ("0.0.0.0/0", "200.1.2.3:1", true),
            ("1.2.3.4", "[::ffff:1.2.3.4]:1", true),
            ("0.0.0.0/0", "[::ffff:1.2.3.4]:1", true),
            ("::/0", "[::ffff:1.2.3.4]:1", false),
            ("::ffff:102:304", "[::ffff:1.2.3.4]:1", false),
            ("::/0", "1.2.3.4:1", false),
            ("0.0.0.0/0", "[::1]:1", false),
            ("::1", "[::1]:1", true),
            ("0:0:0:0:0:0:0:1", "[::1]:1", true),
            ("::2", "[::1]:1", false),
            ("::2/126", "[::1]:1", true),
            ("::/0", "[2001:db8::1]:1", true),
            ("2001:DB8::/32", "[2001:db8:ffff::1]:1", true),
            ("2001:db8::/33", "[2001:db8:8000::1]:1", false),
            ("2001:0db8:0::0/128", "[2001:db8::]:1", true),
            ("fe80::/10", "[fe80::1]:1", true),
            ("fe80::/10", "[fe80::1%2]:1", false),
            ("::/0", "[fe80::1%2]:1", false),
        ] {
            let range = IpRange::parse(id).expect(id);
            let peer = Peer::from(peer.parse::<SocketAddr>().expect(peer));
            assert_eq!(range.contains(peer), expected, "{id} {peer}");
        }
    }

    #[test]
    fn peers_are_written_as_java_does() {
        for (peer, expected) in [
            ("127.0.0.1:2181", "127.0.0.1"),
            ("[::ffff:10.0.0.1]:2181", "10.0.0.1"),
            ("[::1]:2181", "0:0:0:0:0:0:0:1"),
            ("[2001:DB8::a:0]:2181", "2001:db8:0:0:0:0:a:0"),
            ("[fe80::1%3]:2181", "fe80:0:0:0:0:0:0:1%3"),
        ] {
            let peer = Peer::from(peer.parse::<SocketAddr>().expect(peer));
            assert_eq!(peer.to_string(), expected);
        }
    }
}
