//! Ensembles whose members change while they serve.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use zk_client::{Auth, Client, Reconfig, ServerCode as ErrorCode};
use zk_server::Ensemble;
use zk_server::zab::PeerState;

const WAIT: Duration = Duration::from_secs(20);

fn start(voters: usize, observers: usize) -> Ensemble {
    let builder = Ensemble::builder().voters(voters).observers(observers);
    let ensemble = builder.setting("reconfigEnabled", "true").setting("skipACL", "yes").start().unwrap();
    assert!(ensemble.all_serve(), "{:?}", statuses(&ensemble));
    ensemble
}

fn statuses(ensemble: &Ensemble) -> Vec<Option<zk_server::member::MemberStatus>> {
    (0..6).map(|index| ensemble.server(index)?.member_status()).collect()
}

fn state(ensemble: &Ensemble, index: usize) -> Option<PeerState> {
    Some(ensemble.server(index)?.member_status()?.state)
}

/// A server that votes.
fn line(ensemble: &Ensemble, index: usize) -> String {
    ensemble.server_line(index).unwrap()
}

fn observer(line: &str) -> String {
    line.replace(":participant", ":observer")
}

async fn client(addresses: &str) -> Client {
    Client::connect(addresses).session_timeout(Duration::from_secs(4)).await.unwrap()
}

