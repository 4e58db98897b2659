//! Cutting the log back to a transaction of the leader's history, with everything that knows more.
//!
//! The marker `truncate.<target>` lists what is to go; from then on the cut is finished by the next start if
//! not by this process. Newest first, so that an Apache server started in between finds a history without gaps.

use std::ops::ControlFlow;
use std::path::PathBuf;

use zk_proto::Zxid;

use super::super::fs::{At, IoError};
use super::super::log::read::{Head, LogReader};
use super::super::{DataDirs, LogName, SnapshotError, SnapshotInfo, SnapshotName, verify_snapshot};
use super::chain::{Broken, walk};
use super::files::{
    DataFile, FileList, cut, parse_zxid, read_small, remove_if_there, replace, seal, unseal, value,
};

/// Why the history cannot be cut there. Nothing was changed; the member needs a snapshot from its leader.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CannotTruncate {
    /// Transactions that are known to be committed would be lost.
    #[error("{target} is below {committed}, which is committed")]
    BelowCommitted {
        /// Where to cut.
        target: Zxid,
        /// The committed mark.
        committed: Zxid,
    },
    /// The target is no transaction of this history.
    #[error("{0} is not in this server's history")]
    NotInHistory(Zxid),
    /// No intact snapshot is left that is provably older than the target.
    #[error("no snapshot holds a state at or before {0}")]
    NoSnapshot(Zxid),
    /// Something may be missing between snapshot and target.
    #[error(transparent)]
    Broken(Broken),
}

