//! Opening a data directory: the newest intact snapshot, then every transaction behind it.
//!
//! The rules go beyond Apache's: a gap in the history, damage in front of intact records, or a lost snapshot
//! that nothing replaces stop the start with an explanation, where Apache would serve a wrong tree. The disk
//! is changed only after everything was read and judged good.

mod error;
mod replay;
mod tail;

use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use super::fs::{At, DiskFile, Fs, IoError};
use super::log::NEXT_LOG;
use super::{
    DataDirs, LogName, Replay, SnapshotError, SnapshotInfo, SnapshotName, SnapshotSink, member, read_snapshot,
};
use crate::zab::Proposal;
pub use error::RecoveryError;
use replay::{LogEnd, TornTail, replay_logs};

/// Choices that change what is accepted.
#[derive(Debug, Clone)]
pub struct RecoveryOptions {
    /// `snapshot.trust.empty`: logs without a snapshot are the whole history.
    pub trust_empty: bool,
    /// `db.autocreate`: a directory without any files is a new database even without the `initialize` marker.
    pub autocreate: bool,
    /// Explicit repair: damage in the last log is treated like a torn tail. Gives up what may have been
    /// acknowledged.
    pub cut_damaged_log: bool,
    /// Bound on a snapshot's size after decompression; see [`read_snapshot`] for the default.
    pub snapshot_bytes_max: Option<u64>,
    /// How many of the last transactions to hand on as [`Recovered::recent`].
    pub recent_max: usize,
}

impl Default for RecoveryOptions {
    fn default() -> Self {
        RecoveryOptions {
            trust_empty: false,
            autocreate: true,
            cut_damaged_log: false,
            snapshot_bytes_max: None,
            recent_max: 0,
        }
    }
}

/// What history was found to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// A snapshot.
    Snapshot(SnapshotName),
    /// Nothing: the logs go back to the first transaction (`trust_empty`).
    LogsOnly,
    /// No files: a new database. Its first snapshot has still to be written, before the first transaction.
    New,
    /// No files, and nobody said that this is a new database: an ensemble member must not vote as if its
    /// empty history were complete, a standalone server must not start.
    Uninitialized,
}

/// Something found and dealt with that an operator should know. Each was logged as a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incident {
    /// A newer snapshot is damaged; the log made up for it.
    SnapshotSkipped(PathBuf),
    /// An unfinished write at the end of the log was cut off; `copy` keeps its bytes.
    TornTailCut {
        /// The log.
        log: PathBuf,
        /// Where it was cut.
        offset: u64,
        /// Where its bytes are kept; `None` when the disk was too full for that.
        copy: Option<PathBuf>,
    },
    /// An older log ends in an unfinished write; the next log continues right there.
    TornTailInside {
        /// The log.
        log: PathBuf,
        /// Behind its last valid record.
        offset: u64,
    },
    /// A file without any content of worth was deleted: a log that never got a record, a leftover of a crash.
    Removed(PathBuf),
}

/// An opened data directory.
#[derive(Debug)]
pub struct Recovered<S> {
    /// The filled sink. For [`Base::New`] and [`Base::Uninitialized`] it is as it was made.
    pub sink: S,
    /// Last transaction; durable. 0 for a new database.
    pub last_zxid: Zxid,
    /// Where history begins.
    pub base: Base,
    /// Number of transactions applied behind the base.
    pub replayed: u64,
    /// The last of them, oldest first, as many as [`RecoveryOptions::recent_max`] allows.
    pub recent: Vec<Proposal>,
    /// What was repaired on the way.
    pub incidents: Vec<Incident>,
}

