//! The disk of a node: one operation at a time, each after a while. A crash comes between two operations, or
//! between any two file operations inside of one.

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::Zxid;
use zk_server::member::{DiskDone, DiskOp, Input};
use zk_server::replica::Shared;
use zk_server::replica::messages::Input as ReplicaInput;
use zk_server::storage::sim::Fault;
use zk_server::storage::{Compression, DataDirs, Purger, SnapshotOptions, SnapshotWriter};
use zk_server::tree::SnapshotPin;

use super::node::{Crash, Process};
use super::{Event, MS, NodeId, Violation, World, trace};

/// Something for the disk, in order.
pub(super) enum DiskItem {
    Append { records: Bytes, first: Zxid, last: Zxid },
    Op(DiskOp),
    Roll,
}

/// The name of an operation.
pub(super) fn name(op: &DiskOp) -> String {
    match op {
        DiskOp::WriteAccepted(epoch) => format!("accept epoch {epoch}"),
        DiskOp::CommitSync { staged, epoch } => {
            format!("append {} and make epoch {epoch} current", staged.len())
        }
        DiskOp::Install { pin, epoch } => format!("install the tree at {} in epoch {epoch}", pin.zxid),
        DiskOp::Truncate(zxid) => format!("truncate behind {zxid}"),
        DiskOp::Rebuild(_) => "rebuild".into(),
        DiskOp::Barrier(_) => "barrier".into(),
        DiskOp::ReadChain { from, to, .. } => format!("read behind {from} to {to}"),
        DiskOp::NoteCommitted(zxid) => format!("note {zxid} as committed"),
        DiskOp::WriteConfig { .. } => "write the configuration".into(),
    }
}

/// A snapshot that is being written.
pub(super) struct SnapshotWork {
    pin: Arc<SnapshotPin>,
    writer: SnapshotWriter,
}

/// Slots of the tree per piece of a snapshot: few, so that writes come between.
const SLOTS: u32 = 16;

impl SnapshotWork {
    /// Begins, unless the snapshot is there.
    pub fn begin(dirs: &DataDirs, pin: Arc<SnapshotPin>) -> Result<Option<Self>, String> {
        let options =
            SnapshotOptions { compression: Compression::None, bytes_per_second: None, ..Default::default() };
        let sessions = pin.sessions.iter().copied();
        let acls = pin.acls.iter().map(|(id, acl)| (*id, &acl[..]));
        let writer =
            SnapshotWriter::create(dirs.fs().clone(), dirs.data(), pin.zxid, &options, sessions, acls)
                .map_err(|e| e.to_string())?;
        Ok(writer.map(|writer| SnapshotWork { pin, writer }))
    }

    /// Writes a piece. False at the end, or when another tree has taken the place of the pinned one.
    fn piece(&mut self, shared: &Shared) -> Result<bool, String> {
        let tree = shared.tree.read();
        if !tree.has_pin(&self.pin) {
            return Err("the tree was replaced".into());
        }
        let writer = &mut self.writer;
        self.pin
            .next_nodes(&tree, SLOTS, |path, data, acl, stat| writer.node(path, data, acl, stat))
            .map_err(|e| e.to_string())
    }

    fn complete(self) -> Result<(), String> {
        let digest = Some(self.pin.digest as i64);
        self.writer.finish(self.pin.zxid, digest).map(drop).map_err(|e| e.to_string())
    }

    /// Writes what is left, at once.
    pub fn finish(mut self, shared: &Shared) -> Result<(), String> {
        while self.piece(shared)? {}
        self.complete()
    }
}

impl World {
    pub(super) fn enqueue(&mut self, node: NodeId, item: DiskItem) {
        if let Some(process) = &mut self.nodes[node].process {
            process.queue.push_back(item);
            if !process.busy {
                self.plan_disk(node);
            }
        }
    }

    fn plan_disk(&mut self, node: NodeId) {
        let place = &mut self.nodes[node];
        let Some(process) = &mut place.process else { return };
        let Some(front) = process.queue.front() else {
            process.busy = false;
            return;
        };
        process.busy = true;
        let (low, high) = self.swarm.disk_us;
        let mut delay = self.rng.u64(low..=high) * place.disk_factor;
        if let DiskItem::Op(DiskOp::Barrier(_) | DiskOp::NoteCommitted(_)) | DiskItem::Roll = front {
            delay = delay.min(10);
        }
        let event = Event::Disk { node, generation: place.generation };
        self.plan(delay, event);
    }

