//! `acceptedEpoch` and `currentEpoch`: one decimal number each, as Apache writes them.

use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use super::super::DataDirs;
use super::super::fs::{At, Fs, IoError};
use super::files::{read_small, remove_if_there, write_synced};
use crate::zab::{Epoch, Epochs};

const ACCEPTED: &str = "acceptedEpoch";
const CURRENT: &str = "currentEpoch";

/// Why the epochs are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A file holds something else than an epoch.
    #[error(
        "{} holds no epoch. Restore the file; its number is at least that of the other members' when this \
         server was last seen", .0.display()
    )]
    Unreadable(PathBuf),
    /// More was taken over than was promised: one of the files is not from this server's last run.
    #[error("in {} acceptedEpoch {accepted} is less than currentEpoch {current}: restore the newer acceptedEpoch", dir.display())]
    Inverted {
        /// Directory of the files.
        dir: PathBuf,
        /// Content of `acceptedEpoch`.
        accepted: Epoch,
        /// Content of `currentEpoch`.
        current: Epoch,
    },
    /// The log reaches into an epoch that was never accepted, so whose history it holds is unknown. A member
    /// must take a snapshot from its leader, see [`MemberStore::open_without_history`].
    ///
    /// [`MemberStore::open_without_history`]: super::MemberStore::open_without_history
    #[error("the log in {} ends at zxid {last}, beyond acceptedEpoch {accepted}", dir.display())]
    Behind {
        /// Directory of the files.
        dir: PathBuf,
        /// Last transaction.
        last: Zxid,
        /// Content of `acceptedEpoch`.
        accepted: Epoch,
    },
}

/// The epochs of a member. Both never decrease, on disk first and in memory then; the accepted epoch is never
/// below the current one.
#[derive(Debug)]
pub(super) struct EpochFiles {
    dirs: DataDirs,
    epochs: Epochs,
    /// In `currentEpoch.tmp`, durable.
    staged: Option<Epoch>,
}

impl EpochFiles {
    /// Reads the files, and repairs what a crash or the change from a standalone server leaves.
    ///
    /// `last` is the end of an unbroken history; `None` when it is damaged. A missing file gets the epoch of
    /// `last`, as in Apache. When `last` is of a later epoch than the current one, a crash came between the
    /// history and the file: the current epoch is then the one of `currentEpoch.tmp` (as in Apache) or else
    /// that of `last`, because a transaction follows only the complete history of its epoch.
    pub(super) fn open(dirs: &DataDirs, last: Option<Zxid>) -> Result<Self, EpochError> {
        let (fs, dir) = (&*dirs.fs, dirs.data());
        let found = (read(fs, dir, ACCEPTED)?, read(fs, dir, CURRENT)?);
        let of_last = last.map(Epoch::of).unwrap_or_default();
        let mut current = found.1.unwrap_or(of_last);
        let accepted = found.0.unwrap_or(current.max(of_last));
        if accepted < current {
            return Err(EpochError::Inverted { dir: dir.to_owned(), accepted, current });
        }
        if let Some(last) = last.filter(|_| of_last > accepted) {
            return Err(EpochError::Behind { dir: dir.to_owned(), last, accepted });
        }
        if of_last > current {
            let staged = match read(fs, dir, &temporary(CURRENT)) {
                // An unfinished write.
                Err(EpochError::Unreadable(_)) => None,
                read => read?,
            };
            current = staged.filter(|&e| e >= of_last && e <= accepted).unwrap_or(of_last);
            tracing::warn!(%current, "recovery: currentEpoch raised to the history that is there");
        }
        // Accepted first: at no moment is it below the current one.
        for (name, found, epoch) in [(ACCEPTED, found.0, accepted), (CURRENT, found.1, current)] {
            if found != Some(epoch) {
                write(fs, dir, name, epoch)?;
            }
        }
        let mut removed = false;
        for name in [ACCEPTED, CURRENT] {
            removed |= remove_if_there(fs, &dir.join(temporary(name)))?;
        }
        if removed {
            fs.sync_dir(dir).at("sync", dir)?;
        }
        Ok(EpochFiles { dirs: dirs.clone(), epochs: Epochs { accepted, current }, staged: None })
    }

