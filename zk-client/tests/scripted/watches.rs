//! One server-side watch, any number of local ones.

use std::time::Duration;

use zk_client::{Error, EventKind, OpCode};
use zk_proto::{AddWatchMode, ErrorCode, EventType, Request, Response, Stat, WatcherType};

use crate::peer::{Peer, Received, connected};

fn asks_to_watch(received: &Received) -> bool {
    match received.request() {
        Request::GetData { watch, .. } | Request::Exists { watch, .. } => watch,
        Request::GetChildren2 { watch, .. } => watch,
        other => panic!("{other:?}"),
    }
}

async fn expect_removal(peer: &mut Peer, path: &str, kind: WatcherType) {
    let removal = peer.expect(OpCode::RemoveWatches, path).await;
    let Request::RemoveWatches { kind: found, .. } = removal.request() else { unreachable!() };
    assert_eq!(found, kind);
    peer.fail(&removal, ErrorCode::NO_WATCHER).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_every_listener_before_the_next_reply() {
    let (zk, mut peer, _listener) = connected().await;
    let (a, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    let (b, _) = tokio::join!(zk.exists("/a").watched(), peer.serve());
    let (a, b) = (a.unwrap().2, b.unwrap().1);
    let read = zk.get("/a").send();
    let request = peer.next().await;
    let mut bytes = Peer::event_bytes(EventType::NodeDataChanged, "/a");
    let stat = Stat::default();
    bytes.extend(Peer::reply_bytes(request.xid, 101, ErrorCode::OK, |w| {
        Response::Data { data: None, stat }.encode(w)
    }));
    peer.write(&bytes).await;
    read.await.unwrap();
    let (mut a, mut b) = (a, b);
    for shot in [&mut a, &mut b] {
        assert!(futures::poll!(shot).is_ready(), "ready when the reply is");
    }
    drop((a, b));
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "a used up watch needs no removal");
}

#[tokio::test(start_paused = true)]
async fn the_last_listener_removes_the_watch_of_its_kind() {
    let (zk, mut peer, _listener) = connected().await;
    let (a, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    let (b, _) = tokio::join!(zk.exists("/a").watched(), peer.serve());
    let (c, _) = tokio::join!(zk.children("/a").watched(), peer.serve());
    let (a, b, c) = (a.unwrap().2, b.unwrap().1, c.unwrap().2);
    drop(a);
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "exists shares the watch");
    drop(c);
    expect_removal(&mut peer, "/a", WatcherType::Children).await;
    // A registration under way is a user, too.
    let mut read = Box::pin(zk.get("/a").watched());
    assert!(futures::poll!(&mut read).is_pending());
    drop(b);
    let request = peer.next().await;
    assert_eq!(request.op, OpCode::GetData);
    peer.answer(&request).await;
    let d = read.await.unwrap().2;
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
    drop(d);
    expect_removal(&mut peer, "/a", WatcherType::Data).await;
}

#[tokio::test(start_paused = true)]
async fn failed_reads_watch_nothing_but_exists_does() {
    let (zk, mut peer, _listener) = connected().await;
    let read = zk.get("/a").watched();
    let server = async {
        let request = peer.next().await;
        assert!(asks_to_watch(&request));
        peer.fail(&request, ErrorCode::NO_NODE).await;
    };
    let (read, ()) = tokio::join!(read, server);
    assert!(read.unwrap_err().is_no_node());
    let server = async {
        let request = peer.next().await;
        peer.fail(&request, ErrorCode::NO_NODE).await;
    };
    let (exists, ()) = tokio::join!(zk.exists("/a").watched(), server);
    let (none, shot) = exists.unwrap();
    assert!(none.is_none());
    drop(shot);
    expect_removal(&mut peer, "/a", WatcherType::Data).await;
}

#[tokio::test(start_paused = true)]
async fn a_persistent_watch_covers_one_shot_ones() {
    let (zk, mut peer, mut listener) = connected().await;
    let (stream, request) = tokio::join!(async { zk.watch("/a").await }, peer.serve());
    let mut stream = stream.unwrap();
    assert!(matches!(request.request(), Request::AddWatch { mode: AddWatchMode::Persistent, .. }));
    let (data, request) = tokio::join!(zk.get("/a").watched(), peer.serve());
    assert!(!asks_to_watch(&request), "it would replace the persistent watch on older servers");
    let (children, request) = tokio::join!(zk.children("/a").watched(), peer.serve());
    assert!(!asks_to_watch(&request));
    peer.event(EventType::NodeDataChanged, "/a").await;
    assert_eq!(data.unwrap().2.fired().await.kind, EventKind::DataChanged);
    assert_eq!(stream.next().await.unwrap().kind, EventKind::DataChanged);
    // The server's watch stays for the one-shot one when the stream goes.
    drop(stream);
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
    // The server replays nothing for it after a reconnect.
    drop(peer);
    let mut peer = listener.accept_again().await;
    assert_eq!(children.unwrap().2.fired().await.kind, EventKind::Resync);
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "nothing is left to be set again");
}

