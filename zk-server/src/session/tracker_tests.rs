//! Tests of the session tracker.

use super::*;

const A: SessionId = SessionId(0x0100_0000_0000_0001);
const B: SessionId = SessionId(0x0100_0000_0000_0002);
const C: SessionId = SessionId(0x0200_0000_0000_0001);
const TICK: u64 = 2_000;

fn tracker(sessions: &[(SessionId, i32)], now_ms: u64) -> SessionTracker {
    let mut tracker = SessionTracker::new(TICK);
    for (id, timeout_ms) in sessions {
        assert!(tracker.add(*id, *timeout_ms, NO_OWNER, now_ms));
    }
    tracker
}

/// When the only session of a tracker expires, found by trying every millisecond.
fn expires_at(mut tracker: SessionTracker, from_ms: u64) -> u64 {
    let mut now_ms = from_ms;
    while tracker.expire_until(now_ms).is_empty() {
        now_ms += 1;
    }
    now_ms
}

#[test]
fn expiry_is_the_next_tick_strictly_above() {
    for (now_ms, timeout_ms, expected) in [
        (0, 4_000, 6_000),
        (1, 4_000, 6_000),
        (1_999, 4_000, 6_000),
        (2_000, 4_000, 8_000),
        (0, 3_999, 4_000),
        (0, 0, 2_000),
        (0, -5, 2_000),
        (1_234_567, 10_000, 1_246_000),
    ] {
        let tracker = tracker(&[(A, timeout_ms)], now_ms);
        assert_eq!(tracker.next_check_ms(), Some(expected));
        assert_eq!(expires_at(tracker, now_ms), expected, "{now_ms} + {timeout_ms}");
    }
}

#[test]
fn touch_moves_expiry_and_never_back() {
    let mut tracker = tracker(&[(A, 4_000)], 0);
    assert!(tracker.touch(A, 5_000));
    assert!(tracker.touch(A, 1_000));
    assert_eq!(tracker.expire_until(9_999), []);
    assert_eq!(tracker.next_check_ms(), Some(10_000));
    assert_eq!(tracker.expire_until(10_000), [A]);
    assert!(!tracker.touch(B, 0));
}

#[test]
fn late_checks_expire_in_order_of_time_then_id() {
    let mut tracker = tracker(&[(C, 4_000), (B, 8_000), (A, 4_000)], 0);
    tracker.touch(C, 6_000);
    assert_eq!(tracker.expire_until(1_000_000), [A, B, C]);
    assert_eq!(tracker.expire_until(2_000_000), []);
    assert_eq!(tracker.next_check_ms(), None);
}

#[test]
fn expired_session_is_closing_until_removed() {
    let mut tracker = tracker(&[(A, 4_000)], 0);
    assert_eq!(tracker.expire_until(6_000), [A]);
    assert!(tracker.is_tracked(A) && tracker.is_closing(A));
    assert!(!tracker.touch(A, 6_000));
    assert!(!tracker.renegotiate(A, 9_000, 6_000));
    assert!(!tracker.set_owner(A, 3));
    assert!(!tracker.set_closing(A));
    assert_eq!(tracker.check_owner(A, 0), Err(ErrorCode::SESSION_EXPIRED));
    assert!(!tracker.add(A, 4_000, 0, 6_000));
    assert_eq!(tracker.expire_until(100_000), []);
    assert!(tracker.remove(A) && !tracker.remove(A));
    assert!(!tracker.is_tracked(A) && !tracker.is_closing(A) && tracker.is_empty());
}

#[test]
fn session_closed_by_its_client_does_not_expire() {
    let mut tracker = tracker(&[(A, 4_000), (B, 4_000)], 0);
    assert!(tracker.set_closing(A));
    assert!(tracker.is_closing(A) && !tracker.is_closing(B));
    assert_eq!(tracker.dump(), BTreeMap::from([(6_000, vec![B])]));
    assert_eq!(tracker.expire_until(6_000), [B]);
    assert_eq!(tracker.len(), 2);
}

