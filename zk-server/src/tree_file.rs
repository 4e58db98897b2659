//! From a pinned tree to a snapshot file, while writes to the tree go on.

use crate::replica::Shared;
use crate::storage::{NodeStat, SnapshotError, SnapshotWriter};
use crate::tree::SnapshotPin;

/// Slots looked at under one lock of the tree.
const SLOTS_PER_LOCK: u32 = 256;

/// With large nodes fewer, so that no lock is held for longer than copying about this much takes.
const BYTES_PER_LOCK: usize = 256 * 1024;

/// Writes all nodes of the pinned tree. False if that was given up: because `give_up` says so, or another tree has taken
/// the place of the pinned one.
///
/// # Errors
/// The writer's.
pub(crate) fn write_pinned(
    shared: &Shared,
    pin: &SnapshotPin,
    writer: &mut SnapshotWriter,
    give_up: &dyn Fn() -> bool,
) -> Result<bool, SnapshotError> {
    // Copied first and written then: the disk must not hold up who wants to change the tree.
    let mut chunk = Chunk::default();
    let mut slots = SLOTS_PER_LOCK;
    loop {
        let more = {
            let tree = shared.tree.read();
            if !tree.has_pin(pin) {
                return Ok(false);
            }
            let Ok(more) =
                pin.next_nodes::<std::convert::Infallible>(&tree, slots, |path, data, acl, stat| {
                    chunk.add(path, data, acl, stat);
                    Ok(())
                });
            more
        };
        slots = match chunk.bytes.len() {
            len if len > BYTES_PER_LOCK => (slots / 2).max(1),
            _ => (slots * 2).min(SLOTS_PER_LOCK),
        };
        chunk.write(writer)?;
        if !more {
            return Ok(true);
        }
        if give_up() {
            return Ok(false);
        }
    }
}

/// Nodes on their way to the file.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    nodes: Vec<(usize, Option<usize>, i64, NodeStat)>,
}

impl Chunk {
    fn add(&mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: &crate::tree::NodeStat) {
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.extend_from_slice(data.unwrap_or_default());
        self.nodes.push((path.len(), data.map(<[u8]>::len), acl, *stat));
    }

    fn write(&mut self, writer: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        let mut rest = &self.bytes[..];
        for (path, data, acl, stat) in self.nodes.drain(..) {
            let (path, behind) = rest.split_at(path);
            let (bytes, behind) = behind.split_at(data.unwrap_or(0));
            rest = behind;
            // Paths are UTF-8: they were copied from a str.
            let path = std::str::from_utf8(path).unwrap_or_default();
            writer.node(path, data.map(|_| bytes), acl, &stat)?;
        }
        self.bytes.clear();
        Ok(())
    }
}