#[tokio::test(start_paused = true)]
async fn a_recursive_watch_stands_in_for_a_persistent_one() {
    let (zk, mut peer, _listener) = connected().await;
    let (tree, _) = tokio::join!(async { zk.watch("/a").recursive().await }, peer.serve());
    let (node, request) = tokio::join!(async { zk.watch("/a").await }, peer.serve());
    assert!(matches!(request.request(), Request::AddWatch { mode: AddWatchMode::PersistentRecursive, .. }));
    let (mut tree, mut node) = (tree.unwrap(), node.unwrap());
    for (kind, path) in [
        (EventType::NodeCreated, "/a/b"),
        (EventType::NodeDataChanged, "/a/b"),
        (EventType::NodeCreated, "/a/b/c"),
        // A newer server that keeps both modes says it, too.
        (EventType::NodeChildrenChanged, "/a"),
        (EventType::NodeDeleted, "/a/b"),
        (EventType::NodeDataChanged, "/a"),
    ] {
        peer.event(kind, path).await;
    }
    for _ in 0..5 {
        assert_ne!(tree.next().await.unwrap().kind, EventKind::ChildrenChanged);
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = node.next().await.unwrap();
        seen.push((event.kind, event.path));
    }
    let path = || "/a".to_owned();
    assert_eq!(
        seen,
        [
            (EventKind::ChildrenChanged, path()),
            (EventKind::ChildrenChanged, path()),
            (EventKind::DataChanged, path())
        ]
    );
    drop(tree);
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
    drop(node);
    expect_removal(&mut peer, "/a", WatcherType::Any).await;
}

#[tokio::test(start_paused = true)]
async fn a_cover_that_fails_makes_its_dependants_read_again() {
    let (zk, mut peer, _listener) = connected().await;
    let mut watch = Box::pin(async { zk.watch("/a").await });
    assert!(futures::poll!(&mut watch).is_pending());
    let mut read = Box::pin(zk.get("/a").watched());
    assert!(futures::poll!(&mut read).is_pending());
    let add = peer.next().await;
    let get = peer.next().await;
    assert!(!asks_to_watch(&get));
    peer.fail(&add, ErrorCode::UNIMPLEMENTED).await;
    peer.answer(&get).await;
    assert!(matches!(watch.await, Err(Error::Unsupported(_))));
    assert_eq!(read.await.unwrap().2.fired().await.kind, EventKind::Resync);
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_is_told_to_read_again() {
    let (zk, mut peer, _listener) = connected().await;
    let (stream, _) = tokio::join!(async { zk.watch("/a").recursive().await }, peer.serve());
    let mut stream = stream.unwrap();
    for i in 0..1030 {
        peer.event(EventType::NodeCreated, &format!("/a/{i}")).await;
    }
    let read = zk.get("/a").send();
    peer.serve().await;
    read.await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!((first.kind, first.path.as_str()), (EventKind::Resync, "/a"));
    let mut last = None;
    for _ in 1025..1030 {
        last = stream.next().await;
    }
    assert_eq!(last.unwrap().path, "/a/1029");
    assert!(futures::poll!(Box::pin(stream.next())).is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_removal_is_asked_once() {
    let (zk, mut peer, mut listener) = connected().await;
    let (shot, _) = tokio::join!(zk.get("/a").watched(), peer.serve());
    drop(shot);
    let removal = peer.next().await;
    peer.fail(&removal, ErrorCode::UNIMPLEMENTED).await;
    drop(peer);
    let mut peer = listener.accept_again().await;
    let (shot, _) = tokio::join!(zk.get("/b").watched(), peer.serve());
    drop(shot);
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_client() {
    let (zk, mut peer, _listener) = connected().await;
    let (stream, _) = tokio::join!(async { zk.watch("/a").await }, peer.serve());
    let stream = stream.unwrap();
    let close = tokio::spawn(zk.close());
    peer.serve().await;
    close.await.unwrap().unwrap();
    let events: Vec<_> = futures::StreamExt::collect(stream).await;
    assert_eq!(events.iter().map(|e| e.kind).collect::<Vec<_>>(), [EventKind::Closed]);
}
