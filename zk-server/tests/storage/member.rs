//! What a member keeps beyond a standalone server, without crashes.

use std::path::PathBuf;

use zk_proto::Zxid;
use zk_server::storage::member::{Broken, CannotTruncate, EpochError, MemberStore, TruncateError};
use zk_server::storage::sim::SimDisk;
use zk_server::storage::{
    Base, DataDirs, Fs, Purger, RecoveryError, RecoveryOptions, SnapshotOptions, SnapshotWriter, recover,
};
use zk_server::zab::{Epoch, Epochs, Proposal};

use crate::history::{History, assert_at, fill, open, recover_from, write_snapshot};
use crate::member_crash::{Member, install, member, open_log};
use crate::model::Model;

fn path(name: &str) -> PathBuf {
    PathBuf::from("/data/version-2").join(name)
}

fn number(disk: &SimDisk, name: &str) -> Option<String> {
    disk.content(&path(name)).map(|content| String::from_utf8(content).unwrap())
}

/// A member as [`member`] makes it.
fn old_member() -> (SimDisk, History, Member) {
    let disk = SimDisk::new();
    let history = member(&disk, &open(&disk));
    let member = Member::start(open(&disk)).unwrap();
    (disk, history, member)
}

fn zxids(chain: &[Proposal]) -> Vec<Zxid> {
    chain.iter().map(|proposal| proposal.zxid).collect()
}

fn of_epoch_1(counters: std::ops::RangeInclusive<u32>) -> Vec<Zxid> {
    counters.map(|counter| Zxid::new(1, counter)).collect()
}

/// The epochs found by a member whose files say `accepted` and `current` (and `staged`), with history up to
/// `last`; and what the files say then.
fn epochs(
    accepted: Option<&str>,
    current: Option<&str>,
    staged: Option<&str>,
    last: Zxid,
) -> Result<Epochs, EpochError> {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    for (name, content) in
        [("acceptedEpoch", accepted), ("currentEpoch", current), ("currentEpoch.tmp", staged)]
    {
        if let Some(content) = content {
            disk.put(&path(name), content.as_bytes().to_vec());
        }
    }
    let epochs = MemberStore::open(&dirs, Base::New, last)?.epochs();
    let number = |name| number(&disk, name).map(|text| text.trim().to_owned());
    assert_eq!(number("acceptedEpoch"), Some(epochs.accepted.to_string()));
    assert_eq!(number("currentEpoch"), Some(epochs.current.to_string()));
    assert_eq!(number("currentEpoch.tmp"), None);
    assert_eq!(MemberStore::open(&dirs, Base::New, last).unwrap().epochs(), epochs);
    Ok(epochs)
}

#[test]
fn epochs_are_read_and_repaired_as_apache_does_and_refused_when_a_promise_is_lost() {
    let last = Zxid::new(2, 0x16);
    let found = |accepted, current| Epochs { accepted: Epoch(accepted), current: Epoch(current) };
    assert_eq!(epochs(None, None, None, Zxid::ZERO).unwrap(), found(0, 0));
    assert_eq!(epochs(Some("3"), Some("2\n"), None, last).unwrap(), found(3, 2));
    // A standalone server's directory, or vector 41.
    assert_eq!(epochs(None, None, None, last).unwrap(), found(2, 2));
    assert_eq!(epochs(None, Some("4"), None, last).unwrap(), found(4, 4));
    assert_eq!(epochs(Some("4"), None, None, last).unwrap(), found(4, 2));
    // A crash between the history and the file; vector 42.
    assert_eq!(epochs(Some("2"), Some("1"), Some("2"), last).unwrap(), found(2, 2));
    assert_eq!(epochs(Some("4"), Some("1"), Some("3"), last).unwrap(), found(4, 3));
    // Apache refuses vector 40; but the history of epoch 2 is there, and it was accepted.
    assert_eq!(epochs(Some("2"), Some("1"), None, last).unwrap(), found(2, 2));
    assert_eq!(epochs(Some("2"), Some("1"), Some(""), last).unwrap(), found(2, 2));
    // A crash before the history, which did not come.
    assert_eq!(epochs(Some("3"), Some("2"), Some("3"), last).unwrap(), found(3, 2));

    // Vector 43.
    let error = epochs(Some("1"), Some("2"), None, last).unwrap_err();
    assert!(matches!(error, EpochError::Inverted { .. }), "{error}");
    let error = epochs(Some("1"), Some("1"), None, last).unwrap_err();
    assert!(matches!(error, EpochError::Behind { .. }), "{error}");
    for content in ["", "-1", "+1", "two", "2147483648", "1 2"] {
        let error = epochs(Some("2"), Some(content), None, last).unwrap_err();
        assert!(matches!(&error, EpochError::Unreadable(file) if *file == path("currentEpoch")), "{error}");
    }
}

