//! Requests encoded once and patched per use: nothing is encoded or allocated while a load runs.

use zk_proto::jute::frame;
use zk_proto::{DecodeError, OpCode, Reader, ReplyHeader, Request, RequestHeader};

/// Stands in a path of a [`Template`] where a number is written for each use.
pub const SLOT: &str = "########";

/// The text that [`Template::append`] writes for `number` in the place of a [`SLOT`].
pub fn slot_text(number: u32) -> String {
    format!("{number:08}")
}

/// Largest number that fits a [`SLOT`].
pub const SLOT_MAX: u32 = 99_999_999;

/// The frame of a request, ready to be copied, with the places of its xid and of the numbers in its paths.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    slots: Vec<usize>,
}

impl Template {
    const XID_AT: usize = 4;

    /// Encodes `request`; each [`SLOT`] in it becomes a number to fill in.
    pub fn new(request: &Request<'_>) -> Self {
        let mut bytes = Vec::new();
        frame(&mut bytes, |w| {
            RequestHeader { xid: 0, op: request.op() as i32 }.encode(w);
            request.encode(w);
        });
        let mut slots = Vec::new();
        let mut at = 0;
        while at + SLOT.len() <= bytes.len() {
            if &bytes[at..at + SLOT.len()] == SLOT.as_bytes() {
                slots.push(at);
                at += SLOT.len();
            } else {
                at += 1;
            }
        }
        Template { bytes, slots }
    }

    /// Appends the frame to `out`. `number` gives the number of each slot, in order.
    pub fn append(&self, out: &mut Vec<u8>, xid: i32, mut number: impl FnMut() -> u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let bytes = &mut out[start..];
        bytes[Self::XID_AT..Self::XID_AT + 4].copy_from_slice(&xid.to_be_bytes());
        for &at in &self.slots {
            write_digits(&mut bytes[at..at + SLOT.len()], number());
        }
    }
}

fn write_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The frame of a ping.
pub fn ping() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, |w| {
        RequestHeader { xid: zk_proto::xid::PING, op: OpCode::Ping as i32 }.encode(w);
    });
    bytes
}

/// Appends the frame that ends the session.
pub fn append_close(out: &mut Vec<u8>, xid: i32) {
    frame(out, |w| RequestHeader { xid, op: OpCode::CloseSession as i32 }.encode(w));
}

/// Appends the frame that opens a new session.
pub fn append_connect(out: &mut Vec<u8>, timeout_ms: i32) {
    let connect = zk_proto::ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: zk_proto::Zxid::ZERO,
        timeout_ms,
        session_id: zk_proto::SessionId::NONE,
        passwd: Some(&[0; 16]),
        read_only: Some(false),
    };
    frame(out, |w| connect.encode(w));
}

/// Splits a reply into its header and its body.
pub fn split(reply: &[u8]) -> Result<(ReplyHeader, &[u8]), DecodeError> {
    let mut reader = Reader::new(reply);
    let header = ReplyHeader::decode(&mut reader)?;
    Ok((header, reader.rest()))
}

/// A value of `len` bytes that contains no [`SLOT`] and does not compress to nothing.
pub fn payload(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.alphanumeric() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_request_with_xid_and_numbers_filled_in() {
        let request = |path: &'static str| Request::Delete { path: path.into(), version: -1 };
        let template = Template::new(&request("/a/########/b-########"));
        let mut out = vec![1, 2, 3];
        let mut numbers = [7, 12_345_678].into_iter();
        template.append(&mut out, 99, || numbers.next().unwrap());
        let mut expected = vec![1, 2, 3];
        frame(&mut expected, |w| {
            RequestHeader { xid: 99, op: OpCode::Delete as i32 }.encode(w);
            request("/a/00000007/b-12345678").encode(w);
        });
        assert_eq!(out, expected);
        assert_eq!(slot_text(7), "00000007");
    }

    #[test]
    fn a_payload_has_no_slot() {
        assert!(payload(4096).iter().all(u8::is_ascii_alphanumeric));
    }
}
