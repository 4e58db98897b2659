//! Replacing the history by a snapshot from the leader, in one step that holds or does not.
//!
//! 1. the snapshot is complete as `.install-snapshot`, and synced;
//! 2. `.zk-base` says so and lists the files that it replaces: the commit point. Before it, the next start
//!    removes the snapshot; from here on, it finishes the installation;
//! 3. `currentEpoch.tmp` gets the epoch, for an Apache server that is started in between;
//! 4. logs above the snapshot go to `retired/`, newest first; what one holds on both sides of it is cut;
//! 5. the snapshot gets its name; then the other snapshots go, then the other logs;
//! 6. `currentEpoch.tmp` becomes `currentEpoch`, the committed mark is set, `.zk-base` says that all is done.
//!
//! Each step is durable before the next. At any moment Apache would find the old history, a prefix of it, or
//! the new base.

use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use super::super::fs::{At, IoError};
use super::super::log::read::LogReader;
use super::super::recovery::copy_range;
use super::super::{Compression, DataDirs, SnapshotName};
use super::base::{BaseFile, CommittedMark};
use super::epochs::{publish_current, stage_current};
use super::files::{DataFile, FileList, RETIRED_DIR, cut, remove_if_there};
use super::truncate::end_of;
use crate::zab::Epoch;

/// Where the snapshot is while it is received; Apache ignores it.
pub(super) const INSTALL_FILE: &str = ".install-snapshot";

/// Installs the snapshot in [`INSTALL_FILE`], which holds the state at `zxid`.
pub(super) fn install(dirs: &DataDirs, zxid: Zxid, epoch: Epoch) -> Result<CommittedMark, IoError> {
    let fs = &*dirs.fs;
    let new = installed_name(zxid);
    let replaced = FileList::scan(dirs)?.0.into_iter().filter(|&(file, _)| file != new);
    let replaced = FileList(replaced.collect());
    for dir in dirs.distinct() {
        let retired = dir.join(RETIRED_DIR);
        fs.create_dir_all(&retired).at("create", &retired)?;
        fs.sync_dir(dir).at("sync", dir)?;
    }
    let mut clashes = false;
    for file in replaced.files() {
        // The list is compared with what a later start finds: sizes must be durable, and a file in `retired/`
        // must be there because of this installation.
        let path = file.path(dirs);
        fs.open_write(&path).and_then(|file| file.sync()).at("sync", &path)?;
        clashes |= remove_if_there(fs, &file.retired_path(dirs))?;
    }
    if clashes {
        sync_retired(dirs)?;
    }
    let base = BaseFile { zxid, epoch, installing: Some(replaced) };
    base.write(dirs)?;
    carry_out(dirs, base)
}

/// Finishes an installation that was interrupted, or removes what it left when it was not committed.
pub(super) fn finish_installation(dirs: &DataDirs) -> Result<(), IoError> {
    let snapshot = dirs.data().join(INSTALL_FILE);
    match BaseFile::read(dirs)? {
        Some(base) if base.installing.is_some() => {
            if still_holds(dirs, &base)? {
                tracing::warn!("recovery: finishing the installation of a snapshot at {}", base.zxid);
                carry_out(dirs, base)?;
                return Ok(());
            }
            tracing::warn!(
                "recovery: the directory was in use since the installation of a snapshot at {} began; it is \
                 given up",
                base.zxid
            );
            BaseFile::remove(dirs)?;
        }
        _ => {}
    }
    if remove_if_there(&*dirs.fs, &snapshot)? {
        dirs.fs.sync_dir(dirs.data()).at("sync", dirs.data())?;
    }
    Ok(())
}

fn installed_name(zxid: Zxid) -> DataFile {
    DataFile::Snapshot(SnapshotName { zxid, compression: Compression::None })
}

/// Whether nobody has gone on from a state in between: then there are only files that were there, none came
/// again after it was retired, and the snapshot is there under one of its names.
fn still_holds(dirs: &DataDirs, base: &BaseFile) -> Result<bool, IoError> {
    let fs = &*dirs.fs;
    let new = installed_name(base.zxid);
    let Some(replaced) = &base.installing else { return Ok(false) };
    for entry @ (file, _) in FileList::scan(dirs)?.0 {
        let may_be_cut = file.is_log() && file.zxid() <= base.zxid;
        let known = match may_be_cut {
            true => replaced.files().any(|listed| listed == file),
            false => replaced.contains(&entry),
        };
        let retired = file.retired_path(dirs);
        if file != new && (!known || fs.exists(&retired).at("look for", &retired)?) {
            return Ok(false);
        }
    }
    let there = |path: &Path| fs.exists(path).at("look for", path);
    Ok(there(&dirs.data().join(INSTALL_FILE))? || there(&new.path(dirs))?)
}

fn carry_out(dirs: &DataDirs, base: BaseFile) -> Result<CommittedMark, IoError> {
    let fs = &*dirs.fs;
    let BaseFile { zxid, epoch, installing } = base;
    let replaced = installing.unwrap_or_default();
    let epoch_is_new = stage_current(dirs, epoch)?;

    for log in replaced.files().filter(|file| file.is_log() && file.zxid() > zxid) {
        if retire(dirs, log)? {
            sync_retired(dirs)?;
        }
    }
    cut_straddling(dirs, zxid)?;

    let (received, path) = (dirs.data().join(INSTALL_FILE), installed_name(zxid).path(dirs));
    if fs.exists(&received).at("look for", &received)? {
        fs.rename(&received, &path).at("rename to", &path)?;
        fs.sync_dir(dirs.data()).at("sync", dirs.data())?;
    }
    for logs in [false, true] {
        for file in replaced.files().filter(|file| file.is_log() == logs) {
            retire(dirs, file)?;
        }
        sync_retired(dirs)?;
    }

    let mark = CommittedMark::reset(dirs, zxid)?;
    if epoch_is_new {
        publish_current(dirs)?;
    }
    BaseFile { zxid, epoch, installing: None }.write(dirs)?;
    Ok(mark)
}

/// Moves a file out of reach; whether it was there.
fn retire(dirs: &DataDirs, file: DataFile) -> Result<bool, IoError> {
    let (path, to) = (file.path(dirs), file.retired_path(dirs));
    let there = dirs.fs.exists(&path).at("look for", &path)?;
    if there {
        dirs.fs.rename(&path, &to).at("rename to", &to)?;
    }
    Ok(there)
}

fn sync_retired(dirs: &DataDirs) -> Result<(), IoError> {
    for dir in dirs.distinct() {
        // The new names first: a move must not lose the file.
        for dir in [&*dir.join(RETIRED_DIR), dir] {
            dirs.fs.sync_dir(dir).at("sync", dir)?;
        }
    }
    Ok(())
}

/// Cuts records above `zxid` off the log that also holds older ones, and keeps a copy of the whole file.
fn cut_straddling(dirs: &DataDirs, zxid: Zxid) -> Result<(), IoError> {
    let Some(log) = FileList::scan(dirs)?.logs().find(|log| log.0 <= zxid) else { return Ok(()) };
    let (file, path, end) = end_of(dirs, log, zxid)?;
    let content_end = LogReader::open(&*dirs.fs, &path)?.end_of_content(end)?;
    if content_end == end {
        return Ok(());
    }
    let copy: PathBuf = dirs.log().join(RETIRED_DIR).join(format!("whole-{log}"));
    copy_range(&*dirs.fs, &*file, &path, 0..content_end, &copy)?;
    cut(&*file, &path, end)
}
