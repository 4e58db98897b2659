//! The queue: positions, limits, taking back.

use std::time::Duration;

use super::*;

fn outbox(requests: usize) -> Outbox {
    Outbox::new(Limits { requests, bytes: 1 << 20, request_bytes: 1000 })
}

fn push(outbox: &mut Outbox, slot: SlotId, length: usize) {
    push_at(outbox, slot, length, Instant::now());
}

fn push_at(outbox: &mut Outbox, slot: SlotId, length: usize, now: Instant) {
    let body = vec![slot as u8; length];
    let target = Target::Caller(slot);
    outbox.push(OpCode::SetData, target, None, now, |w| w.extend_from_slice(&body)).expect("short enough");
}

/// The slots whose frames are in `bytes`, by their content, and their xids.
fn frames(mut bytes: &[u8]) -> Vec<(u8, i32)> {
    let mut seen = Vec::new();
    while let [a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let xid = i32::from_be_bytes(rest[..4].try_into().expect("a header"));
        seen.push((rest[8], xid));
        bytes = &rest[length..];
    }
    seen
}

fn taken(outbox: &mut Outbox) -> Vec<(u8, i32)> {
    let mut out = Vec::new();
    outbox.take(&mut out, Instant::now());
    frames(&out)
}

#[test]
fn what_is_taken_back_is_cut_out() {
    let mut outbox = outbox(10);
    push(&mut outbox, 1, 5);
    assert_eq!(taken(&mut outbox), [(1, 1)]);
    for slot in 2..6 {
        push(&mut outbox, slot, 5 * slot);
    }
    assert!(outbox.withdraw(1).is_none(), "handed over already");
    assert!(outbox.withdraw(3).is_some());
    assert!(outbox.withdraw(3).is_none());
    assert!(outbox.withdraw(5).is_some());
    push(&mut outbox, 6, 1);
    assert_eq!(taken(&mut outbox), [(2, 2), (4, 4), (6, 6)]);
    // Positions are right after the cuts: the first two and one byte of the third were written.
    let written = (4 + 8 + 5) + (4 + 8 + 10) + 1;
    let sent: Vec<bool> = outbox.drain(written as u64).into_iter().map(|(_, sent)| sent).collect();
    assert_eq!(sent, [true, true, true, false]);
    assert!(outbox.is_idle());
}

#[test]
fn replies_match_the_oldest_request_that_was_handed_over() {
    let mut outbox = outbox(10);
    push(&mut outbox, 1, 1);
    assert!(outbox.answered(1).is_none(), "not handed over yet");
    push(&mut outbox, 2, 1);
    taken(&mut outbox);
    assert!(outbox.answered(2).is_none() && outbox.answered(0).is_none());
    assert!(outbox.answered(1).is_some() && outbox.answered(2).is_some());
    assert!(outbox.answered(2).is_none());
}

#[test]
fn parked_requests_follow_in_order() {
    let mut outbox = outbox(2);
    (1..6).for_each(|slot| push(&mut outbox, slot, 1));
    assert!(outbox.is_full() && outbox.has_parked());
    assert_eq!(taken(&mut outbox), [(1, 1), (2, 2)]);
    outbox.admit_parked();
    assert_eq!(taken(&mut outbox), []);
    // What the client sends for itself does not wait.
    outbox.push(OpCode::Delete, Target::Lease, None, Instant::now(), |w| w.push(9)).expect("short");
    assert!(outbox.answered(1).is_some());
    assert!(outbox.withdraw(4).is_some(), "a parked one");
    outbox.admit_parked();
    assert_eq!(taken(&mut outbox), [(9, 3), (3, 4)]);
    assert!(outbox.answered(2).is_some());
    outbox.admit_parked();
    assert_eq!(taken(&mut outbox), [(5, 5)]);
}

#[test]
fn a_sync_goes_with_its_read() {
    for limit in [10, 2, 3] {
        let mut outbox = outbox(limit);
        push(&mut outbox, 1, 1);
        push(&mut outbox, 2, 1);
        for target in [Target::Sync(3), Target::Caller(3)] {
            outbox.push(OpCode::Sync, target, None, Instant::now(), |w| w.push(3)).expect("short");
        }
        let read = outbox.withdraw(3).expect("still here");
        assert!(matches!(read.target, Target::Caller(3)));
        let left: Vec<u8> = taken(&mut outbox).into_iter().map(|(slot, _)| slot).collect();
        // With room for the sync but not for the read, the sync is on its way already: for nobody.
        assert_eq!(left, if limit == 3 { vec![1, 2, 3] } else { vec![1, 2] });
        assert!(outbox.drain(0).iter().all(|(entry, _)| !matches!(entry.target, Target::Sync(_))));
    }
}

#[test]
fn what_comes_first_on_a_new_connection_is_put_in_front() {
    let mut outbox = outbox(10);
    push(&mut outbox, 1, 3);
    push(&mut outbox, 2, 3);
    outbox.restart(|outbox| {
        outbox
            .push(OpCode::SetWatches, Target::SetWatches, None, Instant::now(), |w| w.push(9))
            .expect("short");
    });
    assert_eq!(taken(&mut outbox), [(9, 3), (1, 1), (2, 2)]);
    for xid in [3, 1] {
        assert!(outbox.answered(xid).is_some());
    }
    assert_eq!(outbox.drain(4 + 8 + 1 + 15).len(), 1);
}

#[test]
fn stale_requests_leave_oldest_first() {
    let start = Instant::now();
    let mut outbox = outbox(2);
    for (slot, second) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
        push_at(&mut outbox, slot, 1, start + Duration::from_secs(second));
    }
    assert_eq!(outbox.oldest_queued(), Some(start));
    let mut stale = Vec::new();
    while let Some(entry) = outbox.pop_stale(start + Duration::from_secs(2)) {
        stale.push(entry.target);
    }
    assert!(matches!(stale[..], [Target::Caller(1), Target::Caller(2), Target::Caller(3)]), "{stale:?}");
    assert_eq!(outbox.oldest_queued(), Some(start + Duration::from_secs(3)));
}

#[test]
fn too_long_requests_leave_no_trace() {
    let mut outbox = outbox(10);
    push(&mut outbox, 1, 1);
    let body = vec![0; 1000];
    let pushed = outbox.push(OpCode::SetData, Target::Caller(2), None, Instant::now(), |w| w.extend(&body));
    assert_eq!(pushed.expect_err("too long").bytes, 1008);
    push(&mut outbox, 3, 1);
    assert_eq!(taken(&mut outbox), [(1, 1), (3, 3)]);
}

#[test]
fn xids_stay_positive() {
    let mut outbox = outbox(10);
    outbox.last_xid = i32::MAX - 1;
    (1..4).for_each(|slot| push(&mut outbox, slot, 1));
    assert_eq!(taken(&mut outbox), [(1, i32::MAX), (2, 1), (3, 2)]);
}