/// A change, tried again as long as the new configuration has no quorum that is in step, or the connection is lost.
async fn change(zk: &Client, change: Reconfig) -> String {
    let mut tries = 0;
    loop {
        match zk.reconfig(&change).await {
            Ok((text, stat)) => {
                let text = String::from_utf8(text.to_vec()).unwrap();
                assert!(text.ends_with(&format!("version={:x}", stat.mzxid)), "{text} {stat:?}");
                assert_eq!(stat.version, -1);
                return text;
            }
            Err(error) if tries < 100 => {
                let passing = [ErrorCode::NEW_CONFIG_NO_QUORUM, ErrorCode::RECONFIG_IN_PROGRESS];
                let lost = zk.config().await.is_err();
                assert!(lost || error.code().is_none_or(|code| passing.contains(&code)), "{error}");
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn ids(config: &str) -> BTreeSet<String> {
    let servers = config.lines().filter_map(|line| line.strip_prefix("server."));
    servers.filter_map(|rest| rest.split('=').next().map(str::to_owned)).collect()
}

/// Everybody has the configuration in force and serves.
fn assert_in_force(ensemble: &Ensemble, text: &str) {
    let everywhere = ensemble.wait(WAIT, |ensemble| {
        let has = |server: &zk_server::Server| {
            server.member_status().is_some_and(|status| status.membership == text)
        };
        ensemble.all_serve() && ensemble.servers().all(has)
    });
    assert!(everywhere, "{text}\n{:#?}", statuses(ensemble));
}

/// All trees are the same in the end.
fn assert_equal(ensemble: &Ensemble) {
    let digests = || ensemble.servers().map(|s| (s.tree_digest(), s.last_zxid())).collect::<Vec<_>>();
    let equal = ensemble.wait(WAIT, |_| digests().windows(2).all(|pair| pair[0] == pair[1]));
    assert!(equal, "{:?}", digests());
}

/// Clients that write until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    async fn begin(addresses: &str) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for writer in 0..2 {
            let zk = client(addresses).await;
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            tasks.push(tokio::spawn(async move {
                let mut made = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = format!("/load-{writer}-{n}");
                    if zk.create(&path, &b"x"[..]).await.is_ok() {
                        made.push(path);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                made
            }));
        }
        Load { stop, acknowledged, tasks }
    }

    /// Waits until more was acknowledged than before.
    async fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        for _ in 0..1000 {
            if self.acknowledged.load(Ordering::Relaxed) > before + 5 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing is acknowledged any more");
    }

    /// Everything that was acknowledged is there.
    async fn end(self, zk: &Client) {
        self.stop.store(true, Ordering::Relaxed);
        let mut made = Vec::new();
        for task in self.tasks {
            made.extend(task.await.unwrap());
        }
        zk.sync("/").await.unwrap();
        let there: BTreeSet<String> = zk.children("/").await.unwrap().0.into_iter().collect();
        let lost: Vec<_> = made.iter().filter(|path| !there.contains(&path[1..])).collect();
        assert!(lost.is_empty(), "{lost:?}");
        assert!(made.len() > 10);
    }
}

#[tokio::test]
async fn three_become_five_and_three_again_under_load() {
    let mut ensemble = start(3, 0);
    let zk = client(&ensemble.connect_string()).await;
    let load = Load::begin(&ensemble.connect_string()).await;
    let (_, _, watch) = zk.config_watched().await.unwrap();

    let (four, five) = (ensemble.add_server().unwrap(), ensemble.add_server().unwrap());
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    assert!(!statuses(&ensemble)[four].as_ref().unwrap().voter, "not a member yet");
    let joining = format!("{},{}", line(&ensemble, four), line(&ensemble, five));
    let text = change(&zk, Reconfig { joining: Some(joining), ..Reconfig::default() }).await;
    assert_eq!(ids(&text).len(), 5, "{text}");
    tokio::time::timeout(WAIT, watch).await.unwrap();
    assert_in_force(&ensemble, &text);
    assert!(statuses(&ensemble)[four].as_ref().unwrap().voter);
    load.goes_on().await;

    // Five tolerate the loss of two.
    let leader = ensemble.leader().unwrap();
    let dead: Vec<usize> = (0..5).filter(|index| *index != leader).take(2).collect();
    dead.iter().for_each(|index| ensemble.kill(*index));
    load.goes_on().await;
    for index in dead {
        ensemble.restart(index).unwrap();
    }
    assert_in_force(&ensemble, &text);

    let leader = ensemble.leader().unwrap();
    let leaving: Vec<usize> = (0..5).filter(|index| *index != leader).take(2).collect();
    let named: Vec<String> = leaving.iter().map(|index| (index + 1).to_string()).collect();
    let text = change(&zk, Reconfig { leaving: Some(named.join(",")), ..Reconfig::default() }).await;
    assert_eq!(ids(&text).len(), 3, "{text}");
    assert_in_force(&ensemble, &text);
    load.goes_on().await;
    // They follow on without a vote, and nobody needs them.
    for index in leaving {
        assert_eq!(state(&ensemble, index), Some(PeerState::Following));
        ensemble.kill(index);
    }
    load.goes_on().await;
    load.end(&zk).await;
    assert_equal(&ensemble);
}

#[tokio::test]
async fn a_leader_that_is_removed_hands_over_to_the_designated_one() {
    let ensemble = start(3, 0);
    let zk = client(&ensemble.connect_string()).await;
    let load = Load::begin(&ensemble.connect_string()).await;
    load.goes_on().await;
    let old = ensemble.leader().unwrap();
    let leaving = Some((old + 1).to_string());
    // The answer may be lost with the leader.
    let _ = zk.reconfig(&Reconfig { leaving, ..Reconfig::default() }).await;
    let handed_over = ensemble.wait(WAIT, |ensemble| ensemble.leader().is_some_and(|leader| leader != old));
    assert!(handed_over, "{:#?}", statuses(&ensemble));
    load.goes_on().await;
    assert!(ensemble.wait(WAIT, Ensemble::all_serve));
    assert_eq!(state(&ensemble, old), Some(PeerState::Following), "without a vote");
    let text = String::from_utf8(zk.config().await.unwrap().0.to_vec()).unwrap();
    assert!(!ids(&text).contains(&(old + 1).to_string()), "{text}");
    assert_in_force(&ensemble, &text);
    // It comes back, and may lead again.
    let joining = Some(line(&ensemble, old));
    let text = change(&zk, Reconfig { joining, ..Reconfig::default() }).await;
    assert_in_force(&ensemble, &text);
    assert!(statuses(&ensemble)[old].as_ref().unwrap().voter);
    load.end(&zk).await;
    assert_equal(&ensemble);
}

#[tokio::test]
async fn roles_change_under_load() {
    let ensemble = start(3, 1);
    let zk = client(&ensemble.connect_string()).await;
    let load = Load::begin(&ensemble.connect_string()).await;
    let follower = (0..3).find(|index| Some(*index) != ensemble.leader()).unwrap();
    let demoted = Some(observer(&line(&ensemble, follower)));
    let text = change(&zk, Reconfig { joining: demoted, ..Reconfig::default() }).await;
    assert_in_force(&ensemble, &text);
    assert!(ensemble.wait(WAIT, |e| state(e, follower) == Some(PeerState::Observing) && e.all_serve()));
    load.goes_on().await;
    for promoted in [3, follower] {
        let joining = Some(line(&ensemble, promoted));
        let text = change(&zk, Reconfig { joining, ..Reconfig::default() }).await;
        assert_in_force(&ensemble, &text);
        assert!(ensemble.wait(WAIT, |e| state(e, promoted) == Some(PeerState::Following) && e.all_serve()));
        load.goes_on().await;
    }
    // A leader that is to observe hands over.
    let leader = ensemble.leader().unwrap();
    let demoted = Some(observer(&line(&ensemble, leader)));
    let _ = zk.reconfig(&Reconfig { joining: demoted, ..Reconfig::default() }).await;
    assert!(ensemble.wait(WAIT, |e| state(e, leader) == Some(PeerState::Observing) && e.all_serve()));
    load.goes_on().await;
    load.end(&zk).await;
    assert_equal(&ensemble);
}

#[tokio::test]
async fn one_server_that_may_be_an_ensemble_grows() {
    let builder = Ensemble::builder().voters(1).setting("standaloneEnabled", "false");
    let builder = builder.setting("reconfigEnabled", "true").setting("skipACL", "yes");
    let mut ensemble = builder.start().unwrap();
    assert!(ensemble.all_serve(), "{:?}", statuses(&ensemble));
    let zk = client(&ensemble.connect_string()).await;
    zk.create("/before", &b""[..]).await.unwrap();
    for voters in 2..=3 {
        let index = ensemble.add_server().unwrap();
        assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
        let joining = Some(line(&ensemble, index));
        let text = change(&zk, Reconfig { joining, ..Reconfig::default() }).await;
        assert_eq!(ids(&text).len(), voters);
        assert_in_force(&ensemble, &text);
    }
    ensemble.kill(0);
    assert!(ensemble.wait(WAIT, |e| e.leader().is_some()), "{:?}", statuses(&ensemble));
    let zk = client(&ensemble.connect_string()).await;
    while zk.create("/after", &b""[..]).await.is_err() {}
    assert!(zk.exists("/before").await.unwrap().is_some());
    // And back to one.
    ensemble.restart(0).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve));
    let leader = ensemble.leader().unwrap();
    let members = Some(line(&ensemble, leader));
    let text = change(&zk, Reconfig { members, ..Reconfig::default() }).await;
    assert_eq!(ids(&text).len(), 1);
    for index in 0..3 {
        if index != leader {
            ensemble.kill(index);
        }
    }
    let zk = client(&ensemble.server(leader).unwrap().connect_string()).await;
    zk.create("/alone", &b""[..]).await.unwrap();
}

