//! Behind NEWLEADER. One test for each rule, named after it.

use zk_proto::SessionId;

use super::super::{Alarm, Forward, Reason};
use super::*;
use crate::zab::wire::WireError;

#[test]
fn a_commit_out_of_order_ends_the_connection() {
    let mut kit = Kit::established(start(), World::default());
    kit.packets([proposal(z(2, 1)), proposal(z(2, 2)), commit(1, 5), commit(2, 2)]);
    let reason = Reason::CommitOutOfOrder { expected: Some(z(2, 1)), found: z(2, 2) };
    let ended = kit.ended().unwrap();
    assert!(ended.reason == reason && !ended.redial && !ended.rebuild, "{ended:?}");
}

#[test]
fn a_gap_in_the_broadcast_ends_the_connection() {
    let mut kit = Kit::established(start(), World::default());
    kit.packets([proposal(z(2, 1)), proposal(z(2, 3))]);
    assert_eq!(kit.ended().unwrap().reason, Reason::Gap { after: z(2, 1), found: z(2, 3) });
}

#[test]
fn the_first_transaction_of_a_leader_may_have_any_counter() {
    let mut kit = Kit::established(start(), World::default());
    kit.packets([proposal(z(2, 0xffff_fff0)), proposal(z(2, 0xffff_fff1))]);
    assert!(kit.ended().is_none());
    assert_eq!(acks(&kit.take_sent()), [z(2, 0xffff_fff0), z(2, 0xffff_fff1)]);
}

#[test]
fn a_leader_proposes_in_its_own_epoch() {
    for foreign in [z(1, 6), z(3, 1)] {
        let mut kit = Kit::established(start(), World::default());
        kit.packet(proposal(foreign));
        assert!(kit.ended().is_some());
        assert!(!kit.has(|o| matches!(o, Output::Propose(_))));
    }
}

#[test]
fn pings_are_answered_after_uptodate_with_the_sessions_heard_of() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([
        ToLearner::Diff(z(1, 5)),
        ToLearner::Ping(z(1, 5)),
        new_leader(2),
        ToLearner::Ping(z(2, 0)),
    ]);
    assert!(!kit.take_sent().iter().any(|packet| matches!(packet, ToLeader::Ping { .. })));
    kit.packet(ToLearner::UpToDate);
    kit.take_sent();
    kit.learner.touched([(SessionId(3), 4000), (SessionId(2), 4000)]);
    kit.learner.touched([(SessionId(3), 6000)]);
    kit.packets([ToLearner::Ping(z(2, 0)), ToLearner::Ping(z(2, 0))]);
    let touched = vec![(SessionId(2), 4000), (SessionId(3), 6000)];
    let zxid = z(2, 0);
    assert_eq!(
        kit.take_sent(),
        [ToLeader::Ping { zxid, touched }, ToLeader::Ping { zxid, touched: Vec::new() }]
    );
}

#[test]
fn requests_and_questions_go_to_an_established_leader_only() {
    let forward = |session| Forward {
        session: SessionId(session),
        cxid: 1,
        op: 9,
        body: Bytes::from_static(b"\0\0\0\x01/"),
        auth: Vec::new(),
    };
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.take_sent();
    kit.step(|learner, _, out| assert!(!learner.request(forward(1), out)));
    kit.step(|learner, _, out| assert!(!learner.revalidate(SessionId(1), 1, out)));
    assert_eq!(kit.take_sent(), []);

    let mut kit = Kit::established(start(), World::default());
    let writes = kit.writes;
    kit.step(|learner, _, out| {
        assert!(learner.request(forward(1), out) && learner.request(forward(2), out));
        assert!(learner.revalidate(SessionId(3), 4, out));
    });
    assert_eq!((kit.take_sent().len(), kit.writes), (3, writes + 1));
    kit.packets([ToLearner::Sync, ToLearner::Revalidate { session: SessionId(3), valid: true }]);
    assert_eq!(kit.asked(), ["synced 0x100000005", "revalidated true"]);
}

