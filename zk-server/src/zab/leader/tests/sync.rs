//! Transfers, the cut, and the NEWLEADER quorum.

use super::*;

/// Apache's learners first: what they have is compared with a window behind 1:2 (the base) of 1:3, 1:4, 2:1.
fn window() -> Rig {
    let mut rig = Rig::new(2, &[z(1, 1), z(1, 2), z(1, 3), z(1, 4), z(2, 1)]);
    rig.follower_synced(1);
    rig.clear();
    rig.leader.snapshot_size(1000);
    rig.leader.options.snapshot_instead_of_truncation_bytes = 0;
    rig
}

fn transfer(last: Zxid, current: Option<u32>) -> String {
    let mut rig = window();
    rig.join(2, last, current);
    rig.told(2).replacen("LEADERINFO3 ", "", 1)
}

#[test]
fn what_a_learner_gets_depends_on_its_end() {
    assert_eq!(transfer(z(2, 1), Some(2)), "DIFF2:1 NEWLEADER3", "the same");
    assert_eq!(transfer(z(1, 4), None), "DIFF2:1 P2:1 C2:1 NEWLEADER3");
    assert_eq!(
        transfer(z(1, 2), Some(1)),
        "DIFF2:1 P1:3 C1:3 P1:4 C1:4 P2:1 C2:1 NEWLEADER3",
        "the base is on the chain"
    );
    assert_eq!(transfer(z(2, 0), Some(2)), "DIFF2:1 P2:1 C2:1 NEWLEADER3", "the start of an epoch");
    assert_eq!(transfer(z(3, 0), None), "DIFF3:0 NEWLEADER3", "the start of the present epoch");
    assert_eq!(transfer(Zxid::ZERO, Some(0)), "SNAP2:1", "empty; NEWLEADER waits behind the stream");
    assert_eq!(transfer(Zxid::ZERO, None), "SNAP2:1", "asked for");
}

#[test]
fn ticket_1154_an_orphan_is_truncated_at_any_position() {
    assert_eq!(transfer(z(2, 2), Some(2)), "TRUNC2:1 NEWLEADER3", "beyond the end");
    assert_eq!(transfer(z(1, 9), Some(1)), "TRUNC1:4 P2:1 C2:1 NEWLEADER3", "behind a newer epoch");
}

#[test]
fn a_small_tree_goes_whole_to_a_diverged_learner() {
    let mut rig = window();
    rig.leader.options.snapshot_instead_of_truncation_bytes = 1000;
    rig.join(2, z(1, 9), Some(1));
    assert_eq!(rig.told(2), "LEADERINFO3 SNAP2:1");
    // But never when the learner's log ends after the snapshot: Apache's would keep it.
    rig.join(2, z(2, 9), Some(2));
    assert_eq!(rig.told(2), "LEADERINFO3 TRUNC2:1 NEWLEADER3");
}

#[test]
fn a_foreign_epoch_in_between_gets_a_snapshot() {
    let mut rig = Rig::new(4, &[z(1, 1), z(1, 2), z(4, 1)]);
    rig.follower_synced(1);
    rig.leader.options.snapshot_instead_of_truncation_bytes = 0;
    rig.join(2, z(2, 1), Some(2));
    assert_eq!(rig.told(2), "LEADERINFO5 SNAP4:1");
}

#[test]
fn forced_snapshots() {
    let mut rig = window();
    rig.leader.options.force_snapshot = true;
    rig.join(2, z(2, 1), Some(2));
    assert_eq!(rig.told(2), "LEADERINFO3 SNAP2:1");
}

#[test]
fn an_empty_ensemble_needs_no_snapshot() {
    let mut rig = Rig::new(0, &[]);
    rig.join(1, Zxid::ZERO, Some(0));
    assert_eq!(rig.told(1), "LEADERINFO1 DIFF0:0 NEWLEADER1");
}

