//! Traps of the protocol.

use zk_proto::jute::{Reader, Writer};
use zk_proto::{
    Acl, AddWatchMode, ConnectRequest, CreateRequest, ErrorCode, MultiOp, MultiResult, OpCode, ReplyHeader,
    Request, Response, SessionId, SetWatches, Zxid, xid,
};
use zk_tests::server::{TestServer, is_external};
use zk_tests::wire::{Session, Wire, connect_request, request_frame};

fn server() -> TestServer {
    TestServer::start(&["extendedTypesEnabled=true"])
}

#[test]
fn trap_08_add_watch_reply_has_err_body() {
    let server = server();
    let mut session = Session::open(server.addr());
    for mode in [AddWatchMode::Persistent, AddWatchMode::PersistentRecursive] {
        let reply = session.add_watch("/t08", mode);
        assert_eq!((reply.err(), reply.body), (0, vec![0; 4]));
    }
}

#[test]
fn trap_09_a_failed_multi_has_err_0_and_its_errors_in_the_body() {
    let server = server();
    let mut session = Session::open(server.addr());
    let check = |path: &'static str| MultiOp::Check { path: path.into(), version: -1 };
    let reply = session.call(&Request::Multi(vec![check("/"), check("/t09-none"), check("/"), check("/")]));
    let Response::Multi(results) = reply.ok() else { panic!("not a multi") };
    let codes = [0, -101, -2, -2].map(|code| MultiResult::Error(ErrorCode(code)));
    assert_eq!(results, codes);
}

#[test]
fn trap_09_container_and_ttl_creates_in_a_multi_have_results_of_type_15() {
    let server = server();
    let mut session = Session::open(server.addr());
    let create = |op, path: &'static str, flags| {
        MultiOp::Create(CreateRequest {
            op,
            path: path.into(),
            data: None,
            acl: Some(vec![Acl::open()]),
            flags,
            ttl_ms: if op == OpCode::CreateTtl { 1000 } else { 0 },
        })
    };
    let reply = session.call(&Request::Multi(vec![
        create(OpCode::CreateContainer, "/t09c", 4),
        create(OpCode::CreateTtl, "/t09t", 5),
        // The kind of node follows the flags; so does the type of the result.
        create(OpCode::CreateTtl, "/t09p", 0),
        create(OpCode::Create, "/t09d", 4),
    ]));
    let Response::Multi(results) = reply.ok() else { panic!("not a multi") };
    let with_stat: Vec<_> = results.iter().map(|r| matches!(r, MultiResult::Create2 { .. })).collect();
    assert_eq!(with_stat, [true, true, false, true]);
    for path in ["/t09c", "/t09t", "/t09p", "/t09d"] {
        assert_eq!(session.delete(path, -1).err(), 0);
    }
}

#[test]
fn trap_10_an_unknown_opcode_gets_an_error_and_a_close() {
    let server = server();
    for op in [0, -1, 10, 13, 23, 99, 108, i32::MIN, i32::MAX] {
        let mut session = Session::open(server.addr());
        session.wire.send(&request_frame(7, op, b"\0\0\0\x01/\0\0\0\0"));
        let reply = session.wire.recv().unwrap_or_else(|| panic!("{op}: closed without reply"));
        let expected = ReplyHeader { xid: 7, zxid: Zxid(-1), err: ErrorCode::UNIMPLEMENTED };
        assert_eq!(ReplyHeader::decode(&mut Reader::new(&reply)), Ok(expected));
        assert_eq!(reply.len(), ReplyHeader::WIRE_LEN);
        session.wire.assert_closed();
        // The session is still there.
        session.reattach().close();
    }
}

#[test]
fn trap_11_a_refused_session_gets_zeros_and_a_close() {
    let server = server();
    let mut wire = Wire::connect(server.addr());
    wire.send(&connect_request(10_000, SessionId(0x1234), &[0; 16], Zxid::ZERO));
    let mut zeros = vec![0; 37];
    zeros[19] = 16;
    assert_eq!(wire.recv(), Some(zeros));
    wire.assert_closed();
    // An ended session is as unknown as one that never was.
    let session = Session::open(server.addr());
    let (id, passwd) = (session.id, session.passwd.clone());
    session.close();
    assert!(Session::attach(server.addr(), id, &passwd, Zxid::ZERO).is_none());
}

#[test]
fn trap_12_clients_that_do_not_send_the_read_only_byte_do_not_get_it() {
    let server = server();
    for (read_only, length) in [(None, 36), (Some(false), 37), (Some(true), 37)] {
        let mut body = Vec::new();
        let connect = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session_id: SessionId::NONE,
            passwd: Some(&[0; 16]),
            read_only,
        };
        connect.encode(&mut body);
        let mut wire = Wire::connect(server.addr());
        wire.send(&body);
        assert_eq!(wire.recv().map(|answer| answer.len()), Some(length), "{read_only:?}");
    }
}

