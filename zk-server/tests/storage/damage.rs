//! Cut and flipped files: what is accepted is the whole truth or a history that ends where a crash ended it.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use zk_proto::Zxid;
use zk_server::storage::Fs as _;
use zk_server::storage::sim::SimDisk;

use crate::history::{History, assert_at, open, recover_from, write_snapshot};

/// An undamaged directory in pieces: `snapshot.0`, `snapshot.8`, and `log.1` with records 1 to 12.
struct Pieces {
    history: History,
    log: PathBuf,
    bytes: Vec<u8>,
    /// Offset of each record in the log, and behind the last.
    offsets: Vec<usize>,
}

const HEADER: [u8; 16] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";

fn pieces(data: &[u8]) -> Pieces {
    let mut history = History::new();
    let mut bytes = HEADER.to_vec();
    let mut offsets = vec![bytes.len()];
    for _ in 1..=12 {
        bytes.extend_from_slice(&history.next(data));
        offsets.push(bytes.len());
    }
    Pieces { history, log: "/data/version-2/log.1".into(), bytes, offsets }
}

impl Pieces {
    fn disk(&self, log: Vec<u8>, snapshots: &[i64]) -> SimDisk {
        let disk = SimDisk::new();
        let dirs = open(&disk);
        for &zxid in snapshots {
            write_snapshot(&dirs, self.history.at(Zxid(zxid))).unwrap();
        }
        disk.put(&self.log, log);
        disk
    }
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_records_ends_before_the_cut() {
    for data in [&b"d"[..], &[7; 700]] {
        let pieces = pieces(data);
        for cut in pieces.offsets[9]..=pieces.bytes.len() {
            let whole = pieces.offsets.iter().filter(|&&offset| offset <= cut).count() as i64 - 1;
            for padding in [0, 4096] {
                let mut log = pieces.bytes[..cut].to_vec();
                log.resize(log.len() + padding, 0);
                let disk = pieces.disk(log, &[0]);
                let context = format!("cut at {cut}, padding {padding}");
                let recovered = recover_from(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(recovered.last_zxid, Zxid(whole), "{context}");
                assert_at(&recovered, &pieces.history, &context);
                // Cut for good: a second start finds nothing to do.
                let again = recover_from(&disk).unwrap();
                assert_eq!((again.last_zxid, again.incidents), (Zxid(whole), vec![]), "{context}");
            }
        }
    }
}

#[test]
fn no_flipped_bit_in_any_record_shortens_history() {
    let pieces = pieces(b"some data");
    for record in [5, 11] {
        for bit in pieces.offsets[record] * 8..pieces.offsets[record + 1] * 8 {
            let mut log = pieces.bytes.clone();
            log[bit / 8] ^= 1 << (bit % 8);
            log.resize(log.len() + 4096, 0);
            let before = log.clone();
            let disk = pieces.disk(log, &[0]);
            let error = recover_from(&disk).err().unwrap_or_else(|| panic!("bit {bit} of record {record}"));
            let place = format!("log.1 is damaged at byte {}", pieces.offsets[record]);
            assert!(error.to_string().contains(&place), "{error}");
            assert!(disk.content(&pieces.log).unwrap() == before, "a refused start changed the log");
        }
    }
}

#[test]
fn no_flipped_bit_in_a_snapshot_changes_the_tree() {
    let pieces = pieces(b"some data");
    let path = Path::new("/data/version-2/snapshot.8");
    let intact = pieces.disk(pieces.bytes.clone(), &[8]).content(path).unwrap();
    let log_from_9 = [&HEADER[..], &pieces.bytes[pieces.offsets[8]..]].concat();
    for bit in 0..intact.len() * 8 {
        let mut flipped = intact.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // With an older snapshot and all logs, nothing is lost.
        let disk = pieces.disk(pieces.bytes.clone(), &[0]);
        disk.put(path, flipped.clone());
        let recovered = recover_from(&disk).unwrap_or_else(|e| panic!("bit {bit}: {e}"));
        assert_eq!(recovered.last_zxid, Zxid(12), "bit {bit}");
        assert_at(&recovered, &pieces.history, &format!("bit {bit}"));
        // Alone, it must be refused.
        let disk = SimDisk::new();
        open(&disk);
        disk.put(path, flipped);
        disk.put(Path::new("/data/version-2/log.9"), log_from_9.clone());
        assert!(recover_from(&disk).is_err(), "bit {bit}");
    }
}

#[test]
fn a_damaged_log_header_is_refused() {
    let pieces = pieces(b"");
    for bit in 0..32 {
        let mut log = pieces.bytes.clone();
        log[bit / 8] ^= 1 << (bit % 8);
        let error = recover_from(&pieces.disk(log, &[0])).unwrap_err().to_string();
        assert!(error.contains("wrong magic number"), "{error}");
    }
}

#[test]
fn leftovers_of_a_crash_go_away_and_hide_nothing() {
    let pieces = pieces(b"");
    let in_dir = |name: &str| Path::new("/data/version-2").join(name);
    let disk = pieces.disk(pieces.bytes.clone(), &[0]);
    // A prepared file that got its name, but no record; Apache's and our unfinished files.
    disk.put(&in_dir("log.d"), HEADER.to_vec());
    disk.put(&in_dir("log.20"), Vec::new());
    disk.put(&in_dir("snapshot.60.tmp"), disk.content(&in_dir("snapshot.0")).unwrap());
    disk.put(&in_dir(".tmp-snapshot.5"), vec![1]);
    disk.put(&in_dir(".next-log"), vec![1]);
    disk.put(&in_dir("currentEpoch.tmp"), b"2".to_vec());
    disk.put(&in_dir("notes.txt"), b"mine".to_vec());
    let recovered = recover_from(&disk).unwrap();
    assert_eq!(recovered.last_zxid, Zxid(12));
    for gone in ["log.d", "log.20", "snapshot.60.tmp", ".tmp-snapshot.5", ".next-log"] {
        assert!(disk.content(&in_dir(gone)).is_none(), "{gone}");
    }
    for kept in ["log.1", "snapshot.0", "currentEpoch.tmp", "notes.txt"] {
        assert!(disk.content(&in_dir(kept)).is_some(), "{kept}");
    }
}

#[test]
fn a_log_without_records_does_not_hide_those_of_an_older_one() {
    let pieces = pieces(b"");
    let disk = pieces.disk(pieces.bytes.clone(), &[0, 8]);
    // Named right behind the snapshot, as if the record after it were there.
    disk.put(Path::new("/data/version-2/log.9"), HEADER.to_vec());
    let recovered = recover_from(&disk).unwrap();
    assert_eq!((recovered.last_zxid, recovered.replayed), (Zxid(12), 4));
    assert_at(&recovered, &pieces.history, "log.9 empty");
}

#[test]
fn zxids_must_ascend_and_match_the_file_name() {
    let pieces = pieces(b"");
    let record = |i: usize| &pieces.bytes[pieces.offsets[i - 1]..pieces.offsets[i]];
    let log = |records: &[usize]| {
        let mut log = HEADER.to_vec();
        records.iter().for_each(|&i| log.extend_from_slice(record(i)));
        log
    };
    for (records, words) in [
        (&[1, 2, 2][..], "out of order"),
        (&[1, 3, 2], "transactions are missing in between"),
        (&[1, 2, 1], "out of order"),
        (&[2, 3], "begins with zxid 0x2"),
    ] {
        let error = recover_from(&pieces.disk(log(records), &[0])).unwrap_err().to_string();
        assert!(error.contains(words), "{records:?}: {error}");
    }
}

#[test]
fn a_torn_end_inside_the_history_is_accepted_only_when_the_numbers_go_on() {
    let pieces = pieces(b"");
    let torn = [&pieces.bytes[..pieces.offsets[6]], &[0, 0, 0, 0, 1, 2, 3]].concat();
    for (next, starts) in [(6, true), (7, false)] {
        let disk = pieces.disk(torn.clone(), &[0]);
        let log = [&HEADER[..], &pieces.bytes[pieces.offsets[next]..]].concat();
        disk.put(&Path::new("/data/version-2").join(format!("log.{:x}", next + 1)), log);
        let result = recover_from(&disk);
        assert_eq!(result.is_ok(), starts, "{result:?}");
        if let Ok(recovered) = result {
            assert_eq!((recovered.last_zxid, recovered.incidents.len()), (Zxid(12), 1));
            assert_at(&recovered, &pieces.history, "torn inside");
        }
    }
}

#[test]
fn what_was_recovered_is_durable() {
    let pieces = pieces(b"");
    for seed in 0..50 {
        // As Apache leaves it when it is killed: nothing but the first snapshot was ever synced.
        let disk = pieces.disk(Vec::new(), &[0]);
        let whole = pieces.disk(pieces.bytes.clone(), &[8]);
        for path in [&pieces.log, Path::new("/data/version-2/snapshot.8")] {
            let file = disk.create(path).unwrap();
            file.write_at(&[IoSlice::new(&whole.content(path).unwrap())], 0).unwrap();
        }
        assert_eq!(recover_from(&disk).unwrap().replayed, 4);
        let recovered = recover_from(&disk.restart(&mut Rng::with_seed(seed))).unwrap();
        assert_eq!((recovered.last_zxid, recovered.replayed), (Zxid(12), 4));
        assert_at(&recovered, &pieces.history, "after power loss");
    }
}
