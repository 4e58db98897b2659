//! Timing rules. A tick is 3000 ms, the initial limit 10 ticks, the sync limit 5.

use super::*;

#[test]
fn each_wait_ends_with_the_initial_limit() {
    let mut rig = Rig::new(1, &[]);
    rig.tick(29_999);
    assert_eq!(rig.ended(), None);
    rig.tick(1);
    assert_eq!(rig.ended(), Some(StepDownReason::EpochTimeout));
    rig.info(1, 1);
    assert_eq!(rig.outputs(), [], "dead");

    let mut rig = Rig::new(1, &[]);
    rig.tick(20_000);
    rig.info(1, 1);
    rig.tick(29_000);
    rig.connect(conn(2));
    assert_eq!(rig.ended(), None, "a new wait");
    rig.tick(1_000);
    assert_eq!(rig.ended(), Some(StepDownReason::EpochAckTimeout));

    let mut rig = Rig::new(1, &[]);
    rig.join(1, Zxid::ZERO, Some(1));
    rig.tick(30_000);
    assert_eq!(rig.ended(), Some(StepDownReason::NewLeaderTimeout));
}

#[test]
fn a_lonely_leader_can_give_up_earlier() {
    let mut rig = Rig::new(1, &[]);
    rig.step(|leader, now, _, out| leader.looking(now + 9000, ServerId(1), out));
    assert_eq!(rig.ended(), None, "off");
    rig.leader.options.max_wait_for_epoch_ms = Some(5000);
    rig.step(|leader, now, _, out| leader.looking(now + 5000, ServerId(1), out));
    rig.step(|leader, now, _, out| leader.looking(now + 6000, ServerId(8), out));
    assert_eq!(rig.ended(), None);
    rig.step(|leader, now, _, out| leader.looking(now + 5001, ServerId(1), out));
    assert_eq!(rig.ended(), Some(StepDownReason::Abandoned(ServerId(1))));
}

#[test]
fn pings_go_twice_per_tick_to_whoever_has_newleader() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.info(8, 1);
    rig.join(2, z(1, 1), Some(1));
    rig.applied = z(1, 1);
    rig.join(9, Zxid::ZERO, Some(0));
    rig.clear();
    rig.tick(1499);
    assert_eq!(rig.pings(1), 0);
    rig.tick(1);
    assert_eq!([1, 2, 8, 9].map(|sid| rig.pings(sid)), [1, 1, 0, 0]);
    rig.propose(1);
    rig.clear();
    rig.tick(1500);
    assert_eq!(rig.heard_on(conn(1)), [ToLearner::Ping(z(2, 1))]);
}

#[test]
fn a_silent_learner_is_closed_after_the_sync_limit() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.follower_synced(2);
    rig.clear();
    rig.tick(14_999);
    rig.say(2, ToLeader::Ping { zxid: z(2, 0), touched: vec![] });
    assert_eq!(rig.closed(), []);
    rig.tick(1);
    assert_eq!(rig.closed(), [(conn(1), CloseReason::Silent(15_000))]);
    assert!(rig.leader.is_active(), "2 of 3");
    rig.tick(15_000);
    let outputs = rig.outputs();
    assert!(matches!(outputs[0], Output::Close { .. }));
    assert_eq!(outputs[1], Output::StepDown(StepDownReason::LostQuorum));
}

#[test]
fn a_learner_has_the_initial_limit_to_synchronise() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    let wait = |rig: &mut Rig, ms: u64| {
        for _ in 0..ms / 1000 {
            rig.say(1, ToLeader::Ping { zxid: z(2, 0), touched: vec![] });
            rig.tick(1000);
        }
        rig.closed()
    };
    rig.connect(conn(2));
    assert_eq!(wait(&mut rig, 29_000), []);
    assert_eq!(wait(&mut rig, 1_000), [(conn(2), CloseReason::Silent(30_000))]);
    rig.info(2, 1);
    assert_eq!(wait(&mut rig, 30_000).len(), 1, "ACKEPOCH");
    rig.join(2, z(1, 1), Some(1));
    assert_eq!(wait(&mut rig, 30_000).len(), 1, "ACK of NEWLEADER");
    // While a snapshot goes out, progress counts.
    rig.join(2, Zxid::ZERO, Some(0));
    assert_eq!(wait(&mut rig, 29_000), []);
    rig.step(|leader, now, _, out| leader.backlog(now, conn(2), 1 << 30, out));
    assert_eq!(wait(&mut rig, 29_000), []);
    rig.step(|leader, now, _, _| leader.snapshot_sent(now, conn(2)));
    assert_eq!(wait(&mut rig, 29_000), []);
    assert_eq!(wait(&mut rig, 1_000).len(), 1);
}

#[test]
fn a_learner_that_does_not_acknowledge_is_dropped() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.follower_synced(2);
    rig.propose(1);
    rig.clear();
    let mut closed = Vec::new();
    for n in 2..=13 {
        rig.tick(1500);
        [1, 2].into_iter().for_each(|sid| rig.say(sid, ToLeader::Ping { zxid: z(2, 0), touched: vec![] }));
        rig.propose(1);
        rig.ack(1, z(2, n - 1));
        closed.extend(rig.closed());
    }
    assert_eq!(closed, [(conn(2), CloseReason::AckOverdue(z(2, 1)))], "1 is late, but not standing still");
}

#[test]
fn a_learner_that_takes_no_bytes_is_dropped() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.leader.options.backlog_bytes_max = 1000;
    rig.step(|leader, now, _, out| leader.backlog(now, conn(1), 1000, out));
    assert_eq!(rig.closed(), []);
    rig.step(|leader, now, _, out| leader.backlog(now, conn(1), 1001, out));
    assert_eq!(rig.closed(), [(conn(1), CloseReason::Backlog(1001))]);
    // Behind a snapshot more may wait, but not without end.
    rig.join(8, Zxid::ZERO, Some(0));
    rig.propose(100);
    rig.follower_synced(1);
    rig.join(2, Zxid::ZERO, Some(0));
    rig.propose(40);
    assert_eq!(rig.closed().len(), 1);
    assert!(!rig.leader.links.contains_key(&conn(2)));
}

#[test]
fn shutdown_ends_everything() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.step(|leader, _, _, out| leader.step_down(StepDownReason::Shutdown, out));
    assert_eq!(rig.ended(), Some(StepDownReason::Shutdown));
    rig.tick(100_000);
    rig.info(2, 1);
    rig.propose(1);
    assert_eq!((rig.outputs(), rig.sent.len()), (vec![], 0));
    assert_eq!(rig.leader.next_deadline(), u64::MAX);
}
