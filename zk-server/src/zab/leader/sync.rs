//! How a learner gets the leader's history: which transfer, the cut, NEWLEADER.
//!
//! The cut is one step: choosing what is sent from the past, and registering the learner for everything later, see
//! the same history (ZOOKEEPER-962). A difference is sent only from a chain that provably contains the learner's
//! last zxid; everything else is a snapshot. The zxid of a learner's log tells all before it, too: transactions of
//! one epoch come from one leader, in order, so two logs that share an epoch are equal up to the smaller of their
//! ends in it.

use crate::mutation::Mutation;
use zk_proto::Zxid;

use super::link::{Step, TransferKind};
use super::{
    BrokenChain, CloseReason, Epoch, History, Leader, LeaderOptions, Output, PeerConn, Phase, Proposal,
    ToLearner,
};
use crate::zab::history::follows;

/// The log is read so many times for a learner, if the window keeps moving away, before it gets a snapshot.
const READ_ATTEMPTS: u32 = 3;

/// How a learner is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// What the window has after this zxid, which is the learner's own.
    Diff(Zxid),
    /// The learner cuts its log after this zxid and gets what the window has after it.
    Trunc(Zxid),
    /// The learner is behind the window: the log may help.
    Log {
        from: Zxid,
        bytes_max: u64,
    },
    Snapshot,
    /// A snapshot, as soon as the tree is beyond the learner's zxid.
    Later,
}

/// What the choice depends on.
struct View<'a> {
    history: &'a History,
    options: &'a LeaderOptions,
    /// The decided part of the history.
    committed: Zxid,
    /// How far the tree has come.
    applied: Zxid,
    snapshot_bytes: u64,
}

impl View<'_> {
    fn choose(&self, last: Zxid, current: Option<Epoch>) -> Transfer {
        let (history, options) = (self.history, self.options);
        if options.force_snapshot || last.0 < 0 {
            return Transfer::Snapshot;
        }
        if last == Zxid::ZERO {
            // An empty learner; or one of ours that cannot use what it was offered, and asks for a snapshot by
            // claiming nothing.
            let both_empty = history.last() == Zxid::ZERO && current.is_some();
            return if both_empty { Transfer::Diff(last) } else { Transfer::Snapshot };
        }
        let start_of_epoch = last.counter() == 0;
        if start_of_epoch && last >= history.base() {
            // Not a transaction: the end of the history with which an epoch began. An epoch that has begun was
            // agreed on by a quorum, so that history is ours, too.
            return Transfer::Diff(last);
        }
        if last > self.committed {
            // What it has beyond is not decided, even if we have it, too: its tree must not hold that. It gets and
            // acknowledges it again.
            return Transfer::Trunc(self.committed);
        }
        if history.covers(last) {
            return Transfer::Diff(last);
        }
        if let Some(common) = history.at_or_before(last) {
            // Its end was never decided, and ours goes on differently after `common`.
            let snapshot = self.snapshot_bytes <= options.snapshot_instead_of_truncation_bytes;
            let truncatable = common.epoch() == last.epoch() && common.counter() > 0;
            return match self.applied > last {
                true if snapshot || !truncatable => Transfer::Snapshot,
                _ if truncatable => Transfer::Trunc(common),
                // A snapshot must end after the learner's log: Apache's learners keep the log.
                _ => Transfer::Later,
            };
        }
        match self.log_bytes_max() {
            Some(bytes_max) if !start_of_epoch => Transfer::Log { from: last, bytes_max },
            _ => Transfer::Snapshot,
        }
    }

    /// How much log may be sent instead of a snapshot.
    fn log_bytes_max(&self) -> Option<u64> {
        let limit = self.options.backlog_bytes_max as u64;
        let factor = self.options.snapshot_size_factor.filter(|factor| *factor >= 0.0)?;
        let share = if factor == 0.0 { u64::MAX } else { (self.snapshot_bytes as f64 * factor) as u64 };
        Some(share.min(limit)).filter(|bytes| *bytes > 0)
    }
}

