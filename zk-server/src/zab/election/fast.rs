//! Fast leader election, as Apache's servers do it.
//!
//! Every server proposes itself and tells all voters. Who hears of a better candidate proposes that one and tells
//! all. When the votes of a quorum are equal, and no better one comes for a moment, the search is over. There is no
//! need for that moment when all others have voted the same or cannot be connected to: a leader that was killed
//! costs its followers no time. Rounds keep votes of different searches apart; a server in an older round joins the
//! newer one.
//!
//! Those that already have a leader answer with it. They joined it in different rounds, so their reports are
//! counted separately.

use std::collections::{BTreeMap, BTreeSet};

use super::Output;
use super::member::Member;
use super::vote::{Report, Vote};
use crate::zab::wire::Notification;
use crate::zab::{PeerState, ServerId};

/// The zxid of a server whose empty database must not vote.
const ZXID_NO_VOTE: i64 = -1;

#[derive(Debug)]
pub(super) struct FastElection {
    /// Votes of this round, the own one included.
    received: BTreeMap<ServerId, Report>,
    /// Reports of servers that have a leader, of any round.
    established: BTreeMap<ServerId, Report>,
    /// Servers that cannot be connected to, so that no vote of theirs is under way.
    absent: BTreeSet<ServerId>,
    /// A quorum backs the proposal: the moment at which that becomes the decision.
    final_at_ms: Option<u64>,
    /// When the proposal is told again.
    resend_at_ms: u64,
    interval_ms: u64,
}

impl FastElection {
    pub fn new() -> Self {
        FastElection {
            received: BTreeMap::new(),
            established: BTreeMap::new(),
            absent: BTreeSet::new(),
            final_at_ms: None,
            resend_at_ms: 0,
            interval_ms: 0,
        }
    }

    /// A new round, with a vote for oneself.
    pub fn begin(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        // A round from a broken peer may be the largest there is; then the searches share it.
        m.round = m.round.saturating_add(1);
        self.received.clear();
        self.established.clear();
        self.absent.clear();
        self.interval_ms = m.options.notification_interval_min_ms;
        self.propose(m, now_ms, m.initial_vote(), out);
        self.judge(m, now_ms, out);
    }

    pub fn next_deadline_ms(&self) -> u64 {
        self.final_at_ms.map_or(self.resend_at_ms, |at_ms| at_ms.min(self.resend_at_ms))
    }

