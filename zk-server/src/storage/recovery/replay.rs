//! Reading the logs behind a base: one thread reads and checks, the caller's applies.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use zk_proto::Zxid;

use super::super::fs::{Fs, IoError};
use super::super::log::first_needed;
use super::super::log::read::{Chunk, Head, LogReader};
use super::super::record::follows;
use super::super::{DataDirs, LogName, Replay};
use super::tail::{Tail, judge};
use super::{Incident, RecoveryError, RecoveryOptions};
use crate::zab::Proposal;

/// Chunks that the reader may be ahead.
const CHUNKS_AHEAD: usize = 4;

/// Where history ends.
#[derive(Debug)]
pub(super) struct LogEnd {
    /// Last zxid, at least that of the base.
    pub(super) last: Zxid,
    /// Number of records applied.
    pub(super) replayed: u64,
    /// The last log that has records, whether or not they were needed, and the offset behind them.
    pub(super) last_log: Option<(PathBuf, u64)>,
    /// An unfinished write at the very end.
    pub(super) torn: Option<TornTail>,
    /// Unfinished writes that the next log makes irrelevant.
    pub(super) torn_inside: Vec<Incident>,
    /// The newest log, when it was never completed.
    pub(super) unborn: Option<PathBuf>,
    /// The last records applied.
    pub(super) recent: VecDeque<Proposal>,
}

/// Bytes to cut off.
#[derive(Debug)]
pub(super) struct TornTail {
    pub(super) log: PathBuf,
    /// Behind the last valid record.
    pub(super) offset: u64,
    /// Only zeros follow here.
    pub(super) content_end: u64,
}

/// Applies every record above `base` to `sink`, in order and without gaps. `lost` are snapshots that cannot be
/// read: a step between epochs over one of them is a gap, because a member that got it from its leader has no log
/// of what led there.
pub(super) fn replay_logs(
    dirs: &DataDirs,
    logs: &[LogName],
    base: Zxid,
    lost: &[Zxid],
    options: &RecoveryOptions,
    sink: &mut impl Replay,
) -> Result<LogEnd, RecoveryError> {
    let fs = &*dirs.fs;
    let first = first_needed(fs, dirs.log(), logs, base)?;
    let (tx, rx) = sync_channel(CHUNKS_AHEAD);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("zk-log-read".into()).spawn_scoped(scope, move || {
            let mut chain = Chain::new(base, lost, options);
            for (i, &log) in logs.iter().enumerate().skip(first) {
                if !read_file(fs, dirs, log, i + 1 == logs.len(), &mut chain, &tx)? {
                    break;
                }
            }
            chain.finish()
        });
        let reader = reader.map_err(|source| IoError {
            action: "start a thread to read",
            path: dirs.log().to_owned(),
            source,
        })?;
        // Ends when the reader is done; an error of the sink hangs up on it.
        let applied = apply(rx, base, options.recent_max, sink);
        let end = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (replayed, recent) = applied?;
        end.map(|end| LogEnd { replayed, recent, ..end })
    })
}

fn apply(
    chunks: Receiver<(PathBuf, Chunk)>,
    base: Zxid,
    recent_max: usize,
    sink: &mut impl Replay,
) -> Result<(u64, VecDeque<Proposal>), RecoveryError> {
    let (mut replayed, mut recent) = (0, VecDeque::new());
    for (log, chunk) in chunks {
        for (header, offset, payload) in chunk.iter().filter(|(header, ..)| header.zxid > base) {
            if let Err(source) = sink.apply(header, payload) {
                return Err(RecoveryError::Replay { log, offset, zxid: header.zxid, source });
            }
            replayed += 1;
            if recent_max > 0 {
                if recent.len() == recent_max {
                    recent.pop_front();
                }
                recent.push_back(Proposal { zxid: header.zxid, payload: Bytes::copy_from_slice(payload) });
            }
        }
    }
    Ok((replayed, recent))
}

