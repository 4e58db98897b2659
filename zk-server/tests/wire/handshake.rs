use zk_proto::jute::frame;
use zk_proto::{ConnectRequest, OpCode, SessionId, Zxid, xid};

use crate::client::{Wire, create, encode, get, new_session};
use crate::server;

#[test]
fn a_session_gets_id_password_and_timeout() {
    let server = server();
    let (first, second) = (Wire::connect(&server), Wire::connect(&server));
    assert_eq!(first.timeout_ms, 10_000);
    assert_eq!(second.session.0, first.session.0 + 1);
    assert_eq!(first.session.0 >> 56, 1, "a standalone server has id 1");
    assert_eq!(first.passwd, zk_server::session::password(first.session));
}

#[test]
fn timeouts_are_clamped() {
    let server = server();
    for (asked, granted) in [(0, 200), (-5, 200), (i32::MIN, 200), (i32::MAX, 20_000), (500, 500)] {
        assert_eq!(Wire::connect_for(&server, asked).timeout_ms, granted);
    }
}

#[test]
fn passwords_of_new_sessions_do_not_matter_and_read_only_is_optional() {
    let server = server();
    for passwd in [None, Some(&[][..]), Some(&[1; 4]), Some(&[1; 20])] {
        for read_only in [None, Some(false), Some(true)] {
            let request = ConnectRequest { passwd, read_only, protocol_version: 7, ..new_session(1000) };
            // The answer has the field only if the request had it: asserted inside.
            assert!(Wire::tcp(&server).handshake(&request));
        }
    }
}

#[test]
fn requests_behind_the_connect_request_wait_for_its_answer() {
    let server = server();
    let mut wire = Wire::tcp(&server);
    let mut bytes = Vec::new();
    frame(&mut bytes, |out| new_session(1000).encode(out));
    let mut body = Vec::new();
    create("/early", b"x", 0).encode(&mut body);
    bytes.extend(encode(5, OpCode::Create, &body));
    bytes.extend(encode(xid::PING, OpCode::Ping, &[]));
    wire.send(&bytes);
    assert_eq!(wire.frame().unwrap().len(), 37);
    assert_eq!(wire.reply().xid, 5);
    assert_eq!(wire.reply().xid, xid::PING);
}

#[test]
fn the_handshake_may_arrive_byte_by_byte() {
    let server = server();
    let mut wire = Wire::tcp(&server);
    let mut bytes = Vec::new();
    frame(&mut bytes, |out| new_session(1000).encode(out));
    for byte in &bytes {
        wire.send(&[*byte]);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(wire.frame().unwrap().len(), 37);
}

#[test]
fn a_client_from_the_future_is_sent_away() {
    let server = server();
    let mut wire = Wire::tcp(&server);
    let mut bytes = Vec::new();
    frame(&mut bytes, |out| {
        ConnectRequest { last_zxid_seen: Zxid(1 << 40), ..new_session(1000) }.encode(out)
    });
    wire.send(&bytes);
    assert!(wire.frame().is_none());
    let request = ConnectRequest { last_zxid_seen: Zxid(-1), ..new_session(1000) };
    assert!(Wire::tcp(&server).handshake(&request), "negative values pass");
}

#[test]
fn a_refusal_tells_nothing() {
    let server = server();
    let owner = Wire::connect(&server);
    let unknown = ConnectRequest { session_id: SessionId(4711), passwd: Some(&[0; 16]), ..new_session(1000) };
    let wrong = ConnectRequest { session_id: owner.session, passwd: Some(&[9; 16]), ..new_session(1000) };
    let short =
        ConnectRequest { session_id: owner.session, passwd: Some(&owner.passwd[..8]), ..new_session(1000) };
    for request in [unknown, wrong, short] {
        let mut wire = Wire::tcp(&server);
        assert!(!wire.handshake(&request));
        assert_eq!((wire.session, wire.passwd), (SessionId::NONE, [0; 16]));
        assert!(wire.frame().is_none(), "closed");
    }
    // Unlike in Apache, who tries passwords does not cut off the owner.
    let mut owner = owner;
    owner.ping();
}

#[test]
fn trailing_bytes_are_ignored() {
    let server = server();
    let mut wire = Wire::tcp(&server);
    let mut bytes = Vec::new();
    frame(&mut bytes, |out| {
        new_session(1000).encode(out);
        out.extend_from_slice(b"tail");
    });
    wire.send(&bytes);
    assert_eq!(wire.frame().unwrap().len(), 37);
    let mut body = Vec::new();
    get("/", false).encode(&mut body);
    body.extend_from_slice(b"tail");
    wire.send(&encode(3, OpCode::GetData, &body));
    assert_eq!(wire.reply().xid, 3);
}
