//! Traps of watches.

use zk_proto::EventType::{self, NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
use zk_proto::{
    Acl, AddWatchMode, MultiOp, Perms, ReplyHeader, Request, Response, SetWatches, WatcherType, jute::Reader,
    xid,
};
use zk_tests::server::TestServer;
use zk_tests::wire::{Session, create, create_with_acl};

fn server() -> TestServer {
    TestServer::start(&[])
}

/// A fresh node of its own for each test, also on a server that other tests use.
fn node(session: &mut Session) -> String {
    match session.create("/watch-", b"", 2).ok() {
        Response::Create2 { path, .. } => path.into_owned(),
        other => panic!("{other:?}"),
    }
}

fn at(kind: EventType, path: &str) -> (EventType, String) {
    (kind, path.to_owned())
}

fn remove(session: &mut Session, path: &str, kind: WatcherType) -> i32 {
    session.call(&Request::RemoveWatches { path: path.into(), kind }).err()
}

#[test]
fn trap_31_a_child_watch_on_a_deleted_node_gets_node_deleted_once() {
    let server = server();
    let (mut both, mut child) = (Session::open(server.addr()), Session::open(server.addr()));
    let node = node(&mut both);
    assert_eq!(both.get(&node, true).err(), 0);
    both.children(&node, true);
    child.children(&node, true);
    assert_eq!(both.delete(&node, -1).err(), 0);
    assert_eq!(both.take_events(), [at(NodeDeleted, &node)]);
    child.call(&Request::Sync { path: None });
    assert_eq!(child.take_events(), [at(NodeDeleted, &node)]);
}

#[test]
fn trap_32_only_exists_arms_a_watch_on_a_missing_node() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    let path = |name: &str| format!("{node}/{name}");
    assert_eq!(session.exists(&path("e"), true).err(), -101);
    assert_eq!(session.get(&path("d"), true).err(), -101);
    for request in [
        Request::GetChildren { path: path("c").into(), watch: true },
        Request::GetChildren2 { path: path("c").into(), watch: true },
    ] {
        assert_eq!(session.call(&request).err(), -101);
    }
    for name in ["e", "d", "c"] {
        assert_eq!(session.create(&path(name), b"", 0).err(), 0);
    }
    assert_eq!(session.take_events(), [at(NodeCreated, &path("e"))]);
}

#[test]
fn trap_33_a_persistent_and_a_one_shot_watch_give_one_event_and_the_persistent_one_stays() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    session.add_watch(&node, AddWatchMode::Persistent);
    session.get(&node, true);
    for _ in 0..2 {
        assert_eq!(session.set(&node, b"", -1).err(), 0);
        assert_eq!(session.take_events(), [at(NodeDataChanged, &node)]);
    }
}

#[test]
fn trap_33_removing_data_or_child_watches_leaves_persistent_ones() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    session.add_watch(&node, AddWatchMode::Persistent);
    assert_eq!(remove(&mut session, &node, WatcherType::Data), -121);
    assert_eq!(remove(&mut session, &node, WatcherType::Children), -121);
    session.get(&node, true);
    session.children(&node, true);
    assert_eq!(remove(&mut session, &node, WatcherType::Data), 0);
    assert_eq!(remove(&mut session, &node, WatcherType::Children), 0);
    assert_eq!(session.set(&node, b"", -1).err(), 0);
    assert_eq!(session.take_events(), [at(NodeDataChanged, &node)]);
    assert_eq!(remove(&mut session, &node, WatcherType::PersistentRecursive), -121);
    assert_eq!(remove(&mut session, &node, WatcherType::Persistent), 0);
    assert_eq!(session.set(&node, b"", -1).err(), 0);
    assert_eq!(session.take_events(), []);
}

#[test]
fn trap_34_an_event_comes_before_the_reply_to_the_write_that_caused_it() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    for _ in 0..50 {
        session.get(&node, true);
        session.send(&Request::SetData { path: node.as_str().into(), data: None, version: -1 });
        let first = session.wire.recv().expect("a frame");
        let header = ReplyHeader::decode(&mut Reader::new(&first)).expect("a header");
        assert_eq!(header.xid, xid::EVENT);
        let reply = session.reply();
        assert_eq!(reply.header.zxid, header.zxid, "the event has the zxid of its cause");
    }
}

