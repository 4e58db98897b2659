//! The rules of fast leader election, one by one.

use super::*;

#[test]
fn a_search_begins_with_a_vote_for_oneself() {
    let mut scene = Scene::new(2, ensemble(3, 1));
    assert_eq!(scene.hear(1, looking(1, 1, 0, 0)), "", "nothing is said before the first search");
    assert_eq!(
        scene.look(4, 7),
        "to 1: looking 2 at 0x400000007 of 4, round 1; to 3: looking 2 at 0x400000007 of 4, round 1"
    );
    assert_eq!(scene.election.round(), 1);
}

#[test]
fn the_newer_epoch_wins_then_the_longer_history_then_the_larger_id() {
    // (my epoch and counter, the vote of server 3, adopted)
    let cases = [
        ((4, 7), looking(1, 3, 5, 0), true),
        ((4, 7), looking(1, 3, 3, 99), false),
        ((4, 7), looking(1, 3, 4, 8), true),
        ((4, 7), looking(1, 1, 4, 7), false),
        ((4, 7), looking(1, 3, 4, 7), true),
        // A longer history of an older epoch has an end that nobody committed.
        ((4, 7), Notification { peer_epoch: 3, ..looking(1, 3, 4, 9) }, false),
    ];
    for ((epoch, counter), vote, adopted) in cases {
        let mut scene = Scene::new(2, ensemble(3, 0));
        scene.look(epoch, counter);
        scene.hear(3, vote.clone());
        assert_eq!(scene.election.vote().leader == vote.leader, adopted, "{vote:?}");
    }
}

#[test]
fn a_better_vote_is_told_to_all_and_becomes_the_decision_when_no_better_one_comes() {
    let mut scene = Scene::new(1, ensemble(3, 0));
    scene.look(0, 0);
    assert_eq!(
        scene.hear(2, looking(1, 2, 0, 0)),
        "to 2: looking 2 at 0x0 of 0, round 1; to 3: looking 2 at 0x0 of 0, round 1"
    );
    assert_eq!(scene.pass(199), "");
    assert_eq!(scene.pass(1), "decided: following 2");
    assert_eq!(scene.election.next_deadline_ms(), None);
}

#[test]
fn a_better_vote_during_the_last_wait_reopens_the_search() {
    let mut scene = Scene::new(1, ensemble(3, 0));
    scene.look(0, 0);
    scene.hear(2, looking(1, 2, 0, 0));
    scene.pass(150);
    scene.hear(3, looking(1, 3, 0, 0));
    assert_eq!(scene.pass(199), "", "the wait began again");
    scene.hear(2, looking(1, 3, 0, 0));
    assert_eq!(scene.election.state(), PeerState::Following, "all agree");
}

#[test]
fn unanimous_voters_need_not_wait() {
    let mut scene = Scene::new(3, ensemble(3, 0));
    scene.look(0, 0);
    assert_eq!(scene.hear(1, looking(1, 3, 0, 0)), "");
    assert_eq!(scene.hear(2, looking(1, 3, 0, 0)), "decided: leading 3");
}

#[test]
fn nobody_waits_for_a_server_that_cannot_be_reached() {
    let mut scene = Scene::new(2, ensemble(3, 0));
    assert_eq!(scene.miss(3), "", "not looking yet");
    scene.look(0, 0);
    assert_eq!(scene.miss(3), "", "no quorum yet");
    assert_eq!(scene.hear(1, looking(1, 2, 0, 0)), "decided: leading 2");

    let mut scene = Scene::new(2, ensemble(5, 0));
    scene.look(0, 0);
    scene.miss(5);
    scene.hear(1, looking(1, 2, 0, 0));
    assert_eq!(scene.hear(3, looking(1, 2, 0, 0)), "", "server 4 may know more");
    assert_eq!(scene.miss(4), "decided: leading 2");
}

#[test]
fn a_server_that_is_back_is_waited_for() {
    let mut scene = Scene::new(2, ensemble(3, 0));
    scene.look(0, 0);
    scene.miss(3);
    // An old vote, but it lives.
    scene.hear(3, looking(0, 3, 0, 0));
    assert_eq!(scene.hear(1, looking(1, 2, 0, 0)), "");
    assert_eq!(scene.pass(200), "decided: leading 2");
}