/// Opens the directories: fills a sink from `make_sink` (called for each snapshot tried) and makes sure that
/// everything it was given is durable. Afterwards the log goes on in a new file behind `last_zxid`.
///
/// What a crash interrupted is finished first: a truncation, or the installation of a leader's snapshot.
///
/// Blocking and CPU bound. Log records are read and checked on a second thread ahead of the sink. Nothing
/// else may write to the directories meanwhile, see [`DirLock`](super::DirLock).
pub fn recover<S: SnapshotSink + Replay>(
    dirs: &DataDirs,
    options: &RecoveryOptions,
    make_sink: impl FnMut() -> S,
) -> Result<Recovered<S>, RecoveryError> {
    let _alone = dirs.alone();
    member::finish_interrupted(dirs)?;
    let files = Files::scan(dirs)?;
    let mut loaded = load_snapshot(dirs, &files, options, make_sink)?;
    let base_zxid = match loaded.base {
        Base::Snapshot(name) => name.zxid,
        _ => Zxid::ZERO,
    };
    loaded.sink.snapshot_loaded(base_zxid, loaded.info.and_then(|info| info.digest));
    let lost: Vec<Zxid> = loaded.damaged.iter().map(|(name, _)| name.zxid).collect();
    let end = replay_logs(dirs, &files.logs, base_zxid, &lost, options, &mut loaded.sink)?;
    check_completeness(dirs, &mut loaded, end.last)?;

    let mut incidents: Vec<Incident> =
        loaded.damaged.iter().map(|(name, _)| Incident::SnapshotSkipped(name.path(dirs))).collect();
    incidents.extend(end.torn_inside.iter().cloned());
    if let Base::Snapshot(name) = loaded.base {
        // Apache does not sync its snapshots.
        let path = name.path(dirs);
        dirs.fs.open(&path).and_then(|file| file.sync()).at("sync", &path)?;
    }
    tidy_up(dirs, &files, &end, &mut incidents)?;
    for incident in &incidents {
        tracing::warn!("recovery: {incident}");
    }
    let Loaded { sink, base, .. } = loaded;
    let LogEnd { last, replayed, recent, .. } = end;
    Ok(Recovered { sink, last_zxid: last, base, replayed, recent: recent.into(), incidents })
}

/// The files of the two directories that recovery deals with.
struct Files {
    /// Newest first.
    snapshots: Vec<SnapshotName>,
    /// Oldest first.
    logs: Vec<LogName>,
    /// Leftovers of interrupted writes.
    strays: Vec<PathBuf>,
    /// The operator's mark for a new database.
    initialize: Option<PathBuf>,
}

impl Files {
    fn scan(dirs: &DataDirs) -> Result<Self, IoError> {
        let fs = &*dirs.fs;
        let mut files =
            Files { snapshots: Vec::new(), logs: Vec::new(), strays: Vec::new(), initialize: None };
        for dir in dirs.distinct() {
            for file in fs.list(dir).at("list", dir)? {
                if let Some(name) = SnapshotName::parse(&file.name) {
                    files.snapshots.push(name);
                } else if let Some(name) = LogName::parse(&file.name) {
                    files.logs.push(name);
                } else if is_stray(&file.name) {
                    files.strays.push(dir.join(file.name));
                }
            }
        }
        files.snapshots.sort_by_key(|name| std::cmp::Reverse(name.zxid));
        files.logs.sort();
        if let Some(parent) = dirs.log().parent() {
            let path = parent.join("initialize");
            files.initialize = fs.exists(&path).at("look for", &path)?.then_some(path);
        }
        Ok(files)
    }
}

/// Unfinished files of ours, and Apache's unfinished snapshots: Apache would load one of those if it happened
/// to be complete. (`currentEpoch.tmp` and `acceptedEpoch.tmp` have a meaning, they stay.)
fn is_stray(name: &str) -> bool {
    let unfinished_snapshot = name.strip_suffix(".tmp").is_some_and(|n| SnapshotName::parse(n).is_some());
    name.starts_with(".tmp-") || name == NEXT_LOG || unfinished_snapshot
}

struct Loaded<S> {
    sink: S,
    base: Base,
    info: Option<SnapshotInfo>,
    /// Snapshots newer than the base that could not be loaded.
    damaged: Vec<(SnapshotName, SnapshotError)>,
}

