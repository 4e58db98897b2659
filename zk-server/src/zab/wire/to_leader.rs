//! What a learner says to its leader.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{DecodeError, Reader, SessionId, Zxid};

use super::packet::{kind, put_bare, put_data, put_identities, put_prefix};
use super::{PROTOCOL_VERSION, QuorumPacket, WireError};
use crate::auth::Identity;
use crate::zab::{Epoch, ServerId};

/// What a [`QuorumPacket`] of a learner means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLeader {
    /// The first packet of a follower.
    FollowerInfo(LearnerInfo),
    /// The first packet of an observer.
    ObserverInfo(LearnerInfo),
    /// The learner has accepted the leader's epoch.
    AckEpoch {
        /// The end of the learner's log; -1 if it has no database yet.
        last: Zxid,
        /// The epoch of its history. `None`: it had accepted this epoch before, and must not be counted.
        current: Option<Epoch>,
    },
    /// The transaction is durable; with [`Epoch::start`]: the answer to NEWLEADER, and to UPTODATE.
    Ack(Zxid),
    /// A request of a client that the leader has to decide.
    Request {
        /// The client's session.
        session: SessionId,
        /// The session's request number.
        cxid: i32,
        /// Type of the request, as clients number them; not checked.
        op: i32,
        /// The request's record.
        body: Bytes,
        /// Identities of the client's connection. None at all for requests of the server itself.
        auth: Vec<Identity>,
    },
    /// The answer to a PING.
    Ping {
        /// The PING's zxid.
        zxid: Zxid,
        /// Sessions whose clients were heard of since the last one, and their timeouts in ms.
        touched: Vec<(SessionId, i32)>,
    },
    /// A client wants to go on with its session here.
    Revalidate {
        /// The session.
        session: SessionId,
        /// Its timeout.
        timeout_ms: i32,
    },
    /// A type that learners do not send. Ignored once the learner is synchronised.
    Other(i32),
}

/// Who a learner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnerInfo {
    /// The highest epoch that it has accepted.
    pub accepted: Epoch,
    /// Its id. Not checked.
    pub server: ServerId,
    /// Below [`PROTOCOL_VERSION`] it does not know the epoch handshake.
    pub protocol_version: i32,
    /// Version of its configuration; 0 before 3.5.
    pub config_version: i64,
}

impl LearnerInfo {
    /// What a server of this version says.
    pub fn new(accepted: Epoch, server: ServerId, config_version: i64) -> Self {
        LearnerInfo { accepted, server, protocol_version: PROTOCOL_VERSION, config_version }
    }

    fn read(packet: &QuorumPacket) -> Result<Self, WireError> {
        let accepted = Epoch::of(Zxid(packet.zxid));
        if accepted > Epoch::MAX {
            return Err(WireError::Value { kind: packet.kind, what: "the zxid", value: packet.zxid });
        }
        packet.read(|r| {
            // Before 3.5 without configuration, before 3.4 without version.
            Ok(LearnerInfo {
                accepted,
                server: ServerId(r.i64()?),
                protocol_version: if r.remaining() == 0 { 1 } else { r.i32()? },
                config_version: if r.remaining() == 0 { 0 } else { r.i64()? },
            })
        })
    }

    fn encode(&self, kind: i32, out: &mut Vec<u8>) {
        put_prefix(out, kind, self.accepted.start().0, Some(8 + 4 + 8));
        out.put_long(self.server.0);
        out.put_int(self.protocol_version);
        out.put_long(self.config_version);
        put_identities(out, None);
    }
}

impl QuorumPacket {
    /// Reads the data; null reads as empty.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, WireError> {
        let mut r = Reader::new(self.data.as_deref().unwrap_or_default());
        read(&mut r).map_err(|source| WireError::Data { kind: self.kind, source })
    }

    /// What is left of the data behind the first `at` bytes.
    pub(super) fn data_from(&self, at: usize) -> Bytes {
        match &self.data {
            Some(data) if data.len() > at => data.slice(at..),
            _ => Bytes::new(),
        }
    }
}

impl TryFrom<QuorumPacket> for ToLeader {
    type Error = WireError;

    fn try_from(packet: QuorumPacket) -> Result<Self, WireError> {
        Ok(match packet.kind {
            kind::FOLLOWER_INFO => ToLeader::FollowerInfo(LearnerInfo::read(&packet)?),
            kind::OBSERVER_INFO => ToLeader::ObserverInfo(LearnerInfo::read(&packet)?),
            kind::ACK_EPOCH => {
                let current = match packet.read(|r| r.i32())? {
                    -1 => None,
                    epoch => Some(Epoch(u32::try_from(epoch).map_err(|_| WireError::Value {
                        kind: packet.kind,
                        what: "the epoch",
                        value: epoch.into(),
                    })?)),
                };
                ToLeader::AckEpoch { last: Zxid(packet.zxid), current }
            }
            kind::ACK => ToLeader::Ack(Zxid(packet.zxid)),
            kind::REQUEST => {
                let (session, cxid, op, at) =
                    packet.read(|r| Ok((r.i64()?, r.i32()?, r.i32()?, r.position())))?;
                let body = packet.data_from(at);
                let auth = packet.auth.unwrap_or_default();
                ToLeader::Request { session: SessionId(session), cxid, op, body, auth }
            }
            kind::PING => {
                let touched = packet.read(|r| {
                    let mut touched = Vec::with_capacity(r.remaining() / TOUCH);
                    while r.remaining() > 0 {
                        touched.push((SessionId(r.i64()?), r.i32()?));
                    }
                    Ok(touched)
                })?;
                ToLeader::Ping { zxid: Zxid(packet.zxid), touched }
            }
            kind::REVALIDATE => {
                let (session, timeout_ms) = packet.read(|r| Ok((SessionId(r.i64()?), r.i32()?)))?;
                ToLeader::Revalidate { session, timeout_ms }
            }
            other => ToLeader::Other(other),
        })
    }
}

/// Bytes of a touched session.
const TOUCH: usize = 8 + 4;

impl ToLeader {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToLeader::FollowerInfo(info) => info.encode(kind::FOLLOWER_INFO, out),
            ToLeader::ObserverInfo(info) => info.encode(kind::OBSERVER_INFO, out),
            ToLeader::AckEpoch { last, current } => {
                let epoch = current.map_or(-1, |epoch| epoch.0.cast_signed());
                put_data(out, kind::ACK_EPOCH, last.0, &epoch.to_be_bytes(), &[]);
            }
            ToLeader::Ack(zxid) => put_bare(out, kind::ACK, zxid.0),
            ToLeader::Request { session, cxid, op, body, auth } => {
                put_prefix(out, kind::REQUEST, -1, Some(8 + 4 + 4 + body.len()));
                out.put_long(session.0);
                out.put_int(*cxid);
                out.put_int(*op);
                out.extend_from_slice(body);
                put_identities(out, Some(&auth[..]).filter(|auth| !auth.is_empty()));
            }
            ToLeader::Ping { zxid, touched } => {
                put_prefix(out, kind::PING, zxid.0, Some(TOUCH * touched.len()));
                for (session, timeout_ms) in touched {
                    out.put_long(session.0);
                    out.put_int(*timeout_ms);
                }
                put_identities(out, None);
            }
            ToLeader::Revalidate { session, timeout_ms } => {
                let (session, timeout_ms) = (session.0.to_be_bytes(), timeout_ms.to_be_bytes());
                put_data(out, kind::REVALIDATE, -1, &session, &timeout_ms);
            }
            ToLeader::Other(kind) => put_bare(out, *kind, 0),
        }
    }
}
