//! Epochs.

use super::*;

#[test]
fn the_epoch_is_one_more_than_a_quorum_has_accepted() {
    let mut rig = Rig::new(4, &[z(4, 1)]);
    assert_eq!(rig.outputs(), []);
    rig.slow_disk = true;
    rig.info(1, 6);
    assert_eq!(rig.outputs(), [Output::WriteAccepted(Epoch(7))]);
    assert_eq!(rig.told(1), "", "not before it is on disk");
    rig.step(|leader, now, history, out| leader.accepted_written(now, Epoch(7), history, out));
    assert_eq!(rig.told(1), "LEADERINFO7");
    // Later ones get the same, also those that have accepted more.
    rig.info(2, 9);
    assert_eq!(rig.told(2), "LEADERINFO7");
}

#[test]
fn an_ensemble_of_one_leads_alone() {
    let rig =
        Rig::with(1, &[z(1, 1)], Arc::new(Ensemble::parse("server.3=h:1:2").unwrap()), Default::default());
    assert_eq!(
        rig.out,
        [Output::WriteAccepted(Epoch(2)), Output::CommitSync(Epoch(2)), Output::Active { epoch: Epoch(2) }]
    );
}

#[test]
fn v9_only_members_raise_the_epoch_and_not_beyond_reason() {
    let mut rig = Rig::new(4, &[]);
    rig.info(5, 0x7fff_0000);
    assert_eq!(rig.outputs(), [], "not a member");
    rig.info(8, 5);
    assert_eq!(rig.outputs(), [], "an observer is no quorum");
    rig.info(1, 0x7fff_ffff);
    assert_eq!(rig.closed(), [(conn(1), CloseReason::EpochJump(Epoch(0x7fff_ffff)))]);
    rig.info(2, 4);
    assert_eq!(rig.outputs()[0], Output::WriteAccepted(Epoch(6)), "one more than the observer's");
    assert_eq!(rig.told(5), "LEADERINFO6");
}

#[test]
fn the_last_epoch_is_not_passed() {
    let mut rig = Rig::new(0x7fff_ffff, &[]);
    rig.info(1, 3);
    assert_eq!(rig.ended(), Some(StepDownReason::EpochsExhausted));
}

#[test]
fn v5_own_id_is_refused_and_a_newer_connection_replaces_the_older() {
    let mut rig = Rig::new(1, &[]);
    rig.info(3, 1);
    assert_eq!(rig.closed(), [(conn(3), CloseReason::OwnId(ServerId(3)))]);
    rig.info(1, 1);
    rig.clear();
    rig.connect(PeerConn(100));
    rig.say_on(PeerConn(100), &ToLeader::FollowerInfo(LearnerInfo::new(Epoch(1), ServerId(1), 0)));
    assert_eq!(rig.closed(), [(conn(1), CloseReason::Replaced(ServerId(1)))]);
    assert_eq!(rig.leader.by_server[&ServerId(1)], PeerConn(100));
    assert_eq!(rig.heard_on(PeerConn(100)).len(), 1, "LEADERINFO");
}

#[test]
fn odd_learners_are_refused() {
    let mut rig = Rig::new(1, &[]);
    rig.connect(conn(1));
    rig.say(1, ToLeader::Ack(Zxid::ZERO));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Unexpected { what: "ACK", .. })]));
    rig.connect(conn(1));
    let info = LearnerInfo::new(Epoch(1), ServerId(1), 0);
    rig.say(1, ToLeader::FollowerInfo(LearnerInfo { protocol_version: 1, ..info }));
    assert_eq!(rig.closed()[0].1, CloseReason::Protocol(1));
    rig.connect(conn(1));
    rig.say(1, ToLeader::FollowerInfo(LearnerInfo { config_version: 7, ..info }));
    assert_eq!(rig.closed()[0].1, CloseReason::ConfigAhead { theirs: 7, ours: 0 });
    rig.info(1, 1);
    rig.clear();
    rig.say(1, ToLeader::FollowerInfo(info));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Unexpected { what: "FOLLOWERINFO", .. })]));
    let packet = QuorumPacket::bare(crate::zab::wire::kind::FOLLOWER_INFO, 0);
    rig.connect(conn(1));
    rig.step(|leader, now, history, out| leader.packet(now, conn(1), packet, history, out));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Wire(_))]));
}

#[test]
fn connections_that_say_nothing_are_bounded() {
    let mut rig = Rig::new(1, &[]);
    (0..1000).for_each(|n| rig.connect(PeerConn(n)));
    assert_eq!(rig.leader.links.len(), 256);
    assert_eq!(rig.closed().len(), 744);
}

