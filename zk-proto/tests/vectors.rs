//! Every recorded frame decodes to its recorded fields and encodes back to the same bytes.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::*;
use serde_json::{Value, json};
use zk_proto::{
    ConnectRequest, ConnectResponse, DecodeError, OpCode, Reader, ReplyHeader, Request, RequestHeader,
    Response, WatcherEvent,
};

const FILES: [&str; 9] =
    ["auth", "cclient", "kazoo", "malformed", "multi", "ops", "quorum", "sessions", "watches"];

/// One element of a vector file.
struct Element(Value);

impl Element {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.0))
    }

    /// Name of the operation; empty where the file has the number of an unknown one.
    fn op(&self) -> &str {
        self.0["op"].as_str().unwrap_or_default()
    }

    fn label(&self) -> String {
        format!("seq {} {} {}", self.0["seq"], self.text("name"), self.text("part"))
    }

    fn frame(&self) -> Option<Vec<u8>> {
        self.0["frame"].as_str().map(unhex)
    }

    fn decoded(&self) -> &Value {
        &self.0["decoded"]
    }

    /// Elements that say about themselves that they are no well-formed record.
    fn is_marked(&self) -> bool {
        ["decodeError", "trailing", "note"].iter().any(|key| self.decoded().get(key).is_some())
    }
}

fn elements(file: &str) -> Vec<Element> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/vectors/client/{file}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match serde_json::from_str(&text).expect("a JSON file") {
        Value::Array(list) => list.into_iter().map(Element).collect(),
        other => panic!("{file}: not an array but {other}"),
    }
}

/// Well-formed on the wire, but without a meaning: our decoder says so where Apache's accepts the record and
/// the operation then answers MarshallingError (-5). All of them got -5 in the recording.
fn meaningless(name: &str, op: &str) -> Option<DecodeError> {
    let (what, value) = match (name, op) {
        ("addWatch.bad-mode.MarshallingError", "addWatch") => ("addWatch mode", 2),
        ("removeWatches.bad-type.MarshallingError", "removeWatches") => ("watcher type", 9),
        ("multi.mixed-kinds.MarshallingError", "multi") => ("operation in multi", 4),
        ("multiRead.write-op.MarshallingError-with-body", "multiRead") => ("operation in multi", 1),
        _ => return None,
    };
    Some(DecodeError::Unexpected { what, value })
}

#[test]
fn every_frame_decodes_to_its_fields_and_encodes_back() {
    let mut checked = 0;
    let mut rejected = BTreeSet::new();
    let mut ops = BTreeSet::new();
    for file in FILES {
        for element in elements(file) {
            let Some(frame) = element.frame() else { continue };
            if element.is_marked() {
                continue;
            }
            let label = element.label();
            let (fields, bytes) = match element.text("part") {
                "connect-request" => connect_request_both_ways(&frame),
                "connect-response" => connect_response_both_ways(&frame),
                // Apache answers createSession with the record of the handshake, without a reply header.
                "response" if element.op() == "createSession" => connect_response_both_ways(&frame),
                "request" => {
                    let expected = meaningless(element.text("name"), element.op());
                    if let Some(expected) = expected {
                        let mut r = Reader::new(&frame[8..]);
                        let op = op_by_name(element.op()).expect("a known operation");
                        assert_eq!(Request::decode(op, &mut r), Err(expected), "{label}");
                        rejected.insert(element.text("name").to_owned());
                        continue;
                    }
                    ops.insert(element.op().to_owned());
                    request_both_ways(&frame)
                }
                "response" => response_both_ways(element.op(), &frame),
                "event" => event_both_ways(&frame),
                other => panic!("{label}: a frame in part {other}"),
            }
            .unwrap_or_else(|e: DecodeError| panic!("{label}: {e}"));
            assert_eq!(&fields, element.decoded(), "{label}");
            assert_eq!(hex(&bytes), element.text("frame"), "{label}");
            checked += 1;
        }
    }
    assert_eq!(rejected.len(), 4, "rejected: {rejected:?}");
    assert!(checked >= 640, "only {checked} frames checked");
    // Every operation that a client can send is among them.
    for op in (-20..=200).filter_map(OpCode::from_i32) {
        assert!(ops.contains(op.name()), "{op} is in no vector");
    }
}

type BothWays = Result<(Value, Vec<u8>), DecodeError>;

fn connect_request_both_ways(frame: &[u8]) -> BothWays {
    let mut r = Reader::new(frame);
    let record = ConnectRequest::decode(&mut r)?;
    assert_eq!(r.remaining(), 0);
    Ok((connect_request(&record), encoded(|w| record.encode(w))))
}

fn connect_response_both_ways(frame: &[u8]) -> BothWays {
    let mut r = Reader::new(frame);
    let record = ConnectResponse::decode(&mut r)?;
    assert_eq!(r.remaining(), 0);
    Ok((connect_response(&record), encoded(|w| record.encode(w))))
}

fn request_both_ways(frame: &[u8]) -> BothWays {
    let mut r = Reader::new(frame);
    let header = RequestHeader::decode(&mut r)?;
    let op = OpCode::from_i32(header.op).expect("a known operation");
    let record = Request::decode(op, &mut r)?;
    assert_eq!(r.remaining(), 0);
    assert_eq!(record.op(), op);
    let fields = json!({"xid": header.xid, "type": header.op, "opcode": op.name(), "body": request(&record)});
    Ok((fields, request_frame(header.xid, header.op, |w| record.encode(w))))
}

