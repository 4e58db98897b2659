//! The log thread: group commit without a timer. While one sync runs the next batch gathers.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use zk_proto::Zxid;

use super::super::fs::IoError;
use super::super::record::follows;
use super::TxnLog;

/// Counters of the log thread, all since its start.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Completed syncs.
    pub syncs: AtomicU64,
    /// Time spent in them, ns.
    pub sync_nanos: AtomicU64,
    /// The longest one, ns.
    pub sync_nanos_max: AtomicU64,
    /// Syncs above the warning threshold.
    pub slow_syncs: AtomicU64,
    /// Bytes made durable.
    pub bytes: AtomicU64,
    /// Bytes queued or being written.
    pub queued_bytes: AtomicU64,
}

/// One OS thread that owns the log.
///
/// Producers hand over framed batches without waiting; the thread writes everything queued since the last
/// sync, syncs once, and reports the last durable zxid. The queue has no bound of its own: producers bound
/// what they have in flight, see [`LogMetrics::queued_bytes`].
pub struct LogThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    metrics: LogMetrics,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    closing: bool,
}

enum Item {
    Batch { records: Bytes, first: Zxid, last: Zxid },
    Step(Step),
}

/// What is done between batches.
enum Step {
    Roll,
    Run(Operation),
}

type Operation = Box<dyn FnOnce(TxnLog) -> Result<TxnLog, IoError> + Send>;

impl LogThread {
    /// Starts the thread.
    ///
    /// `on_durable` runs on the log thread after each sync with the last zxid that it covered: it should only
    /// pass the news on. `on_fatal` is called at most once, with the first write or sync error; nothing is
    /// written or reported afterwards. Servers pass [`abort_process`].
    pub fn spawn(
        log: TxnLog,
        on_durable: impl FnMut(Zxid) + Send + 'static,
        on_fatal: impl FnOnce(IoError) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("zk-log".into()).spawn(move || {
            let dir = log.dir().to_owned();
            let result = catch_unwind(AssertUnwindSafe(|| run(&worker, log, on_durable)));
            if let Err(error) = result.unwrap_or_else(|panic| Err(panic_error(&*panic, dir))) {
                on_fatal(error);
            }
        })?;
        Ok(LogThread { shared, thread: Some(thread) })
    }

    /// Queues framed records with zxids from `first` to `last`. Batches must follow each other without gaps.
    pub fn submit(&self, records: Bytes, first: Zxid, last: Zxid) {
        self.shared.metrics.queued_bytes.fetch_add(records.len() as u64, Relaxed);
        self.push(Item::Batch { records, first, last });
    }

    /// Lets the records submitted from now on go to a new file.
    pub fn roll(&self) {
        self.push(Item::Step(Step::Roll));
    }

    /// Lets `operation` run on the thread, when everything submitted before is durable and reported and nothing
    /// of what comes later is written. It gets the log, and returns the one to go on with: the same, or one
    /// that it opened anew because it changed the files. Its error is treated as one of the log.
    pub fn run(&self, operation: impl FnOnce(TxnLog) -> Result<TxnLog, IoError> + Send + 'static) {
        self.push(Item::Step(Step::Run(Box::new(operation))));
    }

    /// The thread's counters.
    pub fn metrics(&self) -> &LogMetrics {
        &self.shared.metrics
    }

    /// Writes and syncs everything queued, reports it, closes the log and ends the thread. Dropping does the
    /// same.
    pub fn shutdown(mut self) {
        self.join();
    }

    fn push(&self, item: Item) {
        self.shared.queue.lock().items.push_back(item);
        // Costs one load when the thread is awake.
        self.shared.arrived.notify_one();
    }

    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.queue.lock().closing = true;
        self.shared.arrived.notify_one();
        // Panics of the thread were turned into a fatal error inside it.
        let _ = thread.join();
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.join();
    }
}

impl fmt::Debug for LogThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogThread").field("metrics", &self.shared.metrics).finish_non_exhaustive()
    }
}