#[test]
fn observers_acknowledge_no_transaction() {
    let observer = Start { role: Role::Observer, ..start() };
    let mut kit = Kit::at_transfer(observer.clone(), World::default());
    assert!(matches!(kit.take_sent()[0], ToLeader::ObserverInfo(_)));
    // Missed transactions come as proposal and commit, new ones as INFORM, even before NEWLEADER.
    let stream = [proposal(z(1, 6)), commit(1, 6), ToLearner::Inform(txn(z(2, 1))), new_leader(2)];
    kit.packet(ToLearner::Diff(z(1, 6)));
    kit.packets(stream);
    kit.packets([ToLearner::UpToDate, ToLearner::Inform(txn(z(2, 2)))]);
    assert_eq!(acks(&kit.take_sent()), [z(2, 0), z(2, 0)]);
    let asked =
        ["accept 2", "stage 2", "sync 2", "ready 2 0x200000001", "propose 0x200000002", "commit 0x200000002"];
    assert_eq!(kit.asked(), asked);
    assert_eq!(kit.learner.in_flight(), 0);

    let mut kit = Kit::established(observer, World::default());
    kit.packet(proposal(z(2, 1)));
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "PROPOSAL", .. }));
}

#[test]
fn followers_are_not_informed() {
    let mut kit = Kit::established(start(), World::default());
    kit.packet(ToLearner::Inform(txn(z(2, 1))));
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "INFORM", .. }));
}

#[test]
fn unknown_packets_are_ignored_but_as_the_first_answer() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Other(77));
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { .. }));

    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 5)), ToLearner::Other(77), new_leader(2), ToLearner::UpToDate]);
    kit.packet(ToLearner::Other(77));
    assert!(kit.learner.is_established());
}

#[test]
fn a_tree_that_differs_is_replaced_once_per_epoch() {
    let mut kit = Kit::established(start(), World::default());
    kit.packets([proposal(z(2, 1)), commit(2, 1)]);
    kit.step(|learner, _, out| learner.diverged(z(2, 1), out));
    let memory = assert_asks_for_snapshot(&kit);
    assert!(kit.has(|o| matches!(o, Output::Alarm(Alarm::Diverged { resync: true, .. }))));

    let epochs = Epochs { accepted: Epoch(2), current: Epoch(2) };
    let mut kit = Kit::new(Start { memory, epochs, last: z(2, 1), ..start() }, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packets([ToLearner::LeaderInfo { epoch: Epoch(2) }, ToLearner::Snap(z(2, 1))]);
    kit.step(|learner, now, _| learner.snapshot_received(now));
    kit.packets([new_leader(2), ToLearner::UpToDate, proposal(z(2, 2)), commit(2, 2)]);
    for _ in 0..3 {
        kit.step(|learner, _, out| learner.diverged(z(2, 2), out));
    }
    assert!(kit.ended().is_none() && kit.learner.is_established());
    let alarms = kit.log.iter().filter(|o| matches!(o, Output::Alarm(_))).count();
    assert_eq!(alarms, 1, "one alarm, not one for each transaction");
}

#[test]
fn a_tree_that_differs_is_remembered_over_an_election() {
    let diverged = Memory { ask_snapshot: true, diverged: true, refused: 2, resynced_in: Some(Epoch(1)) };
    let after = diverged.after_election();
    assert!(
        after.ask_snapshot && after.diverged && after.refused == 0 && after.resynced_in == Some(Epoch(1))
    );
    let refused = Memory { ask_snapshot: true, refused: 1, ..Memory::default() };
    assert_eq!(refused.after_election(), Memory::default());
}

#[test]
fn packets_of_another_connection_are_dropped() {
    let mut kit = Kit::established(start(), World::default());
    kit.step(|learner, now, out| learner.packet(now, PeerConn(1), ToLearner::UpToDate, out));
    kit.step(|learner, _, out| learner.closed(PeerConn(1), out));
    kit.step(|learner, _, out| learner.undecodable(PeerConn(1), WireError::GivenUp, out));
    assert!(kit.learner.is_established());
}

#[test]
fn packets_that_wait_for_the_disk_stop_the_reading() {
    let options = Options { parked_max: 1000, ..options() };
    let mut kit = Kit::with_options(start(), options, SLOW);
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(2) });
    kit.step(|learner, now, out| learner.accepted_written(now, Epoch(2), out));
    kit.packet(ToLearner::Trunc(z(1, 4)));
    assert!(kit.learner.wants_input());
    for counter in 1..=20 {
        kit.packet(proposal(z(2, counter)));
    }
    assert!(!kit.learner.wants_input());
    kit.step(|learner, now, out| learner.truncated(now, Ok(z(1, 4)), out));
    assert!(kit.learner.wants_input());
}
