//! New log files, zero-filled ahead of use: a sync that also has to allocate blocks or convert extents costs
//! 50 to 70 % more, on some disks double.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::blocks::{BlockWriter, round_up};
use super::super::fs::{At, BLOCK, DiskFile, Fs, IoError};
use super::HEADER;

/// Where a file grows up before it gets its name; Apache ignores it.
pub(crate) const NEXT_LOG: &str = ".next-log";

const CHUNK: usize = 1 << 20;
static ZEROS: Zeros = Zeros([0; CHUNK]);

/// Aligned as direct writes want it.
#[repr(align(4096))]
struct Zeros([u8; CHUNK]);

const _: () = assert!(align_of::<Zeros>() >= BLOCK && CHUNK.is_multiple_of(BLOCK));

/// Pause between chunks, so that the log's own syncs get their turn at the disk.
const PAUSE: Duration = Duration::from_millis(2);

/// Writes zeros over `from..to`, whole blocks.
pub(super) fn zero_fill(file: &dyn DiskFile, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let n = usize::try_from(to - from).unwrap_or(CHUNK).min(CHUNK);
        file.write_at(&[IoSlice::new(&ZEROS.0[..n])], from)?;
        from += n as u64;
    }
    Ok(())
}

/// A file with header and at least `fill` zero bytes behind it, synced, still under its temporary name.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    /// Offset up to which it is filled; whole blocks.
    pub(super) filled: u64,
}

impl Prepared {
    /// Makes a file at once; `fill` is small.
    pub(super) fn now(fs: &dyn Fs, path: PathBuf, fill: u64) -> Result<Self, IoError> {
        let file = fs.create_in_blocks(&path).at("create", &path)?;
        let (header, filled) = (BLOCK as u64, BLOCK as u64 + round_up(fill));
        BlockWriter::behind(&[]).append(&*file, &[HEADER]).at("write", &path)?;
        zero_fill(&*file, header, filled).at("write", &path)?;
        file.sync().at("sync", &path)?;
        Ok(Prepared { file, path, filled })
    }

    fn paced(fs: &dyn Fs, path: &Path, fill: u64, stop: &AtomicBool) -> Result<Option<Self>, IoError> {
        let mut prepared = Self::now(fs, path.to_owned(), fill.min(CHUNK as u64))?;
        let end = BLOCK as u64 + round_up(fill);
        while prepared.filled < end {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
            let to = end.min(prepared.filled + CHUNK as u64);
            zero_fill(&*prepared.file, prepared.filled, to).at("write", path)?;
            prepared.file.sync().at("sync", path)?;
            prepared.filled = to;
        }
        Ok(Some(prepared))
    }
}

/// Prepares one file on a thread of its own.
#[derive(Debug)]
pub(super) struct Preparer {
    thread: Option<JoinHandle<Result<Option<Prepared>, IoError>>>,
    stop: Arc<AtomicBool>,
}

impl Preparer {
    pub(super) fn start(fs: Arc<dyn Fs>, dir: &Path, fill: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stop2) = (dir.join(NEXT_LOG), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("zk-log-prepare".into())
            .spawn(move || Prepared::paced(&*fs, &path, fill, &stop2))
            .inspect_err(|e| tracing::warn!("no thread to prepare the next log file: {e}"))
            .ok();
        Preparer { thread, stop }
    }

    /// Whether the file is complete or given up.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the file. Failing to prepare one is no harm: the log grows as it goes.
    pub(super) fn finish(mut self) -> Option<Prepared> {
        match self.thread.take()?.join() {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(e)) => {
                tracing::warn!("the next log file was not prepared: {e}");
                None
            }
            Err(_) => None,
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
