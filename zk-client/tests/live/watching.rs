//! Watches: sharing, removal, persistent and recursive ones.

use zk_client::{Client, Event, EventKind, Watch};

use crate::support::{scene, soon};

async fn next(watch: &mut Watch) -> (EventKind, String) {
    let Event { kind, path, .. } = soon(watch.next()).await.expect("not closed");
    (kind, path)
}

/// Waits until the client has said everything it has to say to the server.
async fn settle(zk: &Client) {
    zk.sync("/").await.unwrap();
}

#[tokio::test]
async fn persistent_and_recursive() {
    let scene = scene("persistent").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    let mut node = zk.watch("/w").await.unwrap();
    let mut tree = zk.watch("/w").recursive().await.unwrap();
    other.create("/w", "").await.unwrap();
    other.set("/w", "1").await.unwrap();
    other.create("/w/c", "").await.unwrap();
    other.set("/w/c", "1").await.unwrap();
    other.create("/w/c/d", "").await.unwrap();
    other.delete("/w/c/d").await.unwrap();
    other.delete("/w/c").await.unwrap();
    other.create("/v", "").await.unwrap();
    other.delete("/w").await.unwrap();
    use EventKind::*;
    for (kind, path) in [
        (Created, "/w"),
        (DataChanged, "/w"),
        (Created, "/w/c"),
        (DataChanged, "/w/c"),
        (Created, "/w/c/d"),
        (Deleted, "/w/c/d"),
        (Deleted, "/w/c"),
        (Deleted, "/w"),
    ] {
        assert_eq!(next(&mut tree).await, (kind, path.to_owned()));
    }
    for kind in [Created, DataChanged, ChildrenChanged, ChildrenChanged, Deleted] {
        assert_eq!(next(&mut node).await, (kind, "/w".to_owned()));
    }
    zk.testing().kill_connection();
    assert_eq!(next(&mut tree).await.0, Resync);
    assert_eq!(next(&mut node).await.0, Resync);
    // A read after `Resync` would come behind the new watch; this stands for it.
    settle(&zk).await;
    other.create("/w", "").await.unwrap();
    assert_eq!(next(&mut tree).await.0, Created);
    assert_eq!(next(&mut node).await.0, Created);
    tree.remove().await.unwrap();
    other.set("/w", "2").await.unwrap();
    assert_eq!(next(&mut node).await.0, DataChanged);
    node.remove().await.unwrap();
    assert_eq!(zk.testing().server_watches(), 0);
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn one_shot_watches_under_a_persistent_one() {
    let scene = scene("merged").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    zk.create("/w", "").await.unwrap();
    let (_, _, early) = zk.get("/w").watched().await.unwrap();
    let mut tree = zk.watch("/w").recursive().await.unwrap();
    let (_, _, late) = zk.get("/w").watched().await.unwrap();
    let (_, _, children) = zk.children("/w").watched().await.unwrap();
    other.set("/w", "1").await.unwrap();
    assert_eq!(soon(early).await.kind, EventKind::DataChanged);
    assert_eq!(soon(late).await.kind, EventKind::DataChanged);
    assert_eq!(next(&mut tree).await.0, EventKind::DataChanged);
    other.create("/w/c", "").await.unwrap();
    assert_eq!(soon(children).await.kind, EventKind::ChildrenChanged);
    assert_eq!(next(&mut tree).await, (EventKind::Created, "/w/c".to_owned()));
    // The one-shot watch has used up nothing of the persistent one.
    other.set("/w", "2").await.unwrap();
    assert_eq!(next(&mut tree).await.0, EventKind::DataChanged);
    let (_, _, shot) = zk.get("/w").watched().await.unwrap();
    drop(tree);
    other.set("/w", "3").await.unwrap();
    assert_eq!(soon(shot).await.kind, EventKind::DataChanged);
    settle(&zk).await;
    assert_eq!(zk.testing().server_watches(), 0);
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn dropped_watches_leave_the_server() {
    let scene = scene("removal").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    zk.create("/w", "").await.unwrap();
    let (_, _, first) = zk.get("/w").watched().await.unwrap();
    let (_, second) = zk.exists("/w").watched().await.unwrap();
    let (_, _, children) = zk.children("/w").watched().await.unwrap();
    assert_eq!(zk.testing().server_watches(), 2);
    drop(first);
    settle(&zk).await;
    assert_eq!(zk.testing().server_watches(), 2, "get and exists share one watch");
    drop(children);
    settle(&zk).await;
    other.set("/w", "1").await.unwrap();
    assert_eq!(soon(second).await.kind, EventKind::DataChanged);
    let mut abandoned = Box::pin(zk.get("/w").watched());
    assert!(futures::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    settle(&zk).await;
    settle(&zk).await;
    assert_eq!(zk.testing().server_watches(), 0);
    assert!(zk.get("/none").watched().await.is_err());
    assert_eq!(zk.testing().server_watches(), 0);
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn closing_ends_watches() {
    let scene = scene("closing").await;
    let zk = scene.client().await;
    let (_, _, shot) = zk.get("/").watched().await.unwrap();
    let mut stream = zk.watch("/").await.unwrap();
    zk.clone().close().await.unwrap();
    assert_eq!(soon(shot).await.kind, EventKind::Closed);
    assert_eq!(soon(stream.next()).await.unwrap().kind, EventKind::Closed);
    assert!(soon(stream.next()).await.is_none());
    assert!(matches!(zk.get("/").await, Err(zk_client::Error::Closed)));
    scene.end().await;
}