/// Logs the error and aborts the process: the only safe reaction to a failed write or sync, since a retry
/// may succeed without the data having reached the disk.
pub fn abort_process(error: IoError) {
    tracing::error!("transaction log failed, the process ends: {error}");
    // The subscriber may not be set up; the reason must not get lost.
    eprintln!("transaction log failed, the process ends: {error}");
    std::process::abort();
}

fn panic_error(panic: &(dyn Any + Send), dir: PathBuf) -> IoError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    IoError { action: "go on writing the log in", path: dir, source: io::Error::other(text.to_owned()) }
}

fn run(shared: &Shared, mut log: TxnLog, mut on_durable: impl FnMut(Zxid)) -> Result<(), IoError> {
    let mut taken = VecDeque::new();
    let mut records = Vec::new();
    while shared.take_queued(&mut taken) {
        while !taken.is_empty() {
            let step = write_some(&mut log, &mut taken, &mut records)?;
            if !records.is_empty() {
                let took = log.sync()?;
                let bytes = records.iter().map(|r: &Bytes| r.len() as u64).sum();
                shared.metrics.record_sync(took, log.options().slow_sync, bytes);
                records.clear();
                on_durable(log.last());
            }
            match step {
                None => {}
                Some(Step::Roll) => log.roll()?,
                Some(Step::Run(operation)) => log = operation(log)?,
            }
        }
    }
    log.close()
}

/// Writes batches as one, up to the bound of a sync or to the next step, which it returns. `records` holds what
/// was written.
fn write_some(
    log: &mut TxnLog,
    taken: &mut VecDeque<Item>,
    records: &mut Vec<Bytes>,
) -> Result<Option<Step>, IoError> {
    let (mut span, mut bytes, mut next) = (None, 0, None);
    while let Some(item) = taken.pop_front() {
        match item {
            Item::Step(step) => {
                next = Some(step);
                break;
            }
            Item::Batch { records: batch, first, last } => {
                bytes += batch.len();
                records.push(batch);
                let start = match span {
                    None => first,
                    Some((start, end)) => {
                        assert!(follows(end, first), "the batch from {first} does not follow {end}");
                        start
                    }
                };
                span = Some((start, last));
                if bytes >= log.options().sync_bytes_max {
                    break;
                }
            }
        }
    }
    if let Some((first, last)) = span {
        log.append(records, first, last)?;
    }
    Ok(next)
}

impl Shared {
    /// Waits for work and moves all of it to `taken`; false when there is none and none will come.
    fn take_queued(&self, taken: &mut VecDeque<Item>) -> bool {
        let mut queue = self.queue.lock();
        while queue.items.is_empty() {
            if queue.closing {
                return false;
            }
            self.arrived.wait(&mut queue);
        }
        std::mem::swap(&mut queue.items, taken);
        true
    }
}

