//! Power loss at every operation of a truncation, of the installation of a leader's snapshot and of the end of a
//! synchronisation: the next start finds what was there before or what should be there afterwards, an Apache
//! server that is started first finds a history without gaps, and what it adds to that is not lost.

use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use zk_proto::{Acl, Zxid};
use zk_server::storage::member::MemberStore;
use zk_server::storage::sim::{Fault, SimDisk};
use zk_server::storage::{
    DataDirs, Fs, LogOptions, Recovered, RecoveryError, RecoveryOptions, TxnLog, recover,
};
use zk_server::zab::{Epoch, Epochs, Proposal};

use crate::history::{History, assert_at, fill, open, write_snapshot};
use crate::model::Model;

/// Power losses tried for each operation: how much of what was not synced survives is chance.
const SURVIVALS: u64 = 6;

pub fn log_options() -> LogOptions {
    LogOptions { pre_alloc_bytes: 4096, ..LogOptions::default() }
}

pub fn open_log(dirs: &DataDirs, last: Zxid) -> TxnLog {
    TxnLog::new(Arc::clone(dirs.fs()), dirs.log(), log_options(), last)
}

/// A member's directories with dataLogDir apart.
fn open_split(disk: &SimDisk) -> DataDirs {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    DataDirs::open(fs, Path::new("/data"), Some(Path::new("/log")), true).unwrap()
}

pub struct Member {
    pub dirs: DataDirs,
    pub recovered: Recovered<Model>,
    pub store: MemberStore,
}

impl Member {
    /// Starts on the disk; `None` when the power went off.
    pub fn start(dirs: DataDirs) -> Option<Self> {
        let options = RecoveryOptions { recent_max: 5, ..RecoveryOptions::default() };
        let recovered = match recover(&dirs, &options, Model::new) {
            Err(RecoveryError::Io(_)) => return None,
            recovered => recovered.unwrap(),
        };
        let store = MemberStore::open(&dirs, recovered.base, recovered.last_zxid).ok()?;
        Some(Member { dirs, recovered, store })
    }

    fn check_epochs(&self, context: &str) -> Epochs {
        let epochs = self.store.epochs();
        let of_last = Epoch::of(self.recovered.last_zxid);
        assert!(
            epochs.accepted >= epochs.current && epochs.current >= of_last,
            "{context}: {epochs:?}, {of_last}"
        );
        epochs
    }
}

/// A member that has followed the leader of epoch 1 up to (1, 20): logs from 1, 4, 9 and 15 on, snapshots at 0,
/// 5, 12 and 16. It has accepted epoch 2.
pub fn member(disk: &SimDisk, dirs: &DataDirs) -> History {
    let mut history = History::new();
    write_snapshot(dirs, history.last()).unwrap();
    let mut store = Member::start(dirs.clone()).unwrap().store;
    store.write_accepted(Epoch(1)).unwrap();
    let mut log = open_log(dirs, Zxid::ZERO);
    store.commit_sync(&mut log, &[], Epoch(1)).unwrap();
    for counter in 1..=20 {
        if [4, 9, 15].contains(&counter) {
            log.roll().unwrap();
        }
        let zxid = Zxid::new(1, counter);
        let record = history.next_at(zxid, &[counter as u8; 150]);
        log.append(&[record], zxid, zxid).unwrap();
        log.sync().unwrap();
        if [5, 12, 16].contains(&counter) {
            write_snapshot(dirs, history.last()).unwrap();
        }
    }
    store.write_accepted(Epoch(2)).unwrap();
    assert!(!disk.is_off());
    history
}

