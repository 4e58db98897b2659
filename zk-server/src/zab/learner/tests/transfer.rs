//! DIFF, TRUNC, SNAP, and asking for a SNAP. One test for each rule, named after it.

use super::super::{Alarm, Reason};
use super::*;
use crate::zab::wire::WireError;

#[test]
fn a_diff_that_does_not_begin_behind_the_own_history_is_refused() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 8)), proposal(z(1, 7)), commit(1, 7)]);
    assert_eq!(kit.ended().unwrap().reason, Reason::Gap { after: z(1, 5), found: z(1, 7) });
    assert_asks_for_snapshot(&kit);
    assert_untouched(&kit);
}

#[test]
fn a_diff_with_a_gap_is_refused_before_any_of_it_is_applied() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 8)), proposal(z(1, 6)), commit(1, 6), proposal(z(1, 8))]);
    assert_asks_for_snapshot(&kit);
    assert_untouched(&kit);
}

#[test]
fn a_diff_that_ends_too_early_or_behind_the_own_history_is_refused() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(1, 7)), proposal(z(1, 6)), commit(1, 6), new_leader(2)]);
    assert_eq!(kit.ended().unwrap().reason, Reason::Incomplete { announced: z(1, 7), found: z(1, 6) });
    assert_asks_for_snapshot(&kit);
    assert_untouched(&kit);

    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Diff(z(1, 3)));
    assert_eq!(kit.ended().unwrap().reason, Reason::DiffBehind { target: z(1, 3), last: z(1, 5) });
    assert_asks_for_snapshot(&kit);
}

#[test]
fn a_transaction_of_a_later_epoch_than_the_leaders_is_refused() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packets([ToLearner::Diff(z(3, 1)), proposal(z(3, 1))]);
    assert_eq!(kit.ended().unwrap().reason, Reason::ForeignEpoch { epoch: Epoch(2), found: z(3, 1) });
}

#[test]
fn known_transactions_are_skipped() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.log.clear();
    let stream =
        [proposal(z(1, 5)), commit(1, 5), proposal(z(1, 6)), proposal(z(1, 6)), commit(1, 4), commit(1, 6)];
    kit.packet(ToLearner::Diff(z(1, 6)));
    kit.packets(stream);
    kit.packet(new_leader(2));
    assert_eq!(kit.asked(), ["stage 1", "sync 2"]);
}

#[test]
fn a_digest_that_differs_while_synchronising_asks_for_the_tree() {
    let wrong = World { wrong_after: Some(z(1, 6)), ..World::default() };
    let mut kit = Kit::at_transfer(start(), wrong);
    kit.packets([ToLearner::Diff(z(1, 6)), proposal(z(1, 6)), commit(1, 6), new_leader(2)]);
    let memory = assert_asks_for_snapshot(&kit);
    assert!(memory.diverged);
    assert!(kit.ended().unwrap().rebuild, "the tree holds what the log does not");
    assert_eq!(kit.asked().last().unwrap(), "alarm");
    assert!(!kit.has(|o| matches!(o, Output::CommitSync(_) | Output::Propose(_))));
}

#[test]
fn a_trunc_cuts_the_log_and_the_packets_behind_it_wait() {
    let start = Start { last: z(1, 6), ..start() };
    let mut kit = Kit::at_transfer(start, SLOW);
    kit.log.clear();
    kit.take_sent();
    kit.packets([ToLearner::Trunc(z(1, 5)), proposal(z(2, 1)), commit(2, 1), new_leader(2)]);
    assert_eq!(kit.asked(), ["truncate 0x100000005"]);
    kit.step(|learner, now, out| learner.truncated(now, Ok(z(1, 5)), out));
    assert_eq!(kit.asked(), ["truncate 0x100000005", "stage 1"]);
    kit.step(|learner, now, out| learner.staged(now, Ok(()), out));
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(2), out));
    assert_eq!(acks(&kit.take_sent()), [z(2, 0)]);
}

#[test]
fn a_trunc_below_what_is_known_committed_is_not_obeyed() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Trunc(z(1, 3)));
    assert_asks_for_snapshot(&kit);
    assert_untouched(&kit);
    assert!(kit.has(|o| matches!(o, Output::Alarm(Alarm::TruncBelowCommitted { .. }))));
    assert!(!kit.has(|o| matches!(o, Output::Truncate(_))));
}

#[test]
fn a_trunc_that_cannot_be_done_asks_for_the_tree() {
    let mut kit = Kit::at_transfer(start(), World { can_truncate: false, ..World::default() });
    kit.packet(ToLearner::Trunc(z(1, 4)));
    assert_asks_for_snapshot(&kit);
    assert_untouched(&kit);

    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Trunc(z(1, 9)));
    assert_eq!(kit.ended().unwrap().reason, Reason::CannotTruncate(z(1, 9)));
    assert_asks_for_snapshot(&kit);
}

