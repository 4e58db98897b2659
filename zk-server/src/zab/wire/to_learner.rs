//! What a leader says to a learner.

use bytes::Bytes;
use zk_proto::{SessionId, Zxid};

use super::packet::{kind, put_bare, put_data};
use super::{PROTOCOL_VERSION, QuorumPacket, WireError};
use crate::storage::RecordHeader;
use crate::zab::{Epoch, Proposal};

/// What a [`QuorumPacket`] of a leader means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLearner {
    /// The answer to the learner's first packet.
    LeaderInfo {
        /// The epoch that the leader wants to lead.
        epoch: Epoch,
    },
    /// The transactions that the learner lacks follow.
    Diff(Zxid),
    /// The learner has to give up what it has behind this zxid.
    Trunc(Zxid),
    /// A tree follows, not in packets: see [`super::SnapStreamDecoder`].
    Snap(Zxid),
    /// Synchronisation is complete.
    NewLeader {
        /// [`Epoch::start`] of the new epoch.
        zxid: Zxid,
        /// Text of the leader's newest configuration; not checked.
        config: Option<Bytes>,
    },
    /// The learner may serve clients.
    UpToDate,
    /// A transaction to log and acknowledge.
    Proposal(Proposal),
    /// A proposed transaction is decided.
    Commit(Zxid),
    /// A decided transaction, for observers.
    Inform(Proposal),
    /// [`ToLearner::Commit`] of a reconfiguration.
    CommitAndActivate {
        /// The transaction.
        zxid: Zxid,
        /// Id of the server that should lead from now on.
        leader: i64,
    },
    /// [`ToLearner::Inform`] of a reconfiguration.
    InformAndActivate {
        /// The transaction.
        proposal: Proposal,
        /// Id of the server that should lead from now on.
        leader: i64,
    },
    /// Asks whether the learner lives, and for the sessions whose clients it heard.
    Ping(Zxid),
    /// The answer to a learner's REVALIDATE.
    Revalidate {
        /// The session.
        session: SessionId,
        /// Whether it goes on.
        valid: bool,
    },
    /// The answer to the learner's oldest unanswered `sync` request.
    Sync,
    /// A type that leaders do not send. Ignored once the learner is synchronised.
    Other(i32),
}

impl TryFrom<QuorumPacket> for ToLearner {
    type Error = WireError;

    /// Besides undecodable data, an error is a transaction whose header does not name the packet's zxid.
    fn try_from(packet: QuorumPacket) -> Result<Self, WireError> {
        let zxid = Zxid(packet.zxid);
        Ok(match packet.kind {
            kind::LEADER_INFO => {
                // It says its protocol version, too; the packet's existence says enough.
                let epoch = Epoch::of(zxid);
                if epoch > Epoch::MAX {
                    return Err(WireError::Value { kind: packet.kind, what: "the zxid", value: zxid.0 });
                }
                ToLearner::LeaderInfo { epoch }
            }
            kind::DIFF => ToLearner::Diff(zxid),
            kind::TRUNC => ToLearner::Trunc(zxid),
            kind::SNAP => ToLearner::Snap(zxid),
            kind::NEW_LEADER => ToLearner::NewLeader { zxid, config: packet.data },
            kind::UP_TO_DATE => ToLearner::UpToDate,
            kind::PROPOSAL => ToLearner::Proposal(proposal(&packet, 0)?),
            kind::COMMIT => ToLearner::Commit(zxid),
            kind::INFORM => ToLearner::Inform(proposal(&packet, 0)?),
            kind::COMMIT_AND_ACTIVATE => {
                ToLearner::CommitAndActivate { zxid, leader: packet.read(|r| r.i64())? }
            }
            kind::INFORM_AND_ACTIVATE => {
                let (leader, at) = packet.read(|r| Ok((r.i64()?, r.position())))?;
                ToLearner::InformAndActivate { proposal: proposal(&packet, at)?, leader }
            }
            kind::PING => ToLearner::Ping(zxid),
            kind::REVALIDATE => {
                let (session, valid) = packet.read(|r| Ok((SessionId(r.i64()?), r.bool()?)))?;
                ToLearner::Revalidate { session, valid }
            }
            kind::SYNC => ToLearner::Sync,
            other => ToLearner::Other(other),
        })
    }
}

/// The transaction in a packet, behind the first `at` bytes of its data.
fn proposal(packet: &QuorumPacket, at: usize) -> Result<Proposal, WireError> {
    let payload = packet.data_from(at);
    let header = RecordHeader::decode(&payload);
    let header = header.map_err(|source| WireError::Data { kind: packet.kind, source })?;
    if header.zxid.0 != packet.zxid {
        let (kind, value) = (packet.kind, header.zxid.0);
        return Err(WireError::Value { kind, what: "a transaction of another zxid:", value });
    }
    Ok(Proposal { zxid: header.zxid, payload })
}

impl ToLearner {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToLearner::LeaderInfo { epoch } => {
                put_data(out, kind::LEADER_INFO, epoch.start().0, &PROTOCOL_VERSION.to_be_bytes(), &[]);
            }
            ToLearner::Diff(zxid) => put_bare(out, kind::DIFF, zxid.0),
            ToLearner::Trunc(zxid) => put_bare(out, kind::TRUNC, zxid.0),
            ToLearner::Snap(zxid) => put_bare(out, kind::SNAP, zxid.0),
            ToLearner::NewLeader { zxid, config: Some(config) } => {
                put_data(out, kind::NEW_LEADER, zxid.0, config, &[]);
            }
            ToLearner::NewLeader { zxid, config: None } => put_bare(out, kind::NEW_LEADER, zxid.0),
            ToLearner::UpToDate => put_bare(out, kind::UP_TO_DATE, -1),
            ToLearner::Proposal(proposal) => Self::encode_proposal(proposal, out),
            ToLearner::Commit(zxid) => Self::encode_commit(*zxid, out),
            ToLearner::Inform(proposal) => Self::encode_inform(proposal, out),
            ToLearner::CommitAndActivate { zxid, leader } => {
                put_data(out, kind::COMMIT_AND_ACTIVATE, zxid.0, &leader.to_be_bytes(), &[]);
            }
            ToLearner::InformAndActivate { proposal: Proposal { zxid, payload }, leader } => {
                put_data(out, kind::INFORM_AND_ACTIVATE, zxid.0, &leader.to_be_bytes(), payload);
            }
            ToLearner::Ping(zxid) => put_bare(out, kind::PING, zxid.0),
            ToLearner::Revalidate { session, valid } => {
                put_data(out, kind::REVALIDATE, -1, &session.0.to_be_bytes(), &[u8::from(*valid)]);
            }
            ToLearner::Sync => put_bare(out, kind::SYNC, 0),
            ToLearner::Other(kind) => put_bare(out, *kind, 0),
        }
    }

    /// Appends a [`ToLearner::Proposal`], without the need to own the transaction.
    pub fn encode_proposal(proposal: &Proposal, out: &mut Vec<u8>) {
        put_data(out, kind::PROPOSAL, proposal.zxid.0, &proposal.payload, &[]);
    }

    /// Appends a [`ToLearner::Commit`].
    pub fn encode_commit(zxid: Zxid, out: &mut Vec<u8>) {
        put_bare(out, kind::COMMIT, zxid.0);
    }

    /// Appends a [`ToLearner::Inform`], without the need to own the transaction.
    pub fn encode_inform(proposal: &Proposal, out: &mut Vec<u8>) {
        put_data(out, kind::INFORM, proposal.zxid.0, &proposal.payload, &[]);
    }
}