    pub fn tick(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        if self.final_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return m.decide(m.vote, out);
        }
        if now_ms < self.resend_at_ms {
            return;
        }
        if let Some(vote) = self.leader_to_support(m, now_ms) {
            m.round = vote.round;
            return m.decide(vote.vote, out);
        }
        m.tell_voters(m.round, out);
        self.interval_ms = (self.interval_ms * 2).min(m.options.notification_interval_max_ms);
        self.resend_at_ms = now_ms + self.interval_ms;
    }

    /// A server could not be connected to.
    pub fn unreachable(&mut self, m: &mut Member, now_ms: u64, server: ServerId, out: &mut Vec<Output>) {
        self.absent.insert(server);
        self.judge(m, now_ms, out);
    }

    /// The receive path of every state.
    pub fn notification(
        &mut self,
        m: &mut Member,
        now_ms: u64,
        from: ServerId,
        n: &Notification,
        delayed: bool,
        out: &mut Vec<Output>,
    ) {
        self.absent.remove(&from);
        if !m.electorate.is_voter(from) {
            if m.may_answer_outsider(now_ms, from) {
                m.tell(from, m.round, out);
            }
            return;
        }
        let asks = n.state == PeerState::Looking;
        if m.state != PeerState::Looking {
            if asks {
                m.tell(from, m.round, out);
            }
            if asks && m.state == PeerState::Leading {
                out.push(Output::VoterLooking(from));
            }
            return;
        }
        if delayed {
            return;
        }
        if asks && n.round < m.round {
            m.tell(from, m.round, out);
        }
        if !m.electorate.is_voter(ServerId(n.leader)) {
            return;
        }
        match n.state {
            PeerState::Looking => self.vote(m, now_ms, from, n, out),
            PeerState::Following | PeerState::Leading => self.established(m, now_ms, from, n, out),
            PeerState::Observing => {}
        }
    }

    /// The vote of a server that looks for a leader, too.
    fn vote(&mut self, m: &mut Member, now_ms: u64, from: ServerId, n: &Notification, out: &mut Vec<Output>) {
        self.established.remove(&from);
        if n.zxid == ZXID_NO_VOTE || n.round < m.round {
            return;
        }
        let vote = Vote::of(n);
        if n.round > m.round {
            m.round = n.round;
            self.received.clear();
            let initial = m.initial_vote();
            let better = m.electorate.better(&vote, &initial);
            self.propose(m, now_ms, if better { vote } else { initial }, out);
        } else if m.electorate.better(&vote, &m.vote) {
            self.propose(m, now_ms, vote, out);
        }
        self.received.insert(from, Report::of(n, now_ms));
        self.judge(m, now_ms, out);
    }

    /// The report of a server that has a leader.
    fn established(
        &mut self,
        m: &mut Member,
        now_ms: u64,
        from: ServerId,
        n: &Notification,
        out: &mut Vec<Output>,
    ) {
        let report = Report::of(n, now_ms);
        if n.round == m.round {
            self.received.insert(from, report);
            if is_led(m, &self.received, &report) {
                return m.decide(report.vote, out);
            }
        }
        self.established.insert(from, report);
        if is_led(m, &self.established, &report) {
            m.round = n.round;
            return m.decide(report.vote, out);
        }
        if n.round == m.round {
            self.judge(m, now_ms, out);
        }
    }

    /// Makes `vote` the own one and tells all voters.
    fn propose(&mut self, m: &mut Member, now_ms: u64, vote: Vote, out: &mut Vec<Output>) {
        m.vote = vote;
        if m.votes() {
            self.received.insert(m.me, m.report(now_ms));
        }
        self.final_at_ms = None;
        self.resend_at_ms = now_ms + self.interval_ms;
        m.tell_voters(m.round, out);
    }

    /// Whether a quorum backs the own proposal.
    fn judge(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        let backers = self.received.iter().filter(|(_, report)| report.backs(&m.vote, m.round));
        let backers: BTreeSet<ServerId> = backers.map(|(server, _)| *server).collect();
        if !m.electorate.is_quorum(&backers) {
            self.final_at_ms = None;
        } else if (m.electorate.voters().iter())
            .all(|voter| backers.contains(voter) || self.absent.contains(voter))
        {
            // All that can speak agree, so no better vote can come.
            m.decide(m.vote, out);
        } else if self.final_at_ms.is_none() {
            self.final_at_ms = Some(now_ms + m.options.finalize_wait_ms);
        }
    }

    /// A leader that this server should join although no quorum of *others* has been heard to follow it: it says
    /// so itself, and this server makes the quorum complete.
    ///
    /// Otherwise a server could not come back into an ensemble of three while the leader lives and the other
    /// follower hangs. Only after a pause, when those that look for a leader are no quorum, on a fresh word of the
    /// leader, and not for one that is certain to refuse this server because it is behind.
    fn leader_to_support(&self, m: &Member, now_ms: u64) -> Option<Report> {
        if !m.votes() || self.final_at_ms.is_some() {
            return None;
        }
        let epoch = m.initial_vote().peer_epoch;
        let leads = |(server, report): &(&ServerId, &Report)| {
            let fresh = report.at_ms.saturating_add(self.interval_ms) >= now_ms;
            let leads = report.state == PeerState::Leading && report.vote.candidate() == **server;
            leads && fresh && report.vote.peer_epoch >= epoch
        };
        let completes = |report: &&Report| {
            let mut servers = supporters(&self.established, report);
            servers.insert(m.me);
            m.electorate.is_quorum(&servers)
        };
        let leaders = self.established.iter().filter(leads).map(|(_, report)| report);
        leaders.filter(completes).max_by_key(|report| report.vote).copied()
    }
}

/// Servers that report the same leader.
fn supporters(reports: &BTreeMap<ServerId, Report>, report: &Report) -> BTreeSet<ServerId> {
    let same = reports.iter().filter(|(_, other)| report.same_leader(other));
    same.map(|(server, _)| *server).collect()
}

/// Whether a quorum reports the leader of `report`, and the leader itself says that it leads (ZOOKEEPER-975). A
/// server becomes leader on the word of others only in its own round.
fn is_led(m: &Member, reports: &BTreeMap<ServerId, Report>, report: &Report) -> bool {
    let leader = report.vote.candidate();
    let confirmed = if leader == m.me {
        report.round == m.round
    } else {
        reports.get(&leader).is_some_and(|own| own.state == PeerState::Leading)
    };
    confirmed && m.electorate.is_quorum(&supporters(reports, report))
}
