//! Snapshot files.
//!
//! ```text
//! 'ZKSN' i32 | version 2 i32 | dbid -1 i64
//! sessions:  count i32, then id i64, timeout i32
//! ACL table: count i32, then id i64, vector of ACL
//! nodes:     path, data, ACL id i64, stat (60 bytes); parents first; the path "/" ends them
//! seal 1
//! digest:    zxid i64, version i32, digest i64, seal 2      (Apache 3.6 and later, unless switched off)
//! last zxid: zxid i64, seal 3                               (Apache 3.9 and later, unless switched off)
//! ```
//!
//! A seal is the Adler-32 (i64) of everything before it, earlier seals included, and the path "/". No section
//! has a tag: which ones are there shows in the number of bytes behind seal 1. We always write both.

mod compress;
pub(crate) mod layout;
mod pace;
mod read;
mod write;

use std::path::{Path, PathBuf};

use zk_proto::{Acl, Zxid};

use super::fs::{Fs, IoError};
use super::{Compression, LoadError, NodeStat, SnapshotDigest, SnapshotSink};
use pace::Pace;

pub use read::read_snapshot;
pub use write::{SnapshotOptions, SnapshotWriter};

const MAGIC: [u8; 4] = *b"ZKSN";
const VERSION: i32 = 2;
const DBID: i64 = -1;
/// The formula of the tree digest in use since 3.6.
const DIGEST_VERSION: i32 = 2;
/// Checksum and [`layout::END_PATH`].
const SEAL_LEN: usize = 13;
/// The last-zxid section with its seal.
const LAST_ZXID_LEN: usize = 8 + SEAL_LEN;

/// What a completely read snapshot says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The digest section.
    pub digest: Option<SnapshotDigest>,
    /// The last-zxid section: the last transaction applied when writing ended.
    pub last_zxid: Option<Zxid>,
    /// Number of nodes.
    pub nodes: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Size before compression, in bytes.
    pub bytes: u64,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The content is not a complete, intact snapshot.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Offset in the stream, before compression.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The sink refused a node.
    #[error("{} cannot be loaded, at byte {offset}: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Offset behind the node in the stream, before compression.
        offset: u64,
        /// The sink's reason.
        source: LoadError,
    },
    /// It decompresses to more than is allowed.
    #[error("{} decompresses to more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound that was passed.
        limit: u64,
    },
}

/// Reads a snapshot and keeps nothing: checks structure and seals.
pub fn verify_snapshot(
    fs: &dyn Fs,
    path: &Path,
    compression: Compression,
) -> Result<SnapshotInfo, SnapshotError> {
    read_snapshot(fs, path, compression, None, &mut Discard)
}

/// As [`verify_snapshot`], at a bounded rate.
fn verify_paced(
    fs: &dyn Fs,
    path: &Path,
    compression: Compression,
    pace: Pace,
) -> Result<SnapshotInfo, SnapshotError> {
    read::read_paced(fs, path, compression, None, pace, &mut Discard)
}

struct Discard;

impl SnapshotSink for Discard {
    fn begin(&mut self, _: u64) {}
    fn session(&mut self, _: i64, _: i32) {}
    fn acl(&mut self, _: i64, _: Vec<Acl<'static>>) {}
    fn node(&mut self, _: &str, _: Option<&[u8]>, _: i64, _: &NodeStat) -> Result<(), LoadError> {
        Ok(())
    }
}