#[test]
fn l3_behind_the_window_only_a_proven_chain_is_sent() {
    let long = || {
        let mut rig = Rig::new(1, &(1..=8).map(|n| z(1, n)).collect::<Vec<_>>());
        rig.follower_synced(1);
        rig.leader.snapshot_size(3000);
        rig.clear();
        rig.join(2, z(1, 2), Some(1));
        assert_eq!(rig.told(2), "LEADERINFO2");
        let (from, to) = (z(1, 2), z(1, 8));
        assert_eq!(rig.outputs(), [Output::ReadChain { conn: conn(2), from, to, bytes_max: 990 }]);
        rig
    };
    let answer = |rig: &mut Rig, chain: Result<Vec<u32>, BrokenChain>| {
        let chain = chain.map(|counters| counters.into_iter().map(|n| txn(z(1, n))).collect());
        rig.step(|leader, now, history, out| leader.chain(now, conn(2), chain, history, out));
        rig.told(2)
    };
    let tail = "P1:3 C1:3 P1:4 C1:4 P1:5 C1:5 P1:6 C1:6 P1:7 C1:7 P1:8 C1:8 NEWLEADER2";
    assert_eq!(answer(&mut long(), Ok((3..=8).collect())), format!("DIFF1:8 {tail}"));
    assert_eq!(
        answer(&mut long(), Ok((3..=5).collect())),
        format!("DIFF1:8 {tail}"),
        "the window has the rest"
    );
    assert_eq!(answer(&mut long(), Err(BrokenChain)), "SNAP1:8");
    assert_eq!(answer(&mut long(), Ok(vec![])), "SNAP1:8");
    assert_eq!(answer(&mut long(), Ok((4..=8).collect())), "SNAP1:8", "hole at the start");
    assert_eq!(answer(&mut long(), Ok(vec![3, 4, 6, 7, 8])), "SNAP1:8", "hole");
    assert_eq!(answer(&mut long(), Ok((3..=9).collect())), "SNAP1:8", "more than is committed");

    // The window moves on while the log is read: the rest is read, three times at most.
    let mut rig = long();
    rig.commit(5, &[1]);
    assert_eq!(answer(&mut rig, Ok((3..=8).collect())), "");
    let expected = Output::ReadChain { conn: conn(2), from: z(1, 8), to: z(2, 5), bytes_max: 256 << 20 };
    assert!(rig.outputs().contains(&expected));
    let chain = Ok((1..=5).map(|n| txn(z(2, n))).collect());
    rig.step(|leader, now, history, out| leader.chain(now, conn(2), chain, history, out));
    let told = rig.told(2);
    assert!(told.starts_with("DIFF2:5 P1:3 C1:3") && told.ends_with("P2:5 C2:5 NEWLEADER2"), "{told}");
}

#[test]
fn log_is_read_only_within_the_size_factor() {
    for (factor, snapshot, expected) in [
        (Some(0.5), 1000, Some(500)),
        (Some(0.0), 1, Some(256 << 20)),
        (Some(0.5), 0, None),
        (None, 1000, None),
    ] {
        let mut rig = Rig::new(1, &(1..=8).map(|n| z(1, n)).collect::<Vec<_>>());
        rig.follower_synced(1);
        rig.leader.options.snapshot_size_factor = factor;
        rig.leader.snapshot_size(snapshot);
        rig.clear();
        rig.join(2, z(1, 2), Some(1));
        let read = rig.outputs().into_iter().find_map(|output| match output {
            Output::ReadChain { bytes_max, .. } => Some(bytes_max),
            _ => None,
        });
        assert_eq!(read, expected);
    }
}

