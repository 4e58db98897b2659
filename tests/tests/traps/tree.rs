//! Traps of the tree and of Stat.

use std::time::{Duration, Instant};

use zk_proto::{Acl, AddWatchMode, CreateRequest, MultiOp, OpCode, Perms, Request, Response};
use zk_tests::server::{TestServer, is_external};
use zk_tests::wire::{Session, create_with_acl};

fn server() -> TestServer {
    TestServer::start(&[])
}

/// The name that a sequential create got.
fn created(session: &mut Session, path: &str, flags: i32) -> String {
    match session.create(path, b"", flags).ok() {
        Response::Create2 { path, .. } => path.into_owned(),
        other => panic!("{other:?}"),
    }
}

fn set_acl<'a>(path: &'a str, acl: Vec<Acl<'a>>, version: i32) -> Request<'a> {
    Request::SetAcl { path: path.into(), acl: Some(acl), version }
}

#[test]
fn trap_20_the_visible_cversion_counts_creates_and_deletes_of_children() {
    let server = server();
    let mut session = Session::open(server.addr());
    let parent = created(&mut session, "/t20-", 2);
    let child = |name: &str| format!("{parent}/{name}");
    for name in ["a", "b", "c"] {
        assert_eq!(session.create(&child(name), b"", 0).err(), 0);
    }
    let deleted = session.delete(&child("a"), -1).header.zxid;
    let stat = session.exists(&parent, false).stat();
    assert_eq!((stat.cversion, stat.num_children), (4, 2));
    // The delete of a child is a change of the parent's list.
    assert_eq!(stat.pzxid, deleted.0);
    assert_eq!((stat.version, stat.mzxid), (0, stat.czxid));
}

#[test]
fn trap_20_set_data_on_a_child_does_not_touch_the_parent() {
    let server = server();
    let mut session = Session::open(server.addr());
    let parent = created(&mut session, "/t20-", 2);
    let child = format!("{parent}/a");
    assert_eq!(session.create(&child, b"", 0).err(), 0);
    let before = session.exists(&parent, false).stat();
    assert_eq!(session.set(&child, b"x", -1).stat().version, 1);
    assert_eq!(session.exists(&parent, false).stat(), before);
}

#[test]
fn trap_21_sequence_numbers_count_every_create_of_the_parent() {
    let server = server();
    let mut session = Session::open(server.addr());
    let parent = created(&mut session, "/t21-", 2);
    let child = |name: &str| format!("{parent}/{name}");
    assert_eq!(created(&mut session, &child("s-"), 2), child("s-0000000000"));
    assert_eq!(session.create(&child("plain"), b"", 0).err(), 0);
    assert_eq!(created(&mut session, &child("other-"), 3), child("other-0000000002"));
    // Deletes neither consume numbers nor give them back; failed creates consume none.
    assert_eq!(session.delete(&child("other-0000000002"), -1).err(), 0);
    assert_eq!(session.create(&child("plain"), b"", 0).err(), -110);
    let create = |path: String| CreateRequest {
        op: OpCode::Create,
        path: path.into(),
        data: None,
        acl: Some(vec![Acl::open()]),
        flags: 2,
        ttl_ms: 0,
    };
    let failing =
        vec![MultiOp::Create(create(child("m-"))), MultiOp::Check { path: "/t21-none".into(), version: -1 }];
    session.call(&Request::Multi(failing));
    assert_eq!(created(&mut session, &child("s-"), 2), child("s-0000000003"));
    // The name may be nothing but the number, and each create in a multi advances it.
    assert_eq!(created(&mut session, &format!("{parent}/"), 2), child("0000000004"));
    let two = vec![MultiOp::Create(create(child("m-"))), MultiOp::Create(create(child("m-")))];
    let reply = session.call(&Request::Multi(two));
    let Response::Multi(results) = reply.ok() else { panic!("not a multi") };
    let paths: Vec<_> = results
        .iter()
        .map(|result| match result {
            zk_proto::MultiResult::Create { path } => path.clone().into_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, [child("m-0000000005"), child("m-0000000006")]);
}

#[test]
fn trap_22_set_acl_changes_neither_mzxid_nor_version_and_fires_no_watch() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = created(&mut session, "/t22-", 2);
    let before = session.exists(&node, true).stat();
    session.add_watch(&node, AddWatchMode::Persistent);
    let after = session.call(&set_acl(&node, vec![Acl::open(), Acl::read_only()], 0)).stat();
    assert_eq!(after.aversion, 1);
    assert_eq!(zk_proto::Stat { aversion: 0, ..after }, before);
    assert_eq!(session.take_events(), []);
    assert_eq!(session.call(&set_acl(&node, vec![Acl::open()], 0)).err(), -103);
}

