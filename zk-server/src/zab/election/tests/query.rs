//! The rules of the election by rounds of queries.

use super::*;

/// The number of the query that was sent.
fn number(out: &str) -> i64 {
    out.rsplit("round ").next().and_then(|number| number.parse().ok()).expect("a query")
}

#[test]
fn everybody_is_asked_and_the_best_of_those_present_is_elected() {
    let mut scene = Scene::query(1, ensemble(3, 0));
    let query = number(&scene.look(0, 0));
    assert!(query > 0);
    assert_eq!(scene.hear(2, looking(-query, 2, 0, 0)), "");
    assert_eq!(
        scene.hear(3, looking(-query, 3, 0, 0)),
        "decided: following 3",
        "its vote and ours are a quorum"
    );
}

#[test]
fn it_asks_again_until_a_quorum_agrees() {
    let mut scene = Scene::query(1, ensemble(5, 0));
    let query = number(&scene.look(0, 0));
    for other in 2..=5 {
        assert_eq!(scene.hear(other, looking(-query, other, 0, 0)), "");
    }
    assert_eq!(scene.election.vote().leader, 5);
    let next = number(&scene.pass(200));
    assert_eq!(next, query + 1);
    scene.hear(2, looking(-query, 5, 0, 0));
    scene.hear(2, looking(-next, 5, 0, 0));
    scene.hear(5, looking(-next, 5, 0, 0));
    assert_eq!(scene.pass(199), "", "others may answer yet");
    assert_eq!(scene.pass(1), "decided: following 5");
}

#[test]
fn only_answers_to_the_last_query_count() {
    let mut scene = Scene::query(1, ensemble(3, 0));
    let query = number(&scene.look(0, 0));
    for round in [-query + 1, -query - 1, 0, i64::MIN] {
        assert_eq!(scene.hear(2, looking(round, 1, 0, 0)), "");
        assert_eq!(scene.hear(3, looking(round, 1, 0, 0)), "");
    }
    assert!(!scene.pass(200).contains("decided"));
}

#[test]
fn a_query_is_answered_in_every_state_and_an_answer_never() {
    let mut scene = Scene::query(1, ensemble(1, 1));
    assert_eq!(scene.look(2, 9), "decided: leading 1");
    scene.election.refresh(Epoch(3));
    assert_eq!(scene.hear(2, looking(77, i64::MIN, 0, 0)), "to 2: leading 1 at 0x3ffffffff of 3, round -77");
    assert_eq!(scene.hear(2, looking(-77, i64::MIN, 0, 0)), "");
    let mut scene = Scene::query(1, ensemble(3, 0));
    scene.look(2, 9);
    assert_eq!(scene.hear(3, looking(5, 3, 0, 0)), "to 3: looking 1 at 0x200000009 of 2, round -5");
}

#[test]
fn a_candidate_that_does_not_answer_is_not_voted_for() {
    let mut scene = Scene::query(1, ensemble(3, 0));
    let query = number(&scene.look(0, 0));
    scene.hear(2, looking(-query, 3, 9, 9));
    scene.pass(200);
    assert_eq!(scene.election.vote().leader, 1);
}

#[test]
fn an_established_leader_is_joined_unless_it_is_behind() {
    // (epoch and end of the own history, vote of the leader, joined)
    let established = |epoch| leading(0, 2, epoch, u32::MAX);
    let cases = [
        ((5, 9), established(5), true),
        ((4, 9), established(5), true),
        ((6, 0), established(5), false),
        ((4, 9), leading(0, 2, 4, 8), false),
        ((4, 9), leading(0, 2, 4, 9), true),
    ];
    for ((epoch, counter), answer, joined) in cases {
        let mut scene = Scene::query(3, ensemble(3, 0));
        let query = number(&scene.look(epoch, counter));
        scene.hear(2, Notification { round: -query, ..answer.clone() });
        assert_eq!(scene.pass(200) == "decided: following 2", joined, "{answer:?}");
    }
    // Not on the word of its followers alone.
    let mut scene = Scene::query(5, ensemble(5, 0));
    let query = number(&scene.look(1, 9));
    for follower in 1..=3 {
        scene.hear(follower, following(-query, 4, 5, 0));
    }
    assert!(!scene.pass(200).contains("decided"));
}

#[test]
fn the_leader_to_be_counts_those_that_follow_it_already() {
    let mut scene = Scene::query(3, ensemble(3, 0));
    let query = number(&scene.look(1, 1));
    scene.hear(1, following(-query, 3, 1, 1));
    assert_eq!(scene.pass(200), "decided: leading 3");
}

#[test]
fn an_observer_finds_the_leader() {
    let mut scene = Scene::query(4, ensemble(3, 1));
    let query = number(&scene.look(1, 1));
    scene.hear(1, following(-query, 3, 1, 1));
    scene.hear(3, leading(-query, 3, 1, 1));
    assert_eq!(scene.pass(200), "decided: observing 3");
}
