//! Replays recorded connections.

mod shape;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use shape::shape;
use zk_proto::jute::Reader;
use zk_proto::{
    ConnectRequest, ConnectResponse, OpCode, ReplyHeader, Request, RequestHeader, SessionId, Zxid, xid,
};
use zk_tests::vectors::{self, Element, Part};
use zk_tests::wire::{Session, Wire, create, request_frame};

/// A step of which the recording shows one of two outcomes of a race.
const RACE_AT_CLOSE: &str = "closeSession.pipelined-request-behind-gets-no-reply";
/// A step in which our server deviates on purpose.
const CREATE_SESSION: &str = "createSession.on-open-connection";

/// The state of a replay: which connection, session and zxid of the recording is which here.
pub struct Replay {
    server: SocketAddr,
    wires: HashMap<u64, Wire>,
    sessions: HashMap<i64, (SessionId, Vec<u8>)>,
    /// Zxids in reply headers: recorded to ours.
    zxids: BTreeMap<i64, i64>,
    /// Position of the last element of each connection.
    last: HashMap<u64, u64>,
    /// Auth replies that came earlier than in the recording, which they may.
    early_auth: HashMap<u64, Vec<u8>>,
    /// The connections whose requests were not recorded, in the step about an expiring session.
    expiring: Option<(Session, Session)>,
}

impl Replay {
    pub fn new(server: SocketAddr) -> Replay {
        let last = vectors::all().iter().map(|e| (e.conn, e.seq)).collect();
        Replay {
            server,
            wires: HashMap::new(),
            sessions: HashMap::new(),
            zxids: BTreeMap::new(),
            last,
            early_auth: HashMap::new(),
            expiring: None,
        }
    }

    /// Sends or expects the element.
    pub fn step(&mut self, element: &Element) {
        self.set_the_scene(element);
        let label = format!("seq {} conn {} {} {:?}", element.seq, element.conn, element.name, element.part);
        if element.name == CREATE_SESSION {
            self.create_session_deviates(element, &label);
        } else if element.part == Part::ServerClose {
            self.expect_close(element, &label);
        } else if element.part.from_client() {
            self.send(element);
        } else {
            self.expect(element, &label);
        }
        if self.last[&element.conn] == element.seq {
            self.wires.remove(&element.conn);
        }
    }

    /// Nothing must have been left waiting.
    pub fn finish(self) {
        assert!(self.early_auth.is_empty(), "auth replies that the recording does not have");
        assert!(self.wires.is_empty());
    }

    /// Does what the recording needs but does not show.
    fn set_the_scene(&mut self, element: &Element) {
        if self.wires.contains_key(&element.conn) {
            return;
        }
        match element.name.as_str() {
            "handshake.session-moved-by-second-connection" if element.part == Part::ConnectRequest => {
                let (id, _) = recorded_session(element);
                let first = Session::open_with_timeout(self.server, 10_000);
                self.sessions.insert(id, (first.id, first.passwd));
                self.wires.insert(23, first.wire);
                self.wires.insert(element.conn, Wire::connect(self.server));
            }
            "expire.event-at-watcher" => {
                if self.expiring.is_none() {
                    let mut owner = Session::open_with_timeout(self.server, 1000);
                    assert_eq!(owner.create("/raw/exp", b"", 1).err(), 0);
                    let mut watcher = Session::open(self.server);
                    assert_eq!(watcher.exists("/raw/exp", true).err(), 0);
                    self.expiring = Some((watcher, owner));
                }
                let (watcher, owner) = self.expiring.take().expect("it was just put there");
                self.wires.insert(32, watcher.wire);
                self.wires.insert(33, owner.wire);
            }
            _ if element.part == Part::RawRequest || element.part == Part::ConnectRequest => {
                self.wires.insert(element.conn, Wire::connect(self.server));
            }
            // Connections of hand-built frames whose handshake was not recorded.
            _ => {
                let mut session = Session::open_with_timeout(self.server, 10_000);
                if element.conn == 28 {
                    assert_eq!(session.call(&create("/raw", b"", 0)).err(), 0);
                }
                self.wires.insert(element.conn, session.wire);
            }
        }
    }

    fn send(&mut self, element: &Element) {
        let bytes = match element.part {
            Part::ConnectRequest => self.localized_connect(&element.bytes),
            Part::Request => self.localized_request(&element.bytes),
            _ => element.bytes.clone(),
        };
        let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
        match element.part {
            Part::RawRequest => wire.send_raw(&bytes),
            _ => wire.send(&bytes),
        }
    }

    /// Apache takes createSession on an open connection and answers a ConnectResponse. Ours does not know it as
    /// a request of clients: error -6 and a close, as for every operation that there is not.
    fn create_session_deviates(&mut self, element: &Element, label: &str) {
        if element.part != Part::Request {
            return;
        }
        let mut session = Session::open(self.server);
        session.wire.send(&element.bytes);
        let reply = session.wire.recv().unwrap_or_else(|| panic!("{label}: closed without reply"));
        if ReplyHeader::decode(&mut Reader::new(&reply)).is_ok_and(|header| header.err.0 == -6) {
            session.wire.assert_closed();
        } else {
            let apache = ConnectResponse::decode(&mut Reader::new(&reply));
            assert!(zk_tests::server::is_external() && apache.is_ok(), "{label}: {reply:02x?}");
        }
    }

