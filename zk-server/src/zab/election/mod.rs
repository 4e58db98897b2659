//! Who should lead.
//!
//! [`Election`] decides, [`ConnTable`] keeps the connections between the election ports. Both run as long as the
//! server does: one that follows or leads still has to answer those that look for a leader.
//!
//! | file | content |
//! |---|---|
//! | `vote` | votes, their order, and which of them count for the same leader |
//! | `electorate` | who may vote, and what a quorum is while the membership changes |
//! | `member` | what this server is and says, whatever the algorithm |
//! | `fast` | fast leader election (`electionAlg=3`), the one that Apache's servers speak |
//! | `query` | rounds of queries (`electionAlg=0`), for ensembles of this server only |
//! | `connections` | which connection of two servers survives, hello, frames |
//!
//! **No election result is ever a danger to data.** A wrong one costs time: the handshake between leader and
//! learners checks epochs and histories again. Everything here therefore prefers a quick answer.

mod connections;
mod electorate;
mod fast;
mod member;
mod query;
mod vote;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use zk_proto::Zxid;

pub use connections::{CloseReason, ConnOptions, ConnOutput, ConnTable};
use fast::FastElection;
use member::Member;
use query::QueryElection;
pub use vote::Vote;

use super::ensemble::Ensemble;
use super::wire::Notification;
use super::{Epoch, PeerState, PeerType, ServerId};

/// How leaders are elected. All servers of an ensemble have to use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Every server tells its vote and adopts better ones until a quorum agrees: `electionAlg=3`.
    #[default]
    FastLeader,
    /// Every server asks all others for their votes, takes the best, and asks again until a quorum agrees:
    /// `electionAlg=0`. Not understood by Apache's servers of today.
    QueryRounds,
}

/// Settings of an [`Election`].
#[derive(Debug, Clone)]
pub struct ElectionOptions {
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// First pause before a vote that brought no decision is repeated.
    pub notification_interval_min_ms: u64,
    /// The pause doubles up to this.
    pub notification_interval_max_ms: u64,
    /// How long to wait for a better vote after a quorum agreed.
    pub finalize_wait_ms: u64,
    /// A server without a vote waits a random time up to this before it looks for a leader again.
    pub observer_delay_max_ms: u64,
    /// Take over newer configurations that members tell while a leader is looked for.
    pub reconfig_enabled: bool,
    /// Seed of everything random: the same inputs and seed give the same outputs.
    pub seed: u64,
}

impl Default for ElectionOptions {
    fn default() -> Self {
        ElectionOptions {
            algorithm: Algorithm::FastLeader,
            notification_interval_min_ms: 200,
            notification_interval_max_ms: 60_000,
            finalize_wait_ms: 200,
            observer_delay_max_ms: 200,
            reconfig_enabled: false,
            seed: 0,
        }
    }
}

/// What a search for a leader begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// End of the own durable history.
    pub last_zxid: Zxid,
    /// The epoch of the own history, as on disk.
    pub current_epoch: Epoch,
    /// The configuration in force.
    pub committed: Arc<Ensemble>,
    /// A newer one that was proposed, but is not known to be committed. Ignored when it is not newer.
    pub last_seen: Option<Arc<Ensemble>>,
    /// What this server is when the configuration does not list it (else the configuration says it).
    pub peer_type: PeerType,
}

/// What an [`Election`] wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell another server, [`ConnTable::send`].
    Send {
        /// The receiver; never this server.
        to: ServerId,
        /// The message.
        notification: Notification,
    },
    /// The search is over.
    Decided {
        /// Who leads.
        leader: ServerId,
        /// What this server is to do now: lead, follow or observe.
        state: PeerState,
    },
    /// A member told a newer configuration, which is in force at that member: store it and tell the connections.
    /// The search already goes on with it, so don't start another.
    Gossip(Arc<Ensemble>),
    /// While this server leads: a voter looks for a leader. Ends a leadership that nobody joins (ZOOKEEPER-3109).
    VoterLooking(ServerId),
}

/// The search for a leader, and the answers to others that search.
///
/// Starts silent: until the first [`start`](Self::start) nothing is answered. Time is in milliseconds of a
/// monotonic clock. Notifications to oneself are not sent.
#[derive(Debug)]
pub struct Election {
    member: Member,
    machine: Machine,
    rng: fastrand::Rng,
    /// A server without a vote that waits before it searches.
    delayed_until_ms: Option<u64>,
}

#[derive(Debug)]
enum Machine {
    Fast(FastElection),
    Query(QueryElection),
}

impl Election {
    /// The election of server `me`, before its first search.
    pub fn new(me: ServerId, options: ElectionOptions) -> Election {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let machine = match options.algorithm {
            Algorithm::FastLeader => Machine::Fast(FastElection::new()),
            // A number that no answer to an earlier life of this process carries.
            Algorithm::QueryRounds => Machine::Query(QueryElection::new(rng.i64(1..1 << 62))),
        };
        Election { member: Member::new(me, options), machine, rng, delayed_until_ms: None }
    }

