//! Attacks by the bytes of a frame.

use zk_proto::jute::Writer;
use zk_proto::{Acl, CreateRequest, MultiOp, OpCode, Request, Response};
use zk_tests::wire::{Session, Wire, request_frame};

use crate::scene::{MIB, Scene};

/// `jute.maxbuffer`.
const FRAME_BYTES_MAX: i32 = 0xf_ffff;

#[test]
fn frame_length_negative_or_above_the_maximum() {
    let mut scene = Scene::new(&[]);
    scene.attack_begins();
    for length in [-1, i32::MIN, FRAME_BYTES_MAX + 1, i32::MAX, 0x3fff_ffff] {
        let mut wire = Wire::connect(scene.addr());
        wire.send_raw(&length.to_be_bytes());
        wire.assert_closed();
        let mut session = Session::open(scene.addr());
        session.wire.send_raw(&length.to_be_bytes());
        session.wire.assert_closed();
        // The session lives on.
        session.reattach().close();
    }
    assert!(scene.peak_growth() < 2 * MIB, "{}", scene.peak_growth());
    scene.finish();
}

#[test]
fn length_claims_1_mib_and_10_bytes_come() {
    const CONNECTIONS: usize = 200;
    let mut scene = Scene::new(&[]);
    let mut sessions: Vec<_> = (0..CONNECTIONS).map(|_| Session::open(scene.addr())).collect();
    scene.attack_begins();
    for session in &mut sessions {
        session.wire.send_raw(&FRAME_BYTES_MAX.to_be_bytes());
        session.wire.send_raw(&[0; 10]);
    }
    // Another session's round trips make sure that the bytes have been read.
    let mut other = Session::open(scene.addr());
    for _ in 0..100 {
        assert_eq!(other.call(&Request::Ping).err(), 0);
    }
    // One small buffer each, and not what they claim.
    assert!(scene.peak_growth() < CONNECTIONS * (64 << 10), "{}", scene.peak_growth());
    scene.finish();
}

#[test]
fn a_frame_that_grows_slowly_takes_what_was_sent() {
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    scene.attack_begins();
    session.wire.send_raw(&FRAME_BYTES_MAX.to_be_bytes());
    session.wire.send_raw(&vec![0; FRAME_BYTES_MAX as usize / 2]);
    let mut other = Session::open(scene.addr());
    assert_eq!(other.call(&Request::Ping).err(), 0);
    assert!(scene.peak_growth() < 4 * MIB, "{}", scene.peak_growth());
    scene.finish();
}

#[test]
fn unknown_opcode_truncated_record_trailing_garbage() {
    let scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    // Truncated: an error reply, and the connection stays.
    for op in [OpCode::GetData, OpCode::Create, OpCode::SetData, OpCode::SetAcl, OpCode::AddWatch] {
        for body in [&b""[..], b"\0", b"\0\0\0\x05/a", b"\xff\xff\xff\xfe"] {
            assert_eq!(session.call_body(op, body).err(), -5, "{op} {body:?}");
        }
    }
    // Garbage behind a whole record: ignored.
    assert_eq!(session.call_body(OpCode::Exists, b"\0\0\0\x01/\0garbage").err(), 0);
    assert_eq!(session.call_body(OpCode::Ping, b"garbage").err(), 0);
    // Too short for a header: closed, the session lives.
    session.wire.send(b"\0\0\0\x01\0\0");
    session.wire.assert_closed();
    let mut session = session.reattach();
    // An unknown operation: an error reply, then closed, the session lives.
    session.wire.send(&request_frame(1, 4711, b"whatever"));
    assert!(session.wire.recv().is_some_and(|reply| reply.ends_with(&(-6_i32).to_be_bytes())));
    session.wire.assert_closed();
    let session = session.reattach();
    // An undecodable auth packet: closed.
    let mut undecodable = session.reattach();
    undecodable.wire.send(&request_frame(-4, OpCode::Auth as i32, b"\0\0"));
    undecodable.wire.assert_closed();
    undecodable.reattach().close();
    scene.finish();
}

#[test]
fn garbage_instead_of_a_handshake() {
    let scene = Scene::new(&[]);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"SSH-2.0-x\r\n",
    ] {
        let mut wire = Wire::connect(scene.addr());
        wire.send_raw(garbage);
        wire.assert_closed();
    }
    for body in [&b""[..], b"\0", &[0; 27]] {
        let mut wire = Wire::connect(scene.addr());
        wire.send(body);
        wire.assert_closed();
    }
    scene.finish();
}