#[test]
fn whoever_knows_more_is_not_led() {
    let mut rig = Rig::with(2, &[z(1, 1), z(2, 1)], ensemble(5, 0), Default::default());
    for sid in [1, 2] {
        rig.info(sid, 2);
    }
    rig.clear();
    rig.ack_epoch(1, z(2, 2), Some(2));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Ahead { .. })]));
    rig.ack_epoch(2, z(2, 1), Some(2));
    assert_eq!(rig.told(2), "", "1 of 5 and the leader are no quorum");
    rig.info(4, 2);
    rig.ack_epoch(4, z(1, 1), Some(1));
    assert_eq!(rig.told(2), "DIFF2:1 NEWLEADER3");
    assert!(rig.told(4).ends_with("P2:1 C2:1 NEWLEADER3"));
}

#[test]
fn steps_down_at_once_when_the_others_cannot_be_a_quorum() {
    let mut rig = Rig::new(2, &[z(2, 1)]);
    rig.info(1, 2);
    rig.info(2, 2);
    rig.ack_epoch(1, z(2, 9), Some(2));
    assert_eq!(rig.ended(), None);
    rig.ack_epoch(2, z(3, 0), Some(3));
    assert_eq!(rig.ended(), Some(StepDownReason::NotMostRecent));
}

#[test]
fn a_repeated_acceptance_and_an_empty_database_do_not_count() {
    let mut rig = Rig::new(2, &[z(2, 1)]);
    rig.info(1, 2);
    rig.info(2, 2);
    rig.clear();
    rig.ack_epoch(1, z(2, 1), None);
    assert_eq!(rig.told(1), "");
    rig.ack_epoch(2, Zxid(-1), Some(0));
    assert_eq!((rig.told(1), rig.told(2)), (String::new(), String::new()));
    rig.connect(PeerConn(20));
    rig.say_on(PeerConn(20), &ToLeader::FollowerInfo(LearnerInfo::new(Epoch(3), ServerId(2), 0)));
    rig.say_on(PeerConn(20), &ToLeader::AckEpoch { last: z(2, 1), current: Some(Epoch(2)) });
    assert_eq!(rig.told(1), "DIFF2:1 NEWLEADER3");
}

#[test]
fn an_acceptance_counts_beyond_its_connection() {
    let mut rig = Rig::with(2, &[z(2, 1)], ensemble(5, 0), Default::default());
    rig.info(1, 2);
    rig.info(2, 2);
    rig.ack_epoch(1, z(2, 1), Some(2));
    rig.step(|leader, _, _, out| leader.closed(conn(1), out));
    rig.clear();
    rig.ack_epoch(2, z(2, 1), Some(2));
    assert_eq!(rig.told(2), "DIFF2:1 NEWLEADER3");
}

#[test]
fn v2_a_history_of_a_later_epoch_is_refused_for_ever() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.join(2, z(1, 1), Some(5));
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Ahead { .. })]));
    rig.join(2, z(5, 1), None);
    assert!(matches!(rig.closed()[..], [(_, CloseReason::Ahead { .. })]));
    assert_eq!(rig.told(2), "LEADERINFO2 LEADERINFO2");
}

#[test]
fn both_configurations_have_to_agree_while_one_is_pending() {
    let five = ensemble(5, 7);
    let history = History::new(Zxid::ZERO, 3);
    let mut rig = Rig::elected(
        ServerId(3),
        Epochs::default(),
        history,
        ensemble(3, 1),
        Some(five.clone()),
        Default::default(),
    );
    rig.info(1, 0);
    assert_eq!(rig.outputs(), [], "2 of 3, but 2 of 5");
    rig.info(4, 0);
    assert_eq!(rig.outputs()[0], Output::WriteAccepted(Epoch(1)));
    rig.ack_epoch(4, Zxid::ZERO, Some(0));
    rig.ack_epoch(1, Zxid::ZERO, Some(0));
    let ToLearner::NewLeader { config: Some(config), .. } = rig.heard(1).pop().unwrap() else { panic!() };
    assert_eq!(config, five.to_text());
    rig.clear();
    rig.ack(1, z(1, 0));
    assert!(!rig.leader.is_active());
    rig.ack(4, z(1, 0));
    let activate = Output::Activate { zxid: z(1, 0), ensemble: five, designated: ServerId(3) };
    assert_eq!(rig.outputs(), [activate, Output::Active { epoch: Epoch(1) }]);
}