    /// Begins to look for a leader, in a new round. Also ends what [`Output::Decided`] said before.
    pub fn start(&mut self, now_ms: u64, start: Start, out: &mut Vec<Output>) {
        let first = !self.member.started();
        self.member.look(start);
        let delay_max_ms = self.member.options.observer_delay_max_ms;
        if first || self.member.votes() || delay_max_ms == 0 {
            self.begin(now_ms, out);
        } else {
            self.delayed_until_ms = Some(now_ms.saturating_add(self.rng.u64(0..=delay_max_ms)));
        }
    }

    /// A notification came, [`ConnOutput::Deliver`]. Call this in every state.
    pub fn notification(&mut self, now_ms: u64, from: ServerId, n: Notification, out: &mut Vec<Output>) {
        if !self.member.started() || from == self.member.me {
            return;
        }
        if let Some(newer) = self.member.newer_ensemble(from, &n) {
            let members_changed = self.member.adopt(newer.clone());
            out.push(Output::Gossip(newer));
            if members_changed && self.delayed_until_ms.is_none() {
                self.begin(now_ms, out);
            }
        }
        let delayed = self.delayed_until_ms.is_some();
        match &mut self.machine {
            Machine::Fast(fast) => fast.notification(&mut self.member, now_ms, from, &n, delayed, out),
            Machine::Query(query) => query.notification(&mut self.member, now_ms, from, &n, delayed, out),
        }
    }

    /// A server could not be connected to, see [`ConnTable::dial_failed`].
    pub fn unreachable(&mut self, now_ms: u64, server: ServerId, out: &mut Vec<Output>) {
        if self.looking()
            && self.delayed_until_ms.is_none()
            && let Machine::Fast(fast) = &mut self.machine
        {
            fast.unreachable(&mut self.member, now_ms, server, out);
        }
    }

    /// Time has passed; call it at [`next_deadline_ms`](Self::next_deadline_ms) or more often.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if !self.looking() {
            return;
        }
        match self.delayed_until_ms {
            Some(until_ms) if until_ms <= now_ms => self.begin(now_ms, out),
            Some(_) => {}
            None => match &mut self.machine {
                Machine::Fast(fast) => fast.tick(&mut self.member, now_ms, out),
                Machine::Query(query) => query.tick(&mut self.member, now_ms, out),
            },
        }
    }

    /// When [`tick`](Self::tick) has something to do next; `None` while no leader is looked for.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let machine_deadline_ms = || match &self.machine {
            Machine::Fast(fast) => fast.next_deadline_ms(),
            Machine::Query(query) => query.next_deadline_ms(),
        };
        self.looking().then(|| self.delayed_until_ms.unwrap_or_else(machine_deadline_ms))
    }

    /// The leader's history of this epoch was taken over (a learner), or by a quorum (the leader): from now on
    /// the vote is reported with it, so that late joiners see equal votes (ZOOKEEPER-1732).
    pub fn refresh(&mut self, epoch: Epoch) {
        if self.looking() {
            return;
        }
        self.member.vote.peer_epoch = i64::from(epoch.0);
        if let Machine::Query(_) = self.machine {
            self.member.vote.zxid = query::established_zxid(epoch);
        }
    }

    /// A reconfiguration with transaction `zxid` named the next leader: no search is needed. `state` is what this
    /// server does from now on.
    pub fn appointed(&mut self, leader: ServerId, state: PeerState, zxid: Zxid) {
        self.delayed_until_ms = None;
        if self.member.vote.leader != leader.0 {
            self.member.vote.leader = leader.0;
            self.member.vote.zxid = zxid.0;
        }
        self.member.state = state;
    }

    /// The configurations changed while this server follows or leads (a search starts with its own).
    pub fn set_ensembles(&mut self, committed: Arc<Ensemble>, last_seen: Option<Arc<Ensemble>>) {
        self.member.set_ensembles(committed, last_seen);
    }

    /// What is told to others: looking, or what was decided.
    pub fn state(&self) -> PeerState {
        self.member.state
    }

    /// The vote that is told to others.
    pub fn vote(&self) -> Vote {
        self.member.vote
    }

    /// The round of the last search: counted from 1 by fast leader election, 0 by query rounds.
    pub fn round(&self) -> i64 {
        self.member.round
    }

    fn looking(&self) -> bool {
        self.member.started() && self.member.state == PeerState::Looking
    }

    fn begin(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.delayed_until_ms = None;
        match &mut self.machine {
            Machine::Fast(fast) => fast.begin(&mut self.member, now_ms, out),
            Machine::Query(query) => query.begin(&mut self.member, now_ms, out),
        }
    }
}
