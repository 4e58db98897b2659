//! Connecting and agreeing on the epoch: FOLLOWERINFO, LEADERINFO, ACKEPOCH.

use zk_proto::Zxid;

use super::{Learner, Output, Phase, Reason, Role};
use crate::zab::wire::{LearnerInfo, ToLeader, ToLearner};
use crate::zab::{Epoch, PeerConn};

impl Learner {
    /// The connection to the leader is up (authenticated and encrypted as configured).
    pub fn connected(&mut self, now_ms: u64, conn: PeerConn, out: &mut Vec<Output>) {
        if self.phase != Phase::Dialing {
            out.push(Output::Close(conn));
            return;
        }
        self.conn = Some(conn);
        self.heard_ms = now_ms;
        self.phase = Phase::Discovery;
        let info = LearnerInfo::new(self.epochs.accepted, self.me, self.ensemble.version);
        let hello = match self.role {
            Role::Follower | Role::NonVoting => ToLeader::FollowerInfo(info),
            Role::Observer => ToLeader::ObserverInfo(info),
        };
        self.send([hello], out);
    }

    pub(super) fn discovery_packet(&mut self, packet: ToLearner, out: &mut Vec<Output>) {
        let ToLearner::LeaderInfo { epoch } = packet else {
            // Leaders of releases before 3.4 begin otherwise; they cannot be followed safely.
            return self.unexpected(&packet, out);
        };
        let accepted = self.epochs.accepted;
        if epoch < accepted {
            return self.end(Reason::OldEpoch { accepted, found: epoch }, out);
        }
        self.epoch = epoch;
        if epoch > accepted {
            self.phase = Phase::Accepting;
            out.push(Output::WriteAccepted(epoch));
        } else {
            self.ack_epoch(None, out);
        }
    }

    /// The accepted epoch is on disk: the leader may count on it.
    pub fn accepted_written(&mut self, now_ms: u64, epoch: Epoch, out: &mut Vec<Output>) {
        if self.phase != Phase::Accepting || epoch != self.epoch {
            return;
        }
        self.heard_ms = now_ms;
        self.epochs.accepted = epoch;
        self.ack_epoch(Some(self.epochs.current), out);
    }

    /// `current`: this server's history, to be compared and counted; `None`: it had accepted the epoch before.
    fn ack_epoch(&mut self, current: Option<Epoch>, out: &mut Vec<Output>) {
        // A leader of an epoch compares the histories of those that it counts. Only who is not counted may claim
        // to have less than it has.
        self.asked_snapshot = self.memory.ask_snapshot && current.is_none();
        let last = if self.asked_snapshot { Zxid::ZERO } else { self.last };
        self.phase = Phase::Transfer;
        self.send([ToLeader::AckEpoch { last, current }], out);
    }
}