#[test]
fn ticket_962_the_cut_loses_nothing_and_repeats_nothing() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.commit(2, &[1]);
    rig.propose(2);
    rig.join(2, z(1, 1), Some(1));
    assert_eq!(rig.told(2), "LEADERINFO2 DIFF2:2 P2:1 C2:1 P2:2 C2:2 P2:3 P2:4 NEWLEADER2");
    rig.propose(1);
    rig.durable(z(2, 5));
    rig.ack(1, z(2, 3));
    assert_eq!(rig.told(2), "", "not before UPTODATE");
    // Observers get no proposals: their cut ends with what is committed.
    rig.join(8, z(2, 1), Some(2));
    assert_eq!(rig.told(8), "LEADERINFO2 DIFF2:3 P2:2 C2:2 P2:3 C2:3 NEWLEADER2");
    rig.ack(1, z(2, 5));
    rig.ack(8, z(2, 0));
    rig.ack(2, z(2, 0));
    assert_eq!(rig.told(8), "UPTODATE I2:4 I2:5");
    assert_eq!(rig.told(2), "UPTODATE P2:5 C2:3 C2:4 C2:5");
}

#[test]
fn ticket_3104_nothing_overtakes_the_history() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.commit(3, &[1]);
    rig.applied = z(2, 2);
    rig.join(2, Zxid::ZERO, Some(0));
    assert_eq!(rig.told(2), "LEADERINFO2 SNAP2:2");
    assert!(rig.outputs().contains(&Output::StreamSnapshot { conn: conn(2) }));
    rig.propose(1);
    assert_eq!(rig.told(2), "", "all waits for the end of the stream");
    rig.step(|leader, now, _, _| leader.snapshot_sent(now, conn(2)));
    assert_eq!(rig.told(2), "P2:3 C2:3 NEWLEADER2");
    rig.ack(2, z(2, 0));
    assert_eq!(rig.told(2), "UPTODATE P2:4");
}

#[test]
fn a_snapshot_that_cannot_be_continued_is_not_sent() {
    let mut rig = Rig::active(1, &(1..=8).map(|n| z(1, n)).collect::<Vec<_>>());
    rig.applied = z(1, 4);
    rig.join(2, Zxid::ZERO, Some(0));
    assert_eq!(rig.closed(), [(conn(2), CloseReason::Snapshot(z(1, 4)))]);
}

#[test]
fn own_proposals_that_are_not_decided_are_cut_and_sent_again() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.follower_synced(2);
    rig.propose(2);
    rig.ack(2, z(2, 2));
    rig.clear();
    // Its acknowledgement goes with its log.
    rig.join(2, z(2, 2), Some(2));
    assert_eq!(rig.told(2), "LEADERINFO2 TRUNC1:1 P2:1 P2:2 NEWLEADER2");
    rig.durable(z(2, 2));
    assert_eq!(rig.commits(), []);
    rig.ack(2, z(2, 0));
    assert_eq!(rig.told(2), "UPTODATE");
    rig.ack(2, z(2, 1));
    assert_eq!(rig.commits(), [z(2, 1)]);
}

#[test]
fn a_learner_beyond_the_tree_waits_for_its_snapshot() {
    let mut rig = Rig::new(4, &[z(1, 1), z(4, 1)]);
    rig.follower_synced(1);
    rig.follower_synced(2);
    rig.clear();
    rig.leader.durable = z(1, 1);
    rig.join(8, z(2, 7), Some(2));
    assert_eq!(rig.told(8), "LEADERINFO5", "no log in common since 1:1, and the tree is there only");
    rig.durable(z(4, 1));
    assert_eq!(rig.told(8), "SNAP4:1");
}

#[test]
fn active_when_a_quorum_and_the_own_disk_have_the_history() {
    let mut rig = Rig::new(1, &[z(1, 1)]);
    rig.slow_disk = true;
    rig.info(1, 1);
    rig.step(|leader, now, history, out| leader.accepted_written(now, Epoch(2), history, out));
    rig.ack_epoch(1, z(1, 1), Some(1));
    assert!(rig.outputs().contains(&Output::CommitSync(Epoch(2))));
    rig.ack(1, z(2, 0));
    assert!(!rig.leader.is_active(), "the own vote is missing");
    rig.clear();
    rig.step(|leader, now, _, out| leader.history_durable(now, Epoch(2), out));
    assert_eq!(rig.outputs(), [Output::Active { epoch: Epoch(2) }]);
    assert_eq!(rig.told(1), "UPTODATE");
    rig.follower_synced(2);
    assert_eq!(rig.told(2), "LEADERINFO2 DIFF1:1 NEWLEADER2 UPTODATE", "later ones at once");
    assert!(rig.leader.epochs == Epochs { accepted: Epoch(2), current: Epoch(2) });
}