#[test]
fn trap_13_null_and_empty_data_differ_in_replies_and_survive_a_restart() {
    let mut server = TestServer::start_on_disk(&[]);
    let mut session = Session::open(server.addr());
    assert_eq!(session.create("/t13", b"x", 0).err(), 0);
    assert_eq!(session.create("/t13/empty", b"", 0).err(), 0);
    let null = Request::SetData { path: "/t13".into(), data: None, version: -1 };
    assert_eq!(session.call(&null).stat().data_length, 0);
    let data = |session: &mut Session, path: &str| match session.get(path, false).ok() {
        Response::Data { data, .. } => data.map(<[u8]>::to_vec),
        other => panic!("{other:?}"),
    };
    assert_eq!(data(&mut session, "/t13"), None);
    assert_eq!(data(&mut session, "/t13/empty"), Some(vec![]));
    if !is_external() {
        session.close();
        server.restart();
        session = Session::open(server.addr());
        assert_eq!(data(&mut session, "/t13"), None);
        assert_eq!(data(&mut session, "/t13/empty"), Some(vec![]));
    }
    assert_eq!(session.delete("/t13/empty", -1).err(), 0);
    assert_eq!(session.delete("/t13", -1).err(), 0);
}

#[test]
fn trap_14_set_watches_is_known_by_its_opcode_and_gets_its_xid_back() {
    let server = server();
    let mut session = Session::open(server.addr());
    let watches = || SetWatches {
        data: Some(vec![]),
        exist: Some(vec![]),
        child: Some(vec![]),
        persistent: Some(vec![]),
        persistent_recursive: Some(vec![]),
        ..SetWatches::default()
    };
    for xid in [xid::SET_WATCHES, 5, 0] {
        for request in [Request::SetWatches(watches()), Request::SetWatches2(watches())] {
            session.send_as(xid, &request);
            let reply = session.reply();
            assert_eq!((reply.header.xid, reply.err(), reply.body.len()), (xid, 0, 0));
        }
    }
}

#[test]
fn trap_14_a_ping_is_answered_with_xid_minus_two() {
    let server = server();
    let mut session = Session::open(server.addr());
    for xid in [xid::PING, 77] {
        session.wire.send(&request_frame(xid, OpCode::Ping as i32, b""));
        let reply = session.wire.recv().expect("a reply");
        let header = ReplyHeader::decode(&mut Reader::new(&reply)).expect("a header");
        assert_eq!((header.xid, header.err.0, reply.len()), (xid::PING, 0, ReplyHeader::WIRE_LEN));
    }
}

#[test]
fn trap_14_a_ping_does_not_overtake_a_write() {
    let server = server();
    let mut session = Session::open(server.addr());
    session.send(&zk_tests::wire::create("/t14", b"", 1));
    session.send(&Request::Ping);
    // `reply` would complain about another order.
    assert_eq!(session.reply().op, OpCode::Create2);
    assert_eq!(session.reply().op, OpCode::Ping);
}

#[test]
fn trap_15_a_reply_may_be_longer_than_a_request_may_be() {
    const FRAME_BYTES_MAX: usize = 0xf_ffff;
    let server = server();
    let mut session = Session::open(server.addr());
    assert_eq!(session.create("/t15", b"", 0).err(), 0);
    let around = {
        let mut body = Vec::new();
        Request::SetData { path: "/t15".into(), data: Some(b""), version: -1 }.encode(&mut body);
        8 + body.len()
    };
    let data = vec![7; FRAME_BYTES_MAX - around];
    assert_eq!(session.set("/t15", &data, -1).stat().data_length as usize, data.len());
    let reply = session.get("/t15", false);
    let frame = ReplyHeader::WIRE_LEN + reply.body.len();
    assert!(frame > FRAME_BYTES_MAX, "{frame}");
    assert!(matches!(reply.ok(), Response::Data { data: Some(d), .. } if d == data));
    assert_eq!(session.delete("/t15", -1).err(), 0);
    // One byte more is one too many.
    session.set("/t15", b"", -1);
    let mut one_more = Vec::new();
    one_more.put_int(FRAME_BYTES_MAX as i32 + 1);
    session.wire.send_raw(&one_more);
    session.wire.assert_closed();
}

#[test]
fn trap_18_characters_beyond_the_bmp_are_invalid_in_paths() {
    let server = server();
    let mut session = Session::open(server.addr());
    for name in ["😀", "a\u{10000}", "\u{e000}", "\u{f8ff}", "\u{fff0}", "\u{1}", "\u{7f}", "\u{9f}"] {
        assert_eq!(session.create(&format!("/t18{name}"), b"", 0).err(), -8, "{name:?}");
    }
    for name in ["é", "\u{a0}", "\u{d7ff}", "\u{f900}", "..."] {
        let path = format!("/t18{name}");
        assert_eq!(session.create(&path, b"", 0).err(), 0, "{name:?}");
        assert_eq!(session.delete(&path, -1).err(), 0);
    }
}
