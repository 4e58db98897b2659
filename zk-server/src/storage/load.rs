//! What recovery fills: a snapshot goes into a [`SnapshotSink`], the log behind it into [`Replay`].

use std::borrow::Cow;

use zk_proto::jute::DecodeError;
use zk_proto::{Acl, Zxid};

use super::RecordHeader;

/// A node's bookkeeping as it is stored. `cversion` and `ephemeral_owner` are raw: `cversion` counts creates
/// only, the owner also encodes containers and TTLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeStat {
    /// Zxid of the create.
    pub czxid: i64,
    /// Zxid of the last change of the data.
    pub mzxid: i64,
    /// Time of the create, ms since the Unix epoch.
    pub ctime: i64,
    /// Time of the last change of the data, as `ctime`.
    pub mtime: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of children ever created (raw).
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
    /// Owner session, or container / TTL mark (raw).
    pub ephemeral_owner: i64,
    /// Zxid of the last create or delete of a child.
    pub pzxid: i64,
}

impl NodeStat {
    /// Encoded size in bytes.
    pub const LEN: usize = 60;

    /// Reads the 60 bytes of a stored stat.
    pub fn decode(b: &[u8; Self::LEN]) -> Self {
        fn long(b: &[u8; NodeStat::LEN], at: usize) -> i64 {
            let mut v = [0; 8];
            v.copy_from_slice(&b[at..at + 8]);
            i64::from_be_bytes(v)
        }
        fn int(b: &[u8; NodeStat::LEN], at: usize) -> i32 {
            let mut v = [0; 4];
            v.copy_from_slice(&b[at..at + 4]);
            i32::from_be_bytes(v)
        }
        NodeStat {
            czxid: long(b, 0),
            mzxid: long(b, 8),
            ctime: long(b, 16),
            mtime: long(b, 24),
            version: int(b, 32),
            cversion: int(b, 36),
            aversion: int(b, 40),
            ephemeral_owner: long(b, 44),
            pzxid: long(b, 52),
        }
    }

    /// The 60 bytes of a stored stat.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0..8].copy_from_slice(&self.czxid.to_be_bytes());
        b[8..16].copy_from_slice(&self.mzxid.to_be_bytes());
        b[16..24].copy_from_slice(&self.ctime.to_be_bytes());
        b[24..32].copy_from_slice(&self.mtime.to_be_bytes());
        b[32..36].copy_from_slice(&self.version.to_be_bytes());
        b[36..40].copy_from_slice(&self.cversion.to_be_bytes());
        b[40..44].copy_from_slice(&self.aversion.to_be_bytes());
        b[44..52].copy_from_slice(&self.ephemeral_owner.to_be_bytes());
        b[52..60].copy_from_slice(&self.pzxid.to_be_bytes());
        b
    }
}

/// The digest section of a snapshot: what the tree's digest is when replay reaches `zxid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotDigest {
    /// Transaction after which the digest holds: the snapshot's own zxid, or a later one when it is fuzzy.
    /// (Apache ignores one below the snapshot's own.)
    pub zxid: Zxid,
    /// Version of the digest's formula; 2 is the only one in use.
    pub version: i32,
    /// The digest of the tree; 0 for versions below 2, which store another form.
    pub digest: i64,
}

/// Why a sink refuses a node: the snapshot counts as damaged and the next older one is tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A node came before its parent, or without one.
    #[error("node {0:?} has no parent")]
    MissingParent(String),
    /// Anything else that no tree can hold.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
}

/// Takes the content of one snapshot.
///
/// Call order: `begin`, sessions, ACL table, nodes with parents before children (root first, its path is the
/// empty string). The checksum is known only at the end: after a failed attempt the sink is dropped and the
/// next attempt gets a new one.
pub trait SnapshotSink {
    /// A snapshot follows: from now on the sink holds nothing but what it is given, not even the built-in
    /// nodes. `size_hint_bytes` is the size of the file, a hint for sizing tables, not to be trusted.
    fn begin(&mut self, size_hint_bytes: u64);

    /// A live session and its negotiated timeout.
    fn session(&mut self, id: i64, timeout_ms: i32);

    /// An entry of the ACL table. Ids are local to the file; -1 (open to all) is never listed.
    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>);

    /// A node. `data` may be null, which differs from empty. `acl_id` may be unknown in a fuzzy snapshot:
    /// it stays unresolved until the transaction that set it is replayed.
    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_id: i64,
        stat: &NodeStat,
    ) -> Result<(), LoadError>;
}

/// Why replay cannot go on. Not for errors of a transaction itself (no node, node exists): over a fuzzy
/// snapshot those are normal and ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body is not what its type says.
    #[error("undecodable transaction: {0}")]
    Decode(#[from] DecodeError),
    /// A transaction type that does not exist.
    #[error("unknown transaction type {0}")]
    UnknownType(i32),
    /// Anything else that must stop the start.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
}

/// Takes the transactions behind the snapshot.
pub trait Replay {
    /// The base is complete: `zxid` is the snapshot's name, transactions above it follow. Also called, with
    /// zxid 0 and without `begin`, for a sink that starts empty.
    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>);

    /// One transaction; `payload` is the whole record, header included. Zxids arrive ascending without gaps.
    fn apply(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), ReplayError>;
}