#[test]
fn the_only_voter_leads_at_once() {
    assert_eq!(Scene::new(1, ensemble(1, 1)).look(0, 0), "decided: leading 1");
}

#[test]
fn votes_are_repeated_in_longer_and_longer_pauses() {
    let options = ElectionOptions { notification_interval_max_ms: 500, ..ElectionOptions::default() };
    let mut scene = Scene::with(1, ensemble(3, 0), options);
    scene.look(0, 0);
    let mut pauses_ms = Vec::new();
    for _ in 0..4 {
        let before_ms = scene.now_ms;
        let deadline_ms = scene.election.next_deadline_ms().expect("looking");
        assert_eq!(
            scene.pass(deadline_ms - before_ms),
            "to 2: looking 1 at 0x0 of 0, round 1; to 3: looking 1 at 0x0 of 0, round 1"
        );
        pauses_ms.push(deadline_ms - before_ms);
    }
    assert_eq!(pauses_ms, [200, 400, 500, 500]);
}

#[test]
fn a_newer_round_is_joined_and_an_older_one_is_told_about_ours() {
    let mut scene = Scene::new(2, ensemble(3, 0));
    scene.look(1, 5);
    scene.hear(3, looking(1, 3, 1, 6));
    assert_eq!(
        scene.hear(1, looking(7, 1, 1, 1)),
        "to 1: looking 2 at 0x100000005 of 1, round 7; to 3: looking 2 at 0x100000005 of 1, round 7",
        "compared with the first vote, not with that of the old round"
    );
    assert_eq!(scene.hear(3, looking(1, 3, 1, 6)), "to 3: looking 2 at 0x100000005 of 1, round 7");
    assert_eq!(scene.pass(199), "", "votes of the old round are gone");
    assert_eq!(scene.election.round(), 7);
}

#[test]
fn the_largest_round_there_is_does_no_harm() {
    let mut scene = Scene::new(2, ensemble(3, 0));
    scene.look(0, 0);
    scene.hear(1, looking(i64::MAX, 1, 0, 0));
    scene.look(0, 0);
    assert_eq!(scene.election.round(), i64::MAX);
    scene.hear(1, looking(i64::MAX, 2, 0, 0));
    assert_eq!(scene.pass(200), "decided: leading 2");
}

#[test]
fn votes_from_and_for_servers_without_a_vote_do_not_count() {
    let mut scene = Scene::new(1, ensemble(3, 2));
    scene.look(0, 0);
    scene.hear(4, looking(1, 4, 9, 9));
    scene.hear(5, looking(1, 1, 0, 0));
    scene.hear(2, looking(1, 4, 9, 9));
    scene.hear(2, looking(9, 77, 9, 9));
    scene.hear(2, Notification { state: PeerState::Observing, ..looking(1, 1, 0, 0) });
    scene.hear(2, Notification { zxid: -1, ..looking(1, 2, 1, 0) });
    assert_eq!((scene.election.vote().leader, scene.election.round()), (1, 1));
    scene.pass(10_000);
    assert_eq!(scene.election.state(), PeerState::Looking);
}

#[test]
fn a_server_of_weight_0_never_wins() {
    let text = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\ngroup.1=1:2:3\nweight.3=0\nversion=0";
    let mut scene = Scene::new(1, parsed(text));
    scene.look(0, 0);
    scene.hear(3, looking(1, 3, 9, 9));
    assert_eq!(scene.election.vote().leader, 1);
}

#[test]
fn a_pending_reconfiguration_needs_the_quorums_of_both_configurations() {
    let old = ensemble(3, 0);
    let mut new = Ensemble::clone(&ensemble(5, 0));
    new.version = 0x1_0000_0009;
    let mut scene = Scene::new(3, old.clone());
    let mut out = Vec::new();
    let both = Start { last_seen: Some(Arc::new(new)), ..start(&old, 1, 9) };
    scene.election.start(scene.now_ms, both, &mut out);
    assert_eq!(out.len(), 4, "all voters of both are told");
    scene.hear(2, looking(1, 3, 1, 9));
    assert_eq!(
        scene.pass(200),
        "to 1: looking 3 at 0x100000009 of 1, round 1; \
         to 2: looking 3 at 0x100000009 of 1, round 1; to 4: looking 3 at 0x100000009 of 1, round 1; \
         to 5: looking 3 at 0x100000009 of 1, round 1",
        "two of three, but two of five"
    );
    scene.hear(4, looking(1, 3, 1, 9));
    assert_eq!(scene.pass(200), "decided: leading 3");
}

