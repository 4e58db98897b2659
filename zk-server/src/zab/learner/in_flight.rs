//! The transactions between the leader's proposal and this server's part in them being done.

use std::collections::VecDeque;

use zk_proto::Zxid;

use crate::zab::Epoch;
use crate::zab::history::follows;

/// One ordered queue of (zxid, durable?, committed?, acknowledged?) over all phases of following.
///
/// Each of the three is true for a prefix of the queue, so three lengths say it all. Proposals are taken without
/// a gap, committed in order, and leave when nothing is to be done for them any more. That one queue outlives
/// the change from synchronisation to broadcast is the point: Apache has one per phase, and lost transactions
/// that were moved between them (ZOOKEEPER-4394, 4685, 4785).
#[derive(Debug)]
pub(super) struct InFlight {
    queue: VecDeque<Zxid>,
    /// How many from the front are on disk here.
    durable: usize,
    /// How many from the front the leader has committed.
    committed: usize,
    /// How many from the front were acknowledged, or need not be. Never more than are durable.
    acknowledged: usize,
    /// The newest transaction proposed, or the one that everything was founded on.
    last: Zxid,
    /// Everything up to here is committed.
    committed_to: Zxid,
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proposed {
    /// It is the next one.
    New,
    /// It was here already (in the base of the synchronisation, or sent twice).
    Known,
}

/// A proposal that does not follow the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) after: Zxid,
    pub(super) found: Zxid,
}

/// A commit for something else than the next uncommitted proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfOrder {
    pub(super) expected: Option<Zxid>,
    pub(super) found: Zxid,
}

impl InFlight {
    /// Nothing in flight: the history ends with `base`.
    pub(super) fn new(base: Zxid) -> Self {
        InFlight {
            queue: VecDeque::new(),
            durable: 0,
            committed: 0,
            acknowledged: 0,
            last: base,
            committed_to: base,
        }
    }

    /// The newest transaction known committed.
    pub(super) fn committed_to(&self) -> Zxid {
        self.committed_to
    }

    /// Takes a proposal. Inside an epoch counters follow each other; a new epoch begins with counter 1, except
    /// in `may_jump`: an epoch whose leader may be configured to begin elsewhere.
    pub(super) fn propose(&mut self, zxid: Zxid, may_jump: Option<Epoch>) -> Result<Proposed, Gap> {
        if zxid <= self.last {
            return Ok(Proposed::Known);
        }
        let regular = self.last.next() == Some(zxid) || zxid.counter() == 1;
        let follows = follows(self.last, zxid) && (regular || may_jump == Some(Epoch::of(zxid)));
        if !follows {
            return Err(Gap { after: self.last, found: zxid });
        }
        self.queue.push_back(zxid);
        self.last = zxid;
        Ok(Proposed::New)
    }

    /// Takes a commit; says whether it is news.
    pub(super) fn commit(&mut self, zxid: Zxid) -> Result<bool, OutOfOrder> {
        if zxid <= self.committed_to {
            return Ok(false);
        }
        let expected = self.queue.get(self.committed).copied();
        if expected != Some(zxid) {
            return Err(OutOfOrder { expected, found: zxid });
        }
        self.committed += 1;
        self.committed_to = zxid;
        self.drop_finished();
        Ok(true)
    }

    /// Everything up to `zxid` is on disk.
    pub(super) fn durable(&mut self, zxid: Zxid) {
        while self.queue.get(self.durable).is_some_and(|z| *z <= zxid) {
            self.durable += 1;
        }
    }

    /// The history up to NEWLEADER is durable: what it has committed is done, and its NEWLEADER acknowledgement
    /// stands for it.
    pub(super) fn settle(&mut self, committed: usize) {
        self.durable = self.durable.max(committed);
        self.acknowledged = self.acknowledged.max(committed);
        self.drop_finished();
    }

    /// The transactions that have become durable since the last call, oldest first: each is to be acknowledged
    /// now, or never.
    pub(super) fn take_acks(&mut self, mut each: impl FnMut(Zxid)) {
        for zxid in self.queue.range(self.acknowledged..self.durable) {
            each(*zxid);
        }
        self.acknowledged = self.durable;
        self.drop_finished();
    }

    /// How many are in flight.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn drop_finished(&mut self) {
        let finished = self.committed.min(self.acknowledged);
        self.queue.drain(..finished);
        self.durable -= finished;
        self.committed -= finished;
        self.acknowledged -= finished;
    }
}
