//! Votes: their order, and which of them count for the same leader.

use crate::zab::wire::Notification;
use crate::zab::{PeerState, ServerId};

/// Who should lead, and why. Integers are as on the wire; see [`Vote::NONE`].
///
/// Ordered as votes are compared: the newer epoch wins, then the longer history, then the larger id. The epoch
/// comes first because it is the epoch of the *history taken over*: a longer history of an older epoch has an
/// end that nobody committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// Epoch of the candidate's history.
    pub peer_epoch: i64,
    /// End of the candidate's history.
    pub zxid: i64,
    /// The candidate.
    pub leader: i64,
}

impl Vote {
    /// What a server without a vote proposes: worse than any vote, and a candidate that does not exist.
    pub const NONE: Vote = Vote { peer_epoch: i64::MIN, zxid: i64::MIN, leader: i64::MIN };

    pub(super) fn of(n: &Notification) -> Vote {
        Vote { peer_epoch: n.peer_epoch, zxid: n.zxid, leader: n.leader }
    }

    pub(super) fn candidate(&self) -> ServerId {
        ServerId(self.leader)
    }
}

/// What another server said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub state: PeerState,
    pub vote: Vote,
    pub round: i64,
    pub version: i32,
    pub at_ms: u64,
}

impl Report {
    pub fn of(n: &Notification, now_ms: u64) -> Report {
        Report { state: n.state, vote: Vote::of(n), round: n.round, version: n.version, at_ms: now_ms }
    }

    /// Whether both report the same established leader.
    ///
    /// Servers joined it at different times, in different rounds and with different zxids, so only leader and
    /// epoch are compared (ZOOKEEPER-1732, 1805); version 0 did not refresh the epoch, so then only the leader.
    /// One that is still looking must agree in everything.
    pub fn same_leader(&self, other: &Report) -> bool {
        if self.state == PeerState::Looking || other.state == PeerState::Looking {
            return self.vote == other.vote && self.round == other.round;
        }
        let versions_differ = (self.version > 0) != (other.version > 0);
        self.vote.leader == other.vote.leader
            && (versions_differ || self.vote.peer_epoch == other.vote.peer_epoch)
    }

    /// Whether the sender stands behind the proposal `vote` of `round`: votes for it, or already acts on it (then
    /// its epoch may have been refreshed).
    pub fn backs(&self, vote: &Vote, round: i64) -> bool {
        let established = matches!(self.state, PeerState::Following | PeerState::Leading);
        self.round == round && (self.vote == *vote || (established && self.vote.leader == vote.leader))
    }
}
