//! The log as a plain value: append, sync, roll. No thread, no queue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use zk_proto::Zxid;

use super::super::LogName;
use super::super::blocks::{BlockWriter, round_up};
use super::super::fs::{At, DiskFile, Fs, IoError};
use super::super::record::follows;
use super::HEADER;
use super::prepare::{NEXT_LOG, Prepared, Preparer, zero_fill};

/// How the log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Zero bytes that a prepared file brings (`preAllocSize`).
    pub pre_alloc_bytes: u64,
    /// A file larger than this is followed by a new one (`txnLogSizeLimitInKb`); `None` for no limit.
    pub file_bytes_max: Option<u64>,
    /// Whether [`TxnLog::sync`] reaches the disk. `forceSync=no` turns it off: a power loss then takes
    /// acknowledged writes with it.
    pub force_sync: bool,
    /// A sync that takes longer is logged and counted (`fsync.warningthresholdms`).
    pub slow_sync: Duration,
    /// [`LogThread`](super::LogThread) gives at most this many bytes (but at least one batch) to one sync.
    pub sync_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            pre_alloc_bytes: 64 << 20,
            file_bytes_max: None,
            force_sync: true,
            slow_sync: Duration::from_millis(1000),
            sync_bytes_max: 1 << 20,
        }
    }
}

/// A file that was not prepared, and one that outgrows its filled part, gets this many zeros at once. Short
/// enough to be no pause, and a server that writes little never fills a large file.
const STEP: u64 = 1 << 20;

/// The open transaction log.
///
/// Every error is final: what was written since the last successful sync is in an unknown state, so the
/// value refuses everything afterwards and the process must end. Nothing is ever retried.
#[derive(Debug)]
pub struct TxnLog {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: LogOptions,
    last: Zxid,
    current: Option<Current>,
    next: Option<Preparer>,
    failed: bool,
}

#[derive(Debug)]
struct Current {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    writer: BlockWriter,
    /// Offset up to which blocks are allocated and zero where no record is.
    filled: u64,
    synced: bool,
    /// Time that writing took since the last sync. Direct writes wait for the disk, as a sync does.
    writing: Duration,
}

impl TxnLog {
    /// A log that goes on behind `last` in `dir` (a `version-2` directory). Touches no file: the first
    /// append creates one.
    pub fn new(fs: Arc<dyn Fs>, dir: impl Into<PathBuf>, options: LogOptions, last: Zxid) -> Self {
        TxnLog { fs, dir: dir.into(), options, last, current: None, next: None, failed: false }
    }

    /// Zxid of the last record appended.
    pub fn last(&self) -> Zxid {
        self.last
    }

    /// The directory that holds the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Options it was opened with.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Appends framed records (see [`record::frame`](super::super::record::frame)), back to back in
    /// `records` with zxids from `first` to `last`. Not durable before [`TxnLog::sync`].
    ///
    /// Panics when `first` does not follow the last record: a log with a gap cannot be recovered.
    pub fn append(&mut self, records: &[Bytes], first: Zxid, last: Zxid) -> Result<(), IoError> {
        self.guarded(|log| {
            assert!(
                follows(log.last, first) && last >= first,
                "log records {first} to {last} do not follow {}",
                log.last
            );
            log.write(records, first)?;
            log.last = last;
            Ok(())
        })
    }

    /// Makes everything appended durable and returns how long that took, the writing included.
    pub fn sync(&mut self) -> Result<Duration, IoError> {
        self.guarded(|log| match &mut log.current {
            Some(current) => current.sync(&log.options),
            None => Ok(Duration::ZERO),
        })
    }

    /// Lets the next record open a new file. Syncs what is not synced yet, so that records of the new file
    /// are never durable before those of the old one.
    pub fn roll(&mut self) -> Result<(), IoError> {
        self.guarded(TxnLog::finish_file)
    }

    /// Syncs and ends the log cleanly.
    pub fn close(mut self) -> Result<(), IoError> {
        self.roll()?;
        if self.next.take().is_some() {
            // Left over, it costs space until the next start.
            let _ = self.fs.remove(&self.dir.join(NEXT_LOG));
        }
        Ok(())
    }

    fn guarded<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, IoError>) -> Result<T, IoError> {
        assert!(!self.failed, "the log was used again after an error");
        self.failed = true;
        let result = f(self);
        self.failed = result.is_err();
        result
    }

    fn write(&mut self, records: &[Bytes], first: Zxid) -> Result<(), IoError> {
        let bytes: u64 = records.iter().map(|r| r.len() as u64).sum();
        if self.wants_new_file(bytes) {
            self.finish_file()?;
        }
        let current = match &mut self.current {
            Some(current) => current,
            None => {
                let opened = self.open(first)?;
                self.current.insert(opened)
            }
        };
        let started = Instant::now();
        current.synced = false;
        current.writer.append(&*current.file, records).at("write", &current.path)?;
        let end = current.writer.end();
        if end > current.filled {
            let (from, to) = (round_up(end), round_up(end + STEP.min(self.options.pre_alloc_bytes)));
            zero_fill(&*current.file, from, to).at("write", &current.path)?;
            current.filled = to;
        }
        current.writing += started.elapsed();
        let worth_preparing = self.options.pre_alloc_bytes > STEP && end > current.filled / 2;
        if worth_preparing && self.next.is_none() {
            self.next = Some(Preparer::start(Arc::clone(&self.fs), &self.dir, self.options.pre_alloc_bytes));
        }
        Ok(())
    }

    fn wants_new_file(&self, bytes: u64) -> bool {
        let Some(current) = &self.current else { return false };
        let end = current.writer.end();
        let too_large = self.options.file_bytes_max.is_some_and(|max| end > max);
        let outgrown = end + bytes > current.filled;
        too_large || outgrown && self.next.as_ref().is_some_and(Preparer::is_finished)
    }

    fn open(&mut self, first: Zxid) -> Result<Current, IoError> {
        let ready = self.next.take_if(|next| next.is_finished()).and_then(Preparer::finish);
        let prepared = match ready {
            Some(prepared) => prepared,
            None => {
                let path = self.dir.join(format!(".tmp-{}", LogName(first)));
                Prepared::now(&*self.fs, path, STEP.min(self.options.pre_alloc_bytes))?
            }
        };
        let path = self.dir.join(LogName(first).to_string());
        self.fs.rename(&prepared.path, &path).at("rename to", &path)?;
        if self.options.force_sync {
            self.fs.sync_dir(&self.dir).at("sync", &self.dir)?;
        }
        let Prepared { file, filled, .. } = prepared;
        let writer = BlockWriter::behind(&HEADER);
        Ok(Current { file, path, writer, filled, synced: true, writing: Duration::ZERO })
    }

    fn finish_file(&mut self) -> Result<(), IoError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        current.sync(&self.options)?;
        // Everything is durable, so an error here is harmless: the zeros stay.
        if let Err(e) = current.file.set_len(current.writer.end()) {
            tracing::warn!("padding of {} not removed: {e}", current.path.display());
        }
        Ok(())
    }
}

impl Current {
    fn sync(&mut self, options: &LogOptions) -> Result<Duration, IoError> {
        if self.synced || !options.force_sync {
            return Ok(Duration::ZERO);
        }
        let started = Instant::now();
        self.file.sync().at("sync", &self.path)?;
        self.synced = true;
        Ok(started.elapsed() + std::mem::take(&mut self.writing))
    }
}