#[test]
fn recovery_hands_on_the_last_transactions() {
    let (_, mut history, member) = old_member();
    // Behind the newest snapshot there are four, and five were asked for.
    assert_eq!(zxids(&member.recovered.recent), of_epoch_1(17..=20));
    let mut log = open_log(&member.dirs, Zxid::new(1, 20));
    let next = Zxid::new(1, 21);
    let payload = history.payload_at(next, b"");
    let mut store = member.store;
    let staged = [Proposal { zxid: next, payload: payload.into() }];
    store.commit_sync(&mut log, &staged, Epoch(2)).unwrap();
    let next = Zxid::new(1, 22);
    log.append(&[history.next_at(next, b"")], next, next).unwrap();
    log.close().unwrap();
    let recovered = Member::start(member.dirs).unwrap().recovered;
    assert_eq!(zxids(&recovered.recent), of_epoch_1(18..=22));
    assert_eq!(recovered.recent[3], staged[0]);
}

#[test]
fn a_range_of_the_log_is_read_from_any_place_that_is_in_it() {
    let (_, _, member) = old_member();
    let read = |from, to| member.store.read_chain(Zxid::new(1, from), Zxid::new(1, to), usize::MAX);
    for from in 1..=20 {
        for to in from..=20 {
            assert_eq!(zxids(&read(from, to).unwrap()), of_epoch_1(from + 1..=to), "{from} to {to}");
        }
    }
    // A learner at the beginning of the epoch, or with nothing.
    assert_eq!(zxids(&read(0, 3).unwrap()), of_epoch_1(1..=3));
    let all = member.store.read_chain(Zxid::ZERO, Zxid::new(1, 20), usize::MAX).unwrap();
    assert_eq!(zxids(&all), of_epoch_1(1..=20));

    assert!(matches!(read(3, 21), Err(Broken::Ends(last)) if last == Zxid::new(1, 20)));
    assert!(matches!(read(21, 22), Err(Broken::NotContained(_))));
    let error = member.store.read_chain(Zxid(7), Zxid::new(1, 2), usize::MAX).unwrap_err();
    assert!(matches!(error, Broken::NotContained(Zxid(7))), "{error}");
    let size: usize = all[4..9].iter().map(|proposal| proposal.payload.len()).sum();
    assert_eq!(member.store.read_chain(all[3].zxid, all[8].zxid, size).unwrap(), all[4..9]);
    let error = member.store.read_chain(all[3].zxid, all[8].zxid, size - 1).unwrap_err();
    assert!(matches!(error, Broken::TooLarge(_)), "{error}");
}

#[test]
fn a_range_over_a_missing_file_is_not_proven() {
    let (disk, _, member) = old_member();
    disk.remove(&path("log.100000009")).unwrap();
    let read = |from, to| member.store.read_chain(Zxid::new(1, from), Zxid::new(1, to), usize::MAX);
    assert!(matches!(read(7, 16), Err(Broken::Gap { last, .. }) if last == Zxid::new(1, 8)));
    assert!(matches!(read(10, 16), Err(Broken::NotContained(_))));
    assert_eq!(zxids(&read(14, 16).unwrap()), of_epoch_1(15..=16));
    // The start is refused only when the file is needed.
    assert!(Member::start(member.dirs).is_some());
}

