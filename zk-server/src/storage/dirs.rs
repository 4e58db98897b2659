//! The two directories of a server, and the lock that keeps a second server out.

use std::fs::{File, TryLockError};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::fs::{At, Fs, IoError};
use super::{LogName, SnapshotName, VERSION_DIR};

/// Where snapshots and logs are. Both may be the same directory.
#[derive(Debug, Clone)]
pub struct DataDirs {
    pub(super) fs: Arc<dyn Fs>,
    data: PathBuf,
    log: PathBuf,
    /// See [`DataDirs::alone`].
    deleting: Arc<Mutex<()>>,
}

/// Why the directories cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// The operating system failed a call.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The directory is missing and may not be created.
    #[error("{} does not exist and zookeeper.datadir.autocreate is false", .0.display())]
    Missing(PathBuf),
    /// dataDir and dataLogDir differ, and one holds files of the other.
    #[error(
        "{} does not belong there: dataDir holds the snapshots, dataLogDir the logs. After changing \
         dataLogDir, move the files by hand",
        .0.display()
    )]
    Misplaced(PathBuf),
    /// Another process uses the directory.
    #[error("{} is in use by another server{}", dir.display(), holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Process id of the other server as it noted it, when it could be read.
        holder: Option<u32>,
    },
}

impl DataDirs {
    /// Opens `data_dir` for snapshots and `log_dir` for logs (`None`: the same), both without `version-2`.
    /// Missing directories are created when `autocreate` allows it, and made durable.
    pub fn open(
        fs: Arc<dyn Fs>,
        data_dir: &Path,
        log_dir: Option<&Path>,
        autocreate: bool,
    ) -> Result<Self, DirError> {
        let data = data_dir.join(VERSION_DIR);
        let log = log_dir.unwrap_or(data_dir).join(VERSION_DIR);
        for dir in [&data, &log] {
            if !fs.exists(dir).at("look for", dir)? {
                if !autocreate {
                    return Err(DirError::Missing(dir.clone()));
                }
                create_durably(&*fs, dir)?;
            }
        }
        let dirs = DataDirs { fs, data, log, deleting: Arc::default() };
        dirs.check_split()?;
        Ok(dirs)
    }

    /// The `version-2` directory of the snapshots.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The `version-2` directory of the logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The files that the directories are on.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// Held while files are deleted or moved: each of those who do so decides by what is there.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.deleting.lock()
    }

    /// The directories without repetition.
    pub(super) fn distinct(&self) -> impl Iterator<Item = &Path> {
        [&*self.data].into_iter().chain((self.log != self.data).then_some(&*self.log))
    }

    /// ZOOKEEPER-2967: with one of the two moved, history would silently start anew.
    fn check_split(&self) -> Result<(), DirError> {
        if self.data == self.log {
            return Ok(());
        }
        for file in self.fs.list(&self.data).at("list", &self.data)? {
            if LogName::parse(&file.name).is_some() {
                return Err(DirError::Misplaced(self.data.join(file.name)));
            }
        }
        for file in self.fs.list(&self.log).at("list", &self.log)? {
            if SnapshotName::parse(&file.name).is_some() {
                return Err(DirError::Misplaced(self.log.join(file.name)));
            }
        }
        Ok(())
    }
}

/// Creates a directory and makes every new name on the way durable.
fn create_durably(fs: &dyn Fs, dir: &Path) -> Result<(), IoError> {
    let mut new = Vec::new();
    for ancestor in dir.ancestors().filter(|a| !a.as_os_str().is_empty()) {
        if fs.exists(ancestor).at("look for", ancestor)? {
            break;
        }
        new.push(ancestor);
    }
    fs.create_dir_all(dir).at("create", dir)?;
    for created in new {
        let parent = created.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs.sync_dir(parent).at("sync", parent)?;
    }
    Ok(())
}

/// Held while a server runs; released when dropped, or by the kernel when the process ends.
#[derive(Debug)]
pub struct DirLock {
    _files: Vec<File>,
}

/// Name of the lock file in `version-2`; Apache ignores it.
const LOCK_FILE: &str = ".zk-lock";

impl DirLock {
    /// Locks the directories against a second server of ours (an Apache server does not look). Always on real
    /// files, whatever [`Fs`] the directories use.
    pub fn acquire(dirs: &DataDirs) -> Result<Self, DirError> {
        let files = dirs.distinct().map(lock).collect::<Result<_, _>>()?;
        Ok(DirLock { _files: files })
    }
}

fn lock(dir: &Path) -> Result<File, DirError> {
    let path = dir.join(LOCK_FILE);
    let mut options = File::options();
    // Not emptied here: until the lock is ours, it names its holder.
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = io::read_to_string(&file).ok().and_then(|pid| pid.trim().parse().ok());
            return Err(DirError::Locked { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(Err::<(), _>(e).at("lock", &path).unwrap_err().into()),
    }
    // Only for the other server's message.
    let note =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    note.at("write", &path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::RealFs;
    use super::*;

    fn open(data: &Path, log: Option<&Path>, autocreate: bool) -> Result<DataDirs, DirError> {
        DataDirs::open(Arc::new(RealFs), data, log, autocreate)
    }

    #[test]
    fn missing_directories_are_created_only_when_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        assert!(matches!(open(&data, None, false), Err(DirError::Missing(_))));
        assert!(!data.exists());
        open(&data, Some(&dir.path().join("c")), true).unwrap();
        assert!(data.join("version-2").is_dir() && dir.path().join("c/version-2").is_dir());
        open(&data, None, false).unwrap();
    }

    #[test]
    fn split_directories_must_not_hold_each_others_files() {
        let dir = tempfile::tempdir().unwrap();
        let (data, log) = (dir.path().join("data"), dir.path().join("log"));
        open(&data, Some(&log), true).unwrap();
        for misplaced in [data.join("version-2/log.1"), log.join("version-2/snapshot.0")] {
            std::fs::write(&misplaced, b"").unwrap();
            let error = open(&data, Some(&log), true).unwrap_err();
            assert!(matches!(&error, DirError::Misplaced(path) if *path == misplaced), "{error}");
            std::fs::remove_file(&misplaced).unwrap();
        }
        open(&data, Some(&log), true).unwrap();
    }

    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = open(dir.path(), None, true).unwrap();
        let lock = DirLock::acquire(&dirs).unwrap();
        let error = DirLock::acquire(&dirs).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(process {})", std::process::id())), "{error}");
        drop(lock);
        DirLock::acquire(&dirs).unwrap();
    }
}
