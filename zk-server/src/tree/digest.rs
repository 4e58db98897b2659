//! The tree digest, version 2: the sum over all nodes of a CRC-32 of path, data and persisted stat.

use super::node::NodeStat;

/// CRC-32 of path and data: the part of a node's digest that a change of its stat leaves alone. The root's
/// path counts as empty.
pub fn prefix_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    if let Some(data) = data {
        crc.update(data);
    }
    crc.finalize()
}

/// A node's digest.
pub fn node_digest(prefix_crc: u32, stat: &NodeStat) -> u64 {
    let mut b = [0u8; 60];
    b[0..8].copy_from_slice(&stat.czxid.to_be_bytes());
    b[8..16].copy_from_slice(&stat.mzxid.to_be_bytes());
    b[16..24].copy_from_slice(&stat.pzxid.to_be_bytes());
    b[24..32].copy_from_slice(&stat.ctime.to_be_bytes());
    b[32..40].copy_from_slice(&stat.mtime.to_be_bytes());
    b[40..44].copy_from_slice(&stat.version.to_be_bytes());
    b[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
    b[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
    b[52..60].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(prefix_crc);
    crc.update(&b);
    u64::from(crc.finalize())
}

/// Whether a node counts: those below `/zookeeper/` don't (`/zookeeper` itself does).
pub fn counts(path: &str) -> bool {
    !path.starts_with("/zookeeper/")
}
