//! What operators see of a member.

use zk_proto::Zxid;

use super::{Member, Phase, Serving};
use crate::zab::leader::LeaderStatus;
use crate::zab::{Epochs, PeerState, PeerType, ServerId};

/// A member at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// This server.
    pub me: ServerId,
    /// What it does.
    pub state: PeerState,
    /// Whom it follows, or itself.
    pub leader: Option<ServerId>,
    /// Which clients it serves.
    pub serving: Serving,
    /// Whether it has a vote.
    pub voter: bool,
    /// The epochs on its disk.
    pub epochs: Epochs,
    /// Up to here history is known to be committed.
    pub committed: Zxid,
    /// The configuration in force, as text.
    pub membership: String,
    /// How many servers have a vote.
    pub voters: usize,
    /// As a leader: since when, ms of the clock of [`super::Member::step`].
    pub leading_since_ms: Option<u64>,
    /// Sizes of the last, the smallest and the largest proposal of this term.
    pub proposal_bytes: [Option<u64>; 3],
    /// As a leader: the others.
    pub leading: Option<LeaderStatus>,
    /// As a learner: what it is doing, for people.
    pub learning: Option<&'static str>,
}

impl Member {
    /// What it is doing.
    pub fn status(&self) -> MemberStatus {
        let me = self.options.me;
        let (state, leader) = match &self.phase {
            Phase::New | Phase::Looking(_) | Phase::Stopping(_) => (PeerState::Looking, None),
            Phase::Leading(_) => (PeerState::Leading, Some(me)),
            Phase::Learning(learner) => {
                let observer = self.committed.peer_type(me) == Some(PeerType::Observer);
                let state = if observer { PeerState::Observing } else { PeerState::Following };
                (state, Some(learner.leader()))
            }
        };
        MemberStatus {
            me,
            state,
            leader,
            serving: self.serving,
            voter: self.committed.is_voter(me),
            epochs: self.epochs,
            committed: self.mark,
            membership: self.committed.to_text(),
            voters: self.committed.voters().count(),
            leading_since_ms: match self.phase {
                Phase::Leading(_) => self.active_since_ms,
                _ => None,
            },
            proposal_bytes: self.proposal_bytes,
            leading: match &self.phase {
                Phase::Leading(leader) => Some(leader.status()),
                _ => None,
            },
            learning: match &self.phase {
                Phase::Learning(learner) => Some(learner.phase()),
                _ => None,
            },
        }
    }
}
