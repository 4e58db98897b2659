//! `sync` of clients.
//!
//! A `sync` is answered when everything is committed that was proposed before it, and a quorum has answered a PING
//! that was sent after it: nobody else can have led at the moment when it came, so that a read behind it is not
//! stale. (Apache answers without asking; a deposed leader then lets clients read the past until it notices.)
//!
//! PINGs go in rounds. One round is on its way at a time; everything that comes meanwhile shares the next one.

use std::collections::VecDeque;

use zk_proto::Zxid;

use super::{Leader, Output, PeerConn, Phase, ToLearner};

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A learner, for its oldest unanswered `sync`.
    Learner(PeerConn),
    /// A client of this server.
    Ticket(u64),
}

#[derive(Debug)]
struct Waiting {
    who: Waiter,
    /// Has to be committed.
    zxid: Zxid,
    /// Has to be confirmed.
    round: u64,
}

/// The unanswered `sync` requests, in order.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    waiting: VecDeque<Waiting>,
    /// The last round that was sent.
    sent: u64,
}

impl Barrier {
    pub(super) fn wait(&mut self, who: Waiter, zxid: Zxid) {
        self.waiting.push_back(Waiting { who, zxid, round: self.sent + 1 });
    }

    /// Whether somebody waits for a round that was not sent.
    fn wants_round(&self) -> bool {
        self.waiting.back().is_some_and(|last| last.round > self.sent)
    }
}

impl Leader {
    /// A client of this server wants a `sync`; [`Output::SyncDone`] names the ticket.
    pub fn sync_local(&mut self, ticket: u64) {
        if self.phase == Phase::Broadcast {
            self.barrier.wait(Waiter::Ticket(ticket), self.proposed);
        }
    }

    /// Starts a round if one is wanted and none is on its way; answers whatever can be answered.
    pub(super) fn answer_barriers(&mut self, out: &mut Vec<Output>) {
        let ask = self.options.confirm_syncs;
        if ask && self.barrier.wants_round() && self.confirmed_round(u64::MAX) >= self.barrier.sent {
            self.ping_all();
        }
        let confirmed = if ask { self.confirmed_round(u64::MAX) } else { u64::MAX };
        while let Some(first) = self.barrier.waiting.front() {
            if first.zxid > self.committed || first.round > confirmed {
                break;
            }
            let who = first.who;
            self.barrier.waiting.pop_front();
            match who {
                Waiter::Ticket(ticket) => out.push(Output::SyncDone(ticket)),
                Waiter::Learner(conn) => {
                    if let Some(link) = self.links.get_mut(&conn) {
                        ToLearner::Sync.encode(&mut link.outbox);
                    }
                }
            }
        }
    }

    /// PING to every learner that has got NEWLEADER. Those that serve clients answer, which confirms the round.
    pub(super) fn ping_all(&mut self) {
        if self.barrier.wants_round() {
            self.barrier.sent += 1;
        }
        let round = self.barrier.sent;
        let zxid = self.proposed.max(self.epoch.start());
        for link in self.links.values_mut().filter(|link| link.forwards() && !link.streaming) {
            ToLearner::Ping(zxid).encode(&mut link.outbox);
            if link.up_to_date {
                link.pings.push_back(round);
            }
        }
    }
}