fn load_snapshot<S: SnapshotSink>(
    dirs: &DataDirs,
    files: &Files,
    options: &RecoveryOptions,
    mut make_sink: impl FnMut() -> S,
) -> Result<Loaded<S>, RecoveryError> {
    let mut damaged = Vec::new();
    for &name in &files.snapshots {
        let mut sink = make_sink();
        let path = name.path(dirs);
        match read_snapshot(&*dirs.fs, &path, name.compression, options.snapshot_bytes_max, &mut sink) {
            Ok(info) => return Ok(Loaded { sink, base: Base::Snapshot(name), info: Some(info), damaged }),
            Err(e @ (SnapshotError::Damaged { .. } | SnapshotError::Refused { .. })) => {
                tracing::warn!("snapshot skipped: {e}");
                damaged.push((name, e));
            }
            // Not the file's fault: an older one would silently stand for it.
            Err(e) => return Err(RecoveryError::Snapshot(e)),
        }
    }
    let base = match files.logs.first() {
        // Apache writes its first snapshot unsynced: an empty one with nothing behind it may be torn.
        _ if !damaged.is_empty()
            && (!files.logs.is_empty() || damaged.iter().any(|(n, _)| n.zxid > Zxid::ZERO)) =>
        {
            let (dir, count) = (dirs.data().to_owned(), damaged.len());
            let (_, newest) = damaged.swap_remove(0);
            return Err(RecoveryError::NoIntactSnapshot { dir, count, newest });
        }
        Some(_) if options.trust_empty => Base::LogsOnly,
        Some(log) => return Err(RecoveryError::NoSnapshot { log: log.path(dirs) }),
        None if options.autocreate || files.initialize.is_some() => Base::New,
        None => Base::Uninitialized,
    };
    Ok(Loaded { sink: make_sink(), base, info: None, damaged })
}

/// Everything that any snapshot claims to have seen must be in the history.
fn check_completeness<S>(dirs: &DataDirs, loaded: &mut Loaded<S>, last: Zxid) -> Result<(), RecoveryError> {
    if let Some(at) = loaded.damaged.iter().position(|(name, _)| name.zxid > last) {
        let (name, snapshot) = loaded.damaged.swap_remove(at);
        return Err(RecoveryError::SnapshotNeeded { snapshot, zxid: name.zxid, last });
    }
    let (Base::Snapshot(name), Some(info)) = (loaded.base, loaded.info) else { return Ok(()) };
    let seen = info.digest.map(|d| d.zxid).max(info.last_zxid).unwrap_or(name.zxid);
    if seen > last {
        return Err(RecoveryError::LogEndsInsideSnapshot { snapshot: name.path(dirs), zxid: seen, last });
    }
    Ok(())
}

/// Removes what a crash left behind and makes durable what was read.
fn tidy_up(
    dirs: &DataDirs,
    files: &Files,
    end: &LogEnd,
    incidents: &mut Vec<Incident>,
) -> Result<(), IoError> {
    let fs = &*dirs.fs;
    if let Some(torn) = &end.torn {
        incidents.push(cut_tail(fs, dirs.log(), torn)?);
    }
    if let Some((log, end)) = &end.last_log {
        write_end_again(fs, log, *end)?;
    }
    // Logs above the end have no record. Left there, one could later hide records of an older file.
    let recordless = files.logs.iter().rev().filter(|log| log.0 > end.last).map(|log| log.path(dirs));
    let unborn = end.unborn.iter().cloned();
    let mut removed: Vec<PathBuf> = recordless.chain(files.strays.iter().cloned()).collect();
    removed.extend(unborn.filter(|path| !removed.contains(path)).collect::<Vec<_>>());
    for path in removed {
        fs.remove(&path).at("remove", &path)?;
        // Our own leftovers are no news.
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            incidents.push(Incident::Removed(path));
        }
    }
    if let Some(marker) = &files.initialize {
        fs.remove(marker).at("remove", marker)?;
    }
    for dir in dirs.distinct() {
        fs.sync_dir(dir).at("sync", dir)?;
    }
    Ok(())
}

const COPY_BUFFER: usize = 1 << 20;