#[test]
fn trap_23_delete_asks_the_parent_for_permission_and_looks_at_the_version_before_the_children() {
    let server = server();
    let mut session = Session::open(server.addr());
    let parent = created(&mut session, "/t23-", 2);
    let (child, grandchild) = (format!("{parent}/a"), format!("{parent}/a/b"));
    // A node that grants nothing can be deleted when its parent lets it.
    let nothing = vec![Acl::new(Perms(0), "world", "anyone")];
    assert_eq!(session.call(&create_with_acl(&child, b"", 0, nothing)).err(), 0);
    assert_eq!(session.delete(&child, -1).err(), 0);
    // And one that grants all cannot, when its parent does not.
    assert_eq!(session.create(&child, b"", 0).err(), 0);
    assert_eq!(session.create(&grandchild, b"", 0).err(), 0);
    assert_eq!(session.delete(&child, 7).err(), -103);
    assert_eq!(session.delete(&child, 0).err(), -111);
    let no_delete = Acl::new(Perms(Perms::ALL.0 & !Perms::DELETE.0), "world", "anyone");
    assert_eq!(session.call(&set_acl(&child, vec![no_delete], -1)).err(), 0);
    assert_eq!(session.delete(&grandchild, 7).err(), -102);
}

#[test]
fn trap_24_minus_one_is_the_only_wildcard() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = created(&mut session, "/t24-", 2);
    for version in [-2, -3, i32::MIN, 1] {
        assert_eq!(session.set(&node, b"", version).err(), -103, "{version}");
        assert_eq!(session.delete(&node, version).err(), -103, "{version}");
        assert_eq!(session.call(&set_acl(&node, vec![Acl::open()], version)).err(), -103, "{version}");
    }
    assert_eq!(session.set(&node, b"", -1).err(), 0);
    assert_eq!(session.set(&node, b"", 1).err(), 0);
}

#[test]
fn trap_25_failed_writes_consume_a_zxid_and_reads_do_not() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = created(&mut session, "/t25-", 2);
    let start = session.last_zxid.0;
    let mut expected = start;
    let mut consumes = |reply: zk_tests::wire::Reply, err, zxids| {
        expected += zxids;
        assert_eq!((reply.err(), reply.header.zxid.0), (err, expected), "{}", reply.op);
    };
    consumes(session.create(&node, b"", 0), -110, 1);
    consumes(session.delete(&node, 9), -103, 1);
    consumes(session.set("/t25-none", b"", -1), -101, 1);
    consumes(session.exists(&node, false), 0, 0);
    consumes(session.get("/t25-none", false), -101, 0);
    consumes(session.call(&Request::Sync { path: Some("/".into()) }), 0, 0);
    consumes(session.add_watch("/", AddWatchMode::Persistent), 0, 0);
    consumes(session.call(&Request::Ping), 0, 0);
    consumes(session.call(&Request::Multi(vec![])), 0, 1);
    let failing = vec![MultiOp::Check { path: "/t25-none".into(), version: -1 }];
    consumes(session.call(&Request::Multi(failing)), 0, 1);
    consumes(session.set(&node, b"", -1), 0, 1);
}

#[test]
fn trap_26_the_empty_path_is_the_root_for_reads() {
    let server = server();
    let mut session = Session::open(server.addr());
    let root = session.exists("/", false).stat();
    assert_eq!(session.exists("", false).stat(), root);
    assert_eq!(session.get("", false).stat(), root);
    assert_eq!(session.children("", false), session.children("/", false));
    assert_eq!(session.call(&Request::GetAcl { path: "".into() }).stat(), root);
    for reply in [session.create("", b"", 0), session.set("", b"", -1), session.delete("", -1)] {
        assert_eq!(reply.err(), -8, "{}", reply.op);
    }
}

