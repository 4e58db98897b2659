//! Power loss, full disk and failing calls at every operation of a working server: what was acknowledged is
//! there after the next start.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use fastrand::Rng;
use zk_proto::Zxid;
use zk_server::storage::sim::{Fault, SimDisk};
use zk_server::storage::{
    Base, DataDirs, IoError, LogOptions, LogThread, Purger, RecoveryError, RecoveryOptions, TxnLog, recover,
};

use crate::history::{History, assert_at, open, recover_from, write_snapshot};
use crate::model::Model;

fn log_options() -> LogOptions {
    // Small files, so that they fill up, and no thread: operations come in a fixed order.
    LogOptions { pre_alloc_bytes: 4096, ..LogOptions::default() }
}

/// A server at work: starts, then writes, takes snapshots, rolls and purges until an operation fails.
struct Server<'a> {
    rng: &'a mut Rng,
    /// Records per write: with more than one, a tear between them looks like damage.
    batch_max: usize,
    history: History,
    /// Everything up to here was acknowledged.
    acked: Zxid,
}

impl<'a> Server<'a> {
    fn new(rng: &'a mut Rng, batch_max: usize) -> Self {
        Server { rng, batch_max, history: History::new(), acked: Zxid::ZERO }
    }

    /// Runs on `disk` from the state it has, for at most `steps` steps; whether no operation failed.
    fn run(&mut self, disk: &SimDisk, steps: usize) -> bool {
        let fs = Arc::new(disk.clone());
        let dirs = DataDirs::open(fs, "/data".as_ref(), None, true);
        let Ok(dirs) = dirs else { return false };
        let recovered = match recover(&dirs, &RecoveryOptions::default(), Model::new) {
            Ok(recovered) => recovered,
            Err(RecoveryError::Io(_)) => return false,
            Err(e) => panic!("{e}"),
        };
        self.check(&recovered);
        // What was not acknowledged may be gone: history goes on from here.
        self.history.states.truncate(recovered.last_zxid.0 as usize + 1);
        self.acked = recovered.last_zxid;
        if recovered.base == Base::New && write_snapshot(&dirs, self.history.last()).is_err() {
            return false;
        }
        let mut log = TxnLog::new(Arc::clone(dirs.fs()), dirs.log(), log_options(), self.acked);
        (0..steps).all(|_| self.step(&dirs, &mut log).is_ok())
    }

    fn check(&self, recovered: &zk_server::storage::Recovered<Model>) {
        let last = recovered.last_zxid;
        assert!(self.acked <= last, "acknowledged {} but found only {last}", self.acked);
        assert!(last <= self.history.last().last_zxid, "{last} was never written");
        assert_at(recovered, &self.history, "after restart");
    }

    fn step(&mut self, dirs: &DataDirs, log: &mut TxnLog) -> Result<(), Stop> {
        match self.rng.u32(0..12) {
            0 => log.roll()?,
            1 => {
                log.roll()?;
                write_snapshot(dirs, self.history.at(self.acked)).map_err(|_| Stop)?;
            }
            2 => drop(Purger::new(dirs.clone(), 3).purge().map_err(|_| Stop)?),
            _ => {
                let mut data = vec![b'x'; *self.rng.choice(&[1, 100, 600, 3000]).unwrap()];
                self.rng.fill(&mut data);
                for _ in 0..self.rng.usize(1..=self.batch_max.min(2)) {
                    let first = Zxid(log.last().0 + 1);
                    let records: Vec<Bytes> =
                        (0..self.rng.usize(1..=self.batch_max)).map(|_| self.history.next(&data)).collect();
                    log.append(&records, first, self.history.last().last_zxid)?;
                    if self.batch_max > 1 && self.rng.u8(0..10) == 0 {
                        log.roll()?;
                    }
                }
                log.sync()?;
                self.acked = log.last();
            }
        }
        Ok(())
    }
}

/// An operation failed; the process would end here.
struct Stop;

impl From<IoError> for Stop {
    fn from(_: IoError) -> Self {
        Stop
    }
}

#[test]
fn power_loss_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let mut disk = SimDisk::new();
        let mut survivor = rng.fork();
        let mut server = Server::new(&mut rng, 1);
        // Several lives on one disk, each ended by a power loss, some already while starting.
        for _ in 0..6 {
            let at = disk.operations() + survivor.u64(0..90);
            disk.inject(at, Fault::PowerLoss);
            server.run(&disk, 60);
            disk = disk.restart(&mut survivor);
        }
        assert!(server.run(&disk, 5), "seed {seed}");
    }
}

