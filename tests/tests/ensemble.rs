//! Ensembles in this process, used through our client.

use std::time::Duration;

use zk_client::Client;
use zk_server::Ensemble;

const WAIT: Duration = Duration::from_secs(20);

fn start(voters: usize, observers: usize) -> Ensemble {
    let ensemble = Ensemble::builder().voters(voters).observers(observers).start().unwrap();
    assert!(ensemble.all_serve(), "{:?}", statuses(&ensemble));
    ensemble
}

fn statuses(ensemble: &Ensemble) -> Vec<Option<zk_server::member::MemberStatus>> {
    (0..5).map(|index| ensemble.server(index)?.member_status()).collect()
}

/// A client of one server only.
async fn client_of(ensemble: &Ensemble, index: usize) -> Client {
    let address = ensemble.server(index).unwrap().connect_string();
    Client::connect(&address).session_timeout(Duration::from_secs(4)).await.unwrap()
}

async fn client_of_all(ensemble: &Ensemble) -> Client {
    Client::connect(&ensemble.connect_string()).session_timeout(Duration::from_secs(4)).await.unwrap()
}

/// All trees are the same in the end.
fn assert_equal(ensemble: &Ensemble) {
    let digests = || {
        let seen: Vec<_> =
            ensemble.servers().map(|server| (server.tree_digest(), server.last_zxid())).collect();
        seen
    };
    let equal = ensemble.wait(WAIT, |_| digests().windows(2).all(|pair| pair[0] == pair[1]));
    assert!(equal, "{:?}", digests());
}

#[tokio::test]
async fn what_one_server_takes_all_servers_show() {
    let ensemble = start(3, 1);
    let mut clients = Vec::new();
    for index in 0..4 {
        clients.push(client_of(&ensemble, index).await);
    }
    for (index, zk) in clients.iter().enumerate() {
        zk.create(&format!("/from-{index}"), &b"x"[..]).ephemeral().await.unwrap();
    }
    for zk in &clients {
        zk.sync("/").await.unwrap();
        assert_eq!(zk.children("/").await.unwrap().0.len(), 5, "four nodes and /zookeeper");
    }
    for zk in clients {
        zk.close().await.unwrap();
    }
    let zk = client_of(&ensemble, 0).await;
    zk.sync("/").await.unwrap();
    assert_eq!(zk.children("/").await.unwrap().0, ["zookeeper"], "ephemerals went with their sessions");
    assert_equal(&ensemble);
}

#[tokio::test]
async fn a_new_leader_has_everything_that_was_acknowledged() {
    let mut ensemble = start(3, 0);
    let zk = client_of_all(&ensemble).await;
    zk.create("/owner", &b""[..]).ephemeral().await.unwrap();
    let session = zk.session_id();
    let mut acknowledged = 0;
    for round in 0..3 {
        for n in 0..20 {
            zk.create(&format!("/r{round}-{n}"), &b"data"[..]).await.unwrap();
            acknowledged += 1;
        }
        let leader = ensemble.leader().unwrap();
        ensemble.kill(leader);
        assert!(ensemble.wait(WAIT, |e| e.leader().is_some()), "{:?}", statuses(&ensemble));
        // The first one may meet a connection that is just being lost.
        while zk.create(&format!("/after-{round}"), &b""[..]).await.is_err() {}
        acknowledged += 1;
        ensemble.restart(leader).unwrap();
        assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    }
    zk.sync("/").await.unwrap();
    let nodes = zk.children("/").await.unwrap().0;
    assert_eq!(nodes.len(), acknowledged + 2, "{nodes:?}");
    assert_eq!(zk.session_id(), session, "the session has moved along");
    assert_equal(&ensemble);
}

#[tokio::test]
async fn a_server_that_has_missed_much_gets_the_whole_tree() {
    let mut ensemble = Ensemble::builder().setting("snapshotSizeFactor", "-1").start().unwrap();
    let zk = client_of_all(&ensemble).await;
    let follower = (0..3).find(|index| Some(*index) != ensemble.leader()).unwrap();
    ensemble.kill(follower);
    let mut pending = Vec::new();
    while zk.create("/base", &b""[..]).await.is_err() {}
    for n in 0..1200 {
        pending.push(zk.create(&format!("/base/n{n}"), &b"data"[..]).send());
        if pending.len() == 200 {
            for create in pending.drain(..) {
                create.await.unwrap();
            }
        }
    }
    ensemble.restart(follower).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    let other = client_of(&ensemble, follower).await;
    other.sync("/").await.unwrap();
    assert_eq!(other.children("/base").await.unwrap().0.len(), 1200);
    other.create("/through-it", &b""[..]).await.unwrap();
    assert_equal(&ensemble);
    // What it got is on its disk, too.
    ensemble.kill(follower);
    ensemble.restart(follower).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    assert_equal(&ensemble);
}

#[tokio::test]
async fn one_server_of_three_alone_serves_nobody() {
    let mut ensemble = start(3, 0);
    let leader = ensemble.leader().unwrap();
    for index in 0..3 {
        if index != leader {
            ensemble.kill(index);
        }
    }
    assert!(ensemble.wait(WAIT, |e| e.leader().is_none()), "{:?}", statuses(&ensemble));
    for index in 0..3 {
        ensemble.restart(index).unwrap();
    }
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
}

#[tokio::test]
async fn a_server_whose_log_is_damaged_gets_its_history_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut ensemble = Ensemble::builder().data_dir(dir.path()).start().unwrap();
    let zk = client_of_all(&ensemble).await;
    for n in 0..50 {
        zk.create(&format!("/n{n}"), &b"some data"[..]).await.unwrap();
    }
    let follower = (0..3).find(|index| Some(*index) != ensemble.leader()).unwrap();
    ensemble.kill(follower);
    // Rot in the middle of the log: what was acknowledged cannot be read any more.
    let version_dir = dir.path().join((follower + 1).to_string()).join("version-2");
    let log = std::fs::read_dir(&version_dir).unwrap().map(|entry| entry.unwrap().path());
    let log =
        log.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log.")).max().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&log, bytes).unwrap();

    ensemble.restart(follower).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    let other = client_of(&ensemble, follower).await;
    other.sync("/").await.unwrap();
    assert_eq!(other.children("/").await.unwrap().0.len(), 51);
    assert_equal(&ensemble);
    ensemble.kill(follower);
    ensemble.restart(follower).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    assert_equal(&ensemble);
}

#[tokio::test]
async fn the_election_by_rounds_of_queries_finds_leaders_too() {
    let mut ensemble = Ensemble::builder().setting("electionAlg", "0").start().unwrap();
    assert!(ensemble.all_serve(), "{:?}", statuses(&ensemble));
    let zk = client_of_all(&ensemble).await;
    for round in 0..3 {
        while zk.create(&format!("/n{round}"), &b""[..]).await.is_err() {}
        let leader = ensemble.leader().unwrap();
        ensemble.kill(leader);
        assert!(ensemble.wait(WAIT, |e| e.leader().is_some()), "{:?}", statuses(&ensemble));
        ensemble.restart(leader).unwrap();
        assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    }
    assert_equal(&ensemble);
}