/// A response has a body when bytes follow the header, whatever the error code says.
fn response_both_ways(op: &str, frame: &[u8]) -> BothWays {
    let mut r = Reader::new(frame);
    let header = ReplyHeader::decode(&mut r)?;
    let mut fields = reply_header(&header);
    let mut bytes = encoded(|w| header.encode(w));
    if r.remaining() > 0 {
        let op = op_by_name(op).expect("a known operation");
        let record = Response::decode(op, &mut r)?;
        assert_eq!(r.remaining(), 0);
        fields.insert("body".into(), response(op, &record));
        record.encode(&mut bytes);
    } else if header.err.ok().is_ok()
        && let Some(op) = op_by_name(op)
    {
        assert_eq!(Response::decode(op, &mut r)?, Response::Empty);
    }
    Ok((fields.into(), bytes))
}

fn event_both_ways(frame: &[u8]) -> BothWays {
    let mut r = Reader::new(frame);
    let header = ReplyHeader::decode(&mut r)?;
    let record = WatcherEvent::decode(&mut r)?;
    assert_eq!(r.remaining(), 0);
    let mut fields = reply_header(&header);
    fields.insert("body".into(), event(&record));
    let bytes = encoded(|w| {
        header.encode(w);
        record.encode(w);
    });
    Ok((fields.into(), bytes))
}

/// The elements that describe themselves as malformed, with what our codec makes of each.
#[test]
fn marked_frames_have_the_expected_outcome() {
    let mut seen = Vec::new();
    for element in FILES.into_iter().flat_map(elements).filter(Element::is_marked) {
        let frame = element.frame().expect("marked elements have frames");
        let mut r = Reader::new(&frame);
        match element.text("name") {
            // No such operation: the header decodes, the rest is left alone.
            name @ ("unknown-opcode-99.Unimplemented"
            | "opcode-0.Unimplemented"
            | "opcode-10-getMaxChildren.Unimplemented") => {
                let header = RequestHeader::decode(&mut r).expect("a header");
                assert_eq!(json!(header.xid), element.decoded()["xid"]);
                assert_eq!(json!(header.op), element.decoded()["type"]);
                assert_eq!(OpCode::from_i32(header.op), None);
                assert_eq!(hex(r.rest()), element.decoded()["trailing"], "{name}");
                seen.push(name.to_owned());
            }
            name @ ("getData.truncated.MarshallingError" | "create2.truncated.MarshallingError") => {
                let header = RequestHeader::decode(&mut r).expect("a header");
                assert_eq!(json!(header.xid), element.decoded()["xid"]);
                let op = OpCode::from_i32(header.op).expect("a known operation");
                assert_eq!(op.name(), element.decoded()["opcode"]);
                // Two bytes stand where the four of the path's length should be.
                let expected = DecodeError::Truncated { offset: 8, needed: 4, left: 2 };
                assert_eq!(Request::decode(op, &mut r), Err(expected), "{name}");
                seen.push(name.to_owned());
            }
            // A reply header in the place of the ConnectResponse: too short for one.
            name @ "readonly.connect.local-sessions-disabled.NotReadOnly" => {
                let expected = DecodeError::Truncated { offset: 16, needed: 4, left: 0 };
                assert_eq!(ConnectResponse::decode(&mut r), Err(expected));
                let header = ReplyHeader::decode(&mut Reader::new(&frame)).expect("a header");
                for (key, value) in reply_header(&header) {
                    assert_eq!(value, element.decoded()[&key], "{name} {key}");
                }
                seen.push(name.to_owned());
            }
            other => panic!("no expectation for {other}"),
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

/// Bytes behind a complete record are tolerated, as Apache does: what is decoded stays the same.
#[test]
fn trailing_bytes_behind_any_request_are_tolerated() {
    let mut checked = 0;
    for element in FILES.into_iter().flat_map(elements) {
        if element.text("part") != "request"
            || element.is_marked()
            || meaningless(element.text("name"), element.op()).is_some()
        {
            continue;
        }
        let mut frame = element.frame().expect("a request has a frame");
        frame.extend([0xde, 0xad, 0xbe]);
        let mut r = Reader::new(&frame);
        let header = RequestHeader::decode(&mut r).expect("a header");
        let op = OpCode::from_i32(header.op).expect("a known operation");
        let record = Request::decode(op, &mut r).unwrap_or_else(|e| panic!("{}: {e}", element.label()));
        assert_eq!(request(&record), element.decoded()["body"], "{}", element.label());
        assert_eq!(r.rest(), [0xde, 0xad, 0xbe], "{}", element.label());
        checked += 1;
    }
    assert!(checked >= 260, "only {checked} requests checked");
}

/// Cut anywhere, a request is an error or (cut at the end of the record) the same request; never a panic.
#[test]
fn a_request_cut_short_is_an_error() {
    for element in FILES.into_iter().flat_map(elements) {
        if element.text("part") != "request" || element.is_marked() {
            continue;
        }
        let frame = element.frame().expect("a request has a frame");
        for cut in 0..frame.len() {
            let mut r = Reader::new(&frame[..cut]);
            let Ok(header) = RequestHeader::decode(&mut r) else {
                assert!(cut < 8);
                continue;
            };
            let op = OpCode::from_i32(header.op).expect("a known operation");
            assert!(Request::decode(op, &mut r).is_err(), "{} cut at {cut}", element.label());
        }
    }
}

/// The four-letter words are no frames; their recorded text is what the file says.
#[test]
fn raw_parts_are_their_text() {
    let mut seen = Vec::new();
    for element in FILES.into_iter().flat_map(elements) {
        if let Some(raw) = element.0["raw"].as_str() {
            match element.decoded()["ascii"].as_str() {
                Some(ascii) => assert_eq!(unhex(raw), ascii.as_bytes(), "{}", element.label()),
                None => panic!("{}: no text", element.label()),
            }
            seen.push(element.label());
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}
