//! PING, timeouts, and whether a quorum is still there.

use super::link::{Link, Step};
use super::{CloseReason, Leader, Output, PeerConn, Phase, StepDownReason};

/// More PINGs than this are not left unanswered by a learner that works: `sync` sends one per round trip.
const PINGS_MAX: usize = 1 << 20;

impl Leader {
    /// Time has passed. To be called at least every half tick, or at [`Leader::next_deadline`].
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let overdue = match self.phase {
            Phase::Discovery => Some(StepDownReason::EpochTimeout),
            Phase::Accepting | Phase::EpochAcks => Some(StepDownReason::EpochAckTimeout),
            Phase::Synchronization => Some(StepDownReason::NewLeaderTimeout),
            Phase::Broadcast => None,
            Phase::Down => return,
        };
        if let Some(reason) = overdue.filter(|_| now_ms >= self.deadline_ms) {
            return self.step_down(reason, out);
        }
        self.close_silent(now_ms, out);
        if now_ms >= self.next_ping_ms {
            self.next_ping_ms = now_ms.saturating_add(self.options.tick_ms / 2);
            self.close_lagging(now_ms, out);
            self.ping_all();
        }
        if self.phase == Phase::Broadcast && now_ms >= self.next_quorum_check_ms {
            self.next_quorum_check_ms = now_ms.saturating_add(self.options.tick_ms);
            if !self.quorum_is_connected() {
                let reason =
                    if self.retired { StepDownReason::NotDesignated } else { StepDownReason::LostQuorum };
                return self.step_down(reason, out);
            }
            if self.proposed.counter() >= self.options.roll_over_counter
                && self.proposed > self.epoch.start()
                && self.committed == self.proposed
            {
                self.step_down(StepDownReason::RollOver, out);
            }
        }
    }

    /// When [`Leader::tick`] has something to do, ms; at the latest.
    pub fn next_deadline(&self) -> u64 {
        match self.phase {
            Phase::Down => u64::MAX,
            Phase::Broadcast => self.next_ping_ms.min(self.next_quorum_check_ms),
            _ => self.next_ping_ms.min(self.deadline_ms),
        }
    }

    /// Whether the connected learners and this server are a quorum of every configuration. Who is connected was
    /// heard within its limit.
    pub(super) fn quorum_is_connected(&self) -> bool {
        self.electorates.quorum(|sid| sid == self.me && !self.retired || self.by_server.contains_key(&sid))
    }

    fn close_silent(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let silence = |link: &Link| now_ms.saturating_sub(link.heard_ms);
        let silent: Vec<(PeerConn, u64)> = (self.links.iter())
            .filter(|(_, link)| self.patience_ms(link).is_some_and(|limit| silence(link) >= limit))
            .map(|(conn, link)| (*conn, silence(link)))
            .collect();
        for (conn, ms) in silent {
            self.close(conn, CloseReason::Silent(ms), out);
        }
    }

    /// How long the learner may be silent now; `None` while it is our turn.
    fn patience_ms(&self, link: &Link) -> Option<u64> {
        match link.step {
            Step::Info | Step::AckEpoch | Step::Syncing => Some(self.options.init_limit_ms()),
            Step::LeaderInfo | Step::Waiting | Step::Reading | Step::Pinning => None,
            Step::Synced => link.up_to_date.then(|| self.options.sync_limit_ms()),
        }
    }

    fn close_lagging(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let limit = self.options.sync_limit_ms();
        let lagging = self.links.iter().filter_map(|(conn, link)| match link.unacked {
            _ if link.pings.len() > PINGS_MAX => {
                Some((*conn, CloseReason::PingsUnanswered(link.pings.len())))
            }
            Some((zxid, since)) if now_ms.saturating_sub(since) > limit => {
                Some((*conn, CloseReason::AckOverdue(zxid)))
            }
            _ => None,
        });
        let lagging: Vec<_> = lagging.collect();
        for (conn, reason) in lagging {
            self.close(conn, reason, out);
        }
    }
}