#[tokio::test]
async fn what_was_decided_survives_a_restart_of_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Ensemble::builder().data_dir(dir.path()).setting("reconfigEnabled", "true");
    let mut ensemble = builder.setting("skipACL", "yes").start().unwrap();
    let zk = client(&ensemble.connect_string()).await;
    let four = ensemble.add_server().unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    let joining = Some(line(&ensemble, four));
    let text = change(&zk, Reconfig { joining, ..Reconfig::default() }).await;
    assert_in_force(&ensemble, &text);
    (0..4).for_each(|index| ensemble.kill(index));
    // Two of the first three are no majority any more.
    ensemble.restart(0).unwrap();
    ensemble.restart(1).unwrap();
    assert!(!ensemble.wait(Duration::from_secs(2), |e| e.leader().is_some()));
    ensemble.restart(3).unwrap();
    assert!(ensemble.wait(WAIT, Ensemble::all_serve), "{:?}", statuses(&ensemble));
    ensemble.restart(2).unwrap();
    assert_in_force(&ensemble, &text);
    let zk = client(&ensemble.connect_string()).await;
    let shown = zk.config().await.unwrap();
    assert_eq!(String::from_utf8(shown.0.to_vec()).unwrap(), text);
    assert!(text.ends_with(&format!("version={:x}", shown.1.mzxid)));
}

