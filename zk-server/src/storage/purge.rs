//! Deleting snapshots and logs that nobody needs any more.

use std::collections::HashSet;
use std::path::PathBuf;

use zk_proto::Zxid;

use super::fs::{At, IoError};
use super::log::first_needed;
use super::member::RETIRED_DIR;
use super::{DataDirs, LogName, SnapshotError, SnapshotName, verify_snapshot};

/// Apache's minimum of `autopurge.snapRetainCount`.
pub const RETAIN_MIN: usize = 3;

/// Deletes what lies behind the newest snapshots, remembering which snapshots were verified.
///
/// Only snapshots that were read completely, with every seal, and synced count as kept: Apache counts any
/// that look complete, and damaged ones can push out the last good one (ZOOKEEPER-3231).
#[derive(Debug)]
pub struct Purger {
    dirs: DataDirs,
    retain: usize,
    /// Name and size of intact, synced snapshots.
    verified: HashSet<(SnapshotName, u64)>,
}

/// Why a purge stopped. What it deleted until then is consistent: it can be repeated at any time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A snapshot could not be read, for another reason than its content.
    #[error(transparent)]
    Snapshot(SnapshotError),
}

impl Purger {
    /// A purger that keeps `retain` snapshots, at least 3.
    pub fn new(dirs: DataDirs, retain: usize) -> Self {
        Purger { dirs, retain: retain.max(RETAIN_MIN), verified: HashSet::new() }
    }

    /// Deletes all snapshots and logs that the newest intact ones make superfluous, and returns their paths.
    /// Deletes nothing while there are fewer intact snapshots than are to be kept. Reads each snapshot that
    /// it keeps once. May run beside a server that writes; waits while the history is recovered, cut or
    /// replaced.
    pub fn purge(&mut self) -> Result<Vec<PathBuf>, PurgeError> {
        let dirs = self.dirs.clone();
        let _alone = dirs.alone();
        let Some(oldest_kept) = self.oldest_kept()? else { return Ok(Vec::new()) };
        let superfluous = self.superfluous(oldest_kept)?;
        let fs = self.dirs.fs();
        // Apache does not sync names either.
        fs.sync_dir(self.dirs.data()).at("sync", self.dirs.data())?;
        for path in &superfluous {
            fs.remove(path).at("remove", path)?;
            tracing::info!("purged {}", path.display());
        }
        Ok(superfluous)
    }

    /// The zxid behind which history is needed.
    fn oldest_kept(&mut self) -> Result<Option<Zxid>, PurgeError> {
        let (fs, dir) = (self.dirs.fs().clone(), self.dirs.data().to_owned());
        let files = fs.list(&dir).at("list", &dir)?;
        let mut snapshots: Vec<(SnapshotName, u64)> =
            files.iter().filter_map(|file| Some((SnapshotName::parse(&file.name)?, file.len))).collect();
        snapshots.sort_by_key(|(name, _)| std::cmp::Reverse(name.zxid));
        self.verified.retain(|known| snapshots.contains(known));

        // One zxid counts once, under whatever compressions it is there.
        let mut kept: Vec<Zxid> = Vec::new();
        for known in snapshots {
            if !self.is_intact(known)? || kept.contains(&known.0.zxid) {
                continue;
            }
            kept.push(known.0.zxid);
            if kept.len() == self.retain {
                return Ok(Some(known.0.zxid));
            }
        }
        Ok(None)
    }

    fn is_intact(&mut self, known: (SnapshotName, u64)) -> Result<bool, PurgeError> {
        if self.verified.contains(&known) {
            return Ok(true);
        }
        let (fs, path) = (self.dirs.fs(), self.dirs.data().join(known.0.to_string()));
        match verify_snapshot(&**fs, &path, known.0.compression) {
            Ok(_) => {}
            Err(SnapshotError::Io(e)) => return Err(PurgeError::Io(e)),
            Err(e) => {
                tracing::warn!("purge does not count a snapshot: {e}");
                return Ok(false);
            }
        }
        // Apache does not sync its snapshots.
        fs.open(&path).and_then(|file| file.sync()).at("sync", &path)?;
        self.verified.insert(known);
        Ok(true)
    }

    /// Snapshots before logs and old before new, so that at any moment every snapshot that is left has the
    /// logs behind it.
    fn superfluous(&self, oldest_kept: Zxid) -> Result<Vec<PathBuf>, PurgeError> {
        let fs = &**self.dirs.fs();
        let mut paths = Vec::new();
        let dir = self.dirs.data();
        let files = fs.list(dir).at("list", dir)?;
        let mut snapshots: Vec<SnapshotName> =
            files.iter().filter_map(|file| SnapshotName::parse(&file.name)).collect();
        snapshots.sort_by_key(|name| name.zxid);
        let old = snapshots.iter().filter(|name| name.zxid < oldest_kept);
        paths.extend(old.map(|name| dir.join(name.to_string())));

        let dir = self.dirs.log();
        let files = fs.list(dir).at("list", dir)?;
        let mut logs: Vec<LogName> = files.iter().filter_map(|file| LogName::parse(&file.name)).collect();
        logs.sort();
        let needed = first_needed(fs, dir, &logs, oldest_kept)?;
        paths.extend(logs[..needed].iter().map(|name| dir.join(name.to_string())));

        // Replaced by a snapshot from the leader, before those that are kept.
        for retired in self.dirs.distinct().map(|dir| dir.join(RETIRED_DIR)) {
            if fs.exists(&retired).at("look for", &retired)? {
                let files = fs.list(&retired).at("list", &retired)?;
                paths.extend(files.iter().map(|file| retired.join(&file.name)));
            }
        }
        Ok(paths)
    }
}