    pub(super) fn disk_done(&mut self, node: NodeId, generation: u64) -> Result<(), Violation> {
        let place = &mut self.nodes[node];
        if place.generation != generation || place.process.is_none() {
            return Ok(());
        }
        trace::set_node(node + 1);
        let crash = place.crash_in_operation.take();
        let error = std::mem::take(&mut place.disk_error);
        if crash.is_some() {
            place.disk.inject(place.disk.operations() + self.rng.u64(0..10), Fault::PowerLoss);
        } else if error {
            let at = place.disk.operations() + self.rng.u64(0..4);
            place.disk.inject(at, Fault::Fail(std::io::ErrorKind::Other));
        }
        let place = &mut self.nodes[node];
        let Some(process) = &mut place.process else { return Ok(()) };
        let result = run(process);
        let off = place.disk.is_off();
        place.disk.inject(u64::MAX, Fault::PowerLoss);
        match (result, crash) {
            (result, Some(crash)) => {
                // Whether or not the operation had so many steps: nobody has heard of its end.
                self.trace.tell(|| format!("interrupted: {:?}", result.as_ref().err()));
                self.crash_and_restart_soon(node, crash);
                Ok(())
            }
            (Ok(_), None) if off => Err(Violation("the disk is off without a crash".into())),
            (Err(reason), None) if error => {
                self.trace.tell(|| format!("disk error: {reason}"));
                // What the failed sync has lost is lost for ever: the machine is power cycled.
                self.crash_and_restart_soon(node, Crash::Power);
                Ok(())
            }
            (Err(reason), None) => {
                Err(Violation(format!("node {}: a disk operation fails: {reason}", node + 1)))
            }
            (Ok(done), None) => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let epochs = process.owner.store().epochs();
                let last = process.log.as_ref().map_or(Zxid::ZERO, |log| log.last());
                self.counts.truncations +=
                    u64::from(matches!(done, Done::Operation(DiskDone::Truncated(Ok(_)))));
                self.nodes[node].model.done(&done, last, epochs)?;
                if matches!(done, Done::Operation(DiskDone::Synced { .. })) {
                    self.counts.installs += u64::from(std::mem::take(&mut self.nodes[node].damaged));
                }
                match done {
                    Done::Appended(zxid) => self.step(node, Input::Replica(ReplicaInput::Durable(zxid)))?,
                    Done::Operation(done) => self.step(node, Input::Disk(done))?,
                    Done::Nothing => {}
                }
                self.plan_disk(node);
                Ok(())
            }
        }
    }

    pub(super) fn crash_and_restart_soon(&mut self, node: NodeId, crash: Crash) {
        let down = self.rng.u64(50..8000) * MS;
        self.crash_and_restart(node, crash, down);
    }

    pub(super) fn begin_snapshot(&mut self, node: NodeId, pin: Arc<SnapshotPin>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.snapshot.is_some() {
            return;
        }
        self.trace.tell(|| format!("begins a snapshot at {}", pin.zxid));
        if let Err(reason) = self.checker.snapshot(pin.zxid) {
            self.checker.late(reason);
        }
        match SnapshotWork::begin(&process.dirs, pin) {
            Ok(work) => process.snapshot = work,
            Err(reason) => self.checker.late(format!("a snapshot cannot be begun: {reason}")),
        }
        self.enqueue(node, DiskItem::Roll);
        self.plan_snapshot(node);
    }

    fn plan_snapshot(&mut self, node: NodeId) {
        let delay = self.rng.u64(1..20) * MS;
        let event = Event::Snapshot { node, generation: self.nodes[node].generation };
        self.plan(delay, event);
    }

    pub(super) fn snapshot_piece(&mut self, node: NodeId, generation: u64) -> Result<(), Violation> {
        if self.nodes[node].generation != generation {
            return Ok(());
        }
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let Some(mut work) = process.snapshot.take() else { return Ok(()) };
        match work.piece(&process.shared) {
            // Given up: the tree was replaced. Every other error would be one of the disk, which has none here.
            Err(_) => {}
            Ok(true) => {
                process.snapshot = Some(work);
                self.plan_snapshot(node);
            }
            Ok(false) => {
                let purger = Purger::new(process.dirs.clone(), 3);
                let finished = work.complete().and_then(|()| {
                    let mut purger = purger;
                    purger.purge().map(drop).map_err(|e| e.to_string())
                });
                finished.map_err(|e| Violation(format!("node {}: snapshot: {e}", node + 1)))?;
            }
        }
        Ok(())
    }
}

/// What the disk has done.
pub(super) enum Done {
    /// All appends that were queued, up to here.
    Appended(Zxid),
    Operation(DiskDone),
    Nothing,
}

/// Does what stands first in the queue: all appends in a row together, or one operation.
fn run(process: &mut Process) -> Result<Done, String> {
    let Some(mut log) = process.log.take() else { return Err("the log is gone".into()) };
    let mut batch = Vec::new();
    let mut span: Option<(Zxid, Zxid)> = None;
    while let Some(DiskItem::Append { records, first, last }) = process.queue.front() {
        batch.push(records.clone());
        span = Some((span.map_or(*first, |(start, _)| start), *last));
        process.queue.pop_front();
    }
    if let Some((first, last)) = span {
        log.append(&batch, first, last).map_err(|e| e.to_string())?;
        log.sync().map_err(|e| e.to_string())?;
        process.log = Some(log);
        return Ok(Done::Appended(last));
    }
    match process.queue.pop_front() {
        Some(DiskItem::Op(op)) => {
            if matches!(op, DiskOp::Install { .. } | DiskOp::Truncate(_) | DiskOp::Rebuild(_)) {
                // Nobody else writes meanwhile.
                process.snapshot = None;
            }
            let (log, done) = process.owner.run(op, log).map_err(|e| e.to_string())?;
            process.log = Some(log);
            Ok(done.map_or(Done::Nothing, Done::Operation))
        }
        Some(DiskItem::Roll) => {
            log.roll().map_err(|e| e.to_string())?;
            process.log = Some(log);
            Ok(Done::Nothing)
        }
        Some(DiskItem::Append { .. }) | None => {
            process.log = Some(log);
            Ok(Done::Nothing)
        }
    }
}

/// The last transaction that a start on this disk would find.
pub(super) fn recovered_end(disk: zk_server::storage::sim::SimDisk, history: usize) -> Result<Zxid, String> {
    let fs = Arc::new(disk);
    let dirs = DataDirs::open(fs, std::path::Path::new("/data"), None, true).map_err(|e| e.to_string())?;
    let options = zk_server::storage::RecoveryOptions { recent_max: history, ..Default::default() };
    let opened = zk_server::member::DiskOwner::open(&dirs, &options, 7).map_err(|e| e.to_string())?;
    Ok(opened.recovered.tree.last_zxid())
}
