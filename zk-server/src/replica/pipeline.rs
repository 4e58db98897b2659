//! Transactions between being appended and being applied, in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::{OpCode, SessionId, Zxid};

use crate::auth::ConnAuth;
use crate::storage::record;
use crate::watch::ConnId;
use crate::zab::Proposal;

/// A transaction that was appended and is not applied yet.
#[derive(Debug)]
pub(super) struct Appended {
    pub zxid: Zxid,
    /// The payload within its batch.
    payload: Range<usize>,
    pub origin: Origin,
    /// What waits behind it.
    pub then: Vec<Deferred>,
}

/// Who waits for a transaction.
#[derive(Debug)]
pub(super) enum Origin {
    /// A client's request, which this server has prepared; nothing older of its connection waits elsewhere.
    Request { conn: ConnId, xid: i32, close: bool },
    /// A handshake with a client of this server.
    Connect { conn: ConnId, session: SessionId, timeout_ms: i32 },
    /// Whoever of this server's clients has asked for it, if any: to be looked up.
    LookUp,
    /// The server itself (expiry, containers), or a client of another server.
    Server,
}

/// Something that waits behind a write or a sync of its connection.
#[derive(Debug)]
pub(super) struct Deferred {
    pub conn: ConnId,
    pub what: DeferredKind,
}

#[derive(Debug)]
pub(super) enum DeferredKind {
    Read {
        session: SessionId,
        xid: i32,
        op: OpCode,
        body: Vec<u8>,
        auth: Arc<ConnAuth>,
    },
    Canned {
        frame: Vec<u8>,
        close: bool,
    },
    /// The connection's oldest sync is done.
    Synced,
    Released,
}

/// One append to the log.
#[derive(Debug)]
struct Batch {
    bytes: Bytes,
    txns: VecDeque<Appended>,
}

/// Framed log records with consecutive zxids.
#[derive(Debug, Clone)]
pub struct Records {
    /// Frame behind frame.
    pub bytes: Bytes,
    /// Zxid of the first record.
    pub first: Zxid,
    /// Zxid of the last one.
    pub last: Zxid,
}

/// See the module. A transaction leaves it when it is committed and durable here; during a synchronisation with
/// a leader, when nobody is served, when it is committed.
#[derive(Debug)]
pub(super) struct Pipeline {
    batches: VecDeque<Batch>,
    /// Position of the first transaction in `batches`, and behind the last.
    applied: u64,
    appended: u64,
    durable: Zxid,
    committed: Zxid,
    /// The append that is being put together.
    open: Vec<u8>,
    open_txns: VecDeque<Appended>,
    /// What was not given to the log yet, while a synchronisation runs.
    staged: Option<Vec<Proposal>>,
}

/// Everything that is durable is committed: there is nobody else to ask.
const ALONE: Zxid = Zxid(i64::MAX);

impl Pipeline {
    /// Everything up to `durable` is applied.
    pub fn new(durable: Zxid) -> Self {
        Pipeline {
            batches: VecDeque::new(),
            applied: 1,
            appended: 1,
            durable,
            committed: ALONE,
            open: Vec::new(),
            open_txns: VecDeque::new(),
            staged: None,
        }
    }

    /// Transactions that are appended and not applied.
    pub fn outstanding(&self) -> u64 {
        self.appended - self.applied
    }

    /// Position that the next transaction gets, counted from 1.
    pub fn next_position(&self) -> u64 {
        self.appended
    }

    /// Appends a transaction; `encode` writes its payload and returns its zxid, or `None` for no transaction
    /// after all. Returns the bytes that it takes in the log.
    pub fn push(
        &mut self,
        origin: Origin,
        encode: impl FnOnce(&mut Vec<u8>) -> Option<Zxid>,
    ) -> Option<usize> {
        let at = self.open.len();
        let mut zxid = None;
        record::frame(&mut self.open, |out| zxid = encode(out));
        let Some(zxid) = zxid else {
            self.open.truncate(at);
            return None;
        };
        let payload = at + record::PREFIX..self.open.len() - 1;
        self.appended += 1;
        self.open_txns.push_back(Appended { zxid, payload, origin, then: Vec::new() });
        Some(self.open.len() - at)
    }