/// What an Apache server finds: it knows none of our files.
fn apache(disk: &SimDisk, dirs: &DataDirs, context: &str) -> (Recovered<Model>, DataDirs) {
    let copy = disk.after_kill();
    let dirs = match dirs.log() == dirs.data() {
        true => open(&copy),
        false => open_split(&copy),
    };
    for dir in [dirs.data(), dirs.log()] {
        for file in copy.list(dir).unwrap() {
            if file.name.starts_with('.') || file.name.starts_with("truncate.") {
                copy.remove(&dir.join(file.name)).unwrap();
            }
        }
    }
    let recovered = recover(&dirs, &RecoveryOptions::default(), Model::new)
        .unwrap_or_else(|e| panic!("{context}: an Apache server finds {e}"));
    let epoch = |name: &str| {
        let content = copy.content(&dirs.data().join(name))?;
        Some(std::str::from_utf8(&content).unwrap().parse::<u32>().unwrap())
    };
    let current = epoch("currentEpoch").unwrap();
    let of_last = recovered.last_zxid.epoch();
    let staged = || epoch("currentEpoch.tmp").is_some_and(|staged| staged >= of_last);
    assert!(of_last <= current || staged(), "{context}: an Apache server finds an epoch behind its history");
    assert!(current <= epoch("acceptedEpoch").unwrap(), "{context}");
    (recovered, dirs)
}

/// An Apache server runs on the disk after the crash, joins epoch 3 and logs two transactions that its leader
/// counts on.
fn apache_goes_on(disk: &SimDisk, histories: &[&History], context: &str) {
    let (found, _) = apache(disk, &open(disk), context);
    let last = found.last_zxid;
    let mut history =
        (*histories.iter().find(|h| h.states.iter().any(|s| s.last_zxid == last)).unwrap()).clone();
    history.cut(last);
    let disk = disk.after_kill();
    let dirs = open(&disk);
    for name in ["acceptedEpoch", "currentEpoch"] {
        disk.put(&dirs.data().join(name), b"3".to_vec());
    }
    let mut log = open_log(&dirs, last);
    for counter in 1..=2 {
        let zxid = Zxid::new(3, counter);
        log.append(&[history.next_at(zxid, b"apache")], zxid, zxid).unwrap();
    }
    log.sync().unwrap();
    let member = Member::start(dirs).unwrap();
    assert_eq!(member.recovered.last_zxid, Zxid::new(3, 2), "{context}");
    assert_at(&member.recovered, &history, context);
}

/// Runs `change` on copies of `disk`, with a power loss at each of its operations, and gives the disk after that
/// and whether `change` had ended to `check`.
fn at_every_operation(
    disk: &SimDisk,
    mut change: impl FnMut(&SimDisk) -> bool,
    mut check: impl FnMut(&SimDisk, bool, &str),
) {
    let mut rng = Rng::with_seed(1);
    for operation in 0.. {
        let copy = disk.after_kill();
        copy.inject(copy.operations() + operation, Fault::PowerLoss);
        let ended = change(&copy);
        assert_ne!(ended, copy.is_off());
        for survival in 0..SURVIVALS {
            let context = format!("operation {operation}, survival {survival}");
            check(&copy.restart(&mut rng), ended, &context);
        }
        if ended {
            assert!(operation > 5, "only {operation} operations");
            return;
        }
    }
}

fn names(disk: &SimDisk, dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = disk.list(dir).unwrap().into_iter().map(|file| file.name).collect();
    names.sort();
    names
}

fn truncated_at_every_operation(target: Zxid, open: fn(&SimDisk) -> DataDirs) {
    let disk = SimDisk::new();
    let history = member(&disk, &open(&disk));
    let old = history.last().last_zxid;
    // What was read stays in the cache; a real member has recovered and so synced everything by then.
    drop(Member::start(open(&disk)));
    let change = |disk: &SimDisk| {
        let Some(mut member) = Member::start(open(disk)) else { return false };
        member.store.truncate(target).is_ok()
    };
    at_every_operation(&disk, change, |disk, ended, context| {
        let dirs = open(disk);
        let (found, _) = apache(disk, &dirs, context);
        assert!(found.last_zxid >= target && found.last_zxid <= old, "{context}: {}", found.last_zxid);
        assert_at(&found, &history, context);
        if dirs.log() == dirs.data() {
            apache_goes_on(disk, &[&history], context);
        }
        for _ in 0..2 {
            let member = Member::start(dirs.clone()).unwrap();
            let last = member.recovered.last_zxid;
            assert!(last == target || last == old && !ended, "{context}: {last}");
            assert_at(&member.recovered, &history, context);
            member.check_epochs(context);
            if last == target {
                let above = |name: &String| {
                    let hex = name.strip_prefix("snapshot.").or(name.strip_prefix("log."));
                    hex.is_some_and(|hex| i64::from_str_radix(hex, 16).unwrap() > target.0)
                };
                assert_eq!(names(disk, dirs.data()).iter().find(|name| above(name)), None, "{context}");
                assert_eq!(names(disk, dirs.log()).iter().find(|name| above(name)), None, "{context}");
            }
            assert_eq!(
                names(disk, dirs.data()).iter().find(|n| n.starts_with("truncate")),
                None,
                "{context}"
            );
        }
    });
}