/// Reads one file; false when nobody wants more.
fn read_file(
    fs: &dyn Fs,
    dirs: &DataDirs,
    name: LogName,
    newest: bool,
    chain: &mut Chain<'_>,
    out: &SyncSender<(PathBuf, Chunk)>,
) -> Result<bool, RecoveryError> {
    let path = name.path(dirs);
    let mut log = LogReader::open(fs, &path)?;
    match log.head()? {
        Head::Good => {}
        Head::Unborn if newest => {
            chain.unborn = Some(path);
            return Ok(true);
        }
        Head::Unborn => {
            return Err(RecoveryError::NotALog { log: path, reason: "it is empty, but newer logs follow" });
        }
        Head::Foreign => return Err(RecoveryError::NotALog { log: path, reason: "wrong magic number" }),
    }
    let mut first = true;
    loop {
        match log.next_chunk()? {
            Ok(chunk) => {
                for (header, offset, _) in chunk.iter() {
                    if std::mem::take(&mut first) && header.zxid != name.0 {
                        return Err(RecoveryError::Misnamed { log: path, found: header.zxid });
                    }
                    chain.link(&path, offset, header.zxid)?;
                }
                chain.last_log = Some((path.clone(), log.offset));
                if out.send((path.clone(), chunk)).is_err() {
                    return Ok(false);
                }
            }
            Err(None) => return Ok(true),
            Err(Some(_)) => {
                match judge(&log, chain.last())? {
                    Tail::Clean => {}
                    tail => chain.defect = Some(Broken { log: path, offset: log.offset, tail }),
                }
                return Ok(true);
            }
        }
    }
}

/// The sequence of zxids over all files.
struct Chain<'a> {
    base: Zxid,
    lost: &'a [Zxid],
    options: &'a RecoveryOptions,
    /// Last record read, also below the base.
    seen: Option<Zxid>,
    /// The end of the file read last, when something stands there. The next record decides.
    defect: Option<Broken>,
    torn_inside: Vec<Incident>,
    last_log: Option<(PathBuf, u64)>,
    unborn: Option<PathBuf>,
}

struct Broken {
    log: PathBuf,
    offset: u64,
    tail: Tail,
}

impl<'a> Chain<'a> {
    fn new(base: Zxid, lost: &'a [Zxid], options: &'a RecoveryOptions) -> Self {
        let (torn_inside, last_log, unborn) = (Vec::new(), None, None);
        Chain { base, lost, options, seen: None, defect: None, torn_inside, last_log, unborn }
    }

    fn last(&self) -> Zxid {
        self.seen.map_or(self.base, |seen| seen.max(self.base))
    }

    fn link(&mut self, log: &Path, offset: u64, zxid: Zxid) -> Result<(), RecoveryError> {
        if let Some(seen) = self.seen.filter(|&seen| zxid <= seen) {
            return Err(RecoveryError::OutOfOrder { log: log.to_owned(), offset, last: seen, found: zxid });
        }
        let last = self.last();
        if let Some(broken) = self.defect.take() {
            // Apache starts a new file at the torn end of the old one and leaves it there. When the numbers go
            // on, nothing is missing; at the start of an epoch only the look of the end can tell.
            if last.next() != Some(zxid) && matches!(broken.tail, Tail::Damaged(_)) {
                return Err(broken.into_error(last));
            }
            self.torn_inside.push(Incident::TornTailInside { log: broken.log, offset: broken.offset });
        }
        let over_lost = self.lost.iter().any(|&lost| last < lost && lost < zxid);
        if zxid > self.base && (over_lost || !follows(last, zxid)) {
            return Err(RecoveryError::Gap { log: log.to_owned(), offset, last, found: zxid });
        }
        self.seen = Some(zxid);
        Ok(())
    }

    fn finish(mut self) -> Result<LogEnd, RecoveryError> {
        let last = self.last();
        let torn = match self.defect.take() {
            None => None,
            Some(Broken { log, offset, tail: Tail::Torn { content_end } }) => {
                Some(TornTail { log, offset, content_end })
            }
            Some(broken) if self.options.cut_damaged_log => {
                tracing::error!("cutting a damaged log as asked: {}", broken.describe());
                let Broken { log, offset, .. } = broken;
                Some(TornTail { log, offset, content_end: u64::MAX })
            }
            Some(broken) => return Err(broken.into_error(last)),
        };
        let Chain { last_log, torn_inside, unborn, .. } = self;
        Ok(LogEnd { last, replayed: 0, last_log, torn, torn_inside, unborn, recent: VecDeque::new() })
    }
}

impl Broken {
    fn describe(&self) -> String {
        format!("{} at byte {}: {:?}", self.log.display(), self.offset, self.tail)
    }

    fn into_error(self, last: Zxid) -> RecoveryError {
        let reason = match self.tail {
            Tail::Damaged(reason) => reason,
            other => format!("{other:?}"),
        };
        RecoveryError::DamagedLog { log: self.log, offset: self.offset, last, reason }
    }
}