    fn expect_close(&mut self, element: &Element, label: &str) {
        let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
        while let Some(frame) = wire.recv() {
            let header = ReplyHeader::decode(&mut Reader::new(&frame));
            let refused = header.is_ok_and(|header| header.err.0 == -112);
            assert!(refused && element.name == RACE_AT_CLOSE, "{label}: got {frame:02x?}");
        }
    }

    fn expect(&mut self, element: &Element, label: &str) {
        let bytes = self.received(element, label);
        let (expected, actual) = (shape(element, &element.bytes), shape(element, &bytes));
        assert_eq!(actual, expected, "{label}: ours is left, Apache's is right");
        match element.part {
            Part::ConnectResponse => self.learn_session(&element.bytes, &bytes),
            Part::Response => self.learn_zxid(&element.bytes, &bytes),
            _ => {}
        }
        if element.name == "frame.length-above-jute.maxbuffer.closed" {
            // The recording has no element for what is no frame.
            let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
            wire.send_raw(&0x10_0000_i32.to_be_bytes());
            wire.assert_closed();
        }
    }

    fn received(&mut self, element: &Element, label: &str) -> Vec<u8> {
        let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
        if element.part == Part::RawResponse {
            let mut bytes = vec![0; element.bytes.len()];
            assert!(wire.recv_raw(&mut bytes), "{label}: closed");
            return bytes;
        }
        let wants_auth = is_auth_reply(element, &element.bytes);
        if wants_auth && let Some(reply) = self.early_auth.remove(&element.conn) {
            return reply;
        }
        let mut frame = wire.recv().unwrap_or_else(|| panic!("{label}: closed"));
        while is_auth_reply(element, &frame) != wants_auth {
            if wants_auth {
                // It will come: replies behind it in the recording are still in front of it here.
                let auth = self.next_auth(element, label);
                self.wires.get_mut(&element.conn).expect("it is there").put_back(frame);
                return auth;
            }
            self.early_auth.insert(element.conn, frame);
            let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
            frame = wire.recv().unwrap_or_else(|| panic!("{label}: closed"));
        }
        frame
    }

    fn next_auth(&mut self, element: &Element, label: &str) -> Vec<u8> {
        let wire = self.wires.get_mut(&element.conn).expect("the scene is set");
        let frame = wire.recv().unwrap_or_else(|| panic!("{label}: closed"));
        assert!(is_auth_reply(element, &frame), "{label}: neither this nor the next reply is the auth reply");
        frame
    }

    fn learn_session(&mut self, recorded: &[u8], ours: &[u8]) {
        let decode = |bytes| ConnectResponse::decode(&mut Reader::new(bytes)).expect("shapes were equal");
        let (recorded, ours) = (decode(recorded), decode(ours));
        let passwd = ours.passwd.unwrap_or_default().to_vec();
        self.sessions.insert(recorded.session_id.0, (ours.session_id, passwd));
    }

    fn learn_zxid(&mut self, recorded: &[u8], ours: &[u8]) {
        let zxid = |bytes| ReplyHeader::decode(&mut Reader::new(bytes)).expect("a header").zxid.0;
        if zxid(recorded) > 0 {
            self.zxids.insert(zxid(recorded), zxid(ours));
        }
    }

    /// Our zxid for one that the recorded client had seen. What is far ahead of everything stays so.
    fn zxid(&self, recorded: i64) -> i64 {
        let seen = self.zxids.range(..=recorded).next_back();
        match seen {
            Some((&nearest, &ours)) if recorded - nearest < 1000 => ours,
            _ => recorded,
        }
    }

    fn localized_connect(&self, bytes: &[u8]) -> Vec<u8> {
        let mut request = ConnectRequest::decode(&mut Reader::new(bytes)).expect("a connect request");
        request.last_zxid_seen = Zxid(self.zxid(request.last_zxid_seen.0));
        if let Some((id, passwd)) = self.sessions.get(&request.session_id.0).filter(|(id, _)| id.0 != 0) {
            request.session_id = *id;
            request.passwd = Some(passwd);
        }
        let mut out = Vec::new();
        request.encode(&mut out);
        out
    }

    fn localized_request(&self, bytes: &[u8]) -> Vec<u8> {
        let mut r = Reader::new(bytes);
        let header = RequestHeader::decode(&mut r).expect("a request header");
        match OpCode::from_i32(header.op).map(|op| Request::decode(op, &mut r)) {
            Some(Ok(mut request @ (Request::SetWatches(_) | Request::SetWatches2(_)))) => {
                if let Request::SetWatches(watches) | Request::SetWatches2(watches) = &mut request {
                    watches.relative_zxid = self.zxid(watches.relative_zxid);
                }
                let mut body = Vec::new();
                request.encode(&mut body);
                request_frame(header.xid, header.op, &body)
            }
            _ => bytes.to_vec(),
        }
    }
}

fn recorded_session(element: &Element) -> (i64, Vec<u8>) {
    let request = ConnectRequest::decode(&mut Reader::new(&element.bytes)).expect("a connect request");
    (request.session_id.0, request.passwd.unwrap_or_default().to_vec())
}

fn is_auth_reply(element: &Element, frame: &[u8]) -> bool {
    element.part == Part::Response
        && ReplyHeader::decode(&mut Reader::new(frame)).is_ok_and(|header| header.xid == xid::AUTH)
}
