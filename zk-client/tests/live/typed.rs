//! JSON data, states as a stream, the ensemble's configuration, retries of reads under a chroot.

use futures::StreamExt;
use zk_client::{Error, Reconfig, ServerCode, SessionState};

use crate::support::{scene, soon};

#[tokio::test]
async fn json_data() {
    let scene = scene("json").await;
    let zk = scene.client().await;
    assert_eq!(zk.put_as("/limits", &vec![1, 2]).await.unwrap().version, 0);
    assert_eq!(zk.put_as("/limits", &vec![3]).await.unwrap().version, 1);
    assert_eq!(zk.get_as::<Vec<u32>>("/limits").await.unwrap().0, [3]);
    assert!(matches!(zk.get_as::<String>("/limits").await, Err(Error::Decode { .. })));
    // Ten tasks count to a hundred together.
    let tasks = (0..10).map(|_| async {
        for _ in 0..10 {
            zk.update("/counter", |n: Option<u32>| Some(n.unwrap_or(0) + 1)).await.unwrap();
        }
    });
    soon(futures::future::join_all(tasks)).await;
    let (count, stat) = zk.update("/counter", |_: Option<u32>| None).await.unwrap();
    assert_eq!((count, stat.version), (100, 99));
    assert!(zk.update("/none", |_: Option<u32>| None).await.unwrap_err().is_no_node());
    assert!(zk.update("/none/below", |_| Some(1u32)).await.unwrap_err().is_no_node());
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn states_are_a_stream() {
    let scene = scene("states").await;
    let zk = scene.builder().lazy().unwrap();
    let states = zk.states().into_stream();
    zk.connected().await.unwrap();
    zk.testing().kill_connection();
    soon(async {
        while !matches!(zk.state(), SessionState::Connected { generation: 2, .. }) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    zk.close().await.unwrap();
    let seen: Vec<_> = soon(states.collect::<Vec<_>>()).await;
    // Slow receivers miss states in between, but never the last one.
    assert_eq!(seen.last(), Some(&SessionState::Closed));
    scene.end().await;
}

#[tokio::test]
async fn the_configuration_of_the_ensemble() {
    let scene = scene("config").await;
    let zk = scene.client().await;
    let (config, _, watch) = zk.config_watched().await.unwrap();
    assert_eq!(zk.config().await.unwrap().0, config);
    drop(watch);
    let change = Reconfig { leaving: Some("9".to_owned()), ..Reconfig::default() };
    let code = zk.reconfig(&change).await.unwrap_err().code();
    let refused = [ServerCode::RECONFIG_DISABLED, ServerCode::UNIMPLEMENTED, ServerCode::NO_AUTH];
    assert!(code.is_some_and(|code| refused.contains(&code)), "{code:?}");
    zk.close().await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn reads_of_the_latest_state() {
    let scene = scene("linearizable").await;
    let (zk, other) = (scene.client().await, scene.client().await);
    let strict = zk.linearizable();
    for i in 0..20 {
        other.create(&format!("/n{i}"), "").await.unwrap();
        assert_eq!(strict.children("/").await.unwrap().0.len(), i + 1);
    }
    let mut watched = strict.get("/n0").watched().await.unwrap().2;
    assert!(futures::poll!(&mut watched).is_pending());
    let sub = zk.chroot("/n0").unwrap();
    assert_eq!(sub.create("/x", "").await.unwrap().path, "/x");
    assert!(zk.exists("/n0/x").await.unwrap().is_some());
    zk.close().await.unwrap();
    other.close().await.unwrap();
    scene.end().await;
}
