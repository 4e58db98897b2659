//! Reasons not to start. Each names the file and what to do; none of them has changed anything on disk.

use std::path::PathBuf;

use zk_proto::Zxid;

use super::super::fs::IoError;
use super::super::{ReplayError, SnapshotError};

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),

    /// Reading a snapshot failed for another reason than its content.
    #[error(transparent)]
    Snapshot(SnapshotError),

    /// There are snapshots, and every one is damaged.
    #[error(
        "none of the {count} snapshots in {} can be loaded; the newest: {newest}. Restore one from a backup \
         or from another member of the ensemble", dir.display()
    )]
    NoIntactSnapshot {
        /// Directory of the snapshots.
        dir: PathBuf,
        /// How many there are.
        count: usize,
        /// What is wrong with the newest.
        newest: SnapshotError,
    },

    /// Logs without any snapshot: what came before the logs is unknown.
    #[error(
        "{} holds transactions, but there is no snapshot. Restore the snapshots; only if the logs reach back \
         to the first transaction ever (a directory of ZooKeeper before 3.5), start once with \
         snapshot.trust.empty=true", log.display()
    )]
    NoSnapshot {
        /// The oldest log.
        log: PathBuf,
    },

    /// A damaged snapshot is newer than anything that is left.
    #[error(
        "{snapshot}, and without it history ends at zxid {last}: acknowledged transactions up to {zxid} would \
         be lost. Restore the file, or the logs behind the older snapshots"
    )]
    SnapshotNeeded {
        /// What is wrong with it.
        snapshot: SnapshotError,
        /// Its zxid.
        zxid: Zxid,
        /// Where the older snapshot and the logs end.
        last: Zxid,
    },

    /// A snapshot contains effects of transactions that the log no longer has.
    #[error(
        "{} was written while transactions up to {zxid} were applied, but the log ends at {last}: \
         acknowledged transactions are missing. Restore the logs", snapshot.display()
    )]
    LogEndsInsideSnapshot {
        /// The snapshot.
        snapshot: PathBuf,
        /// The last transaction whose effects it may hold.
        zxid: Zxid,
        /// Last transaction of the log.
        last: Zxid,
    },

    /// A log does not start with a log header, and it is not a file that was never completed.
    #[error(
        "{} is no transaction log: {reason}. Transactions may be missing here; restore the file from a backup \
         or from another member of the ensemble", log.display()
    )]
    NotALog {
        /// The file.
        log: PathBuf,
        /// What it is.
        reason: &'static str,
    },

    /// A log is damaged at a place that was, or may have been, acknowledged.
    #[error(
        "{} is damaged at byte {offset}, behind zxid {last}: {reason}. This is not the torn end that a crash \
         leaves, acknowledged transactions would be lost. Restore the file from a backup or from another \
         member of the ensemble. To give up everything from this byte on, start once with the option that \
         cuts damaged logs", log.display()
    )]
    DamagedLog {
        /// The file.
        log: PathBuf,
        /// Where the first invalid record begins.
        offset: u64,
        /// The last transaction before it.
        last: Zxid,
        /// Why it is no torn end.
        reason: String,
    },

    /// Transactions are missing between two records.
    #[error(
        "{} has zxid {found} at byte {offset}, but history so far ends at {last}: transactions are missing in \
         between. Restore the missing logs, or a snapshot at or above {last}", log.display()
    )]
    Gap {
        /// File of the later record.
        log: PathBuf,
        /// Its offset.
        offset: u64,
        /// The last transaction before the gap.
        last: Zxid,
        /// The first one behind it.
        found: Zxid,
    },

    /// A zxid is not above the one before it.
    #[error("{} has zxid {found} at byte {offset} behind {last}: the log is out of order", log.display())]
    OutOfOrder {
        /// The file.
        log: PathBuf,
        /// Offset of the record.
        offset: u64,
        /// The transaction before it.
        last: Zxid,
        /// What came.
        found: Zxid,
    },

    /// The first record is not the one that gave the file its name.
    #[error("{} begins with zxid {found}: it was renamed, or its beginning is lost", log.display())]
    Misnamed {
        /// The file.
        log: PathBuf,
        /// Zxid of its first record.
        found: Zxid,
    },

    /// A record is intact but its transaction makes no sense.
    #[error("{} has a transaction at byte {offset}, zxid {zxid}, that cannot be replayed: {source}", log.display())]
    Replay {
        /// The file.
        log: PathBuf,
        /// Offset of the record.
        offset: u64,
        /// Its zxid.
        zxid: Zxid,
        /// The sink's reason.
        source: ReplayError,
    },
}