    /// What is on disk.
    pub(super) fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// Makes the promise durable that nothing of an older epoch is followed any more. Nothing happens when it
    /// was given before.
    ///
    /// Panics when a later one was accepted.
    pub(super) fn write_accepted(&mut self, epoch: Epoch) -> Result<(), IoError> {
        assert!(epoch >= self.epochs.accepted, "epoch {epoch} accepted after {}", self.epochs.accepted);
        if epoch > self.epochs.accepted {
            write(&*self.dirs.fs, self.dirs.data(), ACCEPTED, epoch)?;
            self.epochs.accepted = epoch;
        }
        Ok(())
    }

    /// To be called before the history of `epoch` is written: with `currentEpoch.tmp` there, an Apache server
    /// opens the directory after a crash in between, too. Does not change [`EpochFiles::epochs`].
    pub(super) fn stage_current(&mut self, epoch: Epoch) -> Result<(), IoError> {
        if epoch > self.epochs.current && self.staged != Some(epoch) {
            stage(&*self.dirs.fs, self.dirs.data(), CURRENT, epoch)?;
            self.staged = Some(epoch);
        }
        Ok(())
    }

    /// Makes durable that the history of the epoch's leader is here, which must be durable before. Nothing
    /// happens when it was known.
    ///
    /// Panics when the epoch was not accepted, or a later one is current.
    pub(super) fn write_current(&mut self, epoch: Epoch) -> Result<(), IoError> {
        let Epochs { accepted, current } = self.epochs;
        assert!(epoch >= current && epoch <= accepted, "epoch {epoch} after {current}, accepted {accepted}");
        if epoch > current {
            self.stage_current(epoch)?;
            publish(&*self.dirs.fs, self.dirs.data(), CURRENT)?;
            self.staged = None;
            self.epochs.current = epoch;
        }
        Ok(())
    }

    /// Takes over what rolling an installation forward has written.
    pub(super) fn installed(&mut self, epoch: Epoch) {
        self.staged = None;
        self.epochs.current = self.epochs.current.max(epoch);
    }
}

/// Puts `epoch` into `currentEpoch.tmp` unless it is current; whether it did.
pub(super) fn stage_current(dirs: &DataDirs, epoch: Epoch) -> Result<bool, IoError> {
    let behind = match read(&*dirs.fs, dirs.data(), CURRENT) {
        Ok(current) => current.is_none_or(|current| current < epoch),
        Err(EpochError::Io(e)) => return Err(e),
        // To be reported by [`EpochFiles::open`], not overwritten.
        Err(_) => false,
    };
    if behind {
        stage(&*dirs.fs, dirs.data(), CURRENT, epoch)?;
    }
    Ok(behind)
}

/// Lets `currentEpoch.tmp` become current.
pub(super) fn publish_current(dirs: &DataDirs) -> Result<(), IoError> {
    publish(&*dirs.fs, dirs.data(), CURRENT)
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

fn write(fs: &dyn Fs, dir: &Path, name: &str, epoch: Epoch) -> Result<(), IoError> {
    stage(fs, dir, name, epoch)?;
    publish(fs, dir, name)
}

fn stage(fs: &dyn Fs, dir: &Path, name: &str, epoch: Epoch) -> Result<(), IoError> {
    write_synced(fs, &dir.join(temporary(name)), epoch.to_string().as_bytes())?;
    fs.sync_dir(dir).at("sync", dir)
}

fn publish(fs: &dyn Fs, dir: &Path, name: &str) -> Result<(), IoError> {
    let path = dir.join(name);
    fs.rename(&dir.join(temporary(name)), &path).at("rename to", &path)?;
    fs.sync_dir(dir).at("sync", dir)
}

fn read(fs: &dyn Fs, dir: &Path, name: &str) -> Result<Option<Epoch>, EpochError> {
    let path = dir.join(name);
    let Some(content) = read_small(fs, &path)? else { return Ok(None) };
    let number = std::str::from_utf8(&content).ok().map(str::trim);
    // Digits only: `parse` would also take a sign.
    let number = number.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let epoch = number.and_then(|text| text.parse().ok()).map(Epoch).filter(|&epoch| epoch <= Epoch::MAX);
    epoch.map(Some).ok_or(EpochError::Unreadable(path))
}
