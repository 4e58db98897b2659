//! What recipes build on: protected creates, the cleanup queue, pinned handles.

use std::time::Duration;

use zk_client::{Cleanup, Client, Error, OpCode, SessionId};
use zk_proto::{ErrorCode, Response, Stat};

use crate::peer::{Peer, SESSION, T, connect, connected, script};

fn mine() -> Stat {
    Stat { ephemeral_owner: SESSION.0, ..Stat::default() }
}

async fn children(peer: &mut Peer, op: OpCode, names: &[&str]) {
    let list = peer.expect(op, "/l").await;
    let names = names.iter().map(|&name| name.into()).collect();
    let response = match op {
        OpCode::GetChildren => Response::Paths(names),
        _ => Response::Children2 { children: names, stat: Stat::default() },
    };
    peer.reply(&list, &response).await;
}

fn protected(zk: &Client) -> zk_client::Pending<zk_client::Created> {
    zk.create("/l/lock-", "").ephemeral().sequential().protected().send()
}

#[tokio::test(start_paused = true)]
async fn a_protected_create_finds_its_node_again() {
    let (zk, mut peer, mut listener) = connected().await;
    let create = tokio::spawn(protected(&zk));
    let request = peer.next().await;
    let path = request.path();
    let name = path.strip_prefix("/l/").unwrap();
    assert!(name.starts_with("_c_") && name.ends_with("-lock-") && name.len() == 3 + 36 + 6, "{name}");
    drop(peer);
    let mut peer = listener.accept_again().await;
    assert_eq!(peer.serve().await.op, OpCode::Sync, "another server may lag behind");
    let (low, high) = (format!("{name}0000000003"), format!("{name}0000000007"));
    children(&mut peer, OpCode::GetChildren2, &[&high, "_c_other-lock-0000000001", &low]).await;
    for _ in 0..2 {
        let exists = peer.next().await;
        peer.reply(&exists, &Response::Stat(mine())).await;
    }
    let created = create.await.unwrap().unwrap();
    assert_eq!(created.path, format!("/l/{low}"));
    assert_eq!(peer.serve().await.path(), format!("/l/{high}"), "the other one is deleted");
}