#[test]
fn l1_v1_newleader_is_acknowledged_only_by_its_zxid() {
    let mut rig = Rig::active(1, &[z(1, 1), z(1, 2)]);
    rig.commit(1, &[1]);
    rig.propose(1);
    for (bad, closes) in [(z(1, 2), false), (z(2, 1), false), (z(2, 3), true), (z(9, 1), true)] {
        rig.join(2, z(1, 1), Some(1));
        rig.clear();
        rig.ack(2, bad);
        let expected = if closes { vec![(conn(2), CloseReason::BadAck(bad))] } else { vec![] };
        assert_eq!(rig.closed(), expected, "{bad}");
        assert_eq!(rig.told(2), "", "not synchronised by {bad}");
    }
    rig.join(2, z(1, 1), Some(1));
    rig.say(2, ToLeader::Ping { zxid: z(2, 1), touched: vec![] });
    assert!(matches!(rig.closed().pop(), Some((_, CloseReason::Unexpected { what: "PING", .. }))));
}

#[test]
fn ticket_4685_acknowledgements_before_that_of_newleader_are_kept() {
    // As 3.8.0 does it: outstanding proposals are logged and acknowledged during the synchronisation.
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.commit(1, &[1]);
    rig.propose(2);
    rig.durable(z(2, 3));
    rig.join(2, z(1, 1), Some(1));
    rig.clear();
    rig.ack(2, z(2, 1));
    rig.ack(2, z(2, 2));
    assert_eq!(rig.commits(), [], "not counted yet");
    rig.ack(2, z(2, 0));
    assert_eq!(rig.commits(), [z(2, 2)]);
    assert_eq!(rig.told(2), "UPTODATE C2:2");
    rig.ack(2, z(2, 3));
    rig.ack(2, z(2, 0));
    assert_eq!(rig.commits(), [z(2, 3)]);
}

#[test]
fn ticket_4394_commits_between_newleader_and_uptodate() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.propose(1);
    rig.durable(z(2, 1));
    rig.join(2, z(1, 1), Some(1));
    rig.ack(1, z(2, 1));
    // A learner of 3.8.0 forgets at NEWLEADER what it was proposed, and fails on the COMMIT of it until UPTODATE.
    assert_eq!(rig.told(2), "LEADERINFO2 DIFF1:1 P2:1 NEWLEADER2");
    rig.ack(2, z(2, 0));
    assert_eq!(rig.told(2), "UPTODATE C2:1");
}

#[test]
fn only_observers_are_throttled() {
    let mut rig = Rig::active(1, &[z(1, 1)]);
    rig.leader.options.concurrent_diffs_max = 1;
    rig.leader.options.concurrent_snapshots_max = 1;
    rig.join(2, z(1, 1), Some(1));
    rig.join(8, z(1, 1), Some(1));
    assert_eq!(rig.closed(), [(conn(8), CloseReason::Throttled(1))], "the follower's is counted");
    rig.join(8, Zxid::ZERO, Some(0));
    rig.join(9, Zxid::ZERO, Some(0));
    assert_eq!(rig.closed(), [(conn(9), CloseReason::Throttled(1))]);
    rig.join(5, Zxid::ZERO, Some(0));
    rig.ack(2, z(2, 0));
    rig.join(9, z(1, 1), Some(1));
    assert_eq!(rig.closed(), [], "the first one is done");
}
