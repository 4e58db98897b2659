//! Sessions: reconnect, expiry, hand-over, background deletions, protection.

use std::time::Duration;

use zk_client::{
    Auth, Cleanup, Client, Error, EventKind, LeaseProof, Mode, OnExpired, Outcome, Parents, SessionState,
};

use crate::support::{scene, soon};

#[tokio::test]
async fn a_reconnect_keeps_session_watches_and_auth() {
    let scene = scene("reconnect").await;
    let zk = scene.builder().auth(Auth::digest("bob", "pw")).await.unwrap();
    let session = zk.session_id();
    zk.create("/e", "").ephemeral().await.unwrap();
    zk.create("/mine", "").acl(vec![zk_client::Acl::creator_all()]).await.unwrap();
    let (_, _, changed) = zk.get("/e").watched().await.unwrap();
    let (_, created) = zk.exists("/new").watched().await.unwrap();
    let (_, _, children) = zk.children("/").watched().await.unwrap();
    let mut states = zk.states();
    zk.testing().pause_dialing(true);
    zk.testing().kill_connection();
    assert!(matches!(soon(states.changed()).await, Some(SessionState::Suspended { .. })));
    let other = scene.client().await;
    other.set("/e", "changed").await.unwrap();
    other.create("/new", "").await.unwrap();
    // Enqueued while suspended: waits for the connection.
    let queued = zk.get("/e").send();
    zk.testing().pause_dialing(false);
    assert_eq!(&soon(queued).await.unwrap().0[..], b"changed");
    assert_eq!(zk.session_id(), session);
    assert_eq!(soon(changed).await.kind, EventKind::DataChanged);
    assert_eq!(soon(created).await.kind, EventKind::Created);
    assert_eq!(soon(children).await.kind, EventKind::ChildrenChanged);
    zk.set("/mine", "still mine").await.unwrap();
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn expiry_gives_a_new_session_or_the_end() {
    let scene = scene("expiry").await;
    let zk = scene.client().await;
    let old = zk.session_id();
    let pinned = zk.pinned();
    zk.create("/e", "").ephemeral().await.unwrap();
    let (_, _, watch) = zk.get("/e").watched().await.unwrap();
    let mut stream = zk.watch("/e").await.unwrap();
    soon(zk.testing().expire_session()).await.unwrap();
    assert_eq!(soon(watch).await.kind, EventKind::SessionLost);
    assert_eq!(soon(stream.next()).await.unwrap().kind, EventKind::SessionLost);
    let new = soon(zk.connected()).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(soon(stream.next()).await.unwrap().kind, EventKind::Resync);
    assert!(matches!(pinned.exists("/e").await, Err(Error::SessionExpired(id)) if id == old));
    assert!(matches!(pinned.connected().await, Err(Error::SessionExpired(_))));
    assert_eq!(zk.exists("/e").await.unwrap(), None);
    zk.create("/e", "").ephemeral().await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().kind, EventKind::Created);

    let fails = scene.builder().on_expired(OnExpired::Fail).await.unwrap();
    let id = fails.session_id();
    soon(fails.testing().expire_session()).await.unwrap();
    assert!(matches!(fails.exists("/").await, Err(Error::SessionExpired(e)) if e == id));
    assert!(matches!(soon(fails.connected()).await, Err(Error::SessionExpired(e)) if e == id));
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_session_can_be_handed_over() {
    let scene = scene("handover").await;
    let zk = scene.client().await;
    zk.create("/e", "").ephemeral().await.unwrap();
    let clone = zk.clone();
    let last = zk.set("/e", "bye").send();
    let ticket = zk.detach().await.unwrap();
    last.await.unwrap();
    assert!(matches!(clone.get("/e").await, Err(Error::Closed)));
    assert!(!format!("{ticket:?}").contains("password"));
    let json = serde_json::to_string(&ticket).unwrap();
    let zk = scene.builder().resume(serde_json::from_str(&json).unwrap()).await.unwrap();
    assert_eq!(zk.session_id(), ticket.id());
    let (data, stat) = zk.get("/e").await.unwrap();
    assert_eq!((&data[..], stat.ephemeral_owner), (&b"bye"[..], ticket.id().0));
    zk.close().await.unwrap();
    // What is closed cannot be resumed: a new session takes its place.
    let zk = scene.builder().resume(ticket.clone()).await.unwrap();
    assert_ne!(zk.session_id(), ticket.id());
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_session() {
    let scene = scene("drop").await;
    let zk = scene.client().await;
    zk.create("/e", "").ephemeral().await.unwrap();
    drop(zk);
    let path = format!("{}/e", scene.root);
    soon(scene.admin.exists(&path).until_deleted()).await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn the_cleanup_queue_deletes_what_is_its_own() {
    let scene = scene("cleanup").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    let mine = zk.create("/master", "").ephemeral().await.unwrap();
    let name = |n: u32| format!("/_c_guid-{n}-");
    for n in 0..3 {
        zk.create(&name(n), "").ephemeral().sequential().await.unwrap();
    }
    other.create("/_c_guid-foreign", "").ephemeral().await.unwrap();
    zk.create("/simple", "").ephemeral().await.unwrap();
    zk.testing().pause_dialing(true);
    zk.testing().kill_connection();
    let simple = zk.delete("/simple").in_background();
    let by_guid = zk.clean_up(Cleanup::DeleteByGuid { dir: "/".to_owned(), prefix: "_c_guid-".to_owned() });
    let stale = zk.clean_up(Cleanup::Delete { path: "/master".to_owned(), czxid: Some(mine.stat.czxid - 1) });
    let missing = zk.delete("/missing").in_background();
    assert_eq!(zk.testing().cleanup_backlog(), 4);
    zk.testing().pause_dialing(false);
    for done in [simple, by_guid, stale, missing] {
        soon(done).await.unwrap();
    }
    let mut left = other.children("/").await.unwrap().0;
    left.sort();
    assert_eq!(left, ["_c_guid-foreign", "master"]);
    let ours = Cleanup::Delete { path: "/master".to_owned(), czxid: Some(mine.stat.czxid) };
    soon(zk.clean_up(ours)).await.unwrap();
    assert_eq!(other.exists("/master").await.unwrap(), None);
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn protected_creates_survive_a_lost_connection() {
    let scene = scene("protected").await;
    let zk = scene.client().await;
    let other = scene.client().await;
    zk.create("/l/lock-", "").ephemeral().sequential().protected().parents(Parents::Container).await.unwrap();
    for round in 0..20 {
        let create = zk.create("/l/lock-", "").ephemeral().sequential().protected().send();
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        zk.testing().kill_connection();
        let created = soon(create).await.unwrap();
        assert_eq!(created.stat.ephemeral_owner, zk.session_id().0);
        assert_eq!(other.children("/l").await.unwrap().0.len(), round + 2, "one node per create");
    }
    // Dropped at some point of its way: nothing stays.
    for round in 0..20 {
        let create = zk.create("/l/lock-", "").ephemeral().sequential().protected().send();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        if round % 3 == 0 {
            zk.testing().kill_connection();
        }
        drop(create);
    }
    soon(async {
        while zk.testing().cleanup_backlog() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    zk.connected().await.unwrap();
    assert_eq!(other.linearizable().children("/l").await.unwrap().0.len(), 21);
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn idempotent_writes_are_repeated() {
    let scene = scene("idempotent").await;
    let zk = scene.client().await;
    for i in 0..20 {
        let path = format!("/n{i}");
        let create = zk.create(&path, "x").idempotent().send();
        tokio::task::yield_now().await;
        zk.testing().kill_connection();
        soon(create).await.unwrap();
        let set = zk.set(&path, "y").version(0).idempotent().send();
        tokio::task::yield_now().await;
        zk.testing().kill_connection();
        assert_eq!(soon(set).await.unwrap().version, 1);
        let delete = zk.delete(&path).idempotent().send();
        tokio::task::yield_now().await;
        zk.testing().kill_connection();
        soon(delete).await.unwrap();
    }
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn retry_repeats_what_may_be_repeated() {
    let scene = scene("retry").await;
    let zk = scene.client().await;
    let policy = zk_client::RetryPolicy::attempts(10);
    let mut attempts = 0;
    let read = zk.retry(&policy, |zk| {
        attempts += 1;
        let kill = attempts == 1;
        async move {
            let read = zk.get("/").send();
            if kill {
                zk.testing().kill_connection();
            }
            read.await
        }
    });
    soon(read).await.unwrap();
    assert_eq!(attempts, 2);
    let failed = zk.retry(&policy, |zk| async move { zk.get("/nope").await }).await;
    assert!(failed.unwrap_err().is_no_node());
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn the_lease_moves_while_something_is_held() {
    let scene = scene("lease").await;
    let timeout = Duration::from_secs(2);
    let zk = scene.builder().session_timeout(timeout).lease_proof(LeaseProof::Commit).await.unwrap();
    let timeout = zk.session().timeout();
    let held = zk.create("/held", "").mode(Mode::Ephemeral).await.unwrap();
    let hold = zk.pinned().hold_lease(&held.path);
    for _ in 0..8 {
        tokio::time::sleep(timeout / 4).await;
        let left = zk.lease_deadline().saturating_duration_since(tokio::time::Instant::now());
        assert!(left > timeout / 4, "{left:?} of {timeout:?}");
    }
    drop(hold);
    tokio::time::sleep(timeout).await;
    assert!(zk.lease_deadline() <= tokio::time::Instant::now());
    assert!(matches!(zk.state(), SessionState::Connected { .. }));
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn connecting_to_nobody_fails_with_the_reason() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let connect = Client::connect(&format!("127.0.0.1:{port}"));
    let error = connect.initial_connect_timeout(Duration::from_millis(300)).await.unwrap_err();
    let Error::Connect { last, .. } = &error else { panic!("{error:?}") };
    assert!(last.contains("refused"), "{last}");
    let lazy = Client::connect(&format!("127.0.0.1:{port}")).session_timeout(Duration::from_millis(300));
    let lazy = lazy.lazy().unwrap();
    let unsent = soon(lazy.get("/").send()).await.unwrap_err();
    assert!(matches!(unsent, Error::ConnectionLoss { outcome: Outcome::NotSent, .. }), "{unsent:?}");
    assert!(!unsent.may_have_been_applied());
    soon(lazy.close()).await.unwrap();
}
