//! Targets for the records of the client protocol.

use std::fmt::Debug;

use zk_proto::jute::{DecodeError, Reader};
use zk_proto::{
    Acl, ConnectRequest, ConnectResponse, OpCode, ReplyHeader, Request, RequestHeader, Response,
    WatcherEvent, path,
};

use super::{MIB, Target};
use crate::vectors::{self, Part};

/// The first frame of a connection.
pub const CONNECT_REQUEST: Target = Target {
    name: "connect_request",
    fixed_bytes: MIB,
    seeds: || frames(|part, _| part == Part::ConnectRequest),
    run: |input| round_trip(input, &mut Vec::new(), ConnectRequest::decode, |record, out| record.encode(out)),
};

/// Its answer.
pub const CONNECT_RESPONSE: Target = Target {
    name: "connect_response",
    fixed_bytes: MIB,
    seeds: || frames(|part, _| part == Part::ConnectResponse),
    run: |input| {
        round_trip(input, &mut Vec::new(), ConnectResponse::decode, |record, out| record.encode(out))
    },
};

/// A frame with request header; the operation code in it chooses the record.
pub const REQUEST: Target = Target {
    name: "request",
    fixed_bytes: MIB,
    seeds: || frames(|part, _| part == Part::Request),
    run: |input| {
        let mut r = Reader::new(input);
        let Ok(header) = RequestHeader::decode(&mut r) else { return };
        if let Some(op) = OpCode::from_i32(header.op) {
            request(op, r.rest());
        }
    },
};

/// Bodies of multi and multiRead: the same bytes as both.
pub const MULTI: Target = Target {
    name: "multi",
    fixed_bytes: MIB,
    seeds: || bodies(|part, op| part == Part::Request && op.starts_with("multi"), RequestHeader::WIRE_LEN),
    run: |input| {
        request(OpCode::Multi, input);
        request(OpCode::MultiRead, input);
        response(OpCode::Multi, input);
    },
};

/// Bodies of setWatches and setWatches2: the same bytes as both.
pub const SET_WATCHES: Target = Target {
    name: "set_watches",
    fixed_bytes: MIB,
    seeds: || {
        bodies(|part, op| part == Part::Request && op.starts_with("setWatches"), RequestHeader::WIRE_LEN)
    },
    run: |input| {
        request(OpCode::SetWatches, input);
        request(OpCode::SetWatches2, input);
    },
};

/// The code of an operation, then the frame of a reply to it.
pub const RESPONSE: Target = Target {
    name: "response",
    fixed_bytes: MIB,
    seeds: || {
        let with_op = |e: vectors::Element| {
            let op = (-20..=200).filter_map(OpCode::from_i32).find(|op| op.name() == e.op)?;
            Some([&(op as i32).to_be_bytes()[..], &e.bytes].concat())
        };
        vectors::all().into_iter().filter(|e| e.part == Part::Response).filter_map(with_op).collect()
    },
    run: |input| {
        let mut r = Reader::new(input);
        let (Ok(op), Ok(_)) = (r.i32(), ReplyHeader::decode(&mut r)) else { return };
        if let Some(op) = OpCode::from_i32(op) {
            response(op, r.rest());
        }
    },
};

/// The record of a watch event.
pub const WATCH_EVENT: Target = Target {
    name: "watch_event",
    fixed_bytes: MIB,
    seeds: || bodies(|part, _| part == Part::Event, ReplyHeader::WIRE_LEN),
    run: |input| round_trip(input, &mut Vec::new(), WatcherEvent::decode, |record, out| record.encode(out)),
};

/// A list of ACL entries.
pub const ACL: Target = Target {
    name: "acl",
    fixed_bytes: MIB,
    // What a getACL reply begins with is a list.
    seeds: || bodies(|part, op| part == Part::Response && op == "getACL", ReplyHeader::WIRE_LEN),
    run: |input| {
        round_trip(input, &mut Vec::new(), Acl::decode_list, |list, out| {
            Acl::encode_list(list.as_deref(), out)
        });
        if let Ok(Some(list)) = Acl::decode_list(&mut Reader::new(input)) {
            for acl in list {
                let _ = (acl.is_world(), acl.perms.to_string());
            }
        }
    },
};

/// Path rules, on text as the codec makes it of any bytes.
pub const PATH: Target = Target {
    name: "path",
    fixed_bytes: MIB,
    seeds: || {
        let mut seeds: Vec<_> = ["/", "/a", "/a/b", "//a", "/a/", "/a/../b", "/.", "/...", "a", "/\u{e000}"]
            .into_iter()
            .map(|s| s.as_bytes().to_vec())
            .collect();
        let recorded = vectors::all();
        seeds.extend(recorded.iter().filter_map(|e| {
            e.decoded.pointer("/body/path").and_then(|path| path.as_str()).map(|s| s.as_bytes().to_vec())
        }));
        seeds
    },
    run: |input| {
        let text = zk_proto::jute::decode_string(input);
        match path::validate(&text) {
            Ok(()) => match path::split(&text) {
                None => assert_eq!(text, "/"),
                Some((parent, name)) => {
                    assert_eq!(path::validate(parent), Ok(()));
                    assert_eq!(path::join(parent, name), text);
                }
            },
            Err(error) => {
                let _ = (error.to_string(), path::split(&text));
            }
        }
    },
};

fn frames(wanted: impl Fn(Part, &str) -> bool) -> Vec<Vec<u8>> {
    bodies(wanted, 0)
}

/// The frames that are `wanted` (by part and operation), without their first `skip` bytes.
fn bodies(wanted: impl Fn(Part, &str) -> bool, skip: usize) -> Vec<Vec<u8>> {
    let elements = vectors::all().into_iter().filter(|e| wanted(e.part, &e.op));
    elements.filter_map(|e| e.bytes.get(skip..).map(<[u8]>::to_vec)).collect()
}

fn request(op: OpCode, body: &[u8]) {
    round_trip(
        body,
        &mut Vec::new(),
        |r| Request::decode(op, r),
        |record, out| {
            assert_eq!(record.op(), op);
            record.encode(out);
        },
    );
}

fn response(op: OpCode, body: &[u8]) {
    round_trip(body, &mut Vec::new(), |r| Response::decode(op, r), |record, out| record.encode(out));
}

/// What decodes must, encoded and decoded again, give the same; what does not must say why. `out` is an empty
/// buffer that lives as long as the input, since decoded records borrow from what they were decoded from.
fn round_trip<'a, T: PartialEq + Debug>(
    input: &'a [u8],
    out: &'a mut Vec<u8>,
    decode: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
    encode: impl FnOnce(&T, &mut Vec<u8>),
) {
    match decode(&mut Reader::new(input)) {
        Ok(record) => {
            encode(&record, out);
            let mut r = Reader::new(out);
            assert_eq!(decode(&mut r), Ok(record));
            assert_eq!(r.remaining(), 0);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