/// Why a truncation did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TruncateError {
    /// It is impossible, and nothing was changed.
    #[error(transparent)]
    Cannot(#[from] CannotTruncate),
    /// A call failed: the state of the directories is unknown, and the process must end. The next start
    /// finishes the truncation or finds that it never began.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What is to be done.
#[derive(Debug)]
struct Plan {
    target: Zxid,
    /// Snapshots and logs that go as a whole, newest first.
    drop: FileList,
}

/// Cuts the history behind `target`.
pub(super) fn truncate(dirs: &DataDirs, target: Zxid) -> Result<(), TruncateError> {
    let plan = Plan::make(dirs, target)?;
    plan.write(dirs)?;
    plan.carry_out(dirs)?;
    Ok(())
}

/// Finishes a truncation that was interrupted.
pub(super) fn finish_truncation(dirs: &DataDirs) -> Result<(), IoError> {
    for file in dirs.fs.list(dirs.data()).at("list", dirs.data())? {
        let Some(target) = file.name.strip_prefix("truncate.").and_then(parse_zxid) else { continue };
        match Plan::read(dirs, target)? {
            Some(plan) if plan.still_holds(dirs)? => {
                tracing::warn!("recovery: finishing the truncation to {target}");
                plan.carry_out(dirs)?;
            }
            _ => {
                tracing::warn!("recovery: {} is not valid any more, removed", file.name);
                remove_marker(dirs, target)?;
            }
        }
    }
    Ok(())
}

impl Plan {
    fn make(dirs: &DataDirs, target: Zxid) -> Result<Self, TruncateError> {
        let files = FileList::scan(dirs)?;
        let (base, tainted) = find_base(dirs, &files, target)?;
        check_chain(dirs, base, target)?;
        let goes = |&(file, _): &(DataFile, u64)| {
            file.zxid() > target || matches!(file, DataFile::Snapshot(name) if tainted.contains(&name))
        };
        let mut drop = FileList(files.0.into_iter().filter(goes).collect());
        // A size that is not durable could change with a power loss, and the list would not hold any more.
        for (file, _) in &drop.0 {
            let path = file.path(dirs);
            dirs.fs.open_write(&path).and_then(|file| file.sync()).at("sync", &path)?;
        }
        // Snapshots first: without one of them, the logs still hold everything.
        drop.0.sort_by_key(|(file, _)| (file.is_log(), std::cmp::Reverse(file.zxid())));
        Ok(Plan { target, drop })
    }

    fn write(&self, dirs: &DataDirs) -> Result<(), IoError> {
        let mut text = format!("zk-truncate 1\ntarget {:x}\n", self.target.0);
        self.drop.write(&mut text);
        replace(&*dirs.fs, dirs.data(), &marker(self.target), &seal(text))
    }

    fn read(dirs: &DataDirs, target: Zxid) -> Result<Option<Self>, IoError> {
        let content = read_small(&*dirs.fs, &dirs.data().join(marker(target)))?;
        let parse = |content: &[u8]| {
            let mut lines = unseal(content)?;
            let known = lines.next() == Some("zk-truncate 1")
                && value(lines.next(), "target").and_then(parse_zxid) == Some(target);
            known.then(|| FileList::read(lines))?
        };
        Ok(content.as_deref().and_then(parse).map(|drop| Plan { target, drop }))
    }

    /// Whether nobody has written behind the target since.
    fn still_holds(&self, dirs: &DataDirs) -> Result<bool, IoError> {
        let files = FileList::scan(dirs)?;
        Ok(files
            .0
            .iter()
            .filter(|(file, _)| file.zxid() > self.target)
            .all(|entry| self.drop.contains(entry)))
    }

    fn carry_out(&self, dirs: &DataDirs) -> Result<(), IoError> {
        let fs = &*dirs.fs;
        for file in self.drop.files() {
            if remove_if_there(fs, &file.path(dirs))? {
                let dir = file.dir(dirs);
                fs.sync_dir(dir).at("sync", dir)?;
            }
        }
        let straddling = FileList::scan(dirs)?.logs().find(|log| log.0 <= self.target);
        if let Some(log) = straddling {
            let (file, path, end) = end_of(dirs, log, self.target)?;
            cut(&*file, &path, end)?;
            fs.sync_dir(dirs.log()).at("sync", dirs.log())?;
        }
        remove_marker(dirs, self.target)
    }
}

fn marker(target: Zxid) -> String {
    format!("truncate.{:x}", target.0)
}

fn remove_marker(dirs: &DataDirs, target: Zxid) -> Result<(), IoError> {
    remove_if_there(&*dirs.fs, &dirs.data().join(marker(target)))?;
    dirs.fs.sync_dir(dirs.data()).at("sync", dirs.data())
}

/// The snapshot from which the tree will be rebuilt, and the newer ones that are no state before the target:
/// Apache's snapshots hold effects of transactions behind their name.
fn find_base(
    dirs: &DataDirs,
    files: &FileList,
    target: Zxid,
) -> Result<(SnapshotName, Vec<SnapshotName>), TruncateError> {
    let mut tainted = Vec::new();
    for name in files.snapshots().filter(|name| name.zxid <= target) {
        let path = DataFile::Snapshot(name).path(dirs);
        match verify_snapshot(&*dirs.fs, &path, name.compression) {
            Ok(info) if last_effect(name, &info).is_some_and(|zxid| zxid <= target) => {
                return Ok((name, tainted));
            }
            Ok(_) => tainted.push(name),
            Err(SnapshotError::Io(e)) => return Err(e.into()),
            // Recovery skips it.
            Err(_) => {}
        }
    }
    Err(CannotTruncate::NoSnapshot(target).into())
}

/// The last transaction of which a snapshot may hold effects; `None` when it does not say.
fn last_effect(name: SnapshotName, info: &SnapshotInfo) -> Option<Zxid> {
    // Zxid 0 there means that digests were switched off.
    let digest = info.digest.map(|digest| digest.zxid).filter(|&zxid| zxid > Zxid::ZERO);
    let said = digest.max(info.last_zxid);
    let empty = name.zxid == Zxid::ZERO && info.digest.is_some();
    said.or(empty.then_some(Zxid::ZERO)).map(|zxid| zxid.max(name.zxid))
}

/// Whether the logs lead from the snapshot to the target.
fn check_chain(dirs: &DataDirs, base: SnapshotName, target: Zxid) -> Result<(), TruncateError> {
    if base.zxid == target {
        return Ok(());
    }
    let stop = |zxid| if zxid < target { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    match walk(dirs, base.zxid, |header, _| stop(header.zxid)) {
        Ok(last) if last == target => Ok(()),
        Ok(_) => Err(CannotTruncate::NotInHistory(target).into()),
        Err(Broken::Io(e)) => Err(e.into()),
        Err(broken) => Err(CannotTruncate::Broken(broken).into()),
    }
}

/// A log, and the offset behind its last record at or below `zxid`.
pub(super) fn end_of(
    dirs: &DataDirs,
    log: LogName,
    zxid: Zxid,
) -> Result<(Box<dyn super::super::DiskFile>, PathBuf, u64), IoError> {
    let path = DataFile::Log(log).path(dirs);
    let mut reader = LogReader::open(&*dirs.fs, &path)?;
    let mut end = reader.offset;
    if reader.head()? == Head::Good {
        'file: while let Ok(chunk) = reader.next_chunk()? {
            for (header, offset, _) in chunk.iter() {
                if header.zxid > zxid {
                    end = offset;
                    break 'file;
                }
            }
            end = reader.offset;
        }
    }
    let file = dirs.fs.open_write(&path).at("open", &path)?;
    Ok((file, path, end))
}