#[tokio::test(start_paused = true)]
async fn a_protected_create_that_was_not_applied_is_repeated() {
    let (zk, mut peer, mut listener) = connected().await;
    let create = tokio::spawn(protected(&zk));
    let path = peer.next().await.path();
    drop(peer);
    let mut peer = listener.accept_again().await;
    peer.serve().await;
    children(&mut peer, OpCode::GetChildren2, &[]).await;
    assert_eq!(peer.serve().await.path(), path, "with the same GUID");
    create.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_protected_create_never_adopts_the_node_of_another_session() {
    let (zk, mut peer, mut listener) = connected().await;
    let create = tokio::spawn(protected(&zk));
    let path = peer.next().await.path();
    drop(peer);
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    let mut peer = listener.accept().await;
    peer.welcome(SessionId(0x5678)).await;
    let again = peer.next().await;
    assert_eq!(again.op, OpCode::Create2);
    assert_ne!(again.path(), path, "a new GUID");
    peer.answer(&again).await;
    create.await.unwrap().unwrap();
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "what the old session has left is not ours");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_protected_create_ends_with_its_session() {
    let (zk, mut peer, mut listener) = connected().await;
    let create = tokio::spawn(protected(&zk.pinned()));
    peer.next().await;
    drop(peer);
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    let mut peer = listener.accept().await;
    peer.welcome(SessionId(0x5678)).await;
    assert!(matches!(create.await.unwrap(), Err(Error::SessionExpired(SESSION))));
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_protected_create_leaves_nothing() {
    let (zk, mut peer, mut listener) = connected().await;
    let create = protected(&zk);
    let request = peer.next().await;
    let name = request.path().split_off(3);
    drop(create);
    assert_eq!(peer.next().await.op, OpCode::Sync);
    assert_eq!(peer.next().await.op, OpCode::GetChildren);
    // The connection is lost before anything is answered: all over again.
    drop(peer);
    let mut peer = listener.accept_again().await;
    peer.serve().await;
    let node = format!("{name}0000000001");
    let foreign = format!("{name}0000000002");
    children(&mut peer, OpCode::GetChildren, &[&node, "other", &foreign]).await;
    let (first, second) = (peer.next().await, peer.next().await);
    peer.reply(&first, &Response::Stat(mine())).await;
    peer.reply(&second, &Response::Stat(Stat { ephemeral_owner: 99, ..Stat::default() })).await;
    let delete = peer.expect(OpCode::Delete, &format!("/l/{node}")).await;
    peer.answer(&delete).await;
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
    assert_eq!(zk.testing().cleanup_backlog(), 0);
}

#[tokio::test(start_paused = true)]
async fn deletions_are_repeated_until_they_are_answered() {
    let (builder, listener) = script();
    // A full queue does not stop a release.
    let (zk, mut peer, mut listener) = connect(builder.max_in_flight(1), listener).await;
    let _busy = (zk.get("/x").send(), zk.get("/y").send());
    let a = zk.delete("/a").in_background();
    let b = zk.clean_up(Cleanup::Delete { path: "/b".to_owned(), czxid: Some(5) });
    peer.expect(OpCode::GetData, "/x").await;
    peer.expect(OpCode::Delete, "/a").await;
    drop(peer);
    let mut peer = listener.accept_again().await;
    let delete = peer.expect(OpCode::Delete, "/a").await;
    peer.fail(&delete, ErrorCode::NO_NODE).await;
    a.await.unwrap();
    // A name that can be used again is deleted only while it is still the same node.
    let (sync, exists) = (peer.expect(OpCode::Sync, "/b").await, peer.expect(OpCode::Exists, "/b").await);
    peer.answer(&sync).await;
    peer.reply(&exists, &Response::Stat(Stat { czxid: 6, ..Stat::default() })).await;
    b.await.unwrap();
    let denied = zk.delete("/c").in_background();
    let delete = peer.expect(OpCode::Delete, "/c").await;
    peer.fail(&delete, ErrorCode::NO_AUTH).await;
    assert!(denied.await.is_err());
    let throttled = zk.delete("/d").in_background();
    let delete = peer.expect(OpCode::Delete, "/d").await;
    peer.fail(&delete, ErrorCode::THROTTLED_OP).await;
    let delete = peer.expect(OpCode::Delete, "/d").await;
    peer.answer(&delete).await;
    throttled.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletions_end_with_the_session_unless_the_nodes_do_not() {
    let (zk, peer, mut listener) = connected().await;
    let mut states = zk.states();
    drop(peer);
    states.changed().await.unwrap();
    let pinned = zk.pinned();
    let mine = zk.delete("/mine").in_background();
    let marker = zk.clean_up(Cleanup::DeletePersistent { path: "/marker".to_owned() });
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.refuse().await;
    mine.await.unwrap();
    let mut peer = listener.accept().await;
    peer.connect_request().await;
    peer.answer_connect(SessionId(0x5678), T).await;
    let delete = peer.expect(OpCode::Delete, "/marker").await;
    peer.answer(&delete).await;
    marker.await.unwrap();
    // A guard of the old session has nothing to delete in the new one.
    pinned.delete("/mine").in_background().await.unwrap();
    assert!(peer.is_quiet(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn closing_drains_the_cleanup_queue() {
    let (zk, mut peer, _listener) = connected().await;
    let done = zk.delete("/a").in_background();
    let close = tokio::spawn(zk.close());
    let delete = peer.expect(OpCode::Delete, "/a").await;
    assert!(peer.is_quiet(Duration::from_secs(1)).await, "first the nodes, then the session");
    peer.answer(&delete).await;
    done.await.unwrap();
    assert_eq!(peer.serve().await.op, OpCode::CloseSession);
    close.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_hangs_does_not_stop_the_close() {
    let (zk, mut peer, _listener) = connected().await;
    let done = zk.delete("/a").in_background();
    let close = tokio::spawn(zk.close());
    let delete = peer.expect(OpCode::Delete, "/a").await;
    let end = peer.next().await;
    assert_eq!(end.op, OpCode::CloseSession);
    peer.answer(&delete).await;
    peer.answer(&end).await;
    close.await.unwrap().unwrap();
    done.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn guids_are_random_and_of_version_four() {
    let (zk, _peer, _listener) = connected().await;
    let (a, b) = (zk.guid(), zk.guid());
    assert_ne!(a, b);
    let parts: Vec<usize> = a.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
    assert_eq!(&a[14..15], "4");
    assert!("89ab".contains(&a[19..20]), "{a}");
}