/// A create that comes behind a setACL of the root, before that is applied, is judged by the new ACL.
#[test]
fn trap_26_a_pending_acl_of_the_root_is_seen() {
    if is_external() {
        return; // Apache judges by the old one now and then.
    }
    let server = server();
    let mut session = Session::open(server.addr());
    for _ in 0..20 {
        let no_create = vec![Acl::new(Perms(Perms::ALL.0 & !Perms::CREATE.0), "world", "anyone")];
        session.send(&set_acl("/", no_create, -1));
        session.send(&zk_tests::wire::create("/t26", b"", 0));
        session.send(&set_acl("/", vec![Acl::open()], -1));
        session.send(&zk_tests::wire::create("/t26", b"", 0));
        session.send(&Request::Delete { path: "/t26".into(), version: -1 });
        let codes: Vec<_> = (0..5).map(|_| session.reply().err()).collect();
        assert_eq!(codes, [0, -102, 0, 0, 0]);
    }
}

#[test]
fn trap_27_quota_accounting_makes_no_transactions_versions_or_events() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = created(&mut session, "/t27-", 2);
    let quota = format!("/zookeeper/quota{node}");
    let stats = format!("{quota}/zookeeper_stats");
    assert_eq!(session.create(&quota, b"", 0).err(), 0);
    assert_eq!(session.create(&format!("{quota}/zookeeper_limits"), b"count=9,bytes=-1", 0).err(), 0);
    assert_eq!(session.create(&stats, b"count=0,bytes=0", 0).err(), 0);
    let read = |session: &mut Session| match session.get(&stats, true).ok() {
        Response::Data { data, stat } => {
            (String::from_utf8_lossy(data.unwrap_or_default()).into_owned(), stat)
        }
        other => panic!("{other:?}"),
    };
    let (text, before) = read(&mut session);
    assert_eq!(text, "count=1,bytes=0");
    session.add_watch(&stats, AddWatchMode::Persistent);
    let zxid = session.last_zxid.0;
    assert_eq!(session.create(&format!("{node}/a"), b"123", 0).header.zxid.0, zxid + 1);
    assert_eq!(session.set(&format!("{node}/a"), b"12345", -1).header.zxid.0, zxid + 2);
    let (text, after) = read(&mut session);
    assert_eq!(text, "count=2,bytes=5");
    assert_eq!((after.mzxid, after.version, after.mtime), (before.mzxid, before.version, before.mtime));
    assert_eq!(session.take_events(), []);
    for path in [format!("{node}/a"), format!("{quota}/zookeeper_limits"), stats.clone(), quota.clone()] {
        assert_eq!(session.delete(&path, -1).err(), 0, "{path}");
    }
}

#[test]
fn trap_29_a_ttl_counts_from_the_nodes_own_mtime() {
    const TTL: Duration = Duration::from_secs(3);
    if is_external() {
        return; // Its scan interval is not ours to set.
    }
    let server = TestServer::start(&["extendedTypesEnabled=true", "znode.container.checkIntervalMs=100"]);
    let mut session = Session::open(server.addr());
    let create = CreateRequest {
        op: OpCode::CreateTtl,
        path: "/t29".into(),
        data: None,
        acl: Some(vec![Acl::open()]),
        flags: 5,
        ttl_ms: TTL.as_millis() as i64,
    };
    assert_eq!(session.call(&Request::Create(create)).err(), 0);
    assert_eq!(session.create("/t29/child", b"", 0).err(), 0);
    std::thread::sleep(TTL + Duration::from_millis(500));
    // Its time is over, but it has a child.
    assert_eq!(session.exists("/t29", false).err(), 0);
    assert_eq!(session.delete("/t29/child", -1).err(), 0);
    // The child's delete gave it no new time: the next scan takes it.
    let emptied = Instant::now();
    while session.exists("/t29", false).err() == 0 {
        assert!(emptied.elapsed() < TTL - Duration::from_secs(1), "still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}