impl Leader {
    /// Chooses the transfer of a learner that has accepted the epoch, and begins with it.
    pub(super) fn start_sync(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        history: &History,
        out: &mut Vec<Output>,
    ) {
        let view = View {
            history,
            options: &self.options,
            committed: self.committed,
            applied: self.committed.min(self.durable),
            snapshot_bytes: self.snapshot_bytes,
        };
        let Some(link) = self.links.get(&conn) else { return };
        let transfer = view.choose(link.last, link.current);
        let to = view.applied;
        let kind = match transfer {
            Transfer::Later => return,
            Transfer::Snapshot => TransferKind::Snapshot,
            _ => TransferKind::Diff,
        };
        if !self.admit(conn, kind, out) {
            return;
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        if let Some(server) = link.sid {
            tracing::info!(%server, last = %link.last, %to, ?transfer, "a learner takes over the history");
        }
        match transfer {
            Transfer::Diff(from) => {
                let nothing = history.since(from).next().is_none_or(|txn| txn.zxid > self.committed);
                let end = if nothing { from } else { self.committed };
                ToLearner::Diff(end).encode(&mut link.outbox);
                self.cut(now_ms, conn, from, history);
            }
            Transfer::Trunc(common) => {
                ToLearner::Trunc(common).encode(&mut link.outbox);
                self.cut(now_ms, conn, common, history);
            }
            Transfer::Log { from, bytes_max } => {
                link.step = Step::Reading;
                out.push(Output::ReadChain { conn, from, to, bytes_max });
            }
            Transfer::Snapshot => {
                link.step = Step::Pinning;
                out.push(Output::PinSnapshot { conn });
            }
            Transfer::Later => {}
        }
    }

    /// Takes note of a transfer. Observers are refused when too many run; followers are needed and only counted.
    fn admit(&mut self, conn: PeerConn, kind: TransferKind, out: &mut Vec<Output>) -> bool {
        let limit = match kind {
            TransferKind::Diff => self.options.concurrent_diffs_max,
            TransferKind::Snapshot => self.options.concurrent_snapshots_max,
        };
        let running = self.links.values().filter(|link| link.transfer == Some(kind)).count();
        let Some(link) = self.links.get_mut(&conn) else { return false };
        if !link.follower && running >= limit as usize {
            self.close(conn, CloseReason::Throttled(limit), out);
            return false;
        }
        link.transfer = Some(kind);
        true
    }

    /// Tries again for those whose transfer could not be chosen.
    pub(super) fn retry_parked(&mut self, now_ms: u64, history: &History, out: &mut Vec<Output>) {
        let waiting: Vec<PeerConn> = self.waiting().collect();
        for conn in waiting {
            self.start_sync(now_ms, conn, history, out);
        }
    }

    /// The cut. The learner has everything up to `from` after what is in its outbox; the window has everything
    /// after `from`. What is decided goes with its COMMIT, to followers also what is not; then NEWLEADER.
    fn cut(&mut self, now_ms: u64, conn: PeerConn, from: Zxid, history: &History) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.cut = self.committed;
        link.sent = self.committed;
        for txn in history.since(from).skip(usize::from(Mutation::DiffWithGap.is_on())) {
            if Mutation::ForgetOutstanding.is_on() && txn.zxid > self.committed {
                break;
            }
            if txn.zxid <= self.committed {
                ToLearner::encode_proposal(txn, &mut link.outbox);
                ToLearner::encode_commit(txn.zxid, &mut link.outbox);
            } else if link.follower && txn.zxid <= self.proposed {
                ToLearner::encode_proposal(txn, &mut link.outbox);
                link.sent = txn.zxid;
            }
        }
        let config = self.electorates.last_seen().to_text().into();
        ToLearner::NewLeader { zxid: self.epoch.start(), config: Some(config) }.encode(&mut link.outbox);
        link.step = Step::Syncing;
        link.heard_ms = now_ms;
        link.reading = Default::default();
    }

