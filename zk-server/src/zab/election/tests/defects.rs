//! What went wrong in elections of Apache's servers, by ticket, and does not here. Those of connections are in
//! [`super::connections`].

use super::*;

/// Servers join a leader in different rounds, and with different zxids.
#[test]
fn zookeeper_1732_a_late_joiner_compares_only_leader_and_epoch_of_established_servers() {
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(1, 50);
    assert_eq!(scene.hear(1, following(4, 2, 5, 3)), "");
    assert_eq!(scene.hear(2, leading(2, 2, 5, 0)), "decided: following 2");
    // The round becomes that of the report that completed the quorum.
    assert_eq!(scene.election.round(), 2);
    // A server before 3.4.6 did not refresh the epoch of its vote: only the leader is compared with it.
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(1, 50);
    scene.hear(1, Notification { version: 0, ..following(4, 2, 4, 3) });
    assert_eq!(scene.hear(2, leading(2, 2, 5, 0)), "decided: following 2");
    // Reports of different epochs are of different times.
    let mut scene = Scene::new(3, ensemble(5, 0));
    scene.look(1, 50);
    scene.hear(1, following(4, 2, 4, 3));
    scene.hear(4, following(4, 2, 4, 3));
    assert_eq!(scene.hear(2, leading(2, 2, 5, 0)), "");
}

/// A voter that already follows counts for the proposal, although its epoch is no longer that of the vote.
#[test]
fn zookeeper_1805_a_report_of_the_same_round_backs_the_proposal() {
    let mut scene = Scene::new(3, ensemble(5, 0));
    scene.look(1, 5);
    scene.hear(1, looking(1, 3, 1, 5));
    scene.hear(2, following(1, 3, 2, 5));
    assert_eq!(scene.pass(200), "decided: leading 3");
}

/// The third server comes back while the leader lives and the other follower hangs.
#[test]
fn a_joiner_completes_the_quorum_of_a_leader_beside_a_frozen_follower() {
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(1, 50);
    assert_eq!(scene.hear(1, leading(4, 1, 2, 0)), "", "only after a pause");
    assert_eq!(scene.pass(200), "decided: following 1");
    // Not without a quorum, not on the word of others, not on an old word.
    let mut scene = Scene::new(3, ensemble(5, 0));
    scene.look(1, 50);
    scene.hear(1, leading(4, 1, 2, 0));
    assert!(!scene.pass(60_000).contains("decided"));
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(1, 50);
    scene.hear(2, following(4, 1, 2, 0));
    assert!(!scene.pass(60_000).contains("decided"));
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(1, 50);
    scene.hear(1, leading(4, 1, 2, 0));
    scene.hear(1, looking(5, 1, 0, 0));
    assert!(!scene.pass(60_000).contains("decided"), "it does not lead any more");
    // Nor when it is behind, or when those that look for a leader are about to have one.
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(3, 50);
    scene.hear(1, leading(4, 1, 2, 0));
    assert!(!scene.pass(60_000).contains("decided"));
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(2, 50);
    scene.hear(1, leading(4, 1, 2, 0));
    scene.pass(100);
    scene.hear(2, looking(1, 3, 2, 50));
    assert!(scene.pass(200).ends_with("decided: leading 3"));
}

/// A voter changes its mind after the decision: the leader hears of it and need not wait for it.
#[test]
fn zookeeper_3109_the_leader_hears_that_a_voter_looks_again() {
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(0, 0);
    scene.hear(1, looking(1, 3, 0, 0));
    scene.pass(200);
    assert_eq!(scene.hear(1, looking(2, 1, 0, 0)), "to 1: leading 3 at 0x0 of 0, round 1; 1 is looking");
}