#[test]
fn trap_34_a_reader_sees_the_event_before_the_new_state() {
    let server = server();
    let (mut writer, mut reader) = (Session::open(server.addr()), Session::open(server.addr()));
    let node = node(&mut writer);
    for version in 1..=50 {
        reader.call(&Request::Sync { path: None });
        let armed_at = reader.get(&node, true).stat().version;
        assert_eq!(armed_at, version - 1);
        writer.send(&Request::SetData { path: node.as_str().into(), data: None, version: -1 });
        // Read until the new state shows: by then the event must have come.
        while reader.get(&node, false).stat().version == armed_at {}
        assert_eq!(reader.events.len(), 1, "version {version} was seen without an event");
        reader.events.clear();
        assert_eq!(writer.reply().err(), 0);
    }
}

#[test]
fn trap_35_a_failed_multi_and_a_childs_data_fire_no_watch() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    let child = format!("{node}/a");
    assert_eq!(session.create(&child, b"", 0).err(), 0);
    session.children(&node, true);
    session.get(&node, true);
    session.add_watch(&node, AddWatchMode::Persistent);
    assert_eq!(session.set(&child, b"x", -1).err(), 0);
    let failing = vec![
        MultiOp::SetData { path: node.as_str().into(), data: None, version: -1 },
        MultiOp::Delete { path: child.as_str().into(), version: -1 },
        MultiOp::Check { path: "/watch-none".into(), version: -1 },
    ];
    session.call(&Request::Multi(failing));
    assert_eq!(session.take_events(), []);
    // They are still armed.
    assert_eq!(session.delete(&child, -1).err(), 0);
    assert_eq!(session.take_events(), [at(NodeChildrenChanged, &node)]);
}

#[test]
fn trap_36_an_event_that_may_not_be_seen_consumes_a_one_shot_watch() {
    let server = server();
    let (mut owner, mut other) = (Session::open(server.addr()), Session::open(server.addr()));
    let parent = node(&mut owner);
    let node = format!("{parent}/secret");
    assert_eq!(owner.auth_digest("owner:pw").err(), 0);
    assert_eq!(other.exists(&node, true).err(), -101);
    let secret = create_with_acl(&node, b"", 0, vec![Acl::creator_all()]);
    assert_eq!(owner.call(&secret).err(), 0);
    other.call(&Request::Sync { path: None });
    assert_eq!(other.take_events(), []);
    // Neither the identity that may read nor an open ACL brings the watch back.
    assert_eq!(other.auth_digest("owner:pw").err(), 0);
    let open = Request::SetAcl { path: node.as_str().into(), acl: Some(vec![Acl::open()]), version: -1 };
    assert_eq!(owner.call(&open).err(), 0);
    assert_eq!(owner.set(&node, b"x", -1).err(), 0);
    other.call(&Request::Sync { path: None });
    assert_eq!(other.take_events(), []);
}

#[test]
fn trap_36_a_persistent_watcher_sees_only_what_it_may_read() {
    let server = server();
    let (mut owner, mut other) = (Session::open(server.addr()), Session::open(server.addr()));
    let parent = node(&mut owner);
    other.add_watch(&parent, AddWatchMode::PersistentRecursive);
    let secret = format!("{parent}/secret");
    assert_eq!(owner.auth_digest("owner:pw").err(), 0);
    assert_eq!(owner.call(&create_with_acl(&secret, b"", 0, vec![Acl::creator_all()])).err(), 0);
    assert_eq!(owner.set(&secret, b"x", -1).err(), 0);
    assert_eq!(owner.create(&format!("{parent}/open"), b"", 0).err(), 0);
    assert_eq!(owner.delete(&secret, -1).err(), 0);
    other.call(&Request::Sync { path: None });
    assert_eq!(other.take_events(), [at(NodeCreated, &format!("{parent}/open"))]);
    let no_read = Acl::new(Perms::CREATE, "world", "anyone");
    let closed = Request::SetAcl { path: parent.as_str().into(), acl: Some(vec![no_read]), version: -1 };
    assert_eq!(owner.call(&closed).err(), 0);
    // The list of children is the parent's to show.
    other.add_watch(&parent, AddWatchMode::Persistent);
    assert_eq!(owner.call(&create(&format!("{parent}/more"), b"", 0)).err(), 0);
    other.call(&Request::Sync { path: None });
    assert_eq!(other.take_events(), [at(NodeCreated, &format!("{parent}/more"))]);
}