#[test]
fn power_loss_in_a_truncation_leaves_the_old_history_or_the_cut_one() {
    // In the middle of a file behind a snapshot, at the end of a file, at a snapshot, and in the last file.
    for counter in [13, 14, 12, 18] {
        truncated_at_every_operation(Zxid::new(1, counter), open);
    }
    truncated_at_every_operation(Zxid::new(1, 13), open_split);
}

#[test]
fn a_truncation_on_a_full_disk_is_finished_without_more_space() {
    let disk = SimDisk::new();
    let history = member(&disk, &open(&disk));
    let (target, old) = (Zxid::new(1, 13), history.last().last_zxid);
    let mut seen = std::collections::BTreeSet::new();
    for operation in 0..40 {
        let copy = disk.after_kill();
        let mut member = Member::start(open(&copy)).unwrap();
        copy.inject(copy.operations() + operation, Fault::Full);
        let ended = member.store.truncate(target).is_ok();
        let member = Member::start(open(&copy.after_kill())).unwrap();
        let last = member.recovered.last_zxid;
        assert!(last == target || last == old && !ended, "operation {operation}: {last}");
        assert_at(&member.recovered, &history, "full disk");
        seen.insert(last);
    }
    assert_eq!(seen.len(), 2);
}

/// Writes the leader's tree and installs it, as a member does at NEWLEADER of epoch 2.
pub fn install(member: &mut Member, model: &Model) -> bool {
    let acls: Vec<(i64, Vec<Acl<'static>>)> =
        model.nodes.values().zip(1..).map(|(node, id)| (id, node.acl.clone().unwrap())).collect();
    let written = member.store.install_writer(
        model.last_zxid,
        model.sessions.iter().map(|(&id, &timeout)| (id, timeout)),
        acls.iter().map(|(id, acl)| (*id, &acl[..])),
    );
    let Ok(mut writer) = written else { return false };
    fill(&mut writer, model).is_ok()
        && writer.finish(model.last_zxid, Some(model.digest())).is_ok()
        && member.store.install(model.last_zxid, Epoch(2)).is_ok()
}

fn installed_at_every_operation(leader: &History, open: fn(&SimDisk) -> DataDirs) {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let history = member(&disk, &dirs);
    let old = history.last().last_zxid;
    // An older installation has retired files of the same names.
    for dir in [dirs.data(), dirs.log()] {
        disk.create_dir_all(&dir.join("retired")).unwrap();
        for name in ["snapshot.100000010", "log.10000000f", "log.1"] {
            disk.put(&dir.join("retired").join(name), b"older".to_vec());
        }
    }
    drop(Member::start(dirs));
    let new = leader.last().last_zxid;
    let change = |disk: &SimDisk| {
        let Some(mut member) = Member::start(open(disk)) else { return false };
        install(&mut member, leader.last())
    };
    at_every_operation(&disk, change, |disk, ended, context| {
        let dirs = open(disk);
        let (found, _) = apache(disk, &dirs, context);
        let is_new = found.sink.sessions.contains_key(&7);
        match is_new {
            true => assert_eq!(found.last_zxid, new, "{context}"),
            false => assert!(found.last_zxid >= old.min(new), "{context}: {}", found.last_zxid),
        }
        assert_at(&found, if is_new { leader } else { &history }, context);
        if dirs.log() == dirs.data() {
            let histories = if is_new { [leader, &history] } else { [&history, leader] };
            apache_goes_on(disk, &histories, context);
        }
        for _ in 0..2 {
            let member = Member::start(dirs.clone()).unwrap();
            let is_new = member.recovered.sink.sessions.contains_key(&7);
            let last = member.recovered.last_zxid;
            assert!(is_new || !ended, "{context}");
            assert_eq!(last, if is_new { new } else { old }, "{context}");
            assert_at(&member.recovered, if is_new { leader } else { &history }, context);
            let epochs = member.check_epochs(context);
            assert_eq!(epochs.current, if is_new { Epoch(2) } else { Epoch(1) }, "{context}");
            assert_eq!(epochs.accepted, Epoch(2), "{context}");
            if is_new {
                let mut all = names(disk, dirs.data());
                if dirs.log() != dirs.data() {
                    all.extend(names(disk, dirs.log()));
                }
                all.retain(|name| !name.starts_with(".zk-") && !name.ends_with("Epoch"));
                assert_eq!(all, [format!("snapshot.{:x}", new.0)], "{context}");
                assert_eq!((member.store.base(), member.store.committed()), (new, new), "{context}");
            }
        }
    });
}

/// A leader's history up to the zxid, with a session that the member has never seen.
fn leader_at(last: Zxid) -> History {
    let mut history = History::new();
    history.states[0].sessions.insert(7, 4000);
    for counter in 1..=13 {
        history.next_at(Zxid::new(1, counter), &[counter as u8; 150]);
    }
    if last > history.last().last_zxid {
        history.next_at(last, b"of epoch 2");
    }
    assert_eq!(history.last().last_zxid, last);
    history
}

#[test]
fn power_loss_in_an_installation_leaves_the_old_history_or_the_new_one() {
    // Above the old history, at the beginning of the epoch, and inside of the old history.
    for last in [Zxid::new(2, 7), Zxid::new(2, 0), Zxid::new(1, 13)] {
        installed_at_every_operation(&leader_at(last), open);
    }
    installed_at_every_operation(&leader_at(Zxid::new(1, 13)), open_split);
}

#[test]
fn an_epoch_is_current_only_with_the_history_that_came_before_it() {
    let disk = SimDisk::new();
    let mut history = member(&disk, &open(&disk));
    let old = history.last().last_zxid;
    drop(Member::start(open(&disk)));
    let new = Zxid::new(2, 1);
    let staged = [Proposal { zxid: new, payload: history.payload_at(new, b"synchronised").into() }];
    let change = |disk: &SimDisk| {
        let Some(mut member) = Member::start(open(disk)) else { return false };
        let mut log = open_log(&member.dirs, member.recovered.last_zxid);
        member.store.commit_sync(&mut log, &staged, Epoch(2)).is_ok()
    };
    at_every_operation(&disk, change, |disk, ended, context| {
        apache(disk, &open(disk), context);
        let member = Member::start(open(disk)).unwrap();
        let last = member.recovered.last_zxid;
        assert!(last == new || last == old && !ended, "{context}: {last}");
        assert_at(&member.recovered, &history, context);
        let current = member.check_epochs(context).current;
        assert_eq!(current, if last == new { Epoch(2) } else { Epoch(1) }, "{context}");
    });
}

#[test]
fn promises_hold_at_every_operation() {
    let disk = SimDisk::new();
    member(&disk, &open(&disk));
    let change = |disk: &SimDisk| {
        let Some(mut member) = Member::start(open(disk)) else { return false };
        let mut log = open_log(&member.dirs, member.recovered.last_zxid);
        (3..6).all(|epoch| {
            member.store.write_accepted(Epoch(epoch)).is_ok()
                && (epoch == 4 || member.store.commit_sync(&mut log, &[], Epoch(epoch)).is_ok())
        })
    };
    let mut seen = std::collections::BTreeSet::new();
    at_every_operation(&disk, change, |disk, ended, context| {
        apache(disk, &open(disk), context);
        let epochs = Member::start(open(disk)).unwrap().check_epochs(context);
        seen.insert((epochs.accepted.0, epochs.current.0));
        assert!(!ended || epochs == Epochs { accepted: Epoch(5), current: Epoch(5) }, "{context}");
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(2, 1), (3, 1), (3, 3), (4, 3), (5, 3), (5, 5)]);
}
