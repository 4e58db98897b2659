//! Packets of the quorum port.
//!
//! ```text
//! type i32 | zxid i64 | data: buffer | identities: vector of (scheme string, id string)
//! ```
//!
//! No length stands in front: where a packet ends shows only inside.

use bytes::{Buf, Bytes, BytesMut};
use zk_proto::Reader;
use zk_proto::jute::{Writer, decode_string};

use super::WireError;
use crate::auth::Identity;

/// Type numbers of packets.
pub mod kind {
    #![allow(missing_docs)]
    pub const REQUEST: i32 = 1;
    pub const PROPOSAL: i32 = 2;
    pub const ACK: i32 = 3;
    pub const COMMIT: i32 = 4;
    pub const PING: i32 = 5;
    pub const REVALIDATE: i32 = 6;
    pub const SYNC: i32 = 7;
    pub const INFORM: i32 = 8;
    pub const COMMIT_AND_ACTIVATE: i32 = 9;
    pub const NEW_LEADER: i32 = 10;
    pub const FOLLOWER_INFO: i32 = 11;
    pub const UP_TO_DATE: i32 = 12;
    pub const DIFF: i32 = 13;
    pub const TRUNC: i32 = 14;
    pub const SNAP: i32 = 15;
    pub const OBSERVER_INFO: i32 = 16;
    pub const LEADER_INFO: i32 = 17;
    pub const ACK_EPOCH: i32 = 18;
    pub const INFORM_AND_ACTIVATE: i32 = 19;
}

/// Type, zxid, length of the data.
const PREFIX: usize = 4 + 8 + 4;
/// More identities than any connection of a client can have.
const IDENTITIES_MAX: usize = 1024;
/// Bytes of one scheme or id.
const IDENTITY_BYTES_MAX: usize = 64 << 10;

/// A packet as it lies on the wire. What it means is said by [`super::ToLeader`] and [`super::ToLearner`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumPacket {
    /// One of [`kind`].
    pub kind: i32,
    /// Depends on the type.
    pub zxid: i64,
    /// Depends on the type; `None` is null, which differs from empty. A slice of the buffer that the packet was
    /// decoded from, which lives as long as the slice does.
    pub data: Option<Bytes>,
    /// The identities of the client, in requests.
    pub auth: Option<Vec<Identity>>,
}

impl QuorumPacket {
    /// A packet without data.
    pub fn bare(kind: i32, zxid: i64) -> Self {
        QuorumPacket { kind, zxid, data: None, auth: None }
    }

    /// Takes the next packet off `buffer`, or returns `None` and leaves `buffer` alone when more bytes are
    /// needed. `data_max` bounds the data in bytes.
    ///
    /// # Errors
    /// A length is negative or out of bounds, or an identity is null.
    pub fn decode(buffer: &mut BytesMut, data_max: usize) -> Result<Option<QuorumPacket>, WireError> {
        let Some(Layout { kind, zxid, data, auth, end }) = Layout::find(buffer, data_max)? else {
            return Ok(None);
        };
        let data = match data {
            Some(length @ 1..) => Some(buffer.split_to(end).freeze().slice(PREFIX..PREFIX + length)),
            // Most packets are acknowledgements and commits: no need to share the buffer with them.
            other => {
                buffer.advance(end);
                other.map(|_| Bytes::new())
            }
        };
        Ok(Some(QuorumPacket { kind, zxid, data, auth }))
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_prefix(out, self.kind, self.zxid, self.data.as_ref().map(Bytes::len));
        out.extend_from_slice(self.data.as_deref().unwrap_or_default());
        put_identities(out, self.auth.as_deref());
    }
}

/// A complete packet in a buffer.
struct Layout {
    kind: i32,
    zxid: i64,
    /// Length of the data, which follows the prefix.
    data: Option<usize>,
    auth: Option<Vec<Identity>>,
    /// Length of the packet.
    end: usize,
}

impl Layout {
    fn find(bytes: &[u8], data_max: usize) -> Result<Option<Layout>, WireError> {
        let mut r = Reader::new(bytes);
        let (Ok(kind), Ok(zxid), Ok(length)) = (r.i32(), r.i64(), r.i32()) else { return Ok(None) };
        let data = bounded(kind, "bytes of data", length, data_max)?;
        let (Ok(_), Ok(count)) = (r.take(data.unwrap_or(0)), r.i32()) else { return Ok(None) };
        let Some(count) = bounded(kind, "identities", count, IDENTITIES_MAX)? else {
            return Ok(Some(Layout { kind, zxid, data, auth: None, end: r.position() }));
        };
        let mut auth = Vec::new();
        for _ in 0..count {
            let Some(scheme) = text(&mut r, kind)? else { return Ok(None) };
            let Some(id) = text(&mut r, kind)? else { return Ok(None) };
            auth.push(Identity::new(scheme, id));
        }
        Ok(Some(Layout { kind, zxid, data, auth: Some(auth), end: r.position() }))
    }
}

/// A scheme or an id; `None` when it has not arrived completely.
fn text(r: &mut Reader<'_>, kind: i32) -> Result<Option<String>, WireError> {
    const WHAT: &str = "bytes of an identity";
    let Ok(length) = r.i32() else { return Ok(None) };
    let error = WireError::Length { kind, what: WHAT, length, max: IDENTITY_BYTES_MAX };
    let length = bounded(kind, WHAT, length, IDENTITY_BYTES_MAX)?.ok_or(error)?;
    Ok(r.take(length).ok().map(|bytes| decode_string(bytes).into_owned()))
}

/// The length that stands for `length`, `None` for null.
fn bounded(kind: i32, what: &'static str, length: i32, max: usize) -> Result<Option<usize>, WireError> {
    match usize::try_from(length) {
        Ok(n) if n <= max => Ok(Some(n)),
        Err(_) if length == -1 => Ok(None),
        _ => Err(WireError::Length { kind, what, length, max }),
    }
}

/// Appends what stands in front of the data.
pub(super) fn put_prefix(out: &mut Vec<u8>, kind: i32, zxid: i64, data: Option<usize>) {
    let mut prefix = [0xff; PREFIX];
    prefix[..4].copy_from_slice(&kind.to_be_bytes());
    prefix[4..12].copy_from_slice(&zxid.to_be_bytes());
    // Data comes out of frames and log records, whose lengths are ints.
    if let Some(length) = data.map(|length| i32::try_from(length).unwrap_or(i32::MAX)) {
        prefix[12..].copy_from_slice(&length.to_be_bytes());
    }
    out.extend_from_slice(&prefix);
}

/// Appends what stands behind the data.
pub(super) fn put_identities(out: &mut Vec<u8>, auth: Option<&[Identity]>) {
    let Some(auth) = auth else { return out.put_int(-1) };
    out.put_len(auth.len());
    for Identity { scheme, id } in auth {
        out.put_str(scheme);
        out.put_str(id);
    }
}

/// Appends a packet without data.
pub(super) fn put_bare(out: &mut Vec<u8>, kind: i32, zxid: i64) {
    put_prefix(out, kind, zxid, None);
    put_identities(out, None);
}

/// Appends a packet with data of two pieces.
pub(super) fn put_data(out: &mut Vec<u8>, kind: i32, zxid: i64, first: &[u8], second: &[u8]) {
    put_prefix(out, kind, zxid, Some(first.len() + second.len()));
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    put_identities(out, None);
}
