//! Carries out disk operations: on the log thread of a server, or on the simulated disk of the simulator.

use std::sync::Arc;

use zk_proto::Zxid;

use super::{ConfigFiles, DiskDone, DiskOp, Recovered};
use crate::mutation::Mutation;
use crate::replica::Shared;
use crate::storage::member::{CannotTruncate, EpochError, MemberStore, TruncateError};
use crate::storage::{
    Base, DataDirs, IoError, LogOptions, RecoveryError, RecoveryOptions, SnapshotError, TxnLog, recover,
};
use crate::tree::{SnapshotPin, Tree, TreeLoader};
use crate::tree_file::write_pinned;
use crate::zab::ensemble::Ensemble;

/// Why a disk operation has failed. The process must end: what is on the disk is known again only after a start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),
    /// What is on the disk cannot be served.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A snapshot of the leader's cannot be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The epochs on the disk contradict the rest.
    #[error(transparent)]
    Epochs(#[from] EpochError),
}

/// The member's part of the disk, beside the log.
#[derive(Debug)]
pub struct DiskOwner {
    dirs: DataDirs,
    store: MemberStore,
    recovery: RecoveryOptions,
    log: LogOptions,
    shared: Arc<Shared>,
    /// Whether snapshots carry the tree's digest.
    digest: bool,
    /// For the hash tables of rebuilt trees.
    seed: u64,
    /// The history on the disk is damaged, until another one is installed.
    damaged: bool,
    /// Where configurations of the ensemble are kept.
    configs: Option<ConfigFiles>,
}

/// What was found on a member's disk.
#[derive(Debug)]
pub struct Opened {
    /// Tree and window.
    pub recovered: Recovered,
    /// Where history begins.
    pub base: Base,
    /// Number of transactions applied behind that.
    pub replayed: u64,
    /// Epochs and marks.
    pub store: MemberStore,
    /// The history is damaged: the tree is empty, and a leader's has to take its place.
    pub damaged: bool,
}