#[test]
fn trap_37_persistent_watches_get_no_replay() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    let seen = session.last_zxid.0;
    assert_eq!(session.set(&node, b"missed", -1).err(), 0);
    let watches = |kind: fn(&mut SetWatches<'static>, Vec<std::borrow::Cow<'static, str>>)| {
        let mut watches = SetWatches {
            relative_zxid: seen,
            data: Some(vec![]),
            exist: Some(vec![]),
            child: Some(vec![]),
            persistent: Some(vec![]),
            persistent_recursive: Some(vec![]),
        };
        kind(&mut watches, vec![node.clone().into()]);
        Request::SetWatches2(watches)
    };
    assert_eq!(session.call(&watches(|w, paths| w.persistent = Some(paths))).err(), 0);
    assert_eq!(session.call(&watches(|w, paths| w.persistent_recursive = Some(paths))).err(), 0);
    assert_eq!(session.take_events(), []);
    assert_eq!(session.set(&node, b"seen", -1).err(), 0);
    assert_eq!(session.take_events(), [at(NodeDataChanged, &node)]);
    // A one-shot data watch is told what it missed.
    assert_eq!(session.call(&watches(|w, paths| w.data = Some(paths))).err(), 0);
    assert_eq!(session.take_events(), [at(NodeDataChanged, &node)]);
}

#[test]
fn trap_38_watches_belong_to_the_connection() {
    let server = server();
    let (mut writer, mut session) = (Session::open(server.addr()), Session::open(server.addr()));
    let node = node(&mut writer);
    session.get(&node, true);
    session.add_watch(&node, AddWatchMode::PersistentRecursive);
    let mut again = session.reattach();
    session.wire.assert_closed();
    assert_eq!(writer.set(&node, b"", -1).err(), 0);
    again.call(&Request::Sync { path: None });
    assert_eq!(again.take_events(), []);
    let check = Request::CheckWatches { path: node.as_str().into(), kind: WatcherType::Any };
    assert_eq!(again.call(&check).err(), -121);
}

#[test]
fn trap_39_set_watches_compares_data_with_mzxid_and_children_with_pzxid() {
    let server = server();
    let mut session = Session::open(server.addr());
    let node = node(&mut session);
    let child = format!("{node}/a");
    let created = session.last_zxid.0;
    assert_eq!(session.create(&child, b"", 0).err(), 0);
    let child_created = session.last_zxid.0;
    assert_eq!(session.set(&node, b"", -1).err(), 0);
    let data_set = session.last_zxid.0;
    let set_watches = |relative_zxid| {
        Request::SetWatches(SetWatches {
            relative_zxid,
            data: Some(vec![node.clone().into(), format!("{node}/gone").into()]),
            exist: Some(vec![child.clone().into()]),
            child: Some(vec![node.clone().into()]),
            ..SetWatches::default()
        })
    };
    // Events come before the reply, with zxid -1; exist watches fire whatever the zxid says.
    let always = [at(NodeDeleted, &format!("{node}/gone")), at(NodeCreated, &child)];
    for (zxid, data, children) in
        [(created, true, true), (child_created, true, false), (data_set, false, false)]
    {
        let mut session = session.reattach();
        session.send(&set_watches(zxid));
        assert_eq!(session.reply().err(), 0);
        assert!(session.events.iter().all(|event| event.zxid == -1));
        let events: Vec<_> = session.events.drain(..).map(|e| (e.kind, e.path)).collect();
        let mut expected = vec![];
        expected.extend(data.then(|| at(NodeDataChanged, &node)));
        expected.extend(always.clone());
        expected.extend(children.then(|| at(NodeChildrenChanged, &node)));
        assert_eq!(events, expected, "relative to {zxid}");
        // What did not fire is armed.
        let check = |kind| Request::CheckWatches { path: node.as_str().into(), kind };
        assert_eq!(session.call(&check(WatcherType::Data)).err() == 0, !data);
        assert_eq!(session.call(&check(WatcherType::Children)).err() == 0, !children);
    }
}