/// Followers that have not noticed yet that their leader is gone are no reason to follow it.
#[test]
fn zookeeper_975_nobody_is_followed_that_does_not_say_itself_that_it_leads() {
    let mut scene = Scene::new(4, ensemble(5, 0));
    scene.look(1, 50);
    for follower in [1, 2, 3] {
        assert_eq!(scene.hear(follower, following(1, 5, 2, 0)), "");
    }
    assert!(!scene.pass(60_000).contains("decided"));
    assert_eq!(scene.hear(5, leading(1, 5, 2, 0)), "decided: following 5");
    // They do not make this server the leader again, either, unless they are in its round.
    let mut scene = Scene::new(4, ensemble(5, 0));
    scene.look(1, 50);
    for follower in [1, 2, 3] {
        scene.hear(follower, following(7, 4, 2, 0));
    }
    assert!(!scene.pass(60_000).contains("decided"));
}

#[test]
fn zookeeper_764_an_observer_is_never_elected() {
    let mut scene = Scene::new(1, ensemble(2, 3));
    scene.look(0, 0);
    for observer in [3, 4, 5] {
        scene.hear(observer, looking(1, 5, 9, 9));
        scene.hear(observer, leading(1, 5, 9, 9));
    }
    assert_eq!((scene.election.vote().leader, scene.election.state()), (1, PeerState::Looking));
}

/// Two servers whose configurations differ hold each other for outsiders and answer whatever the other says.
#[test]
fn zookeeper_693_outsiders_do_not_talk_for_ever() {
    let mut a = Scene::new(1, parsed("server.1=a:1:2\nserver.3=c:1:2\nversion=0"));
    let mut b = Scene::new(2, parsed("server.2=b:1:2\nserver.3=c:1:2\nversion=0"));
    a.look(0, 0);
    b.look(0, 0);
    let mut messages = 0;
    let mut to_b = vec![looking(1, 1, 0, 0)];
    while let Some(n) = to_b.pop() {
        for output in b.hear_raw(1, n) {
            let Output::Send { to: ServerId(1), notification } = output else { continue };
            messages += 1;
            assert!(messages < 10, "they talk for ever");
            for output in a.hear_raw(2, notification) {
                let Output::Send { to: ServerId(2), notification } = output else { continue };
                to_b.push(notification);
            }
        }
    }
    // Later it is answered again.
    b.pass(100);
    assert_eq!(b.hear_raw(1, looking(1, 1, 0, 0)).len(), 1);
}

#[test]
fn answers_to_outsiders_are_bounded() {
    let mut scene = Scene::new(1, ensemble(3, 0));
    scene.look(0, 0);
    let answers: usize = (100..10_000).map(|from| scene.hear_raw(from, looking(1, from, 0, 0)).len()).sum();
    assert_eq!(answers, 64);
}

/// Apache's server starts its search over at each message with a newer configuration, even when it may not take
/// it over, and from anybody.
#[test]
fn a_foreign_configuration_does_not_keep_a_server_from_electing() {
    let mut newer = Ensemble::clone(&ensemble(5, 0));
    newer.version = 0x7_0000_0000;
    let config = bytes::Bytes::from(newer.to_text());
    for (reconfig_enabled, from) in [(false, 3), (true, 9)] {
        let options = ElectionOptions { reconfig_enabled, ..ElectionOptions::default() };
        let mut scene = Scene::with(1, ensemble(3, 0), options);
        scene.look(0, 0);
        scene.hear(2, looking(1, 2, 0, 0));
        for _ in 0..10 {
            let said = scene.hear(from, Notification { config: config.clone(), ..looking(1, 2, 0, 0) });
            assert!(!said.contains("gossip"), "{said}");
        }
        scene.pass(200);
        assert_eq!((scene.election.state(), scene.election.round()), (PeerState::Following, 1));
    }
}

#[test]
fn zookeeper_4787_a_configuration_in_another_charset_does_not_spoil_the_vote() {
    let options = ElectionOptions { reconfig_enabled: true, ..ElectionOptions::default() };
    let mut scene = Scene::with(1, ensemble(3, 0), options);
    scene.look(0, 0);
    for bad in [&b"server.1=b\xfccher:1:2\nversion=9"[..], b"what?", b"version=9"] {
        let config = bytes::Bytes::copy_from_slice(bad);
        let said = scene.hear(2, Notification { config, ..looking(1, 2, 0, 0) });
        assert!(!said.contains("gossip"), "{said}");
    }
    assert_eq!(scene.pass(200), "decided: following 2");
}
