use zk_proto::jute::Writer;
use zk_proto::{ErrorCode, OpCode, xid};

use crate::client::{Wire, body, create, encode, get, raw};
use crate::server;

const JUTE_MAX_BUFFER: usize = 0xf_ffff;

#[test]
fn bad_frame_lengths_close_the_connection_but_not_the_session() {
    let server = server();
    for length in [0_i32, -1, i32::MIN, JUTE_MAX_BUFFER as i32 + 1, i32::MAX] {
        let mut wire = Wire::connect(&server);
        wire.send(&length.to_be_bytes());
        assert_eq!(wire.rest(), b"", "{length}");
        wire.reattach(&server).expect("the session lives").ping();
    }
}

#[test]
fn bad_first_frames_close_the_connection() {
    let server = server();
    let garbage = b"GET / HTTP/1.1\r\n\r\n";
    let short_connect = [0, 0, 0, 5, 0, 0, 0, 0, 0];
    for bytes in [&garbage[..], &short_connect, &0_i32.to_be_bytes(), &(-1_i32).to_be_bytes(), b"RUOK"] {
        let mut wire = Wire::tcp(&server);
        wire.send(bytes);
        assert_eq!(wire.rest(), b"", "{bytes:?}");
    }
}

#[test]
fn a_frame_of_the_largest_size_is_taken() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let overhead = encode(1, OpCode::Create, &body(&create("/big", b"", 0))).len() - 4;
    let data = vec![7; JUTE_MAX_BUFFER - overhead];
    wire.ok(&create("/big", &data, 0));
    assert_eq!(wire.ok(&get("/big", false)).data(), data);
}

#[test]
fn a_large_frame_may_arrive_in_small_pieces() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let data = vec![7; 300_000];
    let frame = encode(1, OpCode::Create, &body(&create("/big", &data, 0)));
    let more = encode(2, OpCode::GetData, &body(&get("/big", false)));
    for piece in [frame, more].concat().chunks(1_000) {
        wire.send(piece);
    }
    assert_eq!(wire.reply().path(), "/big");
    assert_eq!(wire.reply().data(), data);
}

#[test]
fn a_frame_without_a_header_closes() {
    let server = server();
    let mut wire = Wire::connect(&server);
    wire.send(&[0, 0, 0, 4, 0, 0, 0, 1]);
    assert_eq!(wire.rest(), b"");
}

#[test]
fn unknown_operations_are_refused_and_the_connection_closed() {
    let server = server();
    for op in [0, -1, 10, 13, -10, 99, 4711, i32::MAX, i32::MIN] {
        for behind_a_write in [false, true] {
            let mut wire = Wire::connect(&server);
            if behind_a_write {
                wire.ask(&create("/n-", b"", 2));
            }
            // What stands behind it is not executed.
            wire.send(&[raw(77, op, &[]), encode(78, OpCode::Ping, &[])].concat());
            if behind_a_write {
                assert_eq!(wire.reply().err, ErrorCode::OK);
            }
            let reply = wire.reply();
            assert_eq!((reply.xid, reply.zxid, reply.err), (77, -1, ErrorCode::UNIMPLEMENTED), "{op}");
            assert!(wire.try_reply().is_none(), "{op}");
            wire.reattach(&server).expect("the session lives").ping();
        }
    }
}

#[test]
fn undecodable_requests_are_answered_and_the_connection_stays() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let mut null_path = Vec::new();
    null_path.put_int(-1);
    null_path.put_int(-1);
    let huge_length = i32::MAX.to_be_bytes();
    let negative_length = (-2_i32).to_be_bytes();
    let mut many_acls = Vec::new();
    many_acls.put_str("/x");
    many_acls.put_buffer(None);
    many_acls.put_int(i32::MAX);
    let operations = [
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateContainer,
        OpCode::CreateTtl,
        OpCode::Delete,
        OpCode::SetData,
        OpCode::SetAcl,
        OpCode::Multi,
        OpCode::Exists,
        OpCode::GetData,
        OpCode::GetAcl,
        OpCode::GetChildren,
        OpCode::GetChildren2,
        OpCode::MultiRead,
        OpCode::SetWatches,
        OpCode::SetWatches2,
        OpCode::RemoveWatches,
        OpCode::CheckWatches,
        OpCode::GetAllChildrenNumber,
    ];
    for op in operations {
        for body in [&[][..], &[0], &null_path, &huge_length, &negative_length, &many_acls] {
            wire.send(&encode(5, op, body));
            let reply = wire.reply();
            assert_eq!(reply.xid, 5, "{op}");
            // Some of the bytes are the end of a multi.
            let empty_multi = matches!(op, OpCode::Multi | OpCode::MultiRead) && body.len() == 14;
            assert_eq!(reply.err == ErrorCode::OK, empty_multi, "{op} {body:?}");
        }
    }
    wire.ping();
}

#[test]
fn undecodable_auth_packets_close_without_a_reply() {
    let server = server();
    for op in [OpCode::Auth, OpCode::Sasl] {
        let mut wire = Wire::connect(&server);
        wire.send(&encode(xid::AUTH, op, &[0, 0]));
        assert_eq!(wire.rest(), b"");
        wire.reattach(&server).expect("the session lives").ping();
    }
}

#[test]
fn a_sasl_exchange_ends_at_once() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let mut token = Vec::new();
    token.put_buffer(Some(b""));
    wire.send(&encode(9, OpCode::Sasl, &token));
    let reply = wire.reply();
    assert_eq!((reply.xid, reply.err, &reply.body[..]), (9, ErrorCode::OK, &[0xff; 4][..]));
    wire.ping();
}

#[test]
fn bad_paths_are_refused() {
    let server = server();
    let mut wire = Wire::connect(&server);
    let long = format!("/{}", "x".repeat(1_000_000));
    for path in ["", "relative", "//", "/.", "/..", "/a\0b", "/a\u{1}b", "/\u{f8ff}", "/\u{7f}"] {
        assert_eq!(wire.call(&create(path, b"", 0)).err, ErrorCode::BAD_ARGUMENTS, "{path:?}");
    }
    wire.call(&create(&long, b"", 0));
    wire.ping();
}
