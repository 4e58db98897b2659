//! Targets for files: snapshots, and logs as recovery reads them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use simd_adler32::adler32;
use zk_proto::Zxid;
use zk_server::storage::{
    Compression, DataDirs, DiskFile, FileEntry, Fs, LogName, RecoveryOptions, Replay, SnapshotName,
    SnapshotOptions, SnapshotWriter, read_snapshot, recover,
};
use zk_server::tree::{Tree, TreeLoader};

use super::{MIB, Target};
use crate::vectors;

/// A byte for the compression, then a snapshot file. What loads can be written, and loads again as the same.
pub const SNAPSHOT: Target = Target {
    name: "snapshot",
    // Windows and buffers of reader, decompressor and writer; two trees.
    fixed_bytes: 16 * MIB,
    seeds: || {
        let with_compression = |(name, bytes): (String, Vec<u8>)| {
            let compression = SnapshotName::parse(&name)?.compression;
            let byte = COMPRESSIONS.iter().position(|&c| c == compression)? as u8;
            Some([&[byte][..], &bytes].concat())
        };
        recorded_files().into_iter().filter_map(with_compression).collect()
    },
    run: |input| {
        let Some((&byte, file)) = input.split_first() else { return };
        let name = SnapshotName {
            // No node can be younger.
            zxid: Zxid(i64::MAX),
            compression: COMPRESSIONS[usize::from(byte) % COMPRESSIONS.len()],
        };
        let disk = MemoryFs::default();
        let path = PathBuf::from(DIR).join(name.to_string());
        disk.put(&path, file.to_vec());
        // No bomb may take more than this, whatever it decompresses to.
        let limit = Some(4 * file.len() as u64 + MIB as u64);
        let mut loader = TreeLoader::new(1);
        match read_snapshot(&disk, &path, name.compression, limit, &mut loader) {
            Ok(info) => {
                loader.snapshot_loaded(name.zxid, info.digest);
                write_and_read_again(disk, loader.finish());
            }
            Err(error) => assert!(error.to_string().contains(DIR), "{error} does not name the file"),
        }
    },
};

/// A log file behind an empty snapshot. What recovery accepts, it accepts again with the same result. The
/// first byte says whether the checksums of the records are to be made right before.
pub const LOG: Target = Target {
    name: "log",
    // The reading thread's buffers; the trees.
    fixed_bytes: 24 * MIB,
    seeds: || {
        let logs = recorded_files().into_iter().filter(|(name, _)| LogName::parse(name).is_some());
        // Without the zeros that fill a log's end: they would be most of the input.
        logs.map(|(_, bytes)| {
            let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
            [&[1][..], &bytes[..end]].concat()
        })
        .collect()
    },
    run: |input| {
        let Some((&fix, file)) = input.split_first() else { return };
        let mut file = file.to_vec();
        if fix % 2 == 1 {
            make_checksums_right(&mut file);
        }
        let disk = Arc::new(MemoryFs::default());
        let first =
            file.get(ZXID_OF_FIRST_RECORD).map_or(1, |b| i64::from_be_bytes(b.try_into().expect("8 bytes")));
        let version_dir = Path::new(DIR).join("version-2");
        write_snapshot(disk.clone(), &version_dir, &Tree::new(1), first.saturating_sub(1).max(0));
        disk.put(&version_dir.join(LogName(Zxid(first)).to_string()), file);
        if let Some((last, digest)) = recovered(&disk) {
            assert_eq!(recovered(&disk), Some((last, digest)), "the second start finds something else");
        }
    },
};

/// Where a log has it: behind the file's header, checksum, length, session id and xid.
const ZXID_OF_FIRST_RECORD: std::ops::Range<usize> = 40..48;
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gz, Compression::Snappy];
/// Directory of the files in memory.
const DIR: &str = "/fuzz";

/// All files of the recorded data directories with their names, the small ones only.
fn recorded_files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut todo = vec![vectors::root().join("storage/dirs")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            todo.extend(entries.map(|entry| entry.expect("a directory entry").path()));
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if bytes.len() < super::mutate::INPUT_BYTES_MAX {
                files.push((name, bytes));
            }
        }
    }
    files.sort();
    files.dedup();
    files
}