#[test]
fn power_loss_in_a_batch_ends_in_its_middle_or_is_refused_but_never_loses_what_was_acknowledged() {
    let (mut started, mut refused) = (0, 0);
    for seed in 0..150 {
        let mut rng = Rng::with_seed(seed);
        let disk = SimDisk::new();
        let mut survivor = rng.fork();
        let mut server = Server::new(&mut rng, 8);
        disk.inject(survivor.u64(20..90), Fault::PowerLoss);
        server.run(&disk, 60);
        let disk = disk.restart(&mut survivor);
        match recover_from(&disk) {
            Ok(recovered) => {
                server.check(&recovered);
                started += 1;
            }
            // An intact record behind a missing one: whether that was acknowledged only the operator can know.
            Err(RecoveryError::DamagedLog { last, ref reason, .. }) => {
                assert!(reason.contains("intact record") && last >= server.acked, "seed {seed}: {reason}");
                let options = RecoveryOptions { cut_damaged_log: true, ..RecoveryOptions::default() };
                server.check(&recover(&open(&disk), &options, Model::new).unwrap());
                refused += 1;
            }
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    assert!(started > 100 && refused > 0, "{started} started, {refused} refused");
}

#[test]
fn a_full_disk_at_any_operation_loses_nothing_and_starts_again() {
    for seed in 0..5 {
        for at in 0..150 {
            let mut rng = Rng::with_seed(seed);
            let disk = SimDisk::new();
            open(&disk);
            disk.inject(disk.operations() + at, Fault::Full);
            let mut server = Server::new(&mut rng, 4);
            let _ = server.run(&disk, 20);
            // The process ended; the disk stays full. Recovery needs no space.
            let disk = disk.after_kill();
            match recover_from(&disk) {
                Ok(recovered) => server.check(&recovered),
                Err(e) => panic!("seed {seed}, operation {at}: {e}"),
            }
        }
    }
}

#[test]
fn a_failing_call_at_any_operation_stops_the_server_and_loses_nothing() {
    for seed in 0..5 {
        for at in 0..150 {
            let mut rng = Rng::with_seed(seed);
            let disk = SimDisk::new();
            disk.inject(at, Fault::Fail(ErrorKind::StorageFull));
            let mut survivor = rng.fork();
            let mut server = Server::new(&mut rng, 1);
            let _ = server.run(&disk, 20);
            // Power fails after the process ended: nothing that a failed sync left in memory may count.
            let disk = disk.restart(&mut survivor);
            let recovered =
                recover_from(&disk).unwrap_or_else(|e| panic!("seed {seed}, operation {at}: {e}"));
            server.check(&recovered);
        }
    }
}

#[test]
fn what_a_start_after_a_failed_sync_finds_is_durable() {
    for at in 0..150 {
        let mut rng = Rng::with_seed(7);
        let disk = SimDisk::new();
        disk.inject(at, Fault::Fail(ErrorKind::Other));
        let mut survivor = rng.fork();
        let mut server = Server::new(&mut rng, 3);
        let _ = server.run(&disk, 20);
        // The process starts again on the same kernel, which shows bytes that are on no disk. What it finds
        // it will tell to clients: so that must survive the power loss that follows.
        let disk = disk.after_kill();
        let Ok(first) = recover_from(&disk) else { continue };
        server.check(&first);
        server.acked = first.last_zxid;
        let second =
            recover_from(&disk.restart(&mut survivor)).unwrap_or_else(|e| panic!("operation {at}: {e}"));
        server.check(&second);
    }
}

#[test]
fn the_log_thread_reports_a_failed_sync_once_and_acknowledges_nothing_more() {
    let disk = SimDisk::new();
    let dirs = open(&disk);
    let (tx, rx) = mpsc::channel();
    let fatal = tx.clone();
    let log = TxnLog::new(Arc::clone(dirs.fs()), dirs.log(), log_options(), Zxid::ZERO);
    let thread = LogThread::spawn(
        log,
        move |zxid| tx.send(Ok(zxid)).unwrap(),
        move |error| fatal.send(Err(error.to_string())).unwrap(),
    )
    .unwrap();
    let mut history = History::new();
    thread.submit(history.next(b"first"), Zxid(1), Zxid(1));
    assert_eq!(rx.recv().unwrap(), Ok(Zxid(1)));
    // The next operations are the write and the sync of the second record.
    disk.inject(disk.operations() + 1, Fault::Fail(ErrorKind::Other));
    thread.submit(history.next(b"second"), Zxid(2), Zxid(2));
    let error = rx.recv().unwrap().unwrap_err();
    assert!(error.starts_with("cannot sync /data/version-2/log.1: "), "{error}");
    let operations = disk.operations();
    thread.submit(history.next(b"third"), Zxid(3), Zxid(3));
    thread.shutdown();
    assert_eq!(rx.iter().count(), 0);
    assert_eq!(disk.operations(), operations, "the disk was touched after the error");
}
