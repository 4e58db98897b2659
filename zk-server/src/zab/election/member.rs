//! What this server is and says, whatever the algorithm.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::Zxid;

use super::electorate::Electorate;
use super::vote::{Report, Vote};
use super::{ElectionOptions, Output, Start};
use crate::zab::ensemble::Ensemble;
use crate::zab::wire::Notification;
use crate::zab::{Epoch, Membership, PeerState, PeerType, ServerId};

/// Outsiders whose last answer is remembered; more than that get none for a while.
const OUTSIDERS_MAX: usize = 64;

/// This server in elections.
#[derive(Debug)]
pub(super) struct Member {
    pub me: ServerId,
    pub options: ElectionOptions,
    pub electorate: Electorate,
    pub state: PeerState,
    /// While looking the proposal, then the decision.
    pub vote: Vote,
    /// Round of the vote.
    pub round: i64,
    peer_type: PeerType,
    last_zxid: Zxid,
    current_epoch: Epoch,
    /// Text of the committed configuration.
    config: Bytes,
    started: bool,
    /// When an outsider was answered last.
    answered_ms: BTreeMap<ServerId, u64>,
}

impl Member {
    pub fn new(me: ServerId, options: ElectionOptions) -> Self {
        Member {
            me,
            options,
            electorate: Electorate::new(Arc::new(Membership::default().into()), None),
            state: PeerState::Looking,
            vote: Vote::NONE,
            round: 0,
            peer_type: PeerType::Observer,
            last_zxid: Zxid::ZERO,
            current_epoch: Epoch::default(),
            config: Bytes::new(),
            started: false,
            answered_ms: BTreeMap::new(),
        }
    }

    /// Prepares a search.
    pub fn look(&mut self, start: Start) {
        self.started = true;
        self.state = PeerState::Looking;
        self.last_zxid = start.last_zxid;
        self.current_epoch = start.current_epoch;
        self.peer_type = start.peer_type;
        self.set_ensembles(start.committed, start.last_seen);
        self.vote = self.initial_vote();
    }

    pub fn started(&self) -> bool {
        self.started
    }

    pub fn set_ensembles(&mut self, committed: Arc<Ensemble>, last_seen: Option<Arc<Ensemble>>) {
        self.peer_type = committed.peer_type(self.me).unwrap_or(self.peer_type);
        self.config = Bytes::from(committed.to_text());
        self.electorate = Electorate::new(committed, last_seen);
    }

    /// Whether this server's vote counts.
    pub fn votes(&self) -> bool {
        self.electorate.is_voter(self.me)
    }

    /// The vote that a search begins with: for itself.
    pub fn initial_vote(&self) -> Vote {
        if !self.votes() {
            return Vote::NONE;
        }
        let peer_epoch = i64::from(self.current_epoch.0);
        Vote { peer_epoch, zxid: self.last_zxid.0, leader: self.me.0 }
    }

    /// The own vote as others see it.
    pub fn report(&self, now_ms: u64) -> Report {
        let (state, vote, round) = (self.state, self.vote, self.round);
        Report { state, vote, round, version: Notification::VERSION, at_ms: now_ms }
    }

    /// Tells the own vote, in `round`.
    pub fn tell(&self, to: ServerId, round: i64, out: &mut Vec<Output>) {
        let notification = Notification {
            state: self.state,
            leader: self.vote.leader,
            zxid: self.vote.zxid,
            round,
            peer_epoch: self.vote.peer_epoch,
            version: Notification::VERSION,
            config: self.config.clone(),
        };
        out.push(Output::Send { to, notification });
    }

    /// Tells the own vote to all other voters, in `round`.
    pub fn tell_voters(&self, round: i64, out: &mut Vec<Output>) {
        for voter in self.electorate.voters() {
            if voter != self.me {
                self.tell(voter, round, out);
            }
        }
    }

    /// Whether an outsider, one without a vote, is to be answered now.
    ///
    /// Two servers with different configurations may hold each other for outsiders. As each answers whatever the
    /// other says, messages would go back and forth for ever (ZOOKEEPER-693); so there is a pause between answers.
    pub fn may_answer_outsider(&mut self, now_ms: u64, outsider: ServerId) -> bool {
        let pause_ms = self.options.notification_interval_min_ms / 2;
        self.answered_ms.retain(|_, at_ms| now_ms < at_ms.saturating_add(pause_ms));
        if self.answered_ms.contains_key(&outsider) || self.answered_ms.len() >= OUTSIDERS_MAX {
            return false;
        }
        self.answered_ms.insert(outsider, now_ms);
        true
    }

    /// The configuration in a notification, if it is to replace the own one.
    ///
    /// Only while looking, only with reconfiguration on, and only from a member: elsewhere Apache's server starts
    /// its search over at each such message and may never end it.
    pub fn newer_ensemble(&self, from: ServerId, n: &Notification) -> Option<Arc<Ensemble>> {
        let listen = self.options.reconfig_enabled && self.state == PeerState::Looking;
        if !listen || n.config.is_empty() || n.config == self.config || !self.electorate.contains(from) {
            return None;
        }
        let parsed = std::str::from_utf8(&n.config).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|text| Ensemble::parse(text).map_err(|error| error.to_string()));
        match parsed {
            Ok(ensemble) => {
                let newer = ensemble.version > self.electorate.committed().version;
                let usable = ensemble.voters().next().is_some();
                (newer && usable).then(|| Arc::new(ensemble))
            }
            Err(why) => {
                tracing::warn!(server = %from, why, "cannot read the configuration in a vote; only the vote counts");
                None
            }
        }
    }

    /// Makes a configuration the committed one. Returns whether the members changed.
    pub fn adopt(&mut self, ensemble: Arc<Ensemble>) -> bool {
        let changed = !ensemble.same_members(self.electorate.committed());
        let pending = self.electorate.pending().cloned();
        self.set_ensembles(ensemble, pending);
        changed
    }

    /// Ends the search.
    pub fn decide(&mut self, vote: Vote, out: &mut Vec<Output>) {
        self.vote = vote;
        self.state = match self.peer_type {
            _ if vote.leader == self.me.0 => PeerState::Leading,
            PeerType::Participant => PeerState::Following,
            PeerType::Observer => PeerState::Observing,
        };
        out.push(Output::Decided { leader: vote.candidate(), state: self.state });
    }
}
