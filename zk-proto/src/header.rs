//! Request and reply headers.

use crate::code::ErrorCode;
use crate::id::Zxid;
use crate::jute::{DecodeError, Reader, Writer};

/// Reserved values of `xid`.
pub mod xid {
    /// A watch event (server to client).
    pub const EVENT: i32 = -1;
    /// Ping; the reply to a ping always has it.
    pub const PING: i32 = -2;
    /// Auth packet.
    pub const AUTH: i32 = -4;
    /// setWatches of the C client.
    pub const SET_WATCHES: i32 = -8;
}

/// In front of every request after the connect request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Chosen by the client, echoed in the reply.
    pub xid: i32,
    /// Operation code, not checked here.
    pub op: i32,
}

impl RequestHeader {
    /// Bytes on the wire.
    pub const WIRE_LEN: usize = 8;

    /// Reads the record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(RequestHeader { xid: r.i32()?, op: r.i32()? })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.xid);
        w.put_int(self.op);
    }
}

/// In front of every reply and event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// That of the request, or a reserved value.
    pub xid: i32,
    /// The server's last processed transaction when the reply was built.
    pub zxid: Zxid,
    /// 0 or an error code.
    pub err: ErrorCode,
}

impl ReplyHeader {
    /// Bytes on the wire.
    pub const WIRE_LEN: usize = 16;

    /// Reads the record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(ReplyHeader { xid: r.i32()?, zxid: Zxid(r.i64()?), err: ErrorCode(r.i32()?) })
    }

    /// Appends the record.
    pub fn encode(&self, w: &mut Vec<u8>) {
        w.put_int(self.xid);
        w.put_long(self.zxid.0);
        w.put_int(self.err.0);
    }
}
