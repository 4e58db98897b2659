//! Creating, reading, writing, deleting.

use std::time::Duration;

use zk_client::{Acl, Auth, Error, Mode, MultiResult, Parents, Perms, ReadResult, ServerCode};

use crate::support::{scene, soon};

#[tokio::test]
async fn create_get_set_delete() {
    let scene = scene("basic").await;
    let zk = scene.client().await;
    let created = zk.create("/a", "one").await.unwrap();
    assert_eq!((created.path.as_str(), created.stat.version), ("/a", 0));
    assert!(zk.create("/a", "x").await.unwrap_err().is_node_exists());
    let (data, stat) = zk.get("/a").await.unwrap();
    assert_eq!((&data[..], stat), (&b"one"[..], created.stat));
    let stat = zk.set("/a", "two").version(0).await.unwrap();
    assert_eq!(stat.version, 1);
    assert!(zk.set("/a", "x").version(0).await.unwrap_err().is_bad_version());
    assert_eq!(zk.exists("/a").await.unwrap(), Some(stat));
    assert_eq!(zk.exists("/b").await.unwrap(), None);
    assert_eq!(zk.get("/b").optional().await.unwrap(), None);
    zk.create("/a/b", "").await.unwrap();
    let (names, stat) = zk.children("/a").await.unwrap();
    assert_eq!((names, stat.num_children), (vec!["b".to_owned()], 1));
    assert!(zk.delete("/a").await.unwrap_err().is_not_empty());
    assert!(zk.delete("/a/b").version(7).await.unwrap_err().is_bad_version());
    zk.delete("/a/b").version(0).await.unwrap();
    assert!(zk.delete("/a/b").await.unwrap_err().is_no_node());
    zk.delete("/a/b").if_exists().await.unwrap();
    assert_eq!(zk.get("/").await.unwrap().1.num_children, 1);
    zk.sync("/").await.unwrap();
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn all_kinds_of_nodes() {
    let scene = scene("kinds").await;
    let zk = scene.client().await;
    let eph = zk.create("/e", "").ephemeral().await.unwrap();
    assert_eq!(eph.stat.ephemeral_owner, zk.session_id().0);
    let code = zk.create("/e/child", "").await.unwrap_err().code();
    assert_eq!(code, Some(ServerCode::NO_CHILDREN_FOR_EPHEMERALS));
    let seq = zk.create("/s-", "").sequential().await.unwrap();
    let seq2 = zk.create("/s-", "").sequential().ephemeral().await.unwrap();
    assert!(seq.path.starts_with("/s-0") && seq.path < seq2.path);
    let bare = zk.create("/", "").sequential().await.unwrap();
    assert_eq!(bare.path.len(), 11, "{bare:?}");
    zk.create("/c", "").mode(Mode::Container).await.unwrap();
    let ttl = Mode::Ttl(Duration::from_secs(3600));
    zk.create("/t", "").mode(ttl).await.unwrap();
    assert!(zk.create("/t-", "").mode(ttl).sequential().await.unwrap().path.starts_with("/t-0"));
    for bad in [zk.create("/x", "").mode(Mode::Container).sequential().await, zk.create("/x/", "").await] {
        assert!(matches!(bad, Err(Error::InvalidArgument(_))), "{bad:?}");
    }
    let mut mine = zk.ephemerals("/").await.unwrap();
    mine.sort();
    assert_eq!(mine, ["/e".to_owned(), seq2.path]);
    assert_eq!(zk.count_descendants("/").await.unwrap(), 7);
    zk.close().await.unwrap();
    assert_eq!(scene.admin.exists(&format!("{}/e", scene.root)).await.unwrap(), None);
    scene.end().await;
}

#[tokio::test]
async fn multi_is_all_or_nothing() {
    let scene = scene("multi").await;
    let zk = scene.client().await;
    let results = zk
        .multi()
        .create("/a", "1", Mode::Persistent)
        .create_sequential("/a/s-", "", Mode::Ephemeral)
        .create("/c", "", Mode::Container)
        .check("/a", Some(0))
        .set("/a", "2", None)
        .delete("/c", None)
        .await
        .unwrap();
    assert!(
        matches!(&results[1], MultiResult::Created { path, .. } if path == "/a/s-0000000000"),
        "{results:?}"
    );
    assert!(matches!(&results[4], MultiResult::Set { stat } if stat.version == 1));
    assert_eq!((&results[3], &results[5]), (&MultiResult::Checked, &MultiResult::Deleted));
    let failed = zk.multi().set("/a", "3", None).check("/a", Some(99)).delete("/a", None).await.unwrap_err();
    let Error::Multi { index, code, results } = &failed else { panic!("{failed:?}") };
    assert_eq!((*index, *code), (1, ServerCode::BAD_VERSION));
    assert_eq!(results[..], [Ok(()), Err(ServerCode::BAD_VERSION), Err(ServerCode::RUNTIME_INCONSISTENCY)]);
    assert_eq!(&zk.get("/a").await.unwrap().0[..], b"2");
    assert_eq!(zk.multi().await.unwrap(), []);
    let reads = zk.multi_read().get("/a").children("/a").get("/nope").await.unwrap();
    assert!(matches!(&reads[0], Ok(ReadResult::Data(data, _)) if &data[..] == b"2"));
    assert!(matches!(&reads[1], Ok(ReadResult::Children(names)) if names.len() == 1));
    assert_eq!(reads[2], Err(ServerCode::NO_NODE));
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn acl_and_auth() {
    let scene = scene("acl").await;
    let zk = scene.client().await;
    zk.authenticate(Auth::digest("ann", "secret")).await.unwrap();
    zk.create("/mine", "x").acl(vec![Acl::creator_all()]).await.unwrap();
    let (acl, stat) = zk.acl("/mine").await.unwrap();
    assert_eq!((acl[0].scheme.as_deref(), stat.aversion), (Some("digest"), 0));
    let other = scene.client().await;
    assert_eq!(other.get("/mine").await.unwrap_err().code(), Some(ServerCode::NO_AUTH));
    let acl = [Acl::creator_all(), Acl::new(Perms::READ, "world", "anyone")];
    zk.set_acl("/mine", &acl, Some(0)).await.unwrap();
    assert!(other.get("/mine").await.is_ok());
    assert!(zk.set_acl("/mine", &acl, Some(0)).await.unwrap_err().is_bad_version());
    let who = zk.who_am_i().await.unwrap();
    assert!(who.contains(&("digest".to_owned(), "ann".to_owned())), "{who:?}");
    let bad = scene.builder().auth(Auth::new("nonsense", "x")).await;
    assert!(matches!(bad, Err(Error::AuthFailed(_))), "{bad:?}");
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn whole_trees() {
    let scene = scene("trees").await;
    let zk = scene.client().await;
    zk.ensure_path("/x/y/z").await.unwrap();
    zk.ensure_path("/x/y/z").await.unwrap();
    zk.create("/p/q/r", "v").parents(Parents::Container).await.unwrap();
    for i in 0..600 {
        drop(zk.create(&format!("/x/y/n{i}"), "").send());
    }
    let mut paths: Vec<_> = zk.walk("/").await.unwrap().into_iter().map(|n| n.path).collect();
    assert_eq!(paths.len(), 1 + 3 + 3 + 600);
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 607);
    assert!(zk.walk("/nope").await.unwrap_err().is_no_node());
    zk.delete("/x").recursive().await.unwrap();
    assert_eq!(zk.exists("/x").await.unwrap(), None);
    zk.create("/u", "1").or_set().await.unwrap();
    assert_eq!(zk.create("/u", "2").or_set().await.unwrap().stat.version, 1);
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_thousand_requests_in_one_flight_keep_their_order() {
    let scene = scene("order").await;
    let zk = scene.client().await;
    zk.create("/n", "").await.unwrap();
    let sets: Vec<_> = (0..3000).map(|i| zk.set("/n", i.to_string()).send()).collect();
    let last = zk.get("/n").send();
    for (i, set) in sets.into_iter().enumerate() {
        assert_eq!(soon(set).await.unwrap().version, i as i32 + 1);
    }
    assert_eq!(&last.await.unwrap().0[..], b"2999");
    zk.close().await.unwrap();
    assert!(matches!(scene.admin.chroot("/a").unwrap().get("/").await, Err(Error::Server { .. })));
    scene.end().await;
}

#[tokio::test]
async fn one_shot_watches() {
    let scene = scene("oneshot").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    let (none, created) = zk.exists("/w").watched().await.unwrap();
    assert!(none.is_none());
    other.create("/w", "1").await.unwrap();
    let event = soon(created.fired()).await;
    assert_eq!((event.kind, event.path.as_str()), (zk_client::EventKind::Created, "/w"));
    let (_, _, changed) = zk.get("/w").watched().await.unwrap();
    let (_, _, children) = zk.children("/w").watched().await.unwrap();
    other.set("/w", "2").await.unwrap();
    other.create("/w/c", "").await.unwrap();
    assert_eq!(soon(changed).await.kind, zk_client::EventKind::DataChanged);
    assert_eq!(soon(children).await.kind, zk_client::EventKind::ChildrenChanged);
    let until = zk.exists("/later").until_created();
    let (stat, created) = tokio::join!(soon(until), other.create("/later", ""));
    assert_eq!(stat.unwrap().czxid, created.unwrap().stat.czxid);
    let (gone, deleted) = tokio::join!(soon(zk.exists("/later").until_deleted()), other.delete("/later"));
    gone.unwrap();
    deleted.unwrap();
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}
