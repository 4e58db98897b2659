//! Records of the transaction log: framing and the header that every transaction starts with.
//!
//! ```text
//! checksum i64 | length i32 | payload: header (32), body, optional digest (12) | 'B'
//! ```
//!
//! The checksum is Adler-32 of the payload alone: neither the length nor the end byte is covered.

use zk_proto::Zxid;
use zk_proto::jute::{DecodeError, Reader, Writer};

/// Bytes that framing adds to a payload: checksum, length, end byte.
pub const FRAME_OVERHEAD: usize = PREFIX + 1;

/// Bytes in front of the payload.
pub(crate) const PREFIX: usize = 12;

/// The byte behind each payload.
pub(crate) const END_BYTE: u8 = b'B';

/// The part of a transaction that storage and replication look at; body and digest follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Session that asked for the change; 0 for the server's own.
    pub client_id: i64,
    /// The session's request number (xid); 0 for the server's own.
    pub cxid: i32,
    /// Position in the history.
    pub zxid: Zxid,
    /// Leader's wall clock, ms since the Unix epoch.
    pub time_ms: i64,
    /// Transaction type, Apache's numbers (1 create, -10 createSession, ...).
    pub kind: i32,
}

impl RecordHeader {
    /// Encoded size in bytes.
    pub const LEN: usize = 32;

    /// Reads the header at the start of `payload`.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(payload))
    }

    /// Reads the header and leaves the reader at the body.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(RecordHeader {
            client_id: r.i64()?,
            cxid: r.i32()?,
            zxid: Zxid(r.i64()?),
            time_ms: r.i64()?,
            kind: r.i32()?,
        })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_long(self.client_id);
        out.put_int(self.cxid);
        out.put_long(self.zxid.0);
        out.put_long(self.time_ms);
        out.put_int(self.kind);
    }
}

/// Appends one framed record to `out`. `payload` writes header, body and digest behind what is there, so
/// that a transaction is encoded once, where it stays. Records of a batch are framed back to back.
///
/// Panics when the payload is longer than an `int` can say; requests are bounded far below that.
pub fn frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    payload(out);
    let body = start + PREFIX;
    let length = i32::try_from(out.len() - body).expect("a record is shorter than 2 GiB");
    let checksum = i64::from(checksum(&out[body..]));
    out[start..start + 8].copy_from_slice(&checksum.to_be_bytes());
    out[start + 8..body].copy_from_slice(&length.to_be_bytes());
    out.push(END_BYTE);
}

/// Whether `next` can stand behind `prev` in a log: the following number of the same epoch, or the start of a
/// later one. (Apache's standalone server counts from the end of one epoch into 0 of the next.)
pub(crate) fn follows(prev: Zxid, next: Zxid) -> bool {
    prev.next() == Some(next) || next.epoch() > prev.epoch() && next.counter() <= 1
}

/// Adler-32 as zlib computes it.
pub(crate) fn checksum(payload: &[u8]) -> u32 {
    let mut adler = simd_adler32::Adler32::new();
    adler.write(payload);
    adler.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_checksum_length_payload_end() {
        let mut out = b"before".to_vec();
        frame(&mut out, |out| out.extend_from_slice(b"Wikipedia"));
        // The well-known Adler-32 of "Wikipedia".
        assert_eq!(&out[6..], b"\0\0\0\0\x11\xe6\x03\x98\0\0\0\x09WikipediaB");
    }

    #[test]
    fn header_round_trip() {
        let header = RecordHeader {
            client_id: -5,
            cxid: 7,
            zxid: Zxid::new(2, 3),
            time_ms: 1_700_000_000_000,
            kind: -11,
        };
        let mut out = Vec::new();
        header.encode(&mut out);
        assert_eq!(out.len(), RecordHeader::LEN);
        assert_eq!(RecordHeader::decode(&out), Ok(header));
        assert!(RecordHeader::decode(&out[..31]).is_err());
    }
}
