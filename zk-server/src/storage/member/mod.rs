//! What a member of an ensemble keeps on disk beyond a standalone server: its epochs, and a history that its
//! leader may cut or replace.
//!
//! | file in `version-2` | content |
//! |---|---|
//! | `acceptedEpoch`, `currentEpoch` | as Apache writes them |
//! | `.zk-base` | from where on the logs are one history without gaps; an installation under way |
//! | `.zk-committed` | up to where it is known to be committed, a hint |
//! | `truncate.<zxid>` | a truncation under way |
//! | `.install-snapshot` | a snapshot from the leader, while it is received |
//! | `retired/` | what an installed snapshot replaced; goes with the next purge |
//!
//! Apache ignores all but the first two. [`recover`](super::recover) finishes what is under way before it looks
//! at anything else, also for a standalone server: the same directory serves as a member's and as a standalone
//! server's.

mod base;
mod chain;
mod epochs;
mod files;
mod install;
mod truncate;

use zk_proto::{Acl, Zxid};

use super::fs::IoError;
use super::record;
use super::snapshot::SnapshotWriter;
use super::{Base, DataDirs, SnapshotError, TxnLog};
use crate::mutation::Mutation;
use crate::zab::{Epoch, Epochs, Proposal};
use base::{BaseFile, CommittedMark};
pub use chain::Broken;
pub use epochs::EpochError;
use epochs::EpochFiles;
pub(super) use files::RETIRED_DIR;
pub(crate) use files::read_small;
pub use truncate::{CannotTruncate, TruncateError};

/// The disk of a member, beside its open log.
///
/// Every method blocks until its effect is durable, except [`MemberStore::note_committed`]. An [`IoError`] is
/// final, as for [`TxnLog`]: the process must end, the next start finds a consistent state.
///
/// While the history is cut or replaced, nobody else may write to the directories: the log must be closed or
/// dropped and opened anew behind the new end, and no snapshot may be under way. A [`Purger`](super::Purger)
/// waits by itself.
#[derive(Debug)]
pub struct MemberStore {
    dirs: DataDirs,
    epochs: EpochFiles,
    base: Zxid,
    mark: CommittedMark,
}

impl MemberStore {
    /// Opens the store of directories that were just recovered, with what was found there:
    /// [`Recovered::base`](super::Recovered::base) and [`Recovered::last_zxid`](super::Recovered::last_zxid).
    pub fn open(dirs: &DataDirs, base: Base, last: Zxid) -> Result<Self, EpochError> {
        let epochs = EpochFiles::open(dirs, Some(last))?;
        let base = match BaseFile::read(dirs)? {
            Some(known) if known.installing.is_none() && known.zxid <= last => known.zxid,
            // Never a member before, or an Apache server has replaced the history since: the newest snapshot
            // and what was replayed behind it are certain.
            _ => {
                let zxid = match base {
                    Base::Snapshot(name) => name.zxid,
                    _ => Zxid::ZERO,
                };
                BaseFile { zxid, epoch: epochs.epochs().current, installing: None }.write(dirs)?;
                zxid
            }
        };
        let mark = CommittedMark::open(dirs, base, last)?;
        Ok(MemberStore { dirs: dirs.clone(), epochs, base, mark })
    }

    /// Opens the store of directories whose history cannot be recovered, for a member that keeps its promises
    /// (the accepted epoch) but has to be given the history anew: nothing but [`MemberStore::install`] may
    /// change it, and the member must neither vote for itself nor be counted before.
    pub fn open_without_history(dirs: &DataDirs) -> Result<Self, EpochError> {
        let epochs = EpochFiles::open(dirs, None)?;
        // No range of the logs is good for anything.
        let base = Zxid(i64::MAX);
        let mark = CommittedMark::open(dirs, Zxid::ZERO, Zxid(i64::MAX))?;
        Ok(MemberStore { dirs: dirs.clone(), epochs, base, mark })
    }

    /// The epochs on disk.
    pub fn epochs(&self) -> Epochs {
        self.epochs.epochs()
    }

    /// The oldest zxid from which [`MemberStore::read_chain`] can start.
    pub fn base(&self) -> Zxid {
        self.base
    }

    /// The highest zxid known to be committed.
    pub fn committed(&self) -> Zxid {
        self.mark.zxid()
    }

