use super::super::{Output, Reason};
use super::*;

#[test]
fn dials_five_times_then_gives_up() {
    let mut kit = Kit::new(start(), World::default());
    let mut dials = 0;
    while kit.ended().is_none() {
        dials += 1;
        assert!(dials <= 5);
        assert!(kit.log.iter().filter(|o| matches!(o, Output::Dial(ServerId(2)))).count() == dials);
        kit.step(|learner, now, out| learner.dial_failed(now, out));
        if let Some(next) = kit.learner.next_deadline() {
            assert_eq!(next, kit.now + 100);
            kit.at(next);
        }
    }
    assert_eq!(dials, 5);
    let ended = kit.ended().unwrap();
    assert!(ended.reason == Reason::CannotConnect && !ended.redial && !ended.rebuild);
}

#[test]
fn a_dial_without_answer_ends_with_the_connect_limit() {
    let mut kit = Kit::new(start(), World::default());
    assert_eq!(kit.learner.next_deadline(), Some(10_000));
    kit.at(9_999);
    assert!(kit.ended().is_none());
    kit.at(10_000);
    assert_eq!(kit.ended().unwrap().reason, Reason::CannotConnect);
    // A connection that comes up too late is closed.
    kit.step(|learner, now, out| learner.connected(now, PeerConn(9), out));
    assert!(kit.has(|o| matches!(o, Output::Close(PeerConn(9)))));
}

#[test]
fn an_observer_may_wait_before_it_dials() {
    let options = Options { dial_delay_ms: 250, ..options() };
    let mut kit = Kit::with_options(Start { role: Role::Observer, ..start() }, options, World::default());
    assert!(kit.log.is_empty());
    assert_eq!(kit.learner.next_deadline(), Some(250));
    kit.at(250);
    assert!(matches!(kit.log[..], [Output::Dial(ServerId(2))]));
}

#[test]
fn a_silent_leader_is_left_after_init_limit_and_then_sync_limit() {
    let mut kit = Kit::at_transfer(start(), World::default());
    assert_eq!(kit.learner.next_deadline(), Some(10_000));
    kit.packets([ToLearner::Diff(z(1, 5)), new_leader(2)]);
    assert_eq!(kit.learner.next_deadline(), Some(5_000));
    kit.at(4_000);
    kit.packets([ToLearner::UpToDate]);
    kit.at(8_999);
    assert!(kit.ended().is_none());
    kit.at(9_000);
    let ended = kit.ended().unwrap();
    assert!(ended.reason == Reason::Silent(5_000) && !ended.redial);
    assert!(kit.has(|o| matches!(o, Output::Close(CONN))));
}

#[test]
fn bytes_of_a_long_tree_keep_the_leader_alive_and_the_own_disk_has_all_the_time() {
    let mut kit = Kit::at_transfer(start(), World { prompt: false, ..World::default() });
    kit.packet(ToLearner::Snap(z(1, 9)));
    for second in 1..=30 {
        kit.at(second * 1000);
        kit.learner.heard(kit.now, CONN);
    }
    kit.step(|learner, now, _| learner.snapshot_received(now));
    kit.packet(new_leader(2));
    assert_eq!(kit.learner.next_deadline(), None);
    kit.at(500_000);
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(2), out));
    assert!(kit.ended().is_none());
    assert_eq!(kit.learner.next_deadline(), Some(505_000));
}