#[tokio::test]
async fn clients_find_a_server_at_the_address_that_it_is_given() {
    let ensemble = start(3, 0);
    let zk = client(&ensemble.connect_string()).await;
    let moved = (0..3).find(|index| Some(*index) != ensemble.leader()).unwrap();
    let old = ensemble.server(moved).unwrap().connect_string();
    // All its ports are new ones.
    let ports: Vec<u16> = (0..3)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect::<Vec<_>>()
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect();
    let joining = format!(
        "server.{}=127.0.0.1:{}:{}:participant;127.0.0.1:{}",
        moved + 1,
        ports[0],
        ports[1],
        ports[2]
    );
    let text = change(&zk, Reconfig { joining: Some(joining), ..Reconfig::default() }).await;
    assert_in_force(&ensemble, &text);
    let new = format!("127.0.0.1:{}", ports[2]);
    assert!(ensemble.wait(WAIT, |e| e.server(moved).unwrap().connect_string() == new));
    assert_ne!(new, old);
    let there = client(&new).await;
    there.create("/at-the-new-address", &b""[..]).await.unwrap();
    // It is elected over its new ports.
    let mut ensemble = ensemble;
    let leader = ensemble.leader().unwrap();
    ensemble.kill(leader);
    assert!(ensemble.wait(WAIT, |e| e.leader().is_some()), "{:?}", statuses(&ensemble));
    let zk = client(&new).await;
    while zk.create("/after", &b""[..]).await.is_err() {}
}

#[tokio::test]
async fn what_is_asked_for_is_checked_in_apaches_order() {
    // super:test
    let digest = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
    let builder = Ensemble::builder().setting("reconfigEnabled", "true");
    let mut ensemble = builder.setting("DigestAuthenticationProvider.superDigest", digest).start().unwrap();
    let leader = ensemble.leader().unwrap();
    for index in [leader, (leader + 1) % 3] {
        let zk = client(&ensemble.server(index).unwrap().connect_string()).await;
        let refused = async |change: Reconfig| zk.reconfig(&change).await.unwrap_err().code().unwrap();
        let joining = |text: &str| Reconfig { joining: Some(text.into()), ..Reconfig::default() };
        let leaving = |text: &str| Reconfig { leaving: Some(text.into()), ..Reconfig::default() };
        let stale = Reconfig { from_version: Some(1), ..joining("nonsense") };
        assert_eq!(refused(stale).await, ErrorCode::BAD_VERSION);
        for nonsense in ["nonsense", "server.4=h:1:2", "server.4=h:1", "server.4=h:1:2:leader;3"] {
            assert_eq!(refused(joining(nonsense)).await, ErrorCode::BAD_ARGUMENTS, "{nonsense}");
        }
        for number in [joining("server.x=h:1:2;3"), leaving("x")] {
            assert_eq!(refused(number).await, ErrorCode::MARSHALLING_ERROR);
        }
        assert_eq!(refused(leaving("1,2")).await, ErrorCode::BAD_ARGUMENTS, "two have to be left");
        let absent = "server.4=127.0.0.1:1:2;3,server.5=127.0.0.1:4:5;6,server.6=127.0.0.1:7:8;9,server.7=127.0.0.1:10:11;12";
        assert_eq!(refused(joining(absent)).await, ErrorCode::NEW_CONFIG_NO_QUORUM);
        let other = (0..3).find(|other| *other != leader).unwrap();
        let harmless = Reconfig { joining: ensemble.server_line(other), ..Reconfig::default() };
        assert_eq!(refused(harmless.clone()).await, ErrorCode::NO_AUTH);
        assert_eq!(refused(Reconfig::default()).await, ErrorCode::NO_AUTH);
        zk.authenticate(Auth::digest("super", "test")).await.unwrap();
        let (text, _) = zk.reconfig(&harmless).await.unwrap();
        assert_in_force(&ensemble, std::str::from_utf8(&text).unwrap());
    }
    // Nothing is proposed to those who do not allow it.
    ensemble = Ensemble::builder().start().unwrap();
    let zk = client(&ensemble.connect_string()).await;
    let refused = zk.reconfig(&Reconfig::default()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::RECONFIG_DISABLED));
    let text = zk.config().await.unwrap().0;
    assert!(text.ends_with(b"version=0"), "{text:?}");
}