#[test]
fn a_connection_lost_while_truncating_rebuilds_the_tree() {
    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.packet(ToLearner::Trunc(z(1, 4)));
    kit.step(|learner, _, out| learner.closed(CONN, out));
    let ended = kit.ended().unwrap();
    assert!(ended.rebuild && !ended.redial && ended.reason == Reason::Closed);
    kit.step(|learner, now, out| learner.truncated(now, Ok(z(1, 4)), out));
    assert_eq!(kit.log.iter().filter(|o| matches!(o, Output::Ended(_))).count(), 1);
}

#[test]
fn a_snapshot_is_installed_with_all_that_was_committed_before_newleader() {
    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.log.clear();
    kit.packet(ToLearner::Snap(z(1, 9)));
    kit.step(|learner, now, _| learner.snapshot_received(now));
    // What the tree holds already may be repeated, also its commits behind newer proposals.
    kit.packets([proposal(z(1, 9)), proposal(z(1, 10)), commit(1, 9), proposal(z(2, 1)), commit(1, 10)]);
    assert_eq!(kit.asked(), ["receive 0x100000009"]);
    kit.packet(new_leader(2));
    assert_eq!(kit.asked()[1..], ["adopt 0x100000009", "stage 1"]);
    assert!(kit.has(|o| matches!(o, Output::StageCommit { check_digests: false, .. })));
    kit.step(|learner, now, out| learner.staged(now, Ok(()), out));
    assert_eq!(kit.asked()[3..], ["install 0x10000000a 2", "propose 0x200000001"]);
    kit.take_sent();
    kit.step(|learner, now, out| learner.history_durable(now, Epoch(2), out));
    assert_eq!(acks(&kit.take_sent()), [z(2, 0)]);
}

#[test]
fn a_snapshot_that_breaks_off_changes_nothing() {
    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Snap(z(1, 9)));
    kit.step(|learner, _, out| learner.undecodable(CONN, WireError::GivenUp, out));
    assert_untouched(&kit);

    let mut kit = Kit::at_transfer(start(), World::default());
    kit.packet(ToLearner::Snap(z(1, 9)));
    kit.step(|learner, now, _| learner.snapshot_received(now));
    kit.step(|learner, _, out| learner.closed(CONN, out));
    assert_untouched(&kit);
}

#[test]
fn a_tree_that_was_adopted_and_not_installed_is_dropped() {
    let mut kit = Kit::at_transfer(start(), SLOW);
    kit.packet(ToLearner::Snap(z(1, 9)));
    kit.step(|learner, now, _| learner.snapshot_received(now));
    kit.packets([proposal(z(1, 10)), commit(1, 10), new_leader(2)]);
    kit.step(|learner, _, out| learner.closed(CONN, out));
    assert!(kit.ended().unwrap().rebuild, "ZOOKEEPER-3642, 5094");
}

#[test]
fn a_snapshot_is_asked_for_where_it_is_not_counted() {
    let memory = Memory { ask_snapshot: true, refused: 1, ..Memory::default() };
    let epochs = Epochs { accepted: Epoch(2), current: Epoch(1) };
    let mut kit = Kit::new(Start { memory, epochs, ..start() }, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.take_sent();
    kit.packet(ToLearner::LeaderInfo { epoch: Epoch(2) });
    assert_eq!(kit.take_sent(), [ToLeader::AckEpoch { last: Zxid::ZERO, current: None }]);
    kit.packet(ToLearner::Snap(z(1, 7)));
    kit.step(|learner, now, _| learner.snapshot_received(now));
    kit.packets([new_leader(2), ToLearner::UpToDate]);
    assert!(kit.learner.is_established());
    assert!(!kit.learner.memory.ask_snapshot && kit.learner.memory.refused == 0);
}

#[test]
fn what_counts_claims_the_whole_history() {
    let memory = Memory { ask_snapshot: true, diverged: true, ..Memory::default() };
    let mut kit = Kit::at_transfer(Start { memory, ..start() }, World::default());
    assert!(kit.take_sent().contains(&ToLeader::AckEpoch { last: z(1, 5), current: Some(Epoch(1)) }));
    // The answer is no tree: now that the epoch is accepted, the next try can ask.
    kit.packet(ToLearner::Diff(z(1, 5)));
    assert_asks_for_snapshot(&kit);
}

#[test]
fn the_second_refusal_in_a_row_leads_to_an_election() {
    let memory = Memory { ask_snapshot: true, refused: 1, ..Memory::default() };
    let epochs = Epochs { accepted: Epoch(2), current: Epoch(1) };
    let mut kit = Kit::new(Start { memory, epochs, ..start() }, World::default());
    kit.step(|learner, now, out| learner.connected(now, CONN, out));
    kit.packets([ToLearner::LeaderInfo { epoch: Epoch(2) }, ToLearner::Diff(Zxid::ZERO)]);
    let ended = kit.ended().unwrap();
    assert_eq!(ended.reason, Reason::NoSnapshot("DIFF"));
    assert!(!ended.redial && ended.memory == Memory::default());
}
