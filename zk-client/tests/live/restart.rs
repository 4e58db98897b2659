//! Servers that crash, come back, or hang. Always against an embedded server, which can be told to.

use zk_client::{Client, Error, EventKind, SessionState};
use zk_server::Server;

use crate::support::{TICK, soon};

#[tokio::test]
async fn a_session_outlives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let start = |port| {
        let server = Server::builder().data_dir(dir.path()).client_port(port).tick_time(TICK);
        server.start().expect("the server starts")
    };
    let mut server = start(0);
    let port = server.local_addr().port();
    let zk = Client::connect(&server.connect_string()).session_timeout(20 * TICK).await.unwrap();
    let session = zk.session_id();
    zk.create("/e", "").ephemeral().await.unwrap();
    let mut tree = zk.watch("/").recursive().await.unwrap();
    for round in 0..3 {
        zk.set("/e", round.to_string()).await.unwrap();
        assert_eq!(soon(tree.next()).await.unwrap().kind, EventKind::DataChanged);
        let (_, _, changed) = zk.get("/e").watched().await.unwrap();
        let mut states = zk.states();
        server.kill();
        soon(states.wait_for(|state| matches!(state, SessionState::Suspended { .. }))).await.unwrap();
        // Enqueued without a server, and answered by the next one.
        let queued = zk.get("/e").send();
        server = start(port);
        let (data, stat) = soon(queued).await.unwrap();
        assert_eq!((&data[..], stat.ephemeral_owner), (round.to_string().as_bytes(), session.0));
        assert_eq!(soon(tree.next()).await.unwrap().kind, EventKind::Resync);
        let other = Client::connect(&server.connect_string()).await.unwrap();
        other.set("/e", "changed").await.unwrap();
        assert_eq!(soon(changed).await.kind, EventKind::DataChanged);
        assert_eq!(soon(tree.next()).await.unwrap().kind, EventKind::DataChanged);
        other.close().await.unwrap();
    }
    assert_eq!(zk.session_id(), session);
    zk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn a_hanging_server_is_noticed() {
    let server = Server::builder().memory().tick_time(TICK / 5).start().unwrap();
    let zk = Client::connect(&server.connect_string()).session_timeout(TICK).await.unwrap();
    let session = zk.session_id();
    let mut states = zk.states();
    server.pause();
    // Its threads hear of it one after the other.
    tokio::time::sleep(TICK / 5).await;
    let write = zk.set("/zookeeper", "").send();
    assert!(matches!(soon(write).await, Err(Error::ConnectionLoss { .. })));
    let lost = soon(states.wait_for(|state| matches!(state, SessionState::Expired { .. }))).await;
    assert_eq!(lost, Some(SessionState::Expired { session, confirmed: false }));
    server.resume();
    soon(zk.connected()).await.unwrap();
    server.expire_session(zk.session_id());
    let over = |state: &SessionState| matches!(state, SessionState::Expired { confirmed: true, .. });
    let new = |state: &SessionState| state.connected_session().is_some_and(|id| id != session);
    soon(states.wait_for(|state| over(state) || new(state))).await.unwrap();
    soon(zk.connected()).await.unwrap();
    zk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn the_next_server_of_the_list_is_taken() {
    let (first, second) =
        (Server::builder().memory().start().unwrap(), Server::builder().memory().start().unwrap());
    let hosts = format!("{},{}", first.connect_string(), second.connect_string());
    let zk = Client::connect(&hosts).await.unwrap();
    let SessionState::Connected { server, .. } = zk.state() else { panic!("{:?}", zk.state()) };
    let (dead, alive) = if server == first.connect_string() { (first, second) } else { (second, first) };
    let mut states = zk.states();
    dead.kill();
    let alive_at = alive.connect_string();
    let moved =
        |state: &SessionState| matches!(state, SessionState::Connected { server, .. } if *server == alive_at);
    soon(states.wait_for(moved)).await.unwrap();
    // Another ensemble does not know the session.
    assert!(matches!(states.current(), SessionState::Connected { generation: 2, .. }));
    zk.create("/a", "").await.unwrap();
    zk.close().await.unwrap();
    alive.shutdown().await;
}
