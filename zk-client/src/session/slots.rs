//! Where callers wait for their replies: a slab, so that a request allocates no channel.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use zk_proto::{ErrorCode, Zxid};

use crate::error::Failure;

/// Number of a slot. Belongs to exactly one caller until it takes the completion or abandons the slot.
pub(crate) type SlotId = usize;

/// The end of a request.
#[derive(Debug)]
pub(crate) enum Completion {
    /// The server answered.
    Reply {
        code: ErrorCode,
        zxid: Zxid,
        /// What follows the reply header; a slice of the receive buffer.
        body: Bytes,
    },
    /// There will be no answer.
    Failed(Failure),
}

#[derive(Debug)]
enum Slot {
    Free {
        next: Option<SlotId>,
    },
    Waiting {
        waker: Option<Waker>,
        poison: Option<ErrorCode>,
    },
    Done(Completion),
    /// The caller left; the reply is dropped when it comes.
    Abandoned,
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Option<SlotId>,
}

impl Slots {
    /// A new slot, waited for by `waker`.
    pub(crate) fn open(&mut self, waker: Option<Waker>) -> SlotId {
        let slot = Slot::Waiting { waker, poison: None };
        match self.free {
            Some(id) => {
                if let Slot::Free { next } = self.slots[id] {
                    self.free = next;
                }
                self.slots[id] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// Frees a slot whose request was never enqueued, or whose completion was taken.
    pub(crate) fn release(&mut self, id: SlotId) {
        self.slots[id] = Slot::Free { next: self.free };
        self.free = Some(id);
    }

    /// Ends the wait of slot `id`.
    pub(crate) fn complete(&mut self, id: SlotId, completion: Completion, wakers: &mut Vec<Waker>) {
        match &mut self.slots[id] {
            Slot::Waiting { waker, poison } => {
                wakers.extend(waker.take());
                let completion = match (completion, *poison) {
                    (Completion::Reply { zxid, body, .. }, Some(code)) => {
                        Completion::Reply { code, zxid, body }
                    }
                    (completion, _) => completion,
                };
                self.slots[id] = Slot::Done(completion);
            }
            Slot::Abandoned => self.release(id),
            Slot::Free { .. } | Slot::Done(_) => debug_assert!(false, "slot {id} completed twice"),
        }
    }

    /// A request that goes before the one of slot `id` failed with `code`: so does this one.
    pub(crate) fn poison(&mut self, id: SlotId, code: ErrorCode) {
        if let Slot::Waiting { poison, .. } = &mut self.slots[id] {
            *poison = Some(code);
        }
    }

    /// The completion of slot `id`, which is free then.
    pub(crate) fn poll(&mut self, id: SlotId, cx: &mut Context<'_>) -> Poll<Completion> {
        match &mut self.slots[id] {
            Slot::Waiting { waker: Some(waker), .. } => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Slot::Waiting { waker, .. } => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            done => {
                let slot = std::mem::replace(done, Slot::Abandoned);
                self.release(id);
                match slot {
                    Slot::Done(completion) => Poll::Ready(completion),
                    _ => Poll::Ready(Completion::Failed(Failure::Closed)),
                }
            }
        }
    }

    /// The caller of slot `id` leaves.
    pub(crate) fn abandon(&mut self, id: SlotId) {
        match self.slots[id] {
            Slot::Waiting { .. } => self.slots[id] = Slot::Abandoned,
            _ => self.release(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_after_both_sides_are_done() {
        let mut slots = Slots::default();
        let mut wakers = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        let (a, b) = (slots.open(None), slots.open(None));
        assert!(slots.poll(a, &mut cx).is_pending());
        slots.complete(a, Completion::Failed(Failure::Closed), &mut wakers);
        assert_eq!(wakers.len(), 1);
        assert!(matches!(slots.poll(a, &mut cx), Poll::Ready(Completion::Failed(Failure::Closed))));
        slots.abandon(b);
        assert_eq!(slots.open(None), a);
        slots.complete(b, Completion::Failed(Failure::Closed), &mut wakers);
        assert_eq!(slots.open(None), b);
    }
}
