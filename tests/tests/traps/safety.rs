//! Requests that have killed or stopped Apache's servers.

use zk_proto::jute::Writer;
use zk_proto::{CreateRequest, MultiOp, OpCode, Request, SessionId};
use zk_tests::server::{TestServer, is_external};
use zk_tests::wire::Session;

fn server() -> TestServer {
    TestServer::start(&["extendedTypesEnabled=true"])
}

#[test]
fn trap_01_an_undecodable_write_never_reaches_the_pipeline() {
    let server = server();
    let mut session = Session::open(server.addr());
    for op in [
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateContainer,
        OpCode::CreateTtl,
        OpCode::Delete,
        OpCode::DeleteContainer,
        OpCode::SetData,
        OpCode::SetAcl,
        OpCode::Reconfig,
    ] {
        let before = session.create("/t01", b"", 0).header.zxid;
        for body in [&b""[..], &[0, 0], &[0, 0, 0, 2, b'/'], &[0x7f, 0xff, 0xff, 0xff, b'/']] {
            let reply = session.call_body(op, body);
            assert_eq!((reply.err(), reply.body.len()), (-5, 0), "{op} {body:?}");
        }
        // A failed create consumes one zxid; the undecodable ones none.
        let after = session.create("/t01", b"", 0).header.zxid;
        assert_eq!(after.0, before.0 + 1, "{op}");
    }
    for body in [&b""[..], &[0, 0, 0, 2, 0, 0, 0, 0, 0]] {
        assert_eq!(session.call_body(OpCode::Multi, body).err(), -5);
    }
    assert_eq!(session.delete("/t01", -1).err(), 0);
}

#[test]
fn trap_02_ttls_must_be_in_range_and_have_ttl_flags() {
    let server = server();
    let mut session = Session::open(server.addr());
    let mut create_ttl = |flags, ttl_ms| {
        let create = CreateRequest {
            op: OpCode::CreateTtl,
            path: "/t02".into(),
            data: None,
            acl: Some(vec![zk_proto::Acl::open()]),
            flags,
            ttl_ms,
        };
        session.call(&Request::Create(create)).err()
    };
    for flags in [-1, 0, 1, 2, 3, 4, 7, i32::MAX] {
        // Apache accepts a negative ttl here, fails to apply the transaction and never starts again.
        let ttls: &[i64] = if is_external() { &[0, 1, 1000] } else { &[0, 1, 1000, -1, i64::MIN] };
        for &ttl in ttls {
            assert_eq!(create_ttl(flags, ttl), -8, "flags {flags}, ttl {ttl}");
        }
    }
    for flags in [5, 6] {
        for ttl in [0, -1, i64::MIN, zk_proto::MAX_TTL_MS + 1, i64::MAX] {
            assert_eq!(create_ttl(flags, ttl), -8, "flags {flags}, ttl {ttl}");
        }
    }
    assert_eq!(create_ttl(5, zk_proto::MAX_TTL_MS), 0);
    assert_eq!(session.delete("/t02", -1).err(), 0);
}

#[test]
fn trap_03_quota_nodes_cannot_poison_the_log() {
    if is_external() {
        return; // Apache's server does not survive this.
    }
    let mut server = TestServer::start_on_disk(&["enforceQuota=true"]);
    let mut session = Session::open(server.addr());

    assert_eq!(session.create("/zookeeper/quota/zookeeper_limits", b"count=1", 0).err(), -8);

    // Deleting a node of this name below a parent that only looks like the reserved tree, also by expiry.
    for (parent, flags) in [("/zookeeperx", 0), ("/zookeeper1", 1), ("/zookeeper/quot", 0)] {
        assert_eq!(session.create(parent, b"", 0).err(), 0);
        let node = format!("{parent}/zookeeper_limits");
        if session.create(&node, b"count=1", flags).err() == 0 {
            session.delete(&node, -1);
        }
    }

    // Text that does not parse, in the statistics of a quota that counts.
    for path in ["/t03", "/zookeeper/quota/t03"] {
        assert_eq!(session.create(path, b"", 0).err(), 0);
    }
    assert_eq!(session.create("/zookeeper/quota/t03/zookeeper_limits", b"count=5,bytes=-1", 0).err(), 0);
    assert_eq!(session.create("/zookeeper/quota/t03/zookeeper_stats", b"count=0,bytes=0", 0).err(), 0);
    for junk in [&b"junk"[..], b"count=", b"count=x,bytes=1", b"\xff\xfe"] {
        assert_eq!(session.set("/zookeeper/quota/t03/zookeeper_stats", junk, -1).err(), -8, "{junk:?}");
    }
    assert_eq!(session.create("/t03/a", b"", 0).err(), 0);
    session.close();

    // And nothing of it is in the log.
    server.restart();
    let mut session = Session::open(server.addr());
    assert_eq!(session.children("/t03", false), ["a"]);
    assert_eq!(session.create("/t03/b", b"", 0).err(), 0);
}