/// Apache took a snapshot of epoch 2 from its leader, and left a log there whose end nobody else has
/// (ZOOKEEPER-2099); then came epoch 3.
#[test]
fn a_range_over_a_snapshot_that_stands_between_epochs_is_not_proven() {
    for snapshot in [Zxid::new(2, 0), Zxid::new(2, 5)] {
        let (disk, history, old) = old_member();
        drop(old);
        let dirs = open(&disk);
        let mut leader = history.clone();
        leader.cut(Zxid::new(1, 19));
        leader.next_at(snapshot, b"");
        write_snapshot(&dirs, leader.last()).unwrap();
        let mut log = open_log(&dirs, snapshot);
        for counter in 1..=2 {
            let zxid = Zxid::new(3, counter);
            log.append(&[leader.next_at(zxid, b"")], zxid, zxid).unwrap();
        }
        log.close().unwrap();
        for name in ["acceptedEpoch", "currentEpoch"] {
            disk.put(&path(name), b"3".to_vec());
        }
        let mut member = Member::start(dirs).unwrap();
        assert_at(&member.recovered, &leader, "after Apache");
        let read = |from| member.store.read_chain(from, Zxid::new(3, 2), usize::MAX);
        assert!(matches!(read(Zxid::new(1, 18)), Err(Broken::Gap { .. })));
        assert_eq!(zxids(&read(snapshot).unwrap()), [Zxid::new(3, 1), Zxid::new(3, 2)]);
        assert_eq!(zxids(&read(Zxid::new(3, 1)).unwrap()), [Zxid::new(3, 2)]);
        // Neither a cut behind it nor a start is possible from a snapshot in front of it.
        disk.remove(&path(&format!("snapshot.{:x}", snapshot.0))).unwrap();
        disk.put(&path(&format!("snapshot.{:x}", snapshot.0)), b"damaged".to_vec());
        let error = member.store.truncate(Zxid::new(3, 1)).unwrap_err();
        assert!(
            matches!(error, TruncateError::Cannot(CannotTruncate::Broken(Broken::Gap { .. }))),
            "{error}"
        );
        let error = recover_from(&disk).unwrap_err();
        assert!(matches!(error, RecoveryError::Gap { .. }), "{error}");
    }
}

#[test]
fn a_history_that_was_cut_goes_on_from_there() {
    let (disk, mut history, mut member) = old_member();
    let target = Zxid::new(1, 13);
    member.store.truncate(target).unwrap();
    let recovered = recover(&member.dirs, &RecoveryOptions::default(), Model::new).unwrap();
    history.cut(target);
    assert_at(&recovered, &history, "cut");
    let mut log = open_log(&member.dirs, target);
    let next = Zxid::new(2, 1);
    let staged = [Proposal { zxid: next, payload: history.payload_at(next, b"").into() }];
    member.store.commit_sync(&mut log, &staged, Epoch(2)).unwrap();
    log.close().unwrap();
    assert_at(&recover_from(&disk).unwrap(), &history, "gone on");
    let chain = member.store.read_chain(Zxid::new(1, 12), next, usize::MAX).unwrap();
    assert_eq!(zxids(&chain), [target, next]);
}

#[test]
fn a_cut_that_would_need_what_is_not_there_changes_nothing() {
    let (disk, history, mut member) = old_member();
    member.store.note_committed(Zxid::new(1, 10)).unwrap();
    let before = disk.operations();
    let mut cannot = |target| match member.store.truncate(target) {
        Err(TruncateError::Cannot(reason)) => reason,
        other => panic!("{target}: {other:?}"),
    };
    assert!(matches!(cannot(Zxid::new(1, 9)), CannotTruncate::BelowCommitted { .. }));
    // Behind the end, and in an epoch of which nothing is there.
    for target in [Zxid::new(1, 21), Zxid::new(2, 0)] {
        assert!(matches!(cannot(target), CannotTruncate::NotInHistory(_)), "{target}");
    }
    for zxid in [0i64, 0x100000005, 0x10000000c] {
        disk.remove(&path(&format!("snapshot.{zxid:x}"))).unwrap();
    }
    assert!(matches!(cannot(Zxid::new(1, 14)), CannotTruncate::NoSnapshot(_)));
    assert_eq!(disk.operations(), before + 3);
    assert_at(&recover_from(&disk).unwrap(), &history, "unchanged");
}

