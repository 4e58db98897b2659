//! The thread that writes snapshots and deletes what they make superfluous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admin::metrics::{Counter, Recorder, Summary};
use crate::replica::Shared;
use crate::storage::{DataDirs, Purger, SnapshotError, SnapshotOptions, SnapshotWriter};
use crate::tree::SnapshotPin;
use crate::tree_file::write_pinned;

/// Where snapshots are asked for.
#[derive(Debug, Clone)]
pub(super) struct SnapshotQueue {
    to: Option<SyncSender<Request>>,
    stopping: Arc<AtomicBool>,
    way: Arc<Way>,
}

/// A snapshot that is asked for, and of which history: of an earlier one than the present it is worthless.
pub(super) struct Request {
    pin: Arc<SnapshotPin>,
    history: u64,
}

impl SnapshotQueue {
    /// A queue for [`Snapshots::run`]: one snapshot can wait while another is written.
    /// `stopping` is set when the server stops: a snapshot that is being written is given up then.
    pub(super) fn new(stopping: Arc<AtomicBool>, way: Arc<Way>) -> (Self, Receiver<Request>) {
        let (sender, receiver) = sync_channel(1);
        (SnapshotQueue { to: Some(sender), stopping, way }, receiver)
    }

    /// For a server that keeps nothing.
    pub(super) fn none() -> Self {
        SnapshotQueue { to: None, stopping: Arc::default(), way: Arc::default() }
    }

    /// No more snapshots: the thread ends.
    pub(super) fn close(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.to = None;
    }

    /// Asks for a snapshot. False if none will be taken: the disk is too slow for another one.
    pub(super) fn request(&self, pin: Arc<SnapshotPin>) -> bool {
        let history = self.way.history.load(Ordering::Relaxed);
        match self.to.as_ref().map(|queue| queue.try_send(Request { pin, history })) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(Request { pin, .. }))) => {
                tracing::warn!(zxid = %pin.zxid, "snapshot left out: two others are not written yet");
                false
            }
            Some(Err(TrySendError::Disconnected(_))) | None => false,
        }
    }
}

/// Keeps snapshots out of the way of those who cut or replace the history on the disk.
#[derive(Debug, Default)]
pub(super) struct Way {
    wanted: AtomicBool,
    history: AtomicU64,
    writing: Mutex<()>,
}

impl Way {
    /// Runs `change` while no snapshot is written: one that is under way is given up.
    pub(super) fn clear<T>(&self, change: impl FnOnce() -> T) -> T {
        self.wanted.store(true, Ordering::Relaxed);
        let _alone = self.writing.lock();
        self.wanted.store(false, Ordering::Relaxed);
        self.history.fetch_add(1, Ordering::Relaxed);
        change()
    }
}

/// See the module.
pub(super) struct Snapshots {
    pub(super) shared: Arc<Shared>,
    pub(super) dirs: DataDirs,
    pub(super) options: SnapshotOptions,
    /// Whether snapshots carry the tree's digest.
    pub(super) digest: bool,
    pub(super) purger: Option<(Purger, Duration)>,
    pub(super) recorder: Recorder,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) way: Arc<Way>,
}

impl Snapshots {
    /// Runs until all [`SnapshotQueue`]s are gone.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        self.purge();
        let mut next_purge = self.purger.as_ref().map(|(_, every)| Instant::now() + *every);
        loop {
            let request = match next_purge {
                Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(request) => {
                    self.write(&request);
                    drop(request);
                    self.purge();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.purge();
                    next_purge = self.purger.as_ref().map(|(_, every)| Instant::now() + *every);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&self, Request { pin, history }: &Request) {
        let begun = Instant::now();
        let _writing = self.way.writing.lock();
        if self.way.history.load(Ordering::Relaxed) != *history {
            return;
        }
        let give_up = || self.stopping.load(Ordering::Relaxed) || self.way.wanted.load(Ordering::Relaxed);
        match write_snapshot(&self.shared, &self.dirs, &self.options, self.digest, pin, &give_up) {
            Ok(Written::New) => {
                let took = begun.elapsed();
                tracing::info!(zxid = %pin.zxid, ms = took.as_millis() as u64, "snapshot written");
                self.recorder.count(Counter::SnapCount);
                self.recorder.summary(Summary::SnapshotTime, took.as_micros() as u64);
            }
            Ok(Written::WasThere | Written::GivenUp) => {}
            Err(error) => {
                // Nothing is lost: the log has it all, and the next snapshot may succeed.
                tracing::error!(zxid = %pin.zxid, %error, "snapshot failed");
                self.recorder.count(Counter::SnapshotErrorCount);
            }
        }
    }

    fn purge(&mut self) {
        if let Some((purger, _)) = &mut self.purger
            && let Err(error) = purger.purge()
        {
            tracing::error!(%error, "purge failed");
        }
    }
}

/// What [`write_snapshot`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Wrote the file.
    New,
    /// An intact snapshot of this zxid exists.
    WasThere,
    /// The server stops, or the tree is not in use any more.
    GivenUp,
}

/// Writes the pinned state. Writes to the tree go on meanwhile.
pub(super) fn write_snapshot(
    shared: &Shared,
    dirs: &DataDirs,
    options: &SnapshotOptions,
    digest: bool,
    pin: &SnapshotPin,
    give_up: &dyn Fn() -> bool,
) -> Result<Written, SnapshotError> {
    let sessions = pin.sessions.iter().copied();
    let acls = pin.acls.iter().map(|(id, acl)| (*id, &acl[..]));
    let fs = dirs.fs().clone();
    let Some(mut writer) = SnapshotWriter::create(fs, dirs.data(), pin.zxid, options, sessions, acls)? else {
        return Ok(Written::WasThere);
    };
    if !write_pinned(shared, pin, &mut writer, give_up)? {
        return Ok(Written::GivenUp);
    }
    writer.finish(pin.zxid, digest.then_some(pin.digest as i64))?;
    Ok(Written::New)
}
