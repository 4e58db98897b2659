//! Requests on their way: encoded into one buffer in call order, written in batches, answered in the same
//! order; and those that wait in front because too many are in flight.

use std::collections::VecDeque;

use tokio::time::Instant;
use zk_proto::OpCode;
use zk_proto::jute::Writer;

use super::slots::SlotId;
use crate::watch::Registration;

/// Who is waiting for a reply.
#[derive(Debug)]
pub(crate) enum Target {
    /// A caller.
    Caller(SlotId),
    /// The sync in front of a linearizable read: when it fails, so does the read.
    Sync(SlotId),
    /// Nobody any more: the sync of a read that was taken back.
    Nobody,
    /// One step of a deletion in the background.
    Cleanup { item: u64, step: super::cleanup::Step },
    /// setWatches after a reconnect.
    SetWatches,
    /// The removal of a watch that nobody needs.
    RemoveWatch,
    /// The ensemble's configuration.
    Ensemble,
    /// A write that proves the session alive.
    Lease,
    /// The end of the session.
    CloseSession,
}

/// A request that has no answer yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) xid: i32,
    pub(crate) op: OpCode,
    pub(crate) target: Target,
    pub(crate) registration: Option<Box<Registration>>,
    /// Position of the frame's first byte in the stream of this connection.
    pub(crate) start: u64,
    /// Length of the frame.
    pub(crate) bytes: usize,
    /// When it was handed to the socket; before that, when it was enqueued.
    pub(crate) since: Instant,
}

impl Entry {
    /// Requests of callers count against the limit on requests in flight.
    fn counts(&self) -> bool {
        matches!(self.target, Target::Caller(_) | Target::Sync(_) | Target::Nobody)
    }
}

/// A request that waits for its turn, with its frame.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) entry: Entry,
    frame: Vec<u8>,
}

/// Bounds on what is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
    /// Longest request body.
    pub(crate) request_bytes: usize,
}

/// A request body is too long.
#[derive(Debug)]
pub(crate) struct TooLong {
    pub(crate) bytes: usize,
    pub(crate) registration: Option<Box<Registration>>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    limits: Limits,
    /// Frames that were not yet handed to the connection.
    buffer: Vec<u8>,
    /// Bytes handed to the connection plus those in `buffer`.
    appended: u64,
    /// In order; the first `taken` of them were handed to the connection.
    entries: VecDeque<Entry>,
    taken: usize,
    parked: VecDeque<Parked>,
    requests: usize,
    bytes: usize,
    last_xid: i32,
}

/// Where the xid lies in a frame: behind the length.
const XID_AT: std::ops::Range<usize> = 4..8;

