//! The recent transactions, for learners that have missed some.
//!
//! One window for every role: whatever was appended to the own log goes through [`History::push`], so that a server
//! that has caught up as a learner and then leads has no hole in what it can send (Apache ZOOKEEPER-4925). The
//! window knows the zxid that comes *before* its first transaction; nothing is ever guessed from an empty list.

use std::collections::VecDeque;

use zk_proto::Zxid;

use super::Proposal;

/// Bytes of finished transactions that the window keeps at most, besides the count.
const FINISHED_BYTES_MAX: usize = 64 << 20;

/// Whether `next` can come directly after `previous` in one leader's history: the next counter of the same epoch,
/// or a newer epoch. The first transaction of an epoch may have any counter but 0 (Apache's
/// `testingonly.initialZxid`).
pub fn follows(previous: Zxid, next: Zxid) -> bool {
    let (before, after) = (previous.epoch(), next.epoch());
    next.counter() > 0
        && next > previous
        && (after > before || previous.counter() == 0 || next.0 == previous.0 + 1)
}

/// A gap-free window of the newest transactions of the own log: everything that is not finished, and some more.
#[derive(Debug)]
pub struct History {
    /// The zxid before the first transaction of the window.
    base: Zxid,
    txns: VecDeque<Proposal>,
    finished: Zxid,
    keep: usize,
    /// Payload bytes in the window.
    bytes: usize,
}

impl History {
    /// An empty window behind `base`, the last zxid of the own log. Keeps `keep` finished transactions
    /// (`commitLogCount`).
    pub fn new(base: Zxid, keep: usize) -> Self {
        History { base, txns: VecDeque::new(), finished: base, keep, bytes: 0 }
    }

    /// Adds the transaction that was just appended to the own log.
    ///
    /// # Panics
    /// If it does not follow the last one: a gap here would become a gap in other servers' logs. Whoever takes
    /// transactions from a peer checks with [`follows`] before they get here.
    pub fn push(&mut self, txn: Proposal) {
        let last = self.last();
        assert!(follows(last, txn.zxid), "{} does not follow {last} in the history", txn.zxid);
        self.bytes += txn.payload.len();
        self.txns.push_back(txn);
    }

    /// Everything up to `zxid` is committed, durable and applied here: it may be dropped when newer ones come.
    pub fn finish(&mut self, zxid: Zxid) {
        self.finished = self.finished.max(zxid);
        let mut count = self.position(self.finished);
        while count > 0 && (count > self.keep || self.bytes > FINISHED_BYTES_MAX) {
            let Some(txn) = self.txns.pop_front() else { break };
            self.bytes -= txn.payload.len();
            self.base = txn.zxid;
            count -= 1;
        }
    }

    /// Forgets everything after `zxid`, as the log did. A `zxid` before the window leaves it empty.
    pub fn truncate_after(&mut self, zxid: Zxid) {
        while self.txns.back().is_some_and(|txn| txn.zxid > zxid) {
            self.bytes -= self.txns.pop_back().map_or(0, |txn| txn.payload.len());
        }
        if zxid < self.base {
            self.base = zxid;
        }
        self.finished = self.finished.min(zxid);
    }

    /// Starts again behind `base`: the state was replaced by a snapshot.
    pub fn reset(&mut self, base: Zxid) {
        *self = History::new(base, self.keep);
    }

    /// The zxid before the first transaction of the window.
    pub fn base(&self) -> Zxid {
        self.base
    }

    /// The last zxid of the own log.
    pub fn last(&self) -> Zxid {
        self.txns.back().map_or(self.base, |txn| txn.zxid)
    }

    /// The number of transactions in the window.
    pub fn len(&self) -> usize {
        self.txns.len()
    }

    /// Whether the window holds no transaction.
    pub fn is_empty(&self) -> bool {
        self.txns.is_empty()
    }

    /// Whether `zxid` is a transaction of the window.
    pub fn contains(&self, zxid: Zxid) -> bool {
        self.at_or_before(zxid) == Some(zxid) && zxid != self.base
    }

    /// Whether the window provably has all that a server needs whose log ends with `from`: `from` is on this
    /// chain, and nothing after it is missing.
    pub fn covers(&self, from: Zxid) -> bool {
        from == self.base || self.contains(from)
    }

