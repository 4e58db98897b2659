//! What the parts have in common: small files replaced as a whole, and lists of logs and snapshots.

use crate::mutation::Mutation;
use std::fmt;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use zk_proto::Zxid;

use super::super::fs::{At, DiskFile, Fs, IoError};
use super::super::{DataDirs, LogName, SnapshotName};

/// Larger than any small file that was written here; a bound on what is read from one.
const SMALL_MAX: usize = 1 << 20;

/// Subdirectory of `version-2` for files that an installed snapshot made unreachable. Apache ignores it.
pub(in super::super) const RETIRED_DIR: &str = "retired";

/// Replaces a file in one durable step: it has the old content or the new one at any moment.
pub(super) fn replace(fs: &dyn Fs, dir: &Path, name: &str, content: &[u8]) -> Result<(), IoError> {
    let temporary = dir.join(format!(".tmp-{name}"));
    write_synced(fs, &temporary, content)?;
    let path = dir.join(name);
    fs.rename(&temporary, &path).at("rename to", &path)?;
    fs.sync_dir(dir).at("sync", dir)
}

/// Creates or empties a file, and syncs its content, not its name.
pub(super) fn write_synced(fs: &dyn Fs, path: &Path, content: &[u8]) -> Result<(), IoError> {
    let file = fs.create(path).at("create", path)?;
    file.write_at(&[IoSlice::new(content)], 0).at("write", path)?;
    if Mutation::EpochFileNotSynced.is_on() {
        return Ok(());
    }
    file.sync().at("sync", path)
}

/// The content of a file; `None` when there is no such file. Cut at a bound that no file of ours reaches.
pub(crate) fn read_small(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>, IoError> {
    let file = match fs.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("open", path),
    };
    let size = usize::try_from(file.size().at("read", path)?).unwrap_or(SMALL_MAX).min(SMALL_MAX);
    let mut content = vec![0; size];
    let n = file.read_full_at(&mut content, 0).at("read", path)?;
    content.truncate(n);
    Ok(Some(content))
}

/// Removes a file; whether there was one.
pub(super) fn remove_if_there(fs: &dyn Fs, path: &Path) -> Result<bool, IoError> {
    match fs.remove(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("remove", path),
    }
}

/// Cuts a file and makes that durable.
pub(super) fn cut(file: &dyn DiskFile, path: &Path, len: u64) -> Result<(), IoError> {
    file.set_len(len).at("cut", path)?;
    file.sync().at("sync", path)
}

/// Adds a checksum to a text of whole lines.
pub(super) fn seal(mut text: String) -> Vec<u8> {
    let checksum = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc32 {checksum:08x}\n"));
    text.into_bytes()
}

/// The lines of a sealed text; `None` when it is not what was sealed.
pub(super) fn unseal(content: &[u8]) -> Option<std::str::Lines<'_>> {
    let text = std::str::from_utf8(content).ok()?;
    let at = text.rfind("crc32 ")?;
    let (sealed, checksum) = text.split_at(at);
    let checksum = checksum.strip_prefix("crc32 ")?.strip_suffix('\n')?;
    (checksum == format!("{:08x}", crc32fast::hash(sealed.as_bytes()))).then(|| sealed.lines())
}

/// The value of a line `<key> <value>`.
pub(super) fn value<'a>(line: Option<&'a str>, key: &str) -> Option<&'a str> {
    line?.strip_prefix(key)?.strip_prefix(' ')
}

/// A zxid in hex without prefix, as in file names.
pub(super) fn parse_zxid(hex: &str) -> Option<Zxid> {
    i64::from_str_radix(hex, 16).ok().map(Zxid)
}

/// A file that recovery reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataFile {
    Log(LogName),
    Snapshot(SnapshotName),
}

impl DataFile {
    pub(super) fn parse(name: &str) -> Option<Self> {
        LogName::parse(name).map(DataFile::Log).or_else(|| SnapshotName::parse(name).map(DataFile::Snapshot))
    }

    /// The zxid in its name.
    pub(super) fn zxid(self) -> Zxid {
        match self {
            DataFile::Log(name) => name.0,
            DataFile::Snapshot(name) => name.zxid,
        }
    }

    pub(super) fn is_log(self) -> bool {
        matches!(self, DataFile::Log(_))
    }

    /// The `version-2` directory it belongs in.
    pub(super) fn dir(self, dirs: &DataDirs) -> &Path {
        if self.is_log() { dirs.log() } else { dirs.data() }
    }

    pub(super) fn path(self, dirs: &DataDirs) -> PathBuf {
        self.dir(dirs).join(self.to_string())
    }

    /// Where it is moved when it must not be read any more.
    pub(super) fn retired_path(self, dirs: &DataDirs) -> PathBuf {
        self.dir(dirs).join(RETIRED_DIR).join(self.to_string())
    }
}

impl fmt::Display for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataFile::Log(name) => name.fmt(f),
            DataFile::Snapshot(name) => name.fmt(f),
        }
    }
}

/// Files and their sizes in bytes: what a decision was based on. A later start acts on it only while it still
/// holds: an Apache server may have run in between, gone on from what it found, and acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FileList(pub(super) Vec<(DataFile, u64)>);

impl FileList {
    /// All logs and snapshots, newest first.
    pub(super) fn scan(dirs: &DataDirs) -> Result<Self, IoError> {
        let mut list = Vec::new();
        for dir in dirs.distinct() {
            let files = dirs.fs.list(dir).at("list", dir)?;
            list.extend(files.iter().filter_map(|file| Some((DataFile::parse(&file.name)?, file.len))));
        }
        list.sort_by_key(|(file, _)| std::cmp::Reverse(file.zxid()));
        Ok(FileList(list))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = DataFile> {
        self.0.iter().map(|(file, _)| *file)
    }

    /// The logs' names, newest first.
    pub(super) fn logs(&self) -> impl Iterator<Item = LogName> {
        self.files().filter_map(|file| match file {
            DataFile::Log(name) => Some(name),
            DataFile::Snapshot(_) => None,
        })
    }

    /// The snapshots' names, newest first.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = SnapshotName> {
        self.files().filter_map(|file| match file {
            DataFile::Snapshot(name) => Some(name),
            DataFile::Log(_) => None,
        })
    }

    pub(super) fn contains(&self, entry: &(DataFile, u64)) -> bool {
        self.0.contains(entry)
    }

    /// Appends one line per file.
    pub(super) fn write(&self, text: &mut String) {
        for (file, len) in &self.0 {
            text.push_str(&format!("file {file} {len}\n"));
        }
    }

    /// Reads what [`FileList::write`] wrote, to the end of the text.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let entry = |line: &str| {
            let (name, len) = line.strip_prefix("file ")?.rsplit_once(' ')?;
            Some((DataFile::parse(name)?, len.parse().ok()?))
        };
        lines.map(entry).collect::<Option<_>>().map(FileList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_is_found_whole_or_not_at_all() {
        let list = FileList(vec![
            (DataFile::parse("log.100000001").unwrap(), 16),
            (DataFile::parse("snapshot.0.gz").unwrap(), 0),
        ]);
        let mut text = "target 5\n".to_owned();
        list.write(&mut text);
        let sealed = seal(text);
        let mut lines = unseal(&sealed).unwrap();
        assert_eq!(value(lines.next(), "target").and_then(parse_zxid), Some(Zxid(5)));
        assert_eq!(FileList::read(lines), Some(list));
        for cut in 0..sealed.len() {
            assert!(unseal(&sealed[..cut]).is_none(), "cut at {cut}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&flipped).is_none(), "bit {bit}");
        }
    }
}
