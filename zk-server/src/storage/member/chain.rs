//! Reading a range of the history from the logs, as proof that nothing is missing in it.
//!
//! Inside an epoch the numbers prove it. From one epoch to the next they do not: the end of the older one may
//! be gone, or whole epochs, for example after Apache took a snapshot from a leader and left the old logs where
//! they were (ZOOKEEPER-2099). Such a snapshot lies between the two records, so a step over one proves nothing,
//! and neither does one below the base (`.zk-base`) or over the damaged end of a file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use zk_proto::Zxid;

use super::super::fs::IoError;
use super::super::log::first_needed;
use super::super::log::read::{Head, LogReader};
use super::super::record::follows;
use super::super::{DataDirs, RecordHeader};
use super::files::{DataFile, FileList};
use crate::zab::Proposal;

/// Why the logs do not prove a range of the history. A learner gets a snapshot then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The place to start from is not in the logs, or older than what they are trusted for.
    #[error("the logs do not prove what follows {0}")]
    NotContained(Zxid),
    /// Something may be missing between two records.
    #[error("{} goes on with {found} behind {last}: transactions may be missing in between", log.display())]
    Gap {
        /// File of the later record.
        log: PathBuf,
        /// The record before.
        last: Zxid,
        /// The later record.
        found: Zxid,
    },
    /// The logs end before the end of the range.
    #[error("the logs end at {0}")]
    Ends(Zxid),
    /// The range has more bytes than were asked for at most.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The logs cannot be read.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The records above `from` up to `to`, which must be there, with at most `bytes_max` bytes of payload.
/// `base` is the oldest zxid from which on the logs are trusted.
pub(super) fn read_chain(
    dirs: &DataDirs,
    base: Zxid,
    from: Zxid,
    to: Zxid,
    bytes_max: usize,
) -> Result<Vec<Proposal>, Broken> {
    if from < base {
        return Err(Broken::NotContained(from));
    }
    let (mut proposals, mut bytes) = (Vec::new(), 0);
    let mut last = from;
    if from < to {
        last = walk(dirs, from, |header, payload| {
            if header.zxid > to {
                return ControlFlow::Break(());
            }
            bytes += payload.len();
            if bytes > bytes_max {
                return ControlFlow::Break(());
            }
            let payload = Bytes::copy_from_slice(payload);
            proposals.push(Proposal { zxid: header.zxid, payload });
            if header.zxid == to { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    match last {
        _ if bytes > bytes_max => Err(Broken::TooLarge(bytes_max)),
        last if last == to => Ok(proposals),
        // `to` is no record of this history.
        last if last > to => Err(Broken::NotContained(to)),
        last => Err(Broken::Ends(last)),
    }
}

/// Visits the records above `from` in order, each proven to follow the one before, until `visit` breaks off or
/// the logs end. Returns the last zxid visited, `from` when there was none.
pub(super) fn walk(
    dirs: &DataDirs,
    from: Zxid,
    mut visit: impl FnMut(&RecordHeader, &[u8]) -> ControlFlow<()>,
) -> Result<Zxid, Broken> {
    let fs = &*dirs.fs;
    let files = FileList::scan(dirs)?;
    let snapshots: Vec<Zxid> = files.snapshots().map(|name| name.zxid).collect();
    let mut logs: Vec<_> = files.logs().collect();
    logs.sort();
    let mut links = Links { last: from, known: snapshots.contains(&from), clean: true, snapshots };
    let first = first_needed(fs, dirs.log(), &logs, from)?;
    for &name in &logs[first..] {
        let path = DataFile::Log(name).path(dirs);
        let mut log = LogReader::open(fs, &path)?;
        if log.head()? != Head::Good {
            links.clean = false;
            continue;
        }
        while let Ok(chunk) = log.next_chunk()? {
            for (header, _, payload) in chunk.iter().filter(|(header, ..)| header.zxid >= from) {
                if header.zxid == from {
                    links.known = true;
                    continue;
                }
                links.step(&path, header.zxid)?;
                if visit(header, payload).is_break() {
                    return Ok(links.last);
                }
            }
        }
        links.clean &= log.end_of_content(log.offset)? == log.offset;
    }
    if links.known { Ok(links.last) } else { Err(Broken::NotContained(from)) }
}

/// The sequence of records.
struct Links {
    /// The record visited last, or where the walk began.
    last: Zxid,
    /// Whether `last` is a place in this history at all.
    known: bool,
    /// Whether every file since then ended behind its last record.
    clean: bool,
    snapshots: Vec<Zxid>,
}

impl Links {
    fn step(&mut self, log: &Path, next: Zxid) -> Result<(), Broken> {
        let same_epoch = self.last.next() == Some(next);
        if !self.known && !same_epoch {
            return Err(Broken::NotContained(self.last));
        }
        let between = |&snapshot: &Zxid| self.last < snapshot && snapshot < next;
        let new_epoch = self.clean && follows(self.last, next) && !self.snapshots.iter().any(between);
        if !same_epoch && !new_epoch {
            return Err(Broken::Gap { log: log.to_owned(), last: self.last, found: next });
        }
        (self.last, self.known, self.clean) = (next, true, true);
        Ok(())
    }
}