impl DiskOwner {
    /// Reads the directories.
    ///
    /// # Errors
    /// The operating system fails a call, or the epochs cannot be read. A damaged history is no error: this
    /// server may have acknowledged what it cannot read any more, so it must not vote with what is left, but
    /// it can fetch the history of a leader that others elect (protocol-aware recovery).
    pub fn open(dirs: &DataDirs, recovery: &RecoveryOptions, seed: u64) -> Result<Opened, DiskError> {
        let recovered = match recover(dirs, recovery, || TreeLoader::new(seed)) {
            Ok(recovered) => recovered,
            Err(error @ RecoveryError::Io(_)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "the history on the disk is damaged: a leader's will replace it");
                return Ok(Opened {
                    base: Base::LogsOnly,
                    replayed: 0,
                    store: MemberStore::open_without_history(dirs)?,
                    damaged: true,
                    recovered: Recovered { tree: Tree::new(seed), recent: Vec::new() },
                });
            }
        };
        let store = MemberStore::open(dirs, recovered.base, recovered.last_zxid)?;
        Ok(Opened {
            base: recovered.base,
            replayed: recovered.replayed,
            store,
            damaged: false,
            recovered: Recovered { tree: recovered.sink.finish(), recent: recovered.recent },
        })
    }

    /// Takes over what [`DiskOwner::open`] has found. `shared` holds the tree that is installed.
    #[allow(clippy::too_many_arguments)] // each is a part of the disk's description
    pub fn new(
        dirs: DataDirs,
        store: MemberStore,
        recovery: RecoveryOptions,
        log: LogOptions,
        shared: Arc<Shared>,
        digest: bool,
        seed: u64,
        damaged: bool,
    ) -> Self {
        DiskOwner { dirs, store, recovery, log, shared, digest, seed, damaged, configs: None }
    }

    /// Keeps configurations of the ensemble in these files, too.
    pub fn with_configs(self, configs: ConfigFiles) -> Self {
        DiskOwner { configs: Some(configs), ..self }
    }

    /// A failure is no reason to stop: the log has the configuration.
    fn write_config(&mut self, ensemble: &Ensemble, in_force: bool) {
        let Some(configs) = &mut self.configs else { return };
        let written = match in_force {
            true => configs.write_in_force(ensemble),
            false => configs.write_next(ensemble),
        };
        match written {
            Ok(()) if in_force => {
                tracing::info!(version = %format!("{:x}", ensemble.version), "configuration kept")
            }
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "cannot keep the configuration of the ensemble in a file"),
        }
    }

    /// Runs one operation while nobody else writes; returns the log to go on with, and the answer.
    ///
    /// # Errors
    /// Final: see [`DiskError`].
    pub fn run(&mut self, op: DiskOp, mut log: TxnLog) -> Result<(TxnLog, Option<DiskDone>), DiskError> {
        let done = match op {
            DiskOp::WriteAccepted(epoch) => {
                self.store.write_accepted(epoch)?;
                DiskDone::Accepted(epoch)
            }
            DiskOp::CommitSync { staged, epoch } => {
                self.store.commit_sync(&mut log, &staged, epoch)?;
                DiskDone::Synced { last: log.last(), epoch }
            }
            DiskOp::Install { pin, epoch } => {
                let last = pin.zxid;
                log.close()?;
                self.write_install(&pin)?;
                self.store.install(last, epoch)?;
                self.damaged = false;
                log = self.open_log(last);
                DiskDone::Synced { last, epoch }
            }
            DiskOp::Truncate(zxid) => {
                let (reopened, result) = self.truncate(zxid, log)?;
                log = reopened;
                DiskDone::Truncated(result)
            }
            DiskOp::Rebuild(ticket) => {
                log.close()?;
                let recovered = self.recover()?;
                log = self.open_log(recovered.tree.last_zxid());
                DiskDone::Rebuilt(ticket, Box::new(recovered))
            }
            DiskOp::Barrier(ticket) => DiskDone::Barrier(ticket),
            DiskOp::ReadChain { conn, from, to, bytes_max } => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                DiskDone::Chain { conn, result: self.store.read_chain(from, to, bytes_max) }
            }
            DiskOp::NoteCommitted(zxid) => {
                self.store.note_committed(zxid.min(log.last()))?;
                return Ok((log, None));
            }
            DiskOp::WriteConfig { ensemble, in_force } => {
                self.write_config(&ensemble, in_force);
                return Ok((log, None));
            }
        };
        Ok((log, Some(done)))
    }

    /// The log behind a transaction.
    pub fn open_log(&self, last: Zxid) -> TxnLog {
        TxnLog::new(self.dirs.fs().clone(), self.dirs.log(), self.log.clone(), last)
    }

    /// The epochs and marks.
    pub fn store(&self) -> &MemberStore {
        &self.store
    }

    fn truncate(
        &mut self,
        zxid: Zxid,
        log: TxnLog,
    ) -> Result<(TxnLog, Result<Box<Recovered>, CannotTruncate>), DiskError> {
        let last = log.last();
        log.close()?;
        let further = i64::from(Mutation::TruncateTooFar.is_on() && zxid.counter() > 1);
        match self.store.truncate(Zxid(zxid.0 - further)) {
            Ok(()) => {
                let recovered = self.recover()?;
                Ok((self.open_log(recovered.tree.last_zxid()), Ok(Box::new(recovered))))
            }
            Err(TruncateError::Cannot(refused)) => Ok((self.open_log(last), Err(refused))),
            Err(TruncateError::Io(error)) => Err(error.into()),
        }
    }

    fn recover(&self) -> Result<Recovered, DiskError> {
        if self.damaged {
            return Ok(Recovered { tree: Tree::new(self.seed), recent: Vec::new() });
        }
        let recovered = recover(&self.dirs, &self.recovery, || TreeLoader::new(self.seed))?;
        Ok(Recovered { tree: recovered.sink.finish(), recent: recovered.recent })
    }

    fn write_install(&self, pin: &SnapshotPin) -> Result<(), DiskError> {
        let sessions = pin.sessions.iter().copied();
        let acls = pin.acls.iter().map(|(id, acl)| (*id, &acl[..]));
        let mut writer = self.store.install_writer(pin.zxid, sessions, acls)?;
        let whole = write_pinned(&self.shared, pin, &mut writer, &|| false)?;
        // The tree is replaced only when this operation is done.
        assert!(whole, "the tree that is being installed is not in use");
        writer.finish(pin.zxid, self.digest.then_some(pin.digest as i64))?;
        Ok(())
    }
}
