use super::super::in_flight::{Gap, InFlight, OutOfOrder, Proposed};
use super::z;
use crate::zab::Epoch;

fn acks(queue: &mut InFlight) -> Vec<zk_proto::Zxid> {
    let mut acks = Vec::new();
    queue.take_acks(|zxid| acks.push(zxid));
    acks
}

#[test]
fn proposals_follow_each_other_without_gaps() {
    let mut queue = InFlight::new(z(1, 5));
    assert_eq!(queue.propose(z(1, 7), None), Err(Gap { after: z(1, 5), found: z(1, 7) }));
    assert_eq!(queue.propose(z(1, 6), None), Ok(Proposed::New));
    assert_eq!(queue.propose(z(1, 6), None), Ok(Proposed::Known));
    assert_eq!(queue.propose(z(1, 2), None), Ok(Proposed::Known));
    assert!(queue.propose(z(2, 0), None).is_err(), "counter 0 is no transaction");
    assert!(queue.propose(z(2, 3), None).is_err(), "the beginning of epoch 2 is missing");
    assert!(queue.propose(z(3, 3), Some(Epoch(2))).is_err());
    assert_eq!(queue.propose(z(2, 3), Some(Epoch(2))), Ok(Proposed::New));
    assert!(queue.propose(z(2, 5), Some(Epoch(2))).is_err(), "a jump only at the beginning");
    assert_eq!(queue.propose(z(4, 1), None), Ok(Proposed::New));
    assert_eq!(queue.len(), 3);

    // A snapshot of the beginning of an epoch.
    let mut queue = InFlight::new(z(2, 0));
    assert!(queue.propose(z(2, 9), None).is_err());
    assert_eq!(queue.propose(z(2, 9), Some(Epoch(2))), Ok(Proposed::New));
}

#[test]
fn the_last_counter_has_no_successor() {
    let mut queue = InFlight::new(z(1, u32::MAX));
    assert!(queue.propose(z(1, 0), None).is_ok_and(|p| p == Proposed::Known));
    assert!(queue.propose(z(2, 0), None).is_err());
    assert_eq!(queue.propose(z(2, 1), None), Ok(Proposed::New));
}

#[test]
fn commits_are_those_of_the_next_proposal() {
    let mut queue = InFlight::new(z(1, 5));
    assert_eq!(queue.commit(z(1, 4)), Ok(false), "in the base");
    assert_eq!(queue.commit(z(1, 6)), Err(OutOfOrder { expected: None, found: z(1, 6) }));
    queue.propose(z(1, 6), None).unwrap();
    queue.propose(z(1, 7), None).unwrap();
    assert_eq!(queue.commit(z(1, 7)), Err(OutOfOrder { expected: Some(z(1, 6)), found: z(1, 7) }));
    assert_eq!(queue.commit(z(1, 6)), Ok(true));
    assert_eq!(queue.commit(z(1, 6)), Ok(false), "twice");
    assert_eq!(queue.committed_to(), z(1, 6));
}

#[test]
fn whatever_order_commit_and_disk_come_in_each_is_acknowledged_once() {
    let mut queue = InFlight::new(z(1, 0));
    for counter in 1..=4 {
        queue.propose(z(1, counter), None).unwrap();
    }
    queue.commit(z(1, 1)).unwrap();
    assert_eq!(acks(&mut queue), [], "nothing is durable");
    queue.durable(z(1, 2));
    assert_eq!(acks(&mut queue), [z(1, 1), z(1, 2)]);
    assert_eq!(queue.len(), 3, "2 waits for its commit");
    queue.durable(z(1, 3));
    queue.durable(z(1, 3));
    queue.commit(z(1, 2)).unwrap();
    queue.commit(z(1, 3)).unwrap();
    assert_eq!(acks(&mut queue), [z(1, 3)]);
    assert_eq!(queue.len(), 1);
    queue.durable(z(9, 9));
    queue.commit(z(1, 4)).unwrap();
    assert_eq!(acks(&mut queue), [z(1, 4)]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn what_newleader_covers_is_not_acknowledged_singly() {
    let mut queue = InFlight::new(z(1, 0));
    for counter in 1..=3 {
        queue.propose(z(1, counter), None).unwrap();
    }
    queue.commit(z(1, 1)).unwrap();
    // Its commit arrives while the history is being written: it owes an acknowledgement all the same.
    queue.commit(z(1, 2)).unwrap();
    queue.settle(1);
    queue.durable(z(1, 3));
    assert_eq!(acks(&mut queue), [z(1, 2), z(1, 3)]);
    assert_eq!(queue.len(), 1);
}