#[test]
fn bad_utf8_nul_control_characters_relative_or_1_mib_path() {
    let scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    let create = |path: &[u8]| {
        let mut body = Vec::new();
        body.put_buffer(Some(path));
        body.put_buffer(None);
        Acl::encode_list(Some(&[Acl::open()]), &mut body);
        body.put_int(0);
        body
    };
    for path in [
        &b"/\xff\xfe"[..],
        b"/a\xc3",
        b"/\xed\xa0\xbd\xed\xb8\x80",
        b"/a\0b",
        b"/\x01",
        b"/a\x7f",
        b"/\xc2\x85",
        b"relative",
        b"",
        b"//a",
        b"/.",
        b"/..",
        b"/a\nb",
    ] {
        assert_eq!(session.call_body(OpCode::Create, &create(path)).err(), -8, "{path:?}");
    }
    // As long as a frame can be; valid, unless there is something in it that is not.
    let mut long = vec![b'a'; FRAME_BYTES_MAX as usize - 100];
    long[0] = b'/';
    assert_eq!(session.call_body(OpCode::Create, &create(&long)).err(), 0);
    let path = String::from_utf8(long.clone()).expect("ASCII");
    assert_eq!(session.exists(&path, false).err(), 0);
    assert_eq!(session.delete(&path, -1).err(), 0);
    *long.last_mut().expect("it is long") = 0xff;
    assert_eq!(session.call_body(OpCode::Create, &create(&long)).err(), -8);
    // Nothing but slashes: looked up, and not there.
    let slashes = "/".repeat(FRAME_BYTES_MAX as usize - 100);
    assert_eq!(session.exists(&slashes, false).err(), -101);
    // Nor is its parent, which is looked at before the path's form.
    assert_eq!(session.create(&slashes, b"", 0).err(), -101);
    scene.finish();
}

#[test]
fn vector_count_2_31_minus_1() {
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    scene.attack_begins();
    let mut acl = Vec::new();
    acl.put_str("/a");
    acl.put_buffer(None);
    acl.put_int(i32::MAX);
    let mut watches = vec![0; 8];
    watches.put_int(i32::MAX);
    for _ in 0..100 {
        assert_eq!(session.call_body(OpCode::Create, &acl).err(), -5);
        assert_eq!(session.call_body(OpCode::SetWatches, &watches).err(), -5);
        assert_eq!(session.call_body(OpCode::SetWatches2, &watches).err(), -5);
    }
    assert!(scene.peak_growth() < MIB, "{}", scene.peak_growth());
    scene.finish();
}

#[test]
fn nested_multi() {
    let scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    let mut body = Vec::new();
    for _ in 0..50_000 {
        body.put_int(OpCode::Multi as i32);
        body.put_bool(false);
        body.put_int(-1);
    }
    assert_eq!(session.call_body(OpCode::Multi, &body).err(), -5);
    assert_eq!(session.call_body(OpCode::MultiRead, &body).err(), -5);
    scene.finish();
}

#[test]
fn multi_with_as_many_operations_as_a_frame_holds() {
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    let count = |bytes_each: usize| (FRAME_BYTES_MAX as usize - 100) / bytes_each;
    let checks = vec![MultiOp::Check { path: "/".into(), version: -1 }; count(18)];
    let reads = vec![MultiOp::GetChildren { path: "/".into(), watch: false }; count(15)];
    let creates = |flags| {
        let create = CreateRequest {
            op: OpCode::Create,
            path: "/m".into(),
            data: None,
            acl: Some(vec![Acl::open()]),
            flags,
            ttl_ms: 0,
        };
        MultiOp::Create(create)
    };
    let failing = vec![creates(0); count(54)];
    scene.attack_begins();
    for (request, ok) in
        [(Request::Multi(checks), true), (Request::MultiRead(reads), true), (Request::Multi(failing), false)]
    {
        let reply = session.call(&request);
        let Response::Multi(results) = reply.ok() else { panic!("not a multi") };
        let errors = results.iter().filter(|r| matches!(r, zk_proto::MultiResult::Error(_))).count();
        assert_eq!(errors, if ok { 0 } else { results.len() });
    }
    // Request and reply, decoded on both sides.
    assert!(scene.peak_growth() < 128 * MIB, "{}", scene.peak_growth());
    drop(session);
    scene.finish();
}