    /// Ends the batch that was put together: it can be logged now (`None` while staging). The transactions go to
    /// `proposals`, if given, sharing the batch's memory.
    pub fn take_batch(&mut self, proposals: Option<&mut Vec<Proposal>>) -> Option<Records> {
        let (first, last) = (self.open_txns.front()?.zxid, self.open_txns.back()?.zxid);
        let capacity = self.open.len();
        let bytes = Bytes::from(std::mem::replace(&mut self.open, Vec::with_capacity(capacity.min(1 << 16))));
        let txns = std::mem::take(&mut self.open_txns);
        let proposal =
            |txn: &Appended| Proposal { zxid: txn.zxid, payload: bytes.slice(txn.payload.clone()) };
        if let Some(proposals) = proposals {
            proposals.extend(txns.iter().map(proposal));
        }
        let staged = self.staged.as_mut().map(|staged| staged.extend(txns.iter().map(proposal)));
        self.batches.push_back(Batch { bytes: bytes.clone(), txns });
        staged.is_none().then_some(Records { bytes, first, last })
    }

    /// Puts something behind the transaction at `position`; gives it back if that is applied.
    pub fn defer(&mut self, position: u64, deferred: Deferred) -> Option<Deferred> {
        if position < self.applied {
            return Some(deferred);
        }
        let mut behind = position - self.applied;
        for batch in &mut self.batches {
            let len = batch.txns.len() as u64;
            if behind < len {
                batch.txns[behind as usize].then.push(deferred);
                return None;
            }
            behind -= len;
        }
        match self.open_txns.get_mut(behind as usize) {
            Some(appended) => {
                appended.then.push(deferred);
                None
            }
            None => Some(deferred),
        }
    }

    /// The same behind the last transaction that is committed.
    pub fn defer_behind_committed(&mut self, deferred: Deferred) -> Option<Deferred> {
        let txns = self.batches.iter_mut().flat_map(|batch| &mut batch.txns);
        let committed = self.committed;
        match txns.take_while(|txn| txn.zxid <= committed).last() {
            Some(appended) => {
                appended.then.push(deferred);
                None
            }
            None => Some(deferred),
        }
    }

    /// Everything up to `zxid` is on disk.
    pub fn set_durable(&mut self, zxid: Zxid) {
        self.durable = self.durable.max(zxid);
    }

    /// Everything up to `zxid` is committed.
    pub fn commit(&mut self, zxid: Zxid) {
        self.committed = self.committed.max(zxid);
    }

    /// Whether the oldest transaction may be applied.
    pub fn next_is_ready(&mut self) -> bool {
        while self.batches.front().is_some_and(|batch| batch.txns.is_empty()) {
            self.batches.pop_front();
        }
        let first = self.batches.front().and_then(|batch| batch.txns.front());
        first.is_some_and(|txn| {
            txn.zxid <= self.committed && (self.staged.is_some() || txn.zxid <= self.durable)
        })
    }

    /// Takes the oldest transaction and its payload.
    pub fn pop(&mut self) -> Option<(Bytes, Appended)> {
        let batch = self.batches.front_mut()?;
        let appended = batch.txns.pop_front()?;
        self.applied += 1;
        Some((batch.bytes.slice(appended.payload.clone()), appended))
    }

    /// A leader decides from now on what is committed; everything up to `zxid` is.
    pub fn await_commits(&mut self, zxid: Zxid) {
        self.committed = zxid;
    }

    /// Whether appends are kept back.
    pub fn is_staging(&self) -> bool {
        self.staged.is_some()
    }

    /// From now on appends are kept back until [`Pipeline::end_staging`].
    pub fn stage(&mut self) {
        self.staged = Some(Vec::new());
    }

    /// Gives what was kept back. The log gets it before anything else.
    pub fn end_staging(&mut self) -> Vec<Proposal> {
        self.staged.take().unwrap_or_default()
    }

    /// Nobody waits for anything any more. Returns what waited.
    pub fn forget_waiting(&mut self) -> Vec<Deferred> {
        let mut waiting = Vec::new();
        for txn in self.batches.iter_mut().flat_map(|batch| &mut batch.txns).chain(&mut self.open_txns) {
            txn.origin = Origin::Server;
            waiting.append(&mut txn.then);
        }
        waiting
    }

    /// Drops what was not given to the log: nobody knows of it.
    pub fn discard_open(&mut self) {
        self.open.clear();
        self.open_txns.clear();
    }

    /// Drops everything that is not applied, and starts again behind `last`.
    pub fn reset(&mut self, last: Zxid) {
        self.batches.clear();
        self.open.clear();
        self.open_txns.clear();
        self.staged = None;
        self.applied = self.appended;
        self.durable = last;
        self.committed = last;
    }
}