fn recovered(disk: &Arc<MemoryFs>) -> Option<(Zxid, u64)> {
    let dirs = DataDirs::open(disk.clone(), Path::new(DIR), None, false).expect("it is there");
    match recover(&dirs, &RecoveryOptions::default(), || TreeLoader::new(1)) {
        Ok(recovered) => Some((recovered.last_zxid, recovered.sink.finish().digest())),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Makes every record's checksum the one of its payload, as far as the lengths make sense.
fn make_checksums_right(file: &mut [u8]) {
    let mut at = 16;
    while let Some(length) = file.get(at + 8..at + 12) {
        let length = i32::from_be_bytes(length.try_into().expect("4 bytes"));
        let Ok(length @ 1..) = usize::try_from(length) else { break };
        let Some(payload) = file.get(at + 12..at + 12 + length) else { break };
        let sum = i64::from(adler32(&payload));
        file[at..at + 8].copy_from_slice(&sum.to_be_bytes());
        at += 12 + length + 1;
    }
}

fn write_and_read_again(disk: MemoryFs, mut tree: Tree) {
    let zxid = tree.last_zxid();
    let disk = Arc::new(disk);
    let pin = tree.pin();
    let options = SnapshotOptions { bytes_per_second: None, ..SnapshotOptions::default() };
    let dir = Path::new(DIR).join("again");
    write_pinned(disk.clone(), &dir, &tree, &pin, zxid.0, &options);
    let name = SnapshotName { zxid, compression: Compression::None };
    let mut again = TreeLoader::new(2);
    let info = read_snapshot(&*disk, &dir.join(name.to_string()), name.compression, None, &mut again)
        .expect("what was written can be read");
    again.snapshot_loaded(zxid, info.digest);
    let again = again.finish();
    assert_eq!((again.len(), again.digest()), (tree.len(), tree.digest()));
}

fn write_snapshot(disk: Arc<MemoryFs>, dir: &Path, tree: &Tree, zxid: i64) {
    let mut copy = TreeLoader::new(1);
    copy.snapshot_loaded(Zxid(zxid), None);
    let mut copy = copy.finish();
    assert_eq!(copy.len(), tree.len());
    let pin = copy.pin();
    let options = SnapshotOptions { bytes_per_second: None, ..SnapshotOptions::default() };
    write_pinned(disk, dir, &copy, &pin, zxid, &options);
}

fn write_pinned(
    disk: Arc<MemoryFs>,
    dir: &Path,
    tree: &Tree,
    pin: &zk_server::tree::SnapshotPin,
    zxid: i64,
    options: &SnapshotOptions,
) {
    let acls: Vec<_> = pin.acls.iter().map(|(id, acl)| (*id, &acl[..])).collect();
    let sessions = pin.sessions.clone().into_iter();
    let mut writer = SnapshotWriter::create(disk, dir, Zxid(zxid), options, sessions, acls.into_iter())
        .expect("memory does not fail")
        .expect("there is none yet");
    while pin
        .next_nodes(tree, 100, |path, data, acl, stat| writer.node(path, data, acl, stat))
        .expect("memory does not fail")
    {}
    writer.finish(Zxid(zxid), Some(pin.digest as i64)).expect("memory does not fail");
}

/// Files in memory; nothing fails.
#[derive(Debug, Default)]
struct MemoryFs {
    files: Mutex<BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>>,
}

#[derive(Debug)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFs {
    fn put(&self, path: &Path, bytes: Vec<u8>) {
        lock(&self.files).insert(path.into(), Arc::new(Mutex::new(bytes)));
    }

    fn get(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = lock(&self.files).get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile(file)))
    }
}

impl Fs for MemoryFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.get(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.get(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.put(path, Vec::new());
        self.get(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.files).remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        let files = lock(&self.files);
        let here = files.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(here
            .map(|(path, bytes)| FileEntry {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                len: lock(bytes).len() as u64,
            })
            .collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(lock(&self.files).keys().any(|file| file.starts_with(path)))
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let at = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let len = bytes.len().max(at + all.len());
        bytes.resize(len, 0);
        bytes[at..at + all.len()].copy_from_slice(&all);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.0).resize(usize::try_from(len).map_err(|_| ErrorKind::InvalidInput)?, 0);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