impl Outbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Outbox {
            limits,
            buffer: Vec::new(),
            appended: 0,
            entries: VecDeque::new(),
            taken: 0,
            parked: VecDeque::new(),
            requests: 0,
            bytes: 0,
            last_xid: 0,
        }
    }

    fn next_xid(&mut self) -> i32 {
        self.last_xid = self.last_xid.checked_add(1).unwrap_or(1);
        self.last_xid
    }

    /// Whether the next request of a caller has to wait.
    pub(crate) fn is_full(&self) -> bool {
        !self.parked.is_empty() || self.requests >= self.limits.requests || self.bytes >= self.limits.bytes
    }

    /// Requests that were handed to the connection and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.taken
    }

    /// Whether nothing waits for an answer or for its turn.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.parked.is_empty()
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Enqueues a request: behind the parked ones when it counts and the queue is full.
    pub(crate) fn push(
        &mut self,
        op: OpCode,
        target: Target,
        registration: Option<Box<Registration>>,
        now: Instant,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLong> {
        let mut entry = Entry { xid: 0, op, target, registration, start: 0, bytes: 0, since: now };
        let park = entry.counts() && self.is_full();
        entry.xid = if park { 0 } else { self.next_xid() };
        let mut parked_frame = Vec::new();
        let buffer = if park { &mut parked_frame } else { &mut self.buffer };
        let start = buffer.len();
        let xid = entry.xid;
        zk_proto::jute::frame(buffer, |w| {
            w.put_int(xid);
            w.put_int(op as i32);
            body(w);
        });
        entry.bytes = buffer.len() - start;
        let length = entry.bytes - 4;
        // The limit is on what callers send; what the client sends for itself is small by construction.
        if length > self.limits.request_bytes && entry.counts() {
            buffer.truncate(start);
            return Err(TooLong { bytes: length, registration: entry.registration });
        }
        if park {
            self.parked.push_back(Parked { entry, frame: parked_frame });
        } else {
            self.admit(entry);
        }
        Ok(())
    }

    /// Books an entry whose frame stands at the end of the buffer.
    fn admit(&mut self, mut entry: Entry) {
        entry.start = self.appended;
        self.appended += entry.bytes as u64;
        if entry.counts() {
            self.requests += 1;
            self.bytes += entry.bytes;
        }
        self.entries.push_back(entry);
    }

    /// Appends a frame that gets no entry: ping and auth, which are answered out of order.
    pub(crate) fn push_raw(&mut self, xid: i32, op: OpCode, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        zk_proto::jute::frame(&mut self.buffer, |w| {
            w.put_int(xid);
            w.put_int(op as i32);
            body(w);
        });
        self.appended += (self.buffer.len() - start) as u64;
    }

    /// Lets parked requests in as far as there is room.
    pub(crate) fn admit_parked(&mut self) {
        while self.requests < self.limits.requests && self.bytes < self.limits.bytes {
            let Some(Parked { mut entry, mut frame }) = self.parked.pop_front() else { return };
            entry.xid = self.next_xid();
            frame[XID_AT].copy_from_slice(&entry.xid.to_be_bytes());
            self.buffer.extend_from_slice(&frame);
            self.admit(entry);
        }
    }

    /// Hands everything over to the connection by swapping buffers; `out` must be empty.
    pub(crate) fn take(&mut self, out: &mut Vec<u8>, now: Instant) {
        std::mem::swap(&mut self.buffer, out);
        self.entries.range_mut(self.taken..).for_each(|entry| entry.since = now);
        self.taken = self.entries.len();
    }

    /// The request that the reply with this xid answers: always the oldest. `None` when it does not match.
    pub(crate) fn answered(&mut self, xid: i32) -> Option<Entry> {
        if self.taken == 0 || self.entries.front()?.xid != xid {
            return None;
        }
        self.taken -= 1;
        let entry = self.entries.pop_front()?;
        self.discount(&entry);
        Some(entry)
    }

    fn discount(&mut self, entry: &Entry) {
        if entry.counts() {
            self.requests -= 1;
            self.bytes -= entry.bytes;
        }
    }

    /// Removes the request of `slot` (and the sync in front of it) if it was not handed over yet.
    pub(crate) fn withdraw(&mut self, slot: SlotId) -> Option<Entry> {
        let of_slot =
            |entry: &Entry| matches!(entry.target, Target::Caller(s) | Target::Sync(s) if s == slot);
        if let Some(at) = self.parked.iter().position(|parked| of_slot(&parked.entry)) {
            let first = self.parked.remove(at)?.entry;
            if let Target::Sync(_) = first.target {
                return self.parked.remove(at).map(|parked| parked.entry);
            }
            self.disown_sync(slot);
            return Some(first);
        }
        let at = (self.taken..self.entries.len()).find(|&at| of_slot(&self.entries[at]))?;
        let first = self.remove(at)?;
        match first.target {
            Target::Sync(_) => self.remove(at),
            _ => {
                self.disown_sync(slot);
                Some(first)
            }
        }
    }

    /// The sync of a read that was taken back may be on its way already. It must not meet the next request in
    /// this slot.
    fn disown_sync(&mut self, slot: SlotId) {
        let of_slot = |entry: &&mut Entry| matches!(entry.target, Target::Sync(s) if s == slot);
        if let Some(sync) = self.entries.iter_mut().rev().find(of_slot) {
            sync.target = Target::Nobody;
        }
    }

    /// Cuts a request that was not handed over out of the buffer.
    fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.entries.remove(at)?;
        let from = self.buffer.len() - usize::try_from(self.appended - entry.start).ok()?;
        self.buffer.drain(from..from + entry.bytes);
        self.appended -= entry.bytes as u64;
        self.entries.range_mut(at..).for_each(|later| later.start -= entry.bytes as u64);
        self.discount(&entry);
        Some(entry)
    }

    /// Removes the oldest request that was enqueued at or before `limit` and not handed over.
    pub(crate) fn pop_stale(&mut self, limit: Instant) -> Option<Entry> {
        match self.entries.get(self.taken) {
            Some(entry) if entry.since <= limit => self.remove(self.taken),
            Some(_) => None,
            None if self.parked.front()?.entry.since <= limit => self.parked.pop_front().map(|p| p.entry),
            None => None,
        }
    }

    /// When the oldest request was enqueued that was not handed over.
    pub(crate) fn oldest_queued(&self) -> Option<Instant> {
        let queued = self.entries.get(self.taken).or(self.parked.front().map(|parked| &parked.entry));
        queued.map(|entry| entry.since)
    }

    /// Empties everything, oldest first: each entry, and whether a byte of it may have been written when
    /// `written` bytes of this connection's stream were.
    pub(crate) fn drain(&mut self, written: u64) -> Vec<(Entry, bool)> {
        let taken = self.taken;
        let entries = self.entries.drain(..).enumerate();
        let mut all: Vec<_> = entries.map(|(i, e)| (i < taken && e.start < written, e)).collect();
        all.extend(self.parked.drain(..).map(|parked| (false, parked.entry)));
        self.buffer.clear();
        (self.appended, self.taken, self.requests, self.bytes) = (0, 0, 0, 0);
        all.into_iter().map(|(sent, entry)| (entry, sent)).collect()
    }

    /// A new connection begins: what `first` enqueues goes in front of what waits already.
    pub(crate) fn restart(&mut self, first: impl FnOnce(&mut Outbox)) {
        debug_assert_eq!(self.taken, 0);
        let waiting = std::mem::take(&mut self.entries);
        let frames = std::mem::take(&mut self.buffer);
        self.appended = 0;
        first(self);
        let shift = self.appended;
        self.buffer.extend_from_slice(&frames);
        self.appended += frames.len() as u64;
        let mut start = shift;
        for mut entry in waiting {
            entry.start = start;
            start += entry.bytes as u64;
            self.entries.push_back(entry);
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
