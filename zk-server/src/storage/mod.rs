//! Data directories: transaction log, snapshots, recovery, purge. Byte-compatible with Apache ZooKeeper
//! 3.5 to 3.9 in both directions: a directory of Apache opens in place, and Apache opens ours.
//!
//! ```text
//! write:    producer -- record::frame --> LogThread -- TxnLog: one write + one fdatasync --> on_durable(zxid)
//! snapshot: exact tree at zxid Z -- SnapshotWriter --> snapshot.<Z>
//! start:    recover: snapshot -> SnapshotSink, then log records -> Replay
//! ```
//!
//! This room does not know what a transaction means: a record is a [`RecordHeader`] and opaque bytes. All
//! decisions about damaged files are made here, and follow one rule: what was acknowledged is either
//! recovered or the start is refused with file, offset and zxid; only a provably torn tail is dropped.
//! A refused start changes nothing on disk, except that it finishes what a member was about to do when it
//! crashed, see [`member`].
//!
//! All disk access goes through [`Fs`], so that tests and the simulator can lose unsynced writes, tear
//! sectors, and fail any call.

mod blocks;
mod dirs;
mod file_name;
mod fs;
mod load;
mod log;
pub mod member;
mod purge;
pub mod record;
mod recovery;
pub mod sim;
pub(crate) mod snapshot;

pub use dirs::{DataDirs, DirError, DirLock};
pub use file_name::{Compression, LogName, SnapshotName};
pub(crate) use fs::At;
pub use fs::{BLOCK, DiskFile, FileEntry, Fs, IoError, RealFs};
pub use load::{LoadError, NodeStat, Replay, ReplayError, SnapshotDigest, SnapshotSink};
pub use log::{LogMetrics, LogOptions, LogThread, TxnLog, abort_process};
pub use purge::{PurgeError, Purger, RETAIN_MIN};
pub use record::RecordHeader;
pub use recovery::{Base, Incident, Recovered, RecoveryError, RecoveryOptions, recover};
pub use snapshot::{
    SnapshotError, SnapshotInfo, SnapshotOptions, SnapshotWriter, read_snapshot, verify_snapshot,
};

/// The directory inside dataDir and dataLogDir that holds snapshots and logs.
pub const VERSION_DIR: &str = "version-2";
