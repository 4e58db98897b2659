//! The older election, by rounds of queries.
//!
//! A server asks all voters for their votes and waits until all have answered, or a moment. Among the candidates
//! that answered it takes the best (epoch, zxid, id) as its vote. When a quorum votes for that candidate the
//! search is over, otherwise it asks again. Nobody tells anything unasked.
//!
//! On the wire these are notifications. The round of a query is a number that the asker chooses, the round of an
//! answer is its negative: so an answer to an older query, or to another life of the asker, is recognised, and an
//! answer is never answered. Votes in a query have no meaning.
//!
//! Numbers tell nothing about when a vote was cast: a server that gives up leading still finds servers that say
//! they follow it, and these find that it leads. Two rules keep them from electing each other for ever: nobody
//! joins a leader whose vote is worse than the own history, and an established leader's vote is better than
//! every history of its epoch.

use std::collections::{BTreeMap, BTreeSet};

use zk_proto::Zxid;

use super::Output;
use super::member::Member;
use super::vote::{Report, Vote};
use crate::zab::wire::Notification;
use crate::zab::{Epoch, PeerState, ServerId};

/// The zxid in the votes for an established leader: the end of its epoch.
pub(super) fn established_zxid(epoch: Epoch) -> i64 {
    Zxid::new(epoch.0, u32::MAX).0
}

#[derive(Debug)]
pub(super) struct QueryElection {
    /// Number of the running or last query.
    number: i64,
    answers: BTreeMap<ServerId, Report>,
    /// Answers are awaited, else the next query.
    asking: bool,
    until_ms: u64,
}

impl QueryElection {
    /// `number`: positive; different in each life of the process.
    pub fn new(number: i64) -> Self {
        QueryElection { number, answers: BTreeMap::new(), asking: false, until_ms: 0 }
    }

    /// A new search, with a vote for oneself.
    pub fn begin(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        m.vote = m.initial_vote();
        self.ask(m, now_ms, out);
    }

    pub fn next_deadline_ms(&self) -> u64 {
        self.until_ms
    }

    pub fn tick(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        if now_ms < self.until_ms {
            return;
        }
        if self.asking {
            self.count(m, now_ms, out);
        } else {
            self.ask(m, now_ms, out);
        }
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
        if n.round > 0 {
            m.tell(from, -n.round, out);
            if m.state == PeerState::Leading && m.electorate.is_voter(from) {
                out.push(Output::VoterLooking(from));
            }
            return;
        }
        let expected = self.asking && !delayed && n.round.checked_neg() == Some(self.number);
        if m.state != PeerState::Looking || !expected || !m.electorate.is_voter(from) {
            return;
        }
        self.answers.insert(from, Report::of(n, now_ms));
        let voters = m.electorate.voters();
        if voters.iter().all(|voter| *voter == m.me || self.answers.contains_key(voter)) {
            self.count(m, now_ms, out);
        }
    }

    fn ask(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        // Far from the end: the first number is below 2^62.
        self.number += 1;
        self.answers.clear();
        self.asking = true;
        self.until_ms = now_ms + m.options.notification_interval_min_ms;
        m.tell_voters(self.number, out);
        if m.electorate.voters().iter().all(|voter| *voter == m.me) {
            self.count(m, now_ms, out);
        }
    }

    /// The end of a round of answers.
    fn count(&mut self, m: &mut Member, now_ms: u64, out: &mut Vec<Output>) {
        // No backing off: a query costs little, and nothing else would wake a server that waits.
        self.asking = false;
        self.until_ms = now_ms + m.options.notification_interval_min_ms;
        if let Some(leader) = self.established_leader(m) {
            return m.decide(leader, out);
        }
        m.vote = self.best_vote(m);
        if self.is_elected(m) {
            m.decide(m.vote, out);
        }
    }

    /// The best vote for a candidate that is there. A server trusts only itself for its own history, so that
    /// votes for what it was before it lost its disk do not come back.
    fn best_vote(&self, m: &Member) -> Vote {
        let initial = m.initial_vote();
        let looking = self.answers.values().filter(|answer| answer.state == PeerState::Looking);
        let present =
            looking.map(|answer| answer.vote).filter(|vote| self.answers.contains_key(&vote.candidate()));
        let candidates = present.filter(|vote| m.electorate.is_voter(vote.candidate()));
        candidates.fold(initial, |best, vote| if m.electorate.better(&vote, &best) { vote } else { best })
    }

    /// Whether a quorum votes for the candidate of the own vote, it itself included.
    fn is_elected(&self, m: &Member) -> bool {
        let mut backers = self.backers(m.vote.candidate());
        if m.votes() {
            backers.insert(m.me);
        }
        backers.contains(&m.vote.candidate()) && m.electorate.is_quorum(&backers)
    }

    /// A leader that says so itself, is not behind this server, and has or gets with this server a quorum.
    fn established_leader(&self, m: &Member) -> Option<Vote> {
        let leads = |(server, answer): &(&ServerId, &Report)| {
            answer.state == PeerState::Leading && answer.vote.candidate() == **server
        };
        let has_quorum = |vote: &Vote| {
            let mut backers = self.backers(vote.candidate());
            if m.votes() {
                backers.insert(m.me);
            }
            m.electorate.is_quorum(&backers)
        };
        let leaders = self.answers.iter().filter(leads).map(|(_, answer)| answer.vote);
        let initial = m.initial_vote();
        let ahead = leaders.filter(|vote| (vote.peer_epoch, vote.zxid) >= (initial.peer_epoch, initial.zxid));
        ahead.filter(|vote| m.electorate.is_voter(vote.candidate())).filter(has_quorum).max()
    }

    /// Others that vote for a candidate or already follow it.
    fn backers(&self, candidate: ServerId) -> BTreeSet<ServerId> {
        let for_it = self.answers.iter().filter(|(_, answer)| answer.vote.candidate() == candidate);
        for_it.map(|(server, _)| *server).collect()
    }
}