    /// Remembers that everything up to `zxid`, which is durable in the log, is committed. One small write
    /// without a sync; lower values than before do nothing. Call it now and then, not for each transaction.
    pub fn note_committed(&mut self, zxid: Zxid) -> Result<(), IoError> {
        self.mark.raise(&self.dirs, zxid)
    }

    /// Makes the promise durable to follow no older epoch.
    ///
    /// Panics when a later one was accepted.
    pub fn write_accepted(&mut self, epoch: Epoch) -> Result<(), IoError> {
        self.epochs.write_accepted(epoch)
    }

    /// Appends the transactions that came with the synchronisation, may be none, to the log, makes everything
    /// in it durable, and then `epoch` the current one.
    ///
    /// Panics when the transactions do not follow the log's last one, or the epoch was not accepted.
    pub fn commit_sync(
        &mut self,
        log: &mut TxnLog,
        staged: &[Proposal],
        epoch: Epoch,
    ) -> Result<(), IoError> {
        self.epochs.stage_current(epoch)?;
        for batch in staged.chunks(BATCH) {
            let mut records = Vec::new();
            for proposal in batch {
                record::frame(&mut records, |out| out.extend_from_slice(&proposal.payload));
            }
            if let [first, ..] = batch
                && let [.., last] = batch
            {
                log.append(&[records.into()], first.zxid, last.zxid)?;
            }
        }
        if !Mutation::EpochBeforeHistory.is_on() {
            log.sync()?;
        }
        self.epochs.write_current(epoch)
    }

    /// Cuts the history behind `target`, which becomes the last transaction. Afterwards the tree must be
    /// rebuilt with [`recover`](super::recover), and the log opened behind `target`.
    ///
    /// Reads one snapshot and the logs behind it once.
    pub fn truncate(&mut self, target: Zxid) -> Result<(), TruncateError> {
        let committed = self.committed();
        if target < committed {
            return Err(CannotTruncate::BelowCommitted { target, committed }.into());
        }
        let _alone = self.dirs.alone();
        truncate::truncate(&self.dirs, target)
    }

    /// Begins the snapshot of a tree that was received from the leader and stands at `zxid`, for
    /// [`MemberStore::install`]. It can be dropped at any time, and takes no part in the history until then.
    pub fn install_writer<'a>(
        &self,
        zxid: Zxid,
        sessions: impl ExactSizeIterator<Item = (i64, i32)>,
        acls: impl ExactSizeIterator<Item = (i64, &'a [Acl<'a>])>,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let path = self.dirs.data().join(install::INSTALL_FILE);
        SnapshotWriter::create_unnamed(self.dirs.fs.clone(), path, zxid, sessions, acls)
    }

    /// Replaces the whole history by the snapshot that was written with [`MemberStore::install_writer`] at
    /// `zxid` and finished, and makes `epoch` current. `zxid` counts as committed from then on. Afterwards the
    /// log must be opened behind `zxid`.
    ///
    /// Panics when the epoch was not accepted, or a later one is current.
    pub fn install(&mut self, zxid: Zxid, epoch: Epoch) -> Result<(), IoError> {
        let Epochs { accepted, current } = self.epochs();
        assert!(epoch >= current && epoch <= accepted, "epoch {epoch} after {current}, accepted {accepted}");
        let _alone = self.dirs.alone();
        self.mark = install::install(&self.dirs, zxid, epoch)?;
        self.epochs.installed(epoch);
        self.base = zxid;
        Ok(())
    }

    /// The transactions above `from` up to `to`, with at most `bytes_max` bytes together; only if the logs
    /// prove that none is missing. Reads the log that holds `from` and those behind it, up to `to`.
    pub fn read_chain(&self, from: Zxid, to: Zxid, bytes_max: usize) -> Result<Vec<Proposal>, Broken> {
        chain::read_chain(&self.dirs, self.base, from, to, bytes_max)
    }
}

/// Transactions written at once by [`MemberStore::commit_sync`].
const BATCH: usize = 1000;

/// Finishes what a crash interrupted, before anything else is read.
pub(super) fn finish_interrupted(dirs: &DataDirs) -> Result<(), IoError> {
    install::finish_installation(dirs)?;
    truncate::finish_truncation(dirs)
}
