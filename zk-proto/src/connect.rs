//! The session handshake. These frames have no header in front.

use crate::id::{SessionId, Zxid};
use crate::jute::{DecodeError, Reader, Writer};

/// First frame of a connection, client to server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// 0; servers ignore it.
    pub protocol_version: i32,
    /// Highest zxid that the client has seen.
    pub last_zxid_seen: Zxid,
    /// Wanted session timeout, ms.
    pub timeout_ms: i32,
    /// The session to re-attach to, or [`SessionId::NONE`].
    pub session_id: SessionId,
    /// The session's password.
    pub passwd: Option<&'a [u8]>,
    /// Whether a read-only server will do; `None` when the client is too old to send it.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads the record; what follows it is ignored.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(ConnectRequest {
            protocol_version: r.i32()?,
            last_zxid_seen: Zxid(r.i64()?),
            timeout_ms: r.i32()?,
            session_id: SessionId(r.i64()?),
            passwd: r.buffer()?,
            read_only: if r.remaining() > 0 { Some(r.bool()?) } else { None },
        })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.protocol_version);
        w.put_long(self.last_zxid_seen.0);
        w.put_int(self.timeout_ms);
        w.put_long(self.session_id.0);
        w.put_buffer(self.passwd);
        if let Some(read_only) = self.read_only {
            w.put_bool(read_only);
        }
    }
}

/// Answer to the connect request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectResponse<'a> {
    /// 0.
    pub protocol_version: i32,
    /// Negotiated session timeout, ms; 0 means refused.
    pub timeout_ms: i32,
    /// The session, [`SessionId::NONE`] when refused.
    pub session_id: SessionId,
    /// The session's password, 16 bytes.
    pub passwd: Option<&'a [u8]>,
    /// Whether the server is read-only; `None` when the request did not have the field.
    pub read_only: Option<bool>,
}

impl<'a> ConnectResponse<'a> {
    /// The answer that refuses a session that is unknown, expired or not the caller's.
    pub fn refused(with_read_only: bool) -> ConnectResponse<'static> {
        ConnectResponse {
            protocol_version: 0,
            timeout_ms: 0,
            session_id: SessionId::NONE,
            passwd: Some(&[0; 16]),
            read_only: with_read_only.then_some(false),
        }
    }

    /// Reads the record.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(ConnectResponse {
            protocol_version: r.i32()?,
            timeout_ms: r.i32()?,
            session_id: SessionId(r.i64()?),
            passwd: r.buffer()?,
            read_only: if r.remaining() > 0 { Some(r.bool()?) } else { None },
        })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.protocol_version);
        w.put_int(self.timeout_ms);
        w.put_long(self.session_id.0);
        w.put_buffer(self.passwd);
        if let Some(read_only) = self.read_only {
            w.put_bool(read_only);
        }
    }
}