#[test]
fn renegotiated_timeout_counts_both_ways() {
    let mut tracker = tracker(&[(A, 40_000)], 0);
    assert!(tracker.renegotiate(A, 4_000, 1_000));
    assert_eq!(tracker.timeout_ms(A), Some(4_000));
    assert_eq!(tracker.next_check_ms(), Some(6_000));
    assert!(tracker.renegotiate(A, 10_000, 5_000));
    assert_eq!(tracker.expire_until(15_999), []);
    assert_eq!(tracker.expire_until(16_000), [A]);
    assert!(!tracker.renegotiate(B, 4_000, 0));
}

#[test]
fn adding_a_known_session_renegotiates() {
    let mut tracker = tracker(&[(A, 40_000)], 0);
    tracker.set_owner(A, 7);
    assert!(!tracker.add(A, 4_000, 9, 0));
    assert_eq!((tracker.timeout_ms(A), tracker.owner(A), tracker.len()), (Some(4_000), Some(7), 1));
    assert_eq!(tracker.expire_until(6_000), [A]);
    assert!(!tracker.add(SessionId::NONE, 4_000, 0, 0));
}

#[test]
fn ownership() {
    let mut tracker = tracker(&[(A, 4_000)], 0);
    assert_eq!(tracker.owner(A), Some(NO_OWNER));
    assert_eq!(tracker.check_owner(A, 1), Ok(()));
    assert_eq!(tracker.check_owner(A, 1), Ok(()));
    assert_eq!(tracker.check_owner(A, 2), Err(ErrorCode::SESSION_MOVED));
    assert!(tracker.set_owner(A, 2));
    assert_eq!(tracker.check_owner(A, 1), Err(ErrorCode::SESSION_MOVED));
    assert_eq!(tracker.check_owner(A, 2), Ok(()));
    assert_eq!(tracker.check_owner(B, 2), Err(ErrorCode::UNKNOWN_SESSION));
    assert_eq!((tracker.owner(A), tracker.owner(B)), (Some(2), None));
    assert!(tracker.attach(A, 40_000, 3, 10_000));
    assert_eq!((tracker.owner(A), tracker.timeout_ms(A)), (Some(3), Some(40_000)));
    assert_eq!(tracker.dump(), BTreeMap::from([(52_000, vec![A])]));
    tracker.set_closing(A);
    assert!(!tracker.attach(A, 4_000, 4, 10_000) && !tracker.attach(B, 4_000, 4, 10_000));
    assert_eq!(tracker.owner(A), Some(3));
}

#[test]
fn new_term_gives_every_session_a_full_timeout() {
    let mut tracker = tracker(&[(A, 4_000), (B, 8_000), (C, 4_000)], 0);
    assert_eq!(tracker.expire_until(6_000), [A, C]);
    tracker.remove(C);
    tracker.restart_all(100_500);
    assert_eq!(tracker.dump(), BTreeMap::from([(106_000, vec![A]), (110_000, vec![B])]));
    assert!(!tracker.is_closing(A));
    assert_eq!(tracker.expire_until(105_999), []);
    assert_eq!(tracker.expire_until(110_000), [A, B]);
}

#[test]
fn sessions_are_listed_by_id() {
    let tracker = tracker(&[(C, 3), (A, 1), (SessionId(-5), 4), (B, 2)], 0);
    assert_eq!(tracker.sessions().collect::<Vec<_>>(), [(SessionId(-5), 4), (A, 1), (B, 2), (C, 3)]);
}

#[test]
fn removed_sessions_leave_no_memory_behind() {
    let mut tracker = SessionTracker::new(TICK);
    for i in 1..100_000 {
        assert!(tracker.add(SessionId(i), 40_000, 0, 0));
        assert!(tracker.remove(SessionId(i)));
        assert!(tracker.bucket_entries <= 1025);
    }
    assert_eq!(tracker.slots.len(), 1);
    // The slot is in the bucket more than once; its session expires once.
    tracker.add(A, 40_000, 0, 0);
    assert_eq!(tracker.expire_until(42_000), [A]);
    assert_eq!(tracker.bucket_entries, 0);
}

#[derive(Debug, Clone)]
struct Simple {
    timeout_ms: i32,
    owner: u64,
    closing: bool,
    expires_ms: u64,
}

