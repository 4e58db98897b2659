//! Epochs, and what an acknowledgement stands for. One test for each rule, named after it.

use super::super::Reason;
use super::*;

#[test]
fn ackepoch_follows_the_write_of_the_accepted_epoch() {
    let mut kit = Kit::new(start(), SLOW);
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    assert!(matches!(&kit.take_sent()[..], [ToLeader::FollowerInfo(info)]
        if info.accepted == Epoch(1) && info.server == ServerId(1) && info.config_version == 0));
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(2) });
    assert_eq!(kit.asked(), ["accept 2"]);
    assert_eq!(kit.take_sent(), []);
    kit.step(|learner, now, out| learner.accepted_written(now, Epoch(2), out));
    assert_eq!(kit.take_sent(), [ToLeader::AckEpoch { last: z(1, 5), current: Some(Epoch(1)) }]);
}

#[test]
fn an_epoch_accepted_before_is_not_counted_again() {
    let mut kit = Kit::new(start(), World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.take_sent();
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(1) });
    assert_eq!(kit.take_sent(), [ToLeader::AckEpoch { last: z(1, 5), current: None }]);
    assert_eq!(kit.asked(), [""; 0]);
}

#[test]
fn an_older_epoch_is_not_followed() {
    let epochs = Epochs { accepted: Epoch(9), current: Epoch(1) };
    let mut kit = Kit::new(Start { epochs, ..start() }, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(1) });
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::OldEpoch { accepted: Epoch(9), found: Epoch(1) });
    assert!(!ended.redial);
}

#[test]
fn a_leader_without_leaderinfo_is_refused() {
    let mut kit = Kit::new(start(), World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packet(new_leader(1));
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "NEWLEADER", .. }));
}

#[test]
fn newleader_is_of_the_epoch_of_leaderinfo() {
    for zxid in [z(3, 0), z(1, 0), z(2, 1)] {
        let mut kit = Kit::at_transfer(start(), World::default());
        kit.packets([ToLearner::Diff(z(1, 5)), ToLearner::NewLeader { zxid, config: None }]);
        assert_eq!(kit.ended().unwrap().reason, Reason::WrongEpoch { expected: Epoch(2), found: zxid });
        assert_untouched(&kit);
    }
}

#[test]
fn uptodate_comes_after_the_acknowledgement_of_newleader() {
    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.packets([ToLearner::Diff(z(1, 5)), ToLearner::UpToDate]);
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "UPTODATE", .. }));

    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.packets([ToLearner::Diff(z(1, 5)), new_leader(2), ToLearner::UpToDate]);
    assert!(matches!(kit.ended().unwrap().reason, Reason::Unexpected { packet: "UPTODATE", .. }));
}

#[test]
fn newleader_is_acknowledged_by_the_completion_of_the_history_write() {
    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.take_sent();
    kit.log.clear();
    kit.packets([ToLearner::Diff(z(1, 7)), proposal(z(1, 6)), commit(1, 6), proposal(z(1, 7)), commit(1, 7)]);
    assert_eq!(kit.asked(), [""; 0], "nothing before NEWLEADER");
    kit.packet(new_leader(2));
    assert_eq!(kit.asked(), ["stage 2"]);
    kit.step(|learner, now, out| learner.staged(now, Ok(()), out));
    assert_eq!(kit.asked(), ["stage 2", "sync 2"]);
    assert_eq!(kit.take_sent(), []);
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(1), out));
    assert_eq!(kit.take_sent(), [], "the completion of something else");
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(2), out));
    assert_eq!(kit.take_sent(), [ToLeader::Ack(z(2, 0))]);
    kit.packet(ToLearner::UpToDate);
    assert_eq!(kit.take_sent(), [ToLeader::Ack(z(2, 0))]);
    assert_eq!(kit.asked(), ["stage 2", "sync 2", "ready 2 0x100000007"]);
}

#[test]
fn proposals_are_acknowledged_singly_in_one_write_by_their_fsync() {
    let mut kit = Kit::established(start(), SLOW);
    kit.packets([proposal(z(2, 1)), proposal(z(2, 2)), proposal(z(2, 3)), commit(2, 1)]);
    assert_eq!(kit.take_sent(), []);
    let writes = kit.writes;
    kit.step(|learner, _, out| learner.durable(z(2, 2), out));
    assert_eq!(acks(&kit.take_sent()), [z(2, 1), z(2, 2)]);
    assert_eq!(kit.writes, writes + 1);
    kit.step(|learner, _, out| learner.durable(z(2, 2), out));
    assert_eq!(kit.take_sent(), []);
    kit.packets([commit(2, 2), commit(2, 3)]);
    kit.step(|learner, _, out| learner.durable(z(2, 3), out));
    assert_eq!(acks(&kit.take_sent()), [z(2, 3)], "also when it was committed without this server");
    assert_eq!(kit.learner.in_flight(), 0);
}

#[test]
fn outstanding_proposals_are_acknowledged_after_uptodate_only() {
    let mut kit = Kit::at_transfer(Start { role: Role::Follower, ..start() }, SLOW);
    kit.take_sent();
    kit.log.clear();
    kit.packets([
        ToLearner::Diff(z(1, 6)),
        proposal(z(1, 6)),
        commit(1, 6),
        proposal(z(2, 1)),
        new_leader(2),
    ]);
    kit.step(|learner, now, out| learner.staged(now, Ok(()), out));
    // While the history is written, the stream goes on, and a commit meets a proposal from before NEWLEADER
    // (ZOOKEEPER-4394).
    kit.packets([proposal(z(2, 2)), commit(2, 1), ToLearner::Ping(z(2, 2))]);
    let asked = ["stage 1", "sync 2", "propose 0x200000001", "propose 0x200000002", "commit 0x200000001"];
    assert_eq!(kit.asked(), asked);
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(2), out));
    kit.step(|learner, _, out| learner.durable(z(2, 2), out));
    assert_eq!(acks(&kit.take_sent()), [z(2, 0)], "ZOOKEEPER-4685: nothing overtakes it");
    kit.packet(ToLearner::UpToDate);
    assert_eq!(acks(&kit.take_sent()), [z(2, 0), z(2, 1), z(2, 2)]);
}
