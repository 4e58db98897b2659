//! Empty, new and unreadable directories.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use zk_proto::{Acl, Zxid};
use zk_server::storage::sim::SimDisk;
use zk_server::storage::{
    Base, DataDirs, DiskFile, FileEntry, Fs, Incident, LoadError, NodeStat, RecordHeader, RecoveryError,
    RecoveryOptions, Replay, ReplayError, SnapshotDigest, SnapshotSink, recover,
};

use crate::history::{History, open, recover_from, write_snapshot};
use crate::model::Model;

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    disk.put(&Path::new("/data/version-2").join(name), bytes.to_vec());
}

#[test]
fn an_empty_directory_is_a_new_database_when_that_is_allowed() {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let recovered = recover_from(&disk).unwrap();
    assert_eq!((recovered.base, recovered.last_zxid, recovered.replayed), (Base::New, Zxid::ZERO, 0));
    assert_eq!(recovered.sink.nodes, Model::new().nodes);

    let options = RecoveryOptions { autocreate: false, ..RecoveryOptions::default() };
    assert_eq!(recover(&dirs, &options, Model::new).unwrap().base, Base::Uninitialized);
    // The operator's word for it counts once.
    disk.put(Path::new("/data/initialize"), Vec::new());
    assert_eq!(recover(&dirs, &options, Model::new).unwrap().base, Base::New);
    assert_eq!(recover(&dirs, &options, Model::new).unwrap().base, Base::Uninitialized);
}

#[test]
fn a_torn_first_snapshot_with_nothing_behind_it_is_a_new_database() {
    for bytes in [&b""[..], b"ZKSN\0\0\0\x02", &[0; 478]] {
        let disk = SimDisk::new();
        let dirs = open(&disk);
        put(&disk, "snapshot.0", bytes);
        let recovered = recover_from(&disk).unwrap();
        assert_eq!(recovered.base, Base::New);
        assert_eq!(recovered.incidents, [Incident::SnapshotSkipped("/data/version-2/snapshot.0".into())]);
        write_snapshot(&dirs, &recovered.sink).unwrap().expect("written in its place");
        assert!(matches!(recover_from(&disk).unwrap().base, Base::Snapshot(_)));
    }
}

#[test]
fn a_torn_later_snapshot_alone_is_no_new_database() {
    let disk = SimDisk::new();
    open(&disk);
    put(&disk, "snapshot.5", b"");
    let error = recover_from(&disk).unwrap_err();
    assert!(matches!(error, RecoveryError::NoIntactSnapshot { count: 1, .. }), "{error}");
}

#[test]
fn logs_that_do_not_reach_back_to_the_beginning_are_not_trusted() {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let mut history = History::new();
    history.next(b"");
    let log = [&b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0"[..], &history.next(b"")].concat();
    put(&disk, "log.2", &log);
    let options = RecoveryOptions { trust_empty: true, ..RecoveryOptions::default() };
    let error = recover(&dirs, &options, Model::new).unwrap_err();
    assert!(matches!(error, RecoveryError::Gap { last: Zxid(0), found: Zxid(2), .. }), "{error}");
}

/// Refuses the transaction with zxid 3.
struct Picky(Model);

impl SnapshotSink for Picky {
    fn begin(&mut self, size_hint_bytes: u64) {
        self.0.begin(size_hint_bytes);
    }
    fn session(&mut self, id: i64, timeout_ms: i32) {
        self.0.session(id, timeout_ms);
    }
    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>) {
        self.0.acl(id, acl);
    }
    fn node(&mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: &NodeStat) -> Result<(), LoadError> {
        self.0.node(path, data, acl, stat)
    }
}

impl Replay for Picky {
    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.0.snapshot_loaded(zxid, digest);
    }
    fn apply(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), ReplayError> {
        match header.zxid {
            Zxid(3) => Err(ReplayError::UnknownType(77)),
            _ => self.0.apply(header, payload),
        }
    }
}

#[test]
fn a_transaction_that_makes_no_sense_stops_the_start_and_is_named() {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let mut history = History::new();
    write_snapshot(&dirs, history.last()).unwrap();
    let mut log = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
    let mut offset = 0;
    // Enough that the reader is still at work when the sink gives up.
    for zxid in 1..=20 {
        if zxid == 3 {
            offset = log.len();
        }
        log.extend_from_slice(&history.next(&vec![7; 1 << 20]));
    }
    put(&disk, "log.1", &log);
    let error =
        recover(&dirs, &RecoveryOptions::default(), || Picky(Model::new())).err().unwrap().to_string();
    let place = format!("log.1 has a transaction at byte {offset}, zxid 0x3, that cannot be replayed");
    assert!(error.contains(&place) && error.contains("unknown transaction type 77"), "{error}");
}

/// A disk on which the newest snapshot cannot be opened.
#[derive(Debug)]
struct Unreadable(SimDisk);

impl Fs for Unreadable {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        match path.ends_with("snapshot.8") {
            true => Err(ErrorKind::PermissionDenied.into()),
            false => self.0.open(path),
        }
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_write(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<FileEntry>> {
        self.0.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_is_not_replaced_by_an_older_one() {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let mut history = History::new();
    (0..8).for_each(|_| drop(history.next(b"")));
    for zxid in [0, 8] {
        write_snapshot(&dirs, history.at(Zxid(zxid))).unwrap();
    }
    let fs = Arc::new(Unreadable(disk));
    let dirs = DataDirs::open(fs, Path::new("/data"), None, false).unwrap();
    let error = recover(&dirs, &RecoveryOptions::default(), Model::new).unwrap_err().to_string();
    assert!(error.starts_with("cannot open /data/version-2/snapshot.8"), "{error}");
}
