//! `.zk-base`: from where on the logs are known to be one unbroken history, and whether a snapshot is being
//! installed. `.zk-committed`: up to where that history is known to be committed. Apache ignores both.

use std::io::{ErrorKind, IoSlice};

use zk_proto::Zxid;

use super::super::DataDirs;
use super::super::fs::{At, DiskFile, IoError};
use super::files::{FileList, parse_zxid, read_small, remove_if_there, replace, seal, unseal, value};
use crate::zab::Epoch;

const BASE_FILE: &str = ".zk-base";
const COMMITTED_FILE: &str = ".zk-committed";

/// Where the member's history begins that it may hand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseFile {
    /// Older records are not trusted to be without gaps.
    pub(super) zxid: Zxid,
    /// The epoch whose leader gave the base.
    pub(super) epoch: Epoch,
    /// The files that a snapshot at `zxid` replaces, while it is being installed.
    pub(super) installing: Option<FileList>,
}

impl BaseFile {
    /// `None` when there is none, or it is damaged.
    pub(super) fn read(dirs: &DataDirs) -> Result<Option<Self>, IoError> {
        let path = dirs.data().join(BASE_FILE);
        let Some(content) = read_small(&*dirs.fs, &path)? else { return Ok(None) };
        let base = Self::parse(&content);
        if base.is_none() {
            tracing::warn!("{} is damaged and not used", path.display());
        }
        Ok(base)
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut lines = unseal(content)?;
        let state = value(lines.next(), "zk-base 1")?;
        let zxid = value(lines.next(), "zxid").and_then(parse_zxid)?;
        let epoch = value(lines.next(), "epoch")?.parse().ok().map(Epoch)?;
        let installing = match state {
            "done" => None,
            "installing" => Some(FileList::read(lines)?),
            _ => return None,
        };
        Some(BaseFile { zxid, epoch, installing })
    }

    /// Replaces the file, durably.
    pub(super) fn write(&self, dirs: &DataDirs) -> Result<(), IoError> {
        let state = if self.installing.is_some() { "installing" } else { "done" };
        let mut text = format!("zk-base 1 {state}\nzxid {:x}\nepoch {}\n", self.zxid.0, self.epoch);
        if let Some(files) = &self.installing {
            files.write(&mut text);
        }
        replace(&*dirs.fs, dirs.data(), BASE_FILE, &seal(text))
    }

    pub(super) fn remove(dirs: &DataDirs) -> Result<(), IoError> {
        remove_if_there(&*dirs.fs, &dirs.data().join(BASE_FILE))?;
        dirs.fs.sync_dir(dirs.data()).at("sync", dirs.data())
    }
}

/// The highest zxid known to be committed. Written in place and never synced for its own sake: after a power
/// loss an older value, or none, may be there.
#[derive(Debug)]
pub(super) struct CommittedMark {
    zxid: Zxid,
    /// Opened when first written.
    file: Option<Box<dyn DiskFile>>,
}

impl CommittedMark {
    /// The mark on disk, between `base` and `last`. One above the end of the log says that the log is not the
    /// one it was written for.
    pub(super) fn open(dirs: &DataDirs, base: Zxid, last: Zxid) -> Result<Self, IoError> {
        let content = read_small(&*dirs.fs, &dirs.data().join(COMMITTED_FILE))?;
        let found = content.as_deref().and_then(Self::parse).filter(|&zxid| zxid <= last);
        Ok(CommittedMark { zxid: found.unwrap_or(base).max(base), file: None })
    }

    fn parse(content: &[u8]) -> Option<Zxid> {
        value(unseal(content)?.next(), "committed").and_then(parse_zxid)
    }

    pub(super) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Moves the mark up.
    pub(super) fn raise(&mut self, dirs: &DataDirs, zxid: Zxid) -> Result<(), IoError> {
        if zxid > self.zxid {
            self.write(dirs, zxid)?;
            self.zxid = zxid;
        }
        Ok(())
    }

    /// Sets the mark, durably.
    pub(super) fn reset(dirs: &DataDirs, zxid: Zxid) -> Result<Self, IoError> {
        let mut mark = CommittedMark { zxid, file: None };
        mark.write(dirs, zxid)?;
        if let Some(file) = &mark.file {
            file.sync().at("sync", &dirs.data().join(COMMITTED_FILE))?;
        }
        dirs.fs.sync_dir(dirs.data()).at("sync", dirs.data())?;
        Ok(mark)
    }

    fn write(&mut self, dirs: &DataDirs, zxid: Zxid) -> Result<(), IoError> {
        let path = dirs.data().join(COMMITTED_FILE);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = match dirs.fs.open_write(&path) {
                    Err(e) if e.kind() == ErrorKind::NotFound => dirs.fs.create(&path),
                    opened => opened,
                };
                self.file.insert(opened.at("open", &path)?)
            }
        };
        // Always of the same length, and within one sector.
        let content = seal(format!("committed {:016x}\n", zxid.0));
        file.write_at(&[IoSlice::new(&content)], 0).at("write", &path)
    }
}