#[test]
fn a_snapshot_with_effects_from_behind_the_target_goes_with_them() {
    let (disk, mut history, mut member) = old_member();
    let fs = member.dirs.fs().clone();
    // As Apache writes them: begun at 13, and 15 was applied before it was complete.
    let options = SnapshotOptions { bytes_per_second: None, ..SnapshotOptions::default() };
    let state = history.at(Zxid::new(1, 15));
    let name = Zxid::new(1, 13);
    let no_sessions = std::iter::empty();
    let acls: Vec<_> =
        state.nodes.values().zip(1..).map(|(node, id)| (id, node.acl.clone().unwrap())).collect();
    let acls = acls.iter().map(|(id, acl)| (*id, &acl[..]));
    let mut writer =
        SnapshotWriter::create(fs, member.dirs.data(), name, &options, no_sessions, acls).unwrap().unwrap();
    fill(&mut writer, state).unwrap();
    writer.finish(Zxid::new(1, 15), Some(state.digest())).unwrap();

    let target = Zxid::new(1, 14);
    member.store.truncate(target).unwrap();
    assert!(!disk.exists(&path("snapshot.10000000d")).unwrap());
    history.cut(target);
    assert_at(&recover_from(&disk).unwrap(), &history, "cut");
}

#[test]
fn an_installed_snapshot_is_all_there_is_and_the_rest_goes_with_a_purge() {
    let (disk, _, mut member) = old_member();
    let mut leader = History::new();
    let base = Zxid::new(2, 3);
    leader.next_at(base, b"");
    assert!(install(&mut member, leader.last()));
    assert_eq!((member.store.base(), member.store.committed()), (base, base));
    assert_eq!(member.store.epochs().current, Epoch(2));
    assert!(disk.list(&path("retired")).unwrap().len() >= 8);
    let error = member.store.read_chain(Zxid::new(1, 19), base, usize::MAX).unwrap_err();
    assert!(matches!(error, Broken::NotContained(_)), "{error}");

    let mut log = open_log(&member.dirs, base);
    for counter in 4..=8 {
        let zxid = Zxid::new(2, counter);
        log.append(&[leader.next_at(zxid, b"")], zxid, zxid).unwrap();
        log.sync().unwrap();
    }
    let chain = member.store.read_chain(base, Zxid::new(2, 8), usize::MAX).unwrap();
    assert_eq!(chain.len(), 5);
    let mut purger = Purger::new(member.dirs.clone(), 3);
    assert_eq!(purger.purge().unwrap(), Vec::<PathBuf>::new());
    for counter in [5, 8] {
        write_snapshot(&member.dirs, leader.at(Zxid::new(2, counter))).unwrap();
    }
    assert!(purger.purge().unwrap().len() >= 8);
    assert_eq!(disk.list(&path("retired")).unwrap(), []);
    assert_at(&recover_from(&disk).unwrap(), &leader, "purged");
    // What is at the base is committed, and no leader may cut it.
    let error = member.store.truncate(Zxid::new(2, 2)).unwrap_err();
    assert!(matches!(error, TruncateError::Cannot(CannotTruncate::BelowCommitted { .. })), "{error}");
}

#[test]
fn a_member_whose_history_is_damaged_keeps_its_promises_and_gets_a_new_one() {
    let (disk, _, member) = old_member();
    drop(member);
    let damaged = path("log.10000000f");
    let mut content = disk.content(&damaged).unwrap();
    content[400] ^= 1;
    disk.put(&damaged, content);
    let dirs = open(&disk);
    let error = recover_from(&disk).unwrap_err();
    assert!(matches!(error, RecoveryError::DamagedLog { .. }), "{error}");

    let mut store = MemberStore::open_without_history(&dirs).unwrap();
    assert_eq!(store.epochs(), Epochs { accepted: Epoch(2), current: Epoch(1) });
    assert!(store.read_chain(Zxid::new(1, 2), Zxid::new(1, 3), usize::MAX).is_err());
    store.write_accepted(Epoch(2)).unwrap();
    let mut leader = History::new();
    leader.next_at(Zxid::new(1, 16), b"");
    let recovered = recover(&open(&SimDisk::new()), &RecoveryOptions::default(), Model::new).unwrap();
    let mut member = Member { dirs, recovered, store };
    assert!(install(&mut member, leader.last()));
    assert_at(&recover_from(&disk).unwrap(), &leader, "installed");
    // For the operator: the damaged file, whole.
    assert!(disk.exists(&path("retired/whole-log.10000000f")).unwrap());
}