    /// The answer to [`Output::ReadChain`]: the records after `from`, up to `to`, or as many of them as there are.
    pub fn chain(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        chain: Result<Vec<Proposal>, BrokenChain>,
        history: &History,
        out: &mut Vec<Output>,
    ) {
        let committed = self.committed;
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.step == Step::Reading) else { return };
        let end = |records: &[Proposal], otherwise| records.last().map_or(otherwise, |txn| txn.zxid);
        let mut last = end(&link.reading.records, link.last);
        let records = chain.unwrap_or_default();
        // Proven here once more: a gap would be in the learner's log for ever.
        let proven = !records.is_empty()
            && records.iter().all(|txn| {
                let proven = follows(last, txn.zxid) && txn.zxid <= committed;
                last = txn.zxid;
                proven
            });
        link.reading.records.extend(records);
        link.reading.attempts += 1;
        if proven && history.covers(last) {
            ToLearner::Diff(committed).encode(&mut link.outbox);
            for txn in &link.reading.records {
                ToLearner::encode_proposal(txn, &mut link.outbox);
                ToLearner::encode_commit(txn.zxid, &mut link.outbox);
            }
            return self.cut(now_ms, conn, last, history);
        }
        if proven && link.reading.attempts < READ_ATTEMPTS {
            // The window has moved on meanwhile. Next time there is less to read.
            let (to, bytes_max) = (committed.min(self.durable), self.options.backlog_bytes_max as u64);
            out.push(Output::ReadChain { conn, from: last, to, bytes_max });
            return;
        }
        link.reading = Default::default();
        link.step = Step::Pinning;
        if self.admit(conn, TransferKind::Snapshot, out) {
            out.push(Output::PinSnapshot { conn });
        }
    }

    /// The answer to [`Output::PinSnapshot`]: the pinned tree is the state at `zxid`. Registers the learner: what
    /// comes later waits in its outbox until [`Leader::snapshot_sent`].
    pub fn snapshot_pinned(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        zxid: Zxid,
        history: &History,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.step == Step::Pinning) else { return };
        if zxid < history.base() || zxid > self.committed {
            return self.close(conn, CloseReason::Snapshot(zxid), out);
        }
        ToLearner::Snap(zxid).encode(&mut link.outbox);
        out.push(Output::Send { conn, bytes: std::mem::take(&mut link.outbox) });
        out.push(Output::StreamSnapshot { conn });
        link.streaming = true;
        self.cut(now_ms, conn, zxid, history);
    }

    /// The last byte of a learner's snapshot was handed to its connection.
    pub fn snapshot_sent(&mut self, now_ms: u64, conn: PeerConn) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.streaming = false;
            link.heard_ms = now_ms;
        }
    }

    /// An ACK of a learner that has not acknowledged NEWLEADER. Learners of 3.8 acknowledge transactions before it:
    /// those of the transfer say nothing new, those that came behind the cut are not repeated and must be kept
    /// (ZOOKEEPER-4685).
    pub(super) fn ack_while_syncing(
        &mut self,
        now_ms: u64,
        conn: PeerConn,
        zxid: Zxid,
        out: &mut Vec<Output>,
    ) {
        let start = self.epoch.start();
        let Some(link) = self.links.get_mut(&conn) else { return };
        if zxid != start {
            if zxid > link.sent || zxid > link.cut && Epoch::of(zxid) != self.epoch {
                self.close(conn, CloseReason::BadAck(zxid), out);
            } else if zxid > link.cut {
                link.acked = link.acked.max(zxid);
            }
            return;
        }
        link.step = Step::Synced;
        link.transfer = None;
        link.acked = link.acked.max(link.cut);
        link.expect_ack(now_ms);
        if let Some(sid) = link.sid.filter(|_| link.follower) {
            self.synced.insert(sid);
        }
        match self.phase {
            Phase::Broadcast => self.up_to_date(now_ms, conn),
            _ => self.activate_when_synced(now_ms, out),
        }
    }

    /// The own history and current epoch are durable.
    pub fn history_durable(&mut self, now_ms: u64, epoch: Epoch, out: &mut Vec<Output>) {
        if self.phase == Phase::Synchronization && epoch == self.epoch {
            self.epochs.current = epoch;
            self.synced.insert(self.me);
            self.activate_when_synced(now_ms, out);
        }
    }

    /// Becomes active when a quorum has taken over the history.
    fn activate_when_synced(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let synced = self.electorates.quorum(|sid| self.synced.contains(&sid));
        if self.phase != Phase::Synchronization || !synced {
            return;
        }
        self.phase = Phase::Broadcast;
        self.next_quorum_check_ms = now_ms.saturating_add(self.options.tick_ms);
        self.activate_config(self.epoch.start(), out);
        out.push(Output::Active { epoch: self.epoch });
        let synced = self.links.iter().filter(|(_, link)| link.step == Step::Synced);
        let synced: Vec<PeerConn> = synced.map(|(conn, _)| *conn).collect();
        synced.into_iter().for_each(|conn| self.up_to_date(now_ms, conn));
    }

    fn up_to_date(&mut self, now_ms: u64, conn: PeerConn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        ToLearner::UpToDate.encode(&mut link.outbox);
        link.outbox.append(&mut link.held);
        link.up_to_date = true;
        link.heard_ms = now_ms;
    }
}
