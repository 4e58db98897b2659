//! Authentication between servers: messages that come after the hello on an election port, and before the first
//! packet on a quorum port, when it is switched on.
//!
//! ```text
//! magic i64 | status i32 | token: buffer
//! ```

use bytes::{Buf, Bytes, BytesMut};
use zk_proto::Reader;
use zk_proto::jute::Writer;

use super::WireError;

const MAGIC: i64 = 0x5f24_3501_3501_edcc;
/// Tokens of DIGEST-MD5 have a few hundred bytes, those of Kerberos up to 64 KiB.
const TOKEN_BYTES_MAX: usize = 128 << 10;

/// One step of an authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumAuth {
    /// How far it is.
    pub status: SaslStatus,
    /// What the mechanism says.
    pub token: Bytes,
}

/// How far an authentication is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslStatus {
    /// It goes on.
    InProgress,
    /// It succeeded.
    Success,
    /// It failed.
    Error,
}

impl QuorumAuth {
    /// Whether `bytes` begin with an authentication; `None` when 8 bytes are needed to tell.
    pub fn starts(bytes: &[u8]) -> Option<bool> {
        Reader::new(bytes).i64().ok().map(|magic| magic == MAGIC)
    }

    /// Takes the next message off `buffer`, or returns `None` when more bytes are needed.
    ///
    /// # Errors
    /// No message, or a token that is too long.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<QuorumAuth>, WireError> {
        let mut r = Reader::new(buffer);
        let (Ok(magic), Ok(status), Ok(length)) = (r.i64(), r.i32(), r.i32()) else { return Ok(None) };
        let bad = |what, value| WireError::Sasl { what, value };
        if magic != MAGIC {
            return Err(bad("the first long", magic));
        }
        let status = match status {
            0 => SaslStatus::InProgress,
            1 => SaslStatus::Success,
            -1 => SaslStatus::Error,
            other => return Err(bad("status", other.into())),
        };
        let token = match usize::try_from(length) {
            Ok(length) if length <= TOKEN_BYTES_MAX => length,
            // Null is as good as empty.
            Err(_) if length == -1 => 0,
            _ => return Err(bad("a token of length", length.into())),
        };
        let start = r.position();
        if r.take(token).is_err() {
            return Ok(None);
        }
        buffer.advance(start);
        Ok(Some(QuorumAuth { status, token: buffer.split_to(token).freeze() }))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_long(MAGIC);
        out.put_int(match self.status {
            SaslStatus::InProgress => 0,
            SaslStatus::Success => 1,
            SaslStatus::Error => -1,
        });
        out.put_buffer(Some(&self.token));
    }
}