/// Random operations against a map that holds the moment of expiry.
fn run(seed: u64, tick: u64, start_ms: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let round_up = |ms: u64| (ms / tick + 1) * tick;
    let mut ours = SessionTracker::new(tick);
    let mut model: BTreeMap<SessionId, Simple> = BTreeMap::new();
    let mut now_ms = start_ms;
    for step in 0..4_000 {
        let id = SessionId(rng.i64(1..40));
        let timeout_ms = rng.i32(0..20 * tick as i32);
        let expires_ms = round_up(now_ms + timeout_ms as u64);
        let known = model.get_mut(&id).filter(|session| !session.closing);
        match rng.u8(..12) {
            0 | 1 => {
                let added = ours.add(id, timeout_ms, 5, now_ms);
                assert_eq!(added, !model.contains_key(&id));
                match model.get_mut(&id) {
                    None => {
                        model.insert(id, Simple { timeout_ms, owner: 5, closing: false, expires_ms });
                    }
                    Some(known) if !known.closing => {
                        (known.timeout_ms, known.expires_ms) = (timeout_ms, expires_ms);
                    }
                    Some(_) => {}
                }
            }
            2 => assert_eq!(ours.remove(id), model.remove(&id).is_some()),
            3 => {
                let closed = known.map(|session| session.closing = true).is_some();
                assert_eq!(ours.set_closing(id), closed);
            }
            4 => {
                let moved = known.map(|session| session.owner = step).is_some();
                assert_eq!(ours.set_owner(id, step), moved);
            }
            5 => {
                let changed = known
                    .map(|session| (session.timeout_ms, session.expires_ms) = (timeout_ms, expires_ms))
                    .is_some();
                assert_eq!(ours.renegotiate(id, timeout_ms, now_ms), changed);
            }
            6 if rng.u8(..100) == 0 => {
                ours.restart_all(now_ms);
                for session in model.values_mut() {
                    session.closing = false;
                    session.expires_ms = round_up(now_ms + session.timeout_ms as u64);
                }
            }
            6..9 => {
                let at_ms = now_ms.saturating_sub(rng.u64(..tick)).max(start_ms);
                let touched = known
                    .map(|session| {
                        let expires_ms = round_up(at_ms + session.timeout_ms as u64);
                        session.expires_ms = session.expires_ms.max(expires_ms);
                    })
                    .is_some();
                assert_eq!(ours.touch(id, at_ms), touched);
            }
            _ => {
                now_ms += rng.u64(..2 * tick);
                let mut due: Vec<_> = model
                    .iter_mut()
                    .filter(|(_, session)| !session.closing && session.expires_ms <= now_ms)
                    .map(|(id, session)| {
                        session.closing = true;
                        (session.expires_ms, *id)
                    })
                    .collect();
                due.sort_unstable();
                let due: Vec<_> = due.into_iter().map(|(_, id)| id).collect();
                assert_eq!(ours.expire_until(now_ms), due, "seed {seed} step {step}");
                let next = model.values().filter(|session| !session.closing).map(|s| s.expires_ms).min();
                assert!(next.is_none() || ours.next_check_ms() <= next);
            }
        }
        let simple = model.get(&id);
        assert_eq!(ours.is_tracked(id), simple.is_some());
        assert_eq!(ours.is_closing(id), simple.is_some_and(|session| session.closing));
        assert_eq!(ours.owner(id), simple.map(|session| session.owner));
        assert_eq!(ours.timeout_ms(id), simple.map(|session| session.timeout_ms));
        if step % 50 == 0 {
            let mut groups: BTreeMap<u64, Vec<SessionId>> = BTreeMap::new();
            for (id, session) in model.iter().filter(|(_, session)| !session.closing) {
                groups.entry(session.expires_ms).or_default().push(*id);
            }
            assert_eq!(ours.dump(), groups, "seed {seed} step {step}");
            assert!(ours.sessions().eq(model.iter().map(|(id, session)| (*id, session.timeout_ms))));
            assert_eq!(ours.len(), model.len());
        }
    }
}

#[test]
fn agrees_with_a_simple_model() {
    for seed in 0..10 {
        run(seed, 2_000, 0);
        run(seed, 7, 1_000);
        run(seed, 1, 5);
        // Ticks beyond 32 bits, and across the boundary.
        run(seed, 1, u64::from(u32::MAX) - 500);
        run(seed, 10, (1_u64 << 32) * 10 - 5_000);
        run(seed, 100, 1_795_166_473_753);
    }
}
