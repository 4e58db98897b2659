//! The raw `ephemeralOwner`: session, container or TTL marker.

/// Raw owner of a container node.
pub const CONTAINER: i64 = i64::MIN;

const TTL_MARK: u64 = 0xff00_0000_0000_0000;
const TTL_FEATURE_BITS: u64 = 0x00ff_ff00_0000_0000;
const TTL_BITS: u64 = 0x0000_00ff_ffff_ffff;

/// What a raw owner means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Persistent.
    None,
    /// Ephemeral node of this session.
    Session(i64),
    /// Container.
    Container,
    /// Time to live, ms.
    Ttl(i64),
}

/// Reads a raw owner. TTL marks are always understood, whatever `extendedTypesEnabled` says: Apache with the
/// option off takes them for sessions and deletes the nodes at start.
pub fn classify(raw: i64) -> Owner {
    match raw {
        0 => Owner::None,
        CONTAINER => Owner::Container,
        _ if raw as u64 & TTL_MARK == TTL_MARK && raw as u64 & TTL_FEATURE_BITS == 0 => {
            Owner::Ttl((raw as u64 & TTL_BITS) as i64)
        }
        session => Owner::Session(session),
    }
}

/// Raw owner of a node with a time to live of `ms` (1 to 2^40 - 1).
pub fn ttl(ms: i64) -> i64 {
    (TTL_MARK | (ms as u64 & TTL_BITS)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        assert_eq!(classify(0), Owner::None);
        assert_eq!(classify(CONTAINER), Owner::Container);
        assert_eq!(classify(ttl(1)), Owner::Ttl(1));
        assert_eq!(classify(ttl(zk_proto::MAX_TTL_MS)), Owner::Ttl(zk_proto::MAX_TTL_MS));
        assert_eq!(classify(0x0100_0000_0000_0001), Owner::Session(0x0100_0000_0000_0001));
    }
}