#[test]
fn trap_03_a_multi_cannot_poison_the_log_either() {
    if is_external() {
        return; // Apache's server does not survive this.
    }
    let mut server = TestServer::start_on_disk(&[]);
    let mut session = Session::open(server.addr());
    let poison = CreateRequest {
        op: OpCode::Create,
        path: "/zookeeper/quota/zookeeper_limits".into(),
        data: Some(b"count=1"),
        acl: Some(vec![zk_proto::Acl::open()]),
        flags: 0,
        ttl_ms: 0,
    };
    let reply = session.call(&Request::Multi(vec![MultiOp::Create(poison)]));
    let zk_proto::Response::Multi(results) = reply.ok() else { panic!("no results") };
    assert_eq!(results, [zk_proto::MultiResult::Error(zk_proto::ErrorCode::BAD_ARGUMENTS)]);
    session.close();
    server.restart();
    assert_eq!(Session::open(server.addr()).children("/zookeeper/quota", false), [""; 0]);
}

#[test]
fn trap_04_session_passwords_are_those_that_apache_computes() {
    let server = server();
    for _ in 0..3 {
        let session = Session::open(server.addr());
        assert_eq!(session.passwd, apaches_password(session.id));
        // Standalone servers are server 1.
        assert_eq!(session.id.0 >> 56, 1);
    }
}

/// The first 16 bytes of `java.util.Random` seeded with the id and a constant.
fn apaches_password(id: SessionId) -> Vec<u8> {
    const MASK: u64 = (1 << 48) - 1;
    let mut state = (id.0 as u64 ^ 0xb341_5c00 ^ 0x5_deec_e66d) & MASK;
    let mut password = Vec::new();
    for _ in 0..4 {
        state = state.wrapping_mul(0x5_deec_e66d).wrapping_add(0xb) & MASK;
        password.extend_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    password
}

#[test]
fn trap_05_the_owner_of_container_and_ttl_nodes_is_hidden() {
    let server = server();
    let mut session = Session::open(server.addr());
    for (op, flags, ttl_ms) in [(OpCode::CreateContainer, 4, 0), (OpCode::CreateTtl, 5, 100_000)] {
        let create = CreateRequest {
            op,
            path: "/t05".into(),
            data: None,
            acl: Some(vec![zk_proto::Acl::open()]),
            flags,
            ttl_ms,
        };
        assert_eq!(session.call(&Request::Create(create)).stat().ephemeral_owner, 0);
        assert_eq!(session.exists("/t05", false).stat().ephemeral_owner, 0);
        assert_eq!(session.delete("/t05", -1).err(), 0);
    }
    assert_eq!(session.create("/t05", b"", 1).stat().ephemeral_owner, session.id.0);
}

/// A vector count that the frame cannot hold, in each request that has one: an error, not an allocation.
#[test]
fn trap_01_counts_beyond_the_frame_are_refused() {
    let server = server();
    let mut session = Session::open(server.addr());
    let mut body = Vec::new();
    body.put_str("/t01c");
    body.put_buffer(None);
    body.put_int(i32::MAX);
    assert_eq!(session.call_body(OpCode::Create, &body).err(), -5);
    let mut body = vec![0; 8];
    body.put_int(i32::MAX);
    assert_eq!(session.call_body(OpCode::SetWatches, &body).err(), -5);
}