impl LogMetrics {
    fn record_sync(&self, took: Duration, slow: Duration, bytes: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Relaxed);
        self.sync_nanos.fetch_add(nanos, Relaxed);
        self.sync_nanos_max.fetch_max(nanos, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.queued_bytes.fetch_sub(bytes, Relaxed);
        if took > slow {
            self.slow_syncs.fetch_add(1, Relaxed);
            tracing::warn!("syncing the transaction log took {} ms", took.as_millis());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::super::super::{RealFs, RecordHeader, record};
    use super::super::{HEADER, LogOptions};
    use super::*;

    fn batch(zxids: std::ops::RangeInclusive<i64>) -> (Bytes, Zxid, Zxid) {
        let mut out = Vec::new();
        for zxid in zxids.clone() {
            let header = RecordHeader { client_id: 1, cxid: 2, zxid: Zxid(zxid), time_ms: 3, kind: -1 };
            record::frame(&mut out, |out| header.encode(out));
        }
        (out.into(), Zxid(*zxids.start()), Zxid(*zxids.end()))
    }

    fn spawn(dir: &Path, options: LogOptions) -> (LogThread, mpsc::Receiver<Result<Zxid, String>>) {
        let (tx, rx) = mpsc::channel();
        let fatal = tx.clone();
        let log = TxnLog::new(Arc::new(RealFs), dir, options, Zxid::ZERO);
        let thread = LogThread::spawn(
            log,
            move |zxid| tx.send(Ok(zxid)).unwrap(),
            move |error| fatal.send(Err(error.to_string())).unwrap(),
        );
        (thread.unwrap(), rx)
    }

    #[test]
    fn batches_become_durable_in_order_and_files_follow_rolls() {
        let dir = tempfile::tempdir().unwrap();
        let (thread, durable) = spawn(dir.path(), LogOptions::default());
        let mut expected = HEADER.to_vec();
        for zxids in [1..=1, 2..=5, 6..=6] {
            let (records, first, last) = batch(zxids);
            expected.extend_from_slice(&records);
            thread.submit(records, first, last);
        }
        thread.roll();
        let (records, first, last) = batch(7..=8);
        thread.submit(records.clone(), first, last);
        thread.shutdown();

        let zxids: Vec<Zxid> = durable.iter().map(Result::unwrap).collect();
        assert!(zxids.is_sorted() && zxids.contains(&Zxid(6)) && zxids.last() == Some(&Zxid(8)), "{zxids:?}");
        assert_eq!(std::fs::read(dir.path().join("log.1")).unwrap(), expected);
        assert_eq!(std::fs::read(dir.path().join("log.7")).unwrap(), [&HEADER[..], &records].concat());
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn an_operation_runs_behind_what_is_durable_and_may_replace_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (thread, durable) = spawn(dir.path(), LogOptions::default());
        let (records, first, last) = batch(1..=2);
        thread.submit(records, first, last);
        let (path, (tx, rx)) = (dir.path().to_owned(), mpsc::channel());
        thread.run(move |log| {
            tx.send(log.last()).unwrap();
            let (fs, options) = (Arc::new(RealFs), log.options().clone());
            log.close()?;
            Ok(TxnLog::new(fs, path, options, Zxid(9)))
        });
        let (records, first, last) = batch(10..=10);
        thread.submit(records, first, last);
        assert_eq!(rx.recv().unwrap(), Zxid(2));
        assert_eq!(durable.try_recv().unwrap(), Ok(Zxid(2)));
        thread.shutdown();
        assert_eq!(durable.iter().collect::<Vec<_>>(), [Ok(Zxid(10))]);
        assert!(dir.path().join("log.a").exists());
    }

    #[test]
    fn an_error_is_reported_once_and_nothing_is_written_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let (thread, durable) = spawn(&gone, LogOptions::default());
        let (records, first, last) = batch(1..=2);
        thread.submit(records, first, last);
        let error = durable.recv().unwrap().unwrap_err();
        assert!(error.contains("cannot create") && error.contains("log.1"), "{error}");
        std::fs::create_dir(&gone).unwrap();
        let (records, first, last) = batch(3..=3);
        thread.submit(records, first, last);
        thread.shutdown();
        assert_eq!(durable.iter().count(), 0);
        assert_eq!(std::fs::read_dir(gone).unwrap().count(), 0);
    }

    #[test]
    fn a_gap_between_batches_is_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let (thread, durable) = spawn(dir.path(), LogOptions::default());
        let (records, first, last) = batch(2..=2);
        thread.submit(records, first, last);
        let error = durable.recv().unwrap().unwrap_err();
        assert!(error.contains("do not follow"), "{error}");
    }

    #[test]
    fn a_log_that_outgrows_its_file_goes_on_in_a_prepared_one() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { pre_alloc_bytes: 2 << 20, ..LogOptions::default() };
        let (thread, durable) = spawn(dir.path(), options);
        let mut zxid = 1;
        while std::fs::read_dir(dir.path()).unwrap().filter(|e| is_log(e.as_ref().unwrap())).count() < 3 {
            let (records, first, last) = batch(zxid..=zxid + 999);
            zxid += 1000;
            assert!(zxid < 1_000_000, "no second file after 45 MB");
            thread.submit(records, first, last);
            durable.recv().unwrap().unwrap();
        }
        thread.shutdown();
        let prepared = dir.path().join(".next-log");
        assert!(!prepared.exists());
    }

    fn is_log(entry: &std::fs::DirEntry) -> bool {
        entry.file_name().to_str().is_some_and(|name| name.starts_with("log."))
    }
}