/// Makes the end of the log durable. After a kill it may stand in the page cache only. After a failed sync it
/// does so for good: the kernel takes the pages for written, and another sync would do nothing. Writing the
/// same bytes again makes them count as new.
fn write_end_again(fs: &dyn Fs, path: &Path, end: u64) -> Result<(), IoError> {
    let log = fs.open_write(path).at("open", path)?;
    let mut at = end.saturating_sub(tail::WRITE_MAX);
    let mut buf = vec![0; usize::try_from(end - at).unwrap_or(COPY_BUFFER).min(COPY_BUFFER)];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(buf.len()).min(buf.len());
        let n = log.read_full_at(&mut buf[..want], at).at("read", path)?;
        if n == 0 {
            break;
        }
        log.write_at(&[IoSlice::new(&buf[..n])], at).at("write", path)?;
        at += n as u64;
    }
    log.sync().at("sync", path)
}

/// Keeps a copy of the bytes behind the last record, then cuts them off.
fn cut_tail(fs: &dyn Fs, dir: &Path, torn: &TornTail) -> Result<Incident, IoError> {
    let log = fs.open_write(&torn.log).at("open", &torn.log)?;
    let name = torn.log.file_name().unwrap_or_default().to_string_lossy();
    let path = dir.join(format!("corrupt-{name}.at-{}", torn.offset));
    let copy = match copy_range(fs, &*log, &torn.log, torn.offset..torn.content_end, &path) {
        Ok(()) => Some(path),
        // The bytes were acknowledged to nobody; a full disk must not keep the server from starting.
        Err(e) if e.source.kind() == ErrorKind::StorageFull => {
            tracing::warn!("no copy of an unfinished write: {e}");
            let _ = fs.remove(&path);
            None
        }
        Err(e) => return Err(e),
    };
    log.set_len(torn.offset).at("cut", &torn.log)?;
    log.sync().at("sync", &torn.log)?;
    Ok(Incident::TornTailCut { log: torn.log.clone(), offset: torn.offset, copy })
}

/// Copies a part of `file`, which is at `from`, to a new file, durably.
pub(super) fn copy_range(
    fs: &dyn Fs,
    file: &dyn DiskFile,
    from: &Path,
    range: Range<u64>,
    to: &Path,
) -> Result<(), IoError> {
    let copy = fs.create(to).at("create", to)?;
    let mut buf = vec![0; usize::try_from(range.end - range.start).unwrap_or(COPY_BUFFER).min(COPY_BUFFER)];
    let mut at = range.start;
    while at < range.end {
        let want = usize::try_from(range.end - at).unwrap_or(buf.len()).min(buf.len());
        let n = file.read_full_at(&mut buf[..want], at).at("read", from)?;
        if n == 0 {
            break;
        }
        copy.write_at(&[IoSlice::new(&buf[..n])], at - range.start).at("write", to)?;
        at += n as u64;
    }
    copy.sync().at("sync", to)?;
    let dir = to.parent().unwrap_or(Path::new("."));
    fs.sync_dir(dir).at("sync", dir)
}

impl SnapshotName {
    fn path(&self, dirs: &DataDirs) -> PathBuf {
        dirs.data().join(self.to_string())
    }
}

impl LogName {
    fn path(&self, dirs: &DataDirs) -> PathBuf {
        dirs.log().join(self.to_string())
    }
}

impl std::fmt::Display for Incident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Incident::SnapshotSkipped(path) => {
                write!(f, "{} is damaged; an older snapshot and the log replace it", path.display())
            }
            Incident::TornTailCut { log, offset, copy } => {
                write!(f, "{} ended in an unfinished write, cut at byte {offset}", log.display())?;
                match copy {
                    Some(copy) => write!(f, "; copy in {}", copy.display()),
                    None => write!(f, "; the disk was too full for a copy"),
                }
            }
            Incident::TornTailInside { log, offset } => write!(
                f,
                "{} has an unfinished write at byte {offset}; the next log continues in front of it",
                log.display()
            ),
            Incident::Removed(path) => write!(f, "{} has no content of worth, removed", path.display()),
        }
    }
}
