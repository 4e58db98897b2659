//! What purge keeps.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use zk_proto::Zxid;
use zk_server::storage::sim::SimDisk;
use zk_server::storage::{Fs as _, Purger};

use crate::history::{History, assert_at, open, recover_from, write_snapshot};

const HEADER: [u8; 16] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";

fn path(name: &str) -> PathBuf {
    Path::new("/data/version-2").join(name)
}

/// Records 1 to 50 in `log.1`, `log.b`, `log.15`, `log.1f`, `log.29`, ten in each; snapshots as asked.
fn disk(snapshots: &[i64]) -> (SimDisk, History) {
    let disk = SimDisk::new();
    let mut history = History::new();
    for first in [1, 11, 21, 31, 41] {
        let mut log = HEADER.to_vec();
        (0..10).for_each(|_| log.extend_from_slice(&history.next(b"data")));
        disk.put(&path(&format!("log.{first:x}")), log);
    }
    for &zxid in snapshots {
        write_snapshot(&open(&disk), history.at(Zxid(zxid))).unwrap();
    }
    (disk, history)
}

fn names(disk: &SimDisk) -> Vec<String> {
    let files = disk.list(Path::new("/data/version-2")).unwrap();
    let mut names: Vec<String> = files.into_iter().map(|file| file.name).collect();
    names.sort();
    names
}

fn damage(disk: &SimDisk, name: &str) {
    let mut bytes = disk.content(&path(name)).unwrap();
    bytes[40] ^= 1;
    disk.put(&path(name), bytes);
}

#[test]
fn the_newest_snapshots_and_the_logs_behind_the_oldest_of_them_stay() {
    let (disk, history) = disk(&[0, 5, 20, 25, 30, 45]);
    let mut purger = Purger::new(open(&disk), 3);
    let deleted = purger.purge().unwrap();
    assert_eq!(deleted, ["snapshot.0", "snapshot.5", "snapshot.14", "log.1", "log.b"].map(path));
    // The oldest kept one is at 25 = 0x19: log.15 has the record behind it.
    assert_eq!(names(&disk), ["log.15", "log.1f", "log.29", "snapshot.19", "snapshot.1e", "snapshot.2d"]);
    assert_eq!(purger.purge().unwrap(), Vec::<PathBuf>::new());
    // Enough to start from the oldest.
    for name in ["snapshot.1e", "snapshot.2d"] {
        damage(&disk, name);
    }
    let recovered = recover_from(&disk).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(50));
    assert_at(&recovered, &history, "from the oldest kept snapshot");
}

#[test]
fn damaged_snapshots_do_not_count() {
    let (disk, _) = disk(&[5, 25, 30, 45]);
    damage(&disk, "snapshot.1e");
    damage(&disk, "snapshot.2d");
    let before = names(&disk);
    let mut purger = Purger::new(open(&disk), 3);
    assert_eq!(purger.purge().unwrap(), Vec::<PathBuf>::new(), "only two are intact");
    assert_eq!(names(&disk), before);
}

#[test]
fn fewer_than_three_are_never_kept_and_a_zxid_counts_once() {
    let (disk, _) = disk(&[0, 25, 45]);
    disk.put(&path("snapshot.2d.gz"), vec![]);
    assert_eq!(Purger::new(open(&disk), 1).purge().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_log_without_records_is_not_what_a_snapshot_needs() {
    let (disk, _) = disk(&[0, 25, 30, 45]);
    disk.put(&path("log.1a"), HEADER.to_vec());
    let deleted = Purger::new(open(&disk), 3).purge().unwrap();
    assert_eq!(deleted, ["snapshot.0", "log.1", "log.b"].map(path));
}

#[test]
fn nothing_is_deleted_behind_snapshots_that_a_power_loss_takes() {
    for seed in 0..50 {
        let (disk, history) = disk(&[0]);
        for zxid in [25, 30, 45] {
            // As Apache writes them: not synced.
            let (other, _) = self::disk(&[zxid]);
            let name = path(&format!("snapshot.{zxid:x}"));
            let file = disk.create(&name).unwrap();
            file.write_at(&[IoSlice::new(&other.content(&name).unwrap())], 0).unwrap();
        }
        Purger::new(open(&disk), 3).purge().unwrap();
        let recovered = recover_from(&disk.restart(&mut Rng::with_seed(seed))).unwrap();
        assert_eq!(recovered.last_zxid, Zxid(50));
        assert_at(&recovered, &history, "after power loss");
    }
}