    /// The last zxid of this chain that is not after `zxid`; `None` if that is before the window.
    pub fn at_or_before(&self, zxid: Zxid) -> Option<Zxid> {
        let before = self.position(zxid);
        match before.checked_sub(1).and_then(|index| self.txns.get(index)) {
            Some(txn) => Some(txn.zxid),
            None => (zxid >= self.base).then_some(self.base),
        }
    }

    /// The transactions of the window after `from`, oldest first.
    pub fn since(&self, from: Zxid) -> impl Iterator<Item = &Proposal> {
        self.txns.range(self.position(from)..)
    }

    /// How many transactions of the window are not after `zxid`.
    fn position(&self, zxid: Zxid) -> usize {
        self.txns.partition_point(|txn| txn.zxid <= zxid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(zxid: i64) -> Proposal {
        Proposal { zxid: Zxid(zxid), payload: bytes::Bytes::from_static(b"txn") }
    }

    fn window(zxids: impl IntoIterator<Item = i64>, keep: usize) -> History {
        let mut history = History::new(Zxid::ZERO, keep);
        zxids.into_iter().for_each(|zxid| history.push(txn(zxid)));
        history
    }

    fn since(history: &History, from: i64) -> Vec<i64> {
        history.since(Zxid(from)).map(|txn| txn.zxid.0).collect()
    }

    #[test]
    fn what_follows_what() {
        let follows = |a: i64, b: i64| super::follows(Zxid(a), Zxid(b));
        assert!(follows(0x1_0000_0001, 0x1_0000_0002));
        assert!(follows(0x1_0000_0001, 0x3_0000_0001));
        assert!(follows(0x1_0000_0001, 0x3_0000_0007), "any first counter");
        assert!(follows(0x1_0000_0000, 0x1_0000_0005), "any first counter");
        assert!(!follows(0x1_0000_0001, 0x1_0000_0003), "gap");
        assert!(!follows(0x1_0000_0002, 0x1_0000_0002), "repeated");
        assert!(!follows(0x2_0000_0002, 0x1_0000_0003), "backwards");
        assert!(!follows(0x1_0000_0002, 0x2_0000_0000), "no transaction has counter 0");
    }

    #[test]
    fn keeps_what_is_not_finished() {
        let mut history = window(1..=10, 3);
        history.finish(Zxid(2));
        assert_eq!((history.base(), history.len()), (Zxid(0), 10));
        history.finish(Zxid(8));
        assert_eq!((history.base(), history.len(), history.last()), (Zxid(5), 5, Zxid(10)));
        assert_eq!(since(&history, 7), [8, 9, 10]);
        assert_eq!(since(&history, 10), [0; 0]);
        history.finish(Zxid(10));
        assert_eq!(since(&history, 0), [8, 9, 10]);
    }

    #[test]
    fn covers_only_its_own_chain() {
        let mut history = window([1, 2, 3], 2);
        history.push(txn(0x2_0000_0001));
        history.finish(Zxid(3));
        assert_eq!(history.base(), Zxid(1));
        for (from, expected) in
            [(0, false), (1, true), (2, true), (3, true), (4, false), (0x2_0000_0001, true)]
        {
            assert_eq!(history.covers(Zxid(from)), expected, "{from}");
        }
        assert!(!history.contains(Zxid(1)), "the base is not in the window");
        assert_eq!(history.at_or_before(Zxid(0)), None);
        assert_eq!(history.at_or_before(Zxid(1)), Some(Zxid(1)));
        assert_eq!(history.at_or_before(Zxid(9)), Some(Zxid(3)));
    }

    #[test]
    fn truncation_and_a_new_base() {
        let mut history = window(1..=5, 1);
        history.finish(Zxid(4));
        history.truncate_after(Zxid(4));
        assert_eq!((history.base(), history.last()), (Zxid(3), Zxid(4)));
        history.truncate_after(Zxid(2));
        assert_eq!((history.base(), history.last(), history.is_empty()), (Zxid(2), Zxid(2), true));
        history.push(txn(3));
        history.reset(Zxid(0x2_0000_0000));
        assert_eq!(history.last(), Zxid(0x2_0000_0000));
        history.push(txn(0x2_0000_0001));
        assert_eq!(history.len(), 1);
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_never_gets_in() {
        window([1, 3], 9);
    }
}
