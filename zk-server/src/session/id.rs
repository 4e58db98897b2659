//! Session ids.

use zk_proto::SessionId;

/// Marks a container node where an ephemeral node has its session id; no session may have it.
const CONTAINER_OWNER: i64 = i64::MIN;

/// Hands out session ids that are unique in an ensemble as long as no server starts twice in one millisecond:
/// the server's id in the top byte, below it 40 bits of the start time in milliseconds, then a counter that
/// runs into them.
#[derive(Debug, Clone)]
pub struct SessionIdGenerator {
    next: i64,
}

impl SessionIdGenerator {
    /// `server_id` is 1 for a standalone server; `elapsed_ms` any clock that does not repeat itself over
    /// restarts.
    pub fn new(server_id: u8, elapsed_ms: u64) -> Self {
        // The unsigned shift keeps the time out of the top byte (ZOOKEEPER-1622).
        let time = ((elapsed_ms << 24) >> 8) as i64;
        SessionIdGenerator { next: time | (i64::from(server_id) << 56) }
    }

    /// The next id.
    pub fn next_id(&mut self) -> SessionId {
        if self.next == CONTAINER_OWNER || self.next == SessionId::NONE.0 {
            self.next += 1;
        }
        let id = SessionId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        for (server_id, elapsed_ms, first) in [
            (1, 0xe_a755, 0x0100_000e_a755_0000_i64),
            (1, 0x9217_2000_0000_0000, 0x0100_0000_0000_0000),
            (0, 1, 0x1_0000),
            (0, 0, 1),
            (2, 0xff_ffff_ffff, 0x02ff_ffff_ffff_0000),
            (2, 0xfff_ffff_ffff, 0x02ff_ffff_ffff_0000),
            (127, 1_795_166_473_753, 0x7fa1_f842_8e19_0000),
            (0x80, 0, i64::MIN + 1),
            (254, 1, 0xfe00_0000_0001_0000_u64 as i64),
        ] {
            let mut ids = SessionIdGenerator::new(server_id, elapsed_ms);
            assert_eq!(ids.next_id(), SessionId(first), "{server_id} {elapsed_ms:#x}: {first:#x}");
            assert_eq!(ids.next_id(), SessionId(first + 1));
        }
    }
}
