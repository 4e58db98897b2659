//! The seam to the disk. Production uses [`RealFs`]; tests use a disk that forgets and fails.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An operating system error with what was done to which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct IoError {
    /// What failed, as a verb: `write`, `sync`, ...
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Adds action and path to an [`io::Error`].
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, IoError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, IoError> {
        self.map_err(|source| IoError { action, path: path.to_owned(), source })
    }
}

/// What devices and file systems want direct writes to be a multiple of, in bytes; none in use wants more.
pub const BLOCK: usize = 4096;

/// A regular file of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Name without directory.
    pub name: String,
    /// Size in bytes.
    pub len: u64,
}

/// Files by path. Nothing survives a power loss before it is synced: contents by [`DiskFile::sync`], names
/// (creates, renames, removes) by [`Fs::sync_dir`].
pub trait Fs: fmt::Debug + Send + Sync {
    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file, or empties the one that is there; readable and writable.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// As [`Fs::create`], for a file that this handle only writes, in whole blocks: offset, length and address
    /// of every write are multiples of [`BLOCK`]. Such writes need no detour through the system's page cache.
    fn create_in_blocks(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.create(path)
    }
    /// Renames a file, replacing what `to` names.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The regular files of a directory, in no order. Names that are no UTF-8 are left out: none is ours.
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates a directory and its parents; fine when it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file, used by position.
pub trait DiskFile: fmt::Debug + Send {
    /// Reads up to `buf.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes of `parts` one behind the other; an error when not all of them could be written.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Cuts the file, or extends it by a hole of zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Makes content and size durable (`fdatasync`). An error is final: what was written since the last
    /// success may be lost although later reads show it and a later sync succeeds.
    fn sync(&self) -> io::Result<()>;
}

impl dyn DiskFile + '_ {
    /// Fills `buf` as far as the file reaches; returns the number of bytes.
    pub(crate) fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

/// The operating system's files. Directories are created with mode 0750, files with 0640.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(std::fs::File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(std::fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o640);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn create_in_blocks(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o640).custom_flags(DIRECT);
        match options.open(path) {
            Ok(file) => Ok(Box::new(DirectFile(RealFile(file)))),
            // The file system has no direct writes.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => self.create(path),
            Err(e) => Err(e),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // Follows symbolic links, as Apache does; a dangling one or a file that is just going is none.
            let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push(FileEntry { name, len: meta.len() });
            }
        }
        Ok(files)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }
}

#[cfg(target_os = "linux")]
const DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
#[cfg(not(target_os = "linux"))]
const DIRECT: i32 = 0;

#[derive(Debug)]
struct RealFile(std::fs::File);

/// The kernel takes at most this many parts in one call.
const PARTS_MAX: usize = 1024;

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for parts in parts.chunks(PARTS_MAX) {
            let wanted: usize = parts.iter().map(|part| part.len()).sum();
            let written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, parts, offset))?;
            if written != wanted {
                // A regular file takes less than it is given only when the disk or a quota is full.
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("short write: {written} of {wanted} bytes at offset {offset}"),
                ));
            }
            offset += written as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// A file of [`Fs::create_in_blocks`], written past the page cache: that saves the copy, and the search for dirty
/// pages in each sync; most of the CPU time of writing a log, and a third of the time of a small sync.
#[derive(Debug)]
struct DirectFile(RealFile);

impl DirectFile {
    /// Goes on through the page cache.
    fn become_cached(&self) -> io::Result<()> {
        let flags = rustix::fs::OFlags::from_bits_retain(DIRECT as u32);
        let file = &self.0.0;
        Ok(rustix::fs::fcntl_setfl(file, rustix::fs::fcntl_getfl(file)?.difference(flags))?)
    }
}

impl DiskFile for DirectFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        match self.0.write_at(parts, offset) {
            // The device wants larger blocks, or does not want this at all: nothing was written.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                tracing::debug!("no direct writes here: {e}");
                self.become_cached()?;
                self.0.write_at(parts, offset)
            }
            other => other,
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_cannot_be_direct_is_done_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealFs.create_in_blocks(&path).unwrap();
        file.write_at(&[IoSlice::new(b"no"), IoSlice::new(b"block")], 3).unwrap();
        file.write_at(&[IoSlice::new(b"again")], 10).unwrap();
        file.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0noblockagain");
    }
}