#[test]
fn an_established_server_answers_those_that_look() {
    let mut scene = Scene::new(1, ensemble(3, 1));
    scene.look(0, 0);
    scene.hear(2, looking(1, 2, 0, 0));
    scene.pass(200);
    assert_eq!(scene.hear(3, looking(5, 3, 0, 0)), "to 3: following 2 at 0x0 of 0, round 1");
    scene.election.refresh(Epoch(1));
    assert_eq!(scene.hear(3, looking(5, 3, 0, 0)), "to 3: following 2 at 0x0 of 1, round 1");
    assert_eq!(scene.hear(3, following(1, 2, 1, 0)), "");
    // Observers have no vote to show.
    let n = Notification { leader: i64::MIN, zxid: i64::MIN, peer_epoch: i64::MIN, ..looking(1, 0, 0, 0) };
    assert_eq!(scene.hear(4, n), "to 4: following 2 at 0x0 of 1, round 1");
}

#[test]
fn an_observer_asks_without_a_vote_and_waits_before_it_asks_again() {
    let mut scene = Scene::with(4, ensemble(3, 1), ElectionOptions { seed: 3, ..ElectionOptions::default() });
    assert_eq!(scene.look(1, 5), "to 1: looking, round 1; to 2: looking, round 1; to 3: looking, round 1");
    scene.hear(1, following(6, 2, 2, 0));
    assert_eq!(scene.hear(2, leading(6, 2, 2, 0)), "decided: observing 2");
    assert_eq!(scene.look(2, 9), "");
    assert_eq!(scene.election.state(), PeerState::Looking);
    let asked = scene.pass(200);
    assert!(
        asked.starts_with("to 1: looking, round 7; to 2: looking, round 7; to 3: looking, round 7"),
        "{asked}"
    );
}

#[test]
fn a_participant_that_no_configuration_lists_follows_without_a_vote() {
    let mut scene = Scene::new(9, ensemble(3, 0));
    scene.look(0, 0);
    scene.hear(1, following(6, 2, 2, 0));
    assert_eq!(scene.hear(2, leading(6, 2, 2, 0)), "decided: following 2");
}

#[test]
fn a_reconfiguration_appoints_the_next_leader() {
    let mut scene = Scene::new(1, ensemble(3, 0));
    scene.look(0, 0);
    scene.hear(2, looking(1, 2, 0, 0));
    scene.pass(200);
    scene.election.refresh(Epoch(1));
    scene.election.appointed(ServerId(1), PeerState::Leading, Zxid::new(1, 8));
    assert_eq!(
        scene.hear(3, looking(4, 3, 0, 0)),
        "to 3: leading 1 at 0x100000008 of 1, round 1; 3 is looking"
    );
}

#[test]
fn a_member_tells_a_newer_configuration_and_the_search_goes_on_with_it() {
    let mut newer = Ensemble::clone(&ensemble(5, 0));
    newer.version = 0x1_0000_0003;
    let config = bytes::Bytes::from(newer.to_text());
    let options = ElectionOptions { reconfig_enabled: true, ..ElectionOptions::default() };
    let mut scene = Scene::with(1, ensemble(3, 0), options);
    scene.look(0, 0);
    let vote = Notification { config, ..looking(1, 2, 1, 3) };
    let said = scene.hear(2, vote.clone());
    assert!(said.starts_with("gossip: version 100000003; to 2: looking 1 at 0x0 of 0, round 2"), "{said}");
    assert!(said.contains("to 5: looking 1"), "{said}");
    assert!(!scene.hear(2, vote).contains("gossip"), "the same configuration again");
    assert_eq!(scene.election.round(), 2);
}
