//! `Stat`: what a client sees of a node's bookkeeping.

use crate::jute::{DecodeError, Reader};

/// Metadata of a node, 68 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Zxid of the create.
    pub czxid: i64,
    /// Zxid of the last change of the data.
    pub mzxid: i64,
    /// Time of the create, ms since the Unix epoch, by the leader's clock.
    pub ctime: i64,
    /// Time of the last change of the data, as `ctime`.
    pub mtime: i64,
    /// Number of changes of the data; wraps.
    pub version: i32,
    /// Number of creates and deletes of children; wraps.
    pub cversion: i32,
    /// Number of changes of the ACL; wraps.
    pub aversion: i32,
    /// Session that owns the node; 0 unless ephemeral.
    pub ephemeral_owner: i64,
    /// Bytes of data; 0 for null.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// Zxid of the last create or delete of a child.
    pub pzxid: i64,
}

impl Stat {
    /// Bytes on the wire.
    pub const WIRE_LEN: usize = 68;

    /// Reads the record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Stat {
            czxid: r.i64()?,
            mzxid: r.i64()?,
            ctime: r.i64()?,
            mtime: r.i64()?,
            version: r.i32()?,
            cversion: r.i32()?,
            aversion: r.i32()?,
            ephemeral_owner: r.i64()?,
            data_length: r.i32()?,
            num_children: r.i32()?,
            pzxid: r.i64()?,
        })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        let mut b = [0u8; Self::WIRE_LEN];
        b[0..8].copy_from_slice(&self.czxid.to_be_bytes());
        b[8..16].copy_from_slice(&self.mzxid.to_be_bytes());
        b[16..24].copy_from_slice(&self.ctime.to_be_bytes());
        b[24..32].copy_from_slice(&self.mtime.to_be_bytes());
        b[32..36].copy_from_slice(&self.version.to_be_bytes());
        b[36..40].copy_from_slice(&self.cversion.to_be_bytes());
        b[40..44].copy_from_slice(&self.aversion.to_be_bytes());
        b[44..52].copy_from_slice(&self.ephemeral_owner.to_be_bytes());
        b[52..56].copy_from_slice(&self.data_length.to_be_bytes());
        b[56..60].copy_from_slice(&self.num_children.to_be_bytes());
        b[60..68].copy_from_slice(&self.pzxid.to_be_bytes());
        w.extend_from_slice(&b);
    }

    /// Whether the node is ephemeral.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral_owner != 0
    }
}