#[test]
fn the_committed_mark_is_a_hint() {
    let (disk, _, mut member) = old_member();
    assert_eq!(member.store.committed(), Zxid::ZERO);
    let synced = disk.operations();
    member.store.note_committed(Zxid::new(1, 7)).unwrap();
    member.store.note_committed(Zxid::new(1, 9)).unwrap();
    member.store.note_committed(Zxid::new(1, 8)).unwrap();
    // One create and two writes.
    assert_eq!(disk.operations(), synced + 3);
    let mark = |disk: &SimDisk| Member::start(open(disk)).unwrap().store.committed();
    assert_eq!(mark(&disk.after_kill()), Zxid::new(1, 9));
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..50 {
        let found = mark(&disk.after_kill().restart(&mut rng));
        assert!([Zxid::ZERO, Zxid::new(1, 7), Zxid::new(1, 9)].contains(&found), "{found}");
    }
    // A snapshot from a leader that knows less replaces the mark, too.
    let mut other = Member::start(open(&disk.after_kill())).unwrap();
    let mut leader = History::new();
    (1..=5).for_each(|counter| drop(leader.next_at(Zxid::new(1, counter), b"")));
    assert!(install(&mut other, leader.last()));
    let mut log = open_log(&other.dirs, Zxid::new(1, 5));
    for counter in 6..=10 {
        let zxid = Zxid::new(1, counter);
        log.append(&[leader.next_at(zxid, b"")], zxid, zxid).unwrap();
    }
    log.close().unwrap();
    let store = Member::start(other.dirs).unwrap().store;
    assert_eq!((store.base(), store.committed()), (Zxid::new(1, 5), Zxid::new(1, 5)));
    // Above the end of the log it was written for another one.
    member.store.note_committed(Zxid::new(1, 21)).unwrap();
    assert_eq!(mark(&disk), Zxid::ZERO);
}

#[test]
fn a_base_that_the_history_does_not_reach_is_not_used() {
    let (disk, history, mut member) = old_member();
    assert_eq!(member.store.base(), Zxid::ZERO);
    let before = disk.after_kill();
    let mut leader = History::new();
    leader.next_at(Zxid::new(2, 3), b"");
    assert!(install(&mut member, leader.last()));
    // Somebody put an older backup in its place, but not all of it.
    before.put(&path(".zk-base"), disk.content(&path(".zk-base")).unwrap());
    for _ in 0..2 {
        let member = Member::start(open(&before)).unwrap();
        assert_at(&member.recovered, &history, "backup");
        // The snapshot that recovery began with.
        assert_eq!(member.store.base(), Zxid::new(1, 16));
        assert_eq!(member.store.committed(), Zxid::new(1, 16));
    }
}

#[test]
fn a_standalone_server_opens_a_members_directory_and_the_other_way_round() {
    let disk = SimDisk::new();
    let dirs: DataDirs = open(&disk);
    let mut history = History::new();
    write_snapshot(&dirs, history.last()).unwrap();
    let mut log = open_log(&dirs, Zxid::ZERO);
    for zxid in 1..=3 {
        log.append(&[history.next(b"standalone")], Zxid(zxid), Zxid(zxid)).unwrap();
    }
    log.close().unwrap();

    let mut member = Member::start(dirs.clone()).unwrap();
    assert_at(&member.recovered, &history, "as a member");
    assert_eq!(member.store.epochs(), Epochs::default());
    member.store.write_accepted(Epoch(1)).unwrap();
    let mut log = open_log(&dirs, Zxid(3));
    let zxid = Zxid::new(1, 1);
    let staged = [Proposal { zxid, payload: history.payload_at(zxid, b"member").into() }];
    member.store.commit_sync(&mut log, &staged, Epoch(1)).unwrap();
    log.close().unwrap();

    let recovered = recover_from(&disk).unwrap();
    assert_at(&recovered, &history, "as a standalone server");
    assert_eq!(recovered.incidents, []);
    let mut log = open_log(&dirs, zxid);
    let next = Zxid::new(1, 2);
    log.append(&[history.next(b"standalone")], next, next).unwrap();
    log.close().unwrap();
    let member = Member::start(dirs).unwrap();
    assert_at(&member.recovered, &history, "as a member again");
    assert_eq!(member.store.epochs().current, Epoch(1));
    let chain = member.store.read_chain(Zxid(2), next, usize::MAX).unwrap();
    assert_eq!(zxids(&chain), [Zxid(3), zxid, next]);
}
