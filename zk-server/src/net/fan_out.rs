//! Events with many watchers: told a few at a time, straight from the shared frame, so that neither the reply to
//! whoever caused the event nor anybody else waits for the last of them.
//!
//! A connection that gets something newer meanwhile is told first: [`IoThread::settle_events`].

use std::sync::Arc;

use bytes::Bytes;
use zk_proto::Acl;

use super::IoThread;
use super::conn::Phase;
use super::deliver::may_see;
use super::limits::EVENTS_PER_ROUND;
use crate::admin::metrics::Counter;
use crate::replica::messages::slot_of;
use crate::watch::ConnId;

/// An event and who has yet to be told.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) frame: Bytes,
    pub(super) acl: Option<Arc<[Acl<'static>]>>,
    /// Ascending. An entry that was told out of turn has [`TOLD`] set.
    conns: Vec<ConnId>,
    next: usize,
}

/// Beyond all connection ids.
const TOLD: u32 = 1 << 31;
const _: () = assert!(ConnId::LIMIT <= TOLD);

impl FanOut {
    pub(super) fn new(frame: Bytes, conns: Vec<ConnId>, acl: Option<Arc<[Acl<'static>]>>) -> Self {
        debug_assert!(conns.is_sorted());
        FanOut { frame, acl, conns, next: 0 }
    }

    /// How many are left, those told out of turn included.
    pub(super) fn len(&self) -> usize {
        self.conns.len() - self.next
    }

    /// The next one to tell.
    pub(super) fn next(&mut self) -> Option<ConnId> {
        loop {
            let conn = *self.conns.get(self.next)?;
            self.next += 1;
            if conn.0 & TOLD == 0 {
                return Some(conn);
            }
        }
    }

    /// Takes a connection out of turn; false if it is not to be told (any more).
    fn take(&mut self, conn: ConnId) -> bool {
        let left = &mut self.conns[self.next..];
        match left.binary_search_by_key(&conn.0, |conn| conn.0 & !TOLD) {
            Ok(at) if left[at] == conn => {
                left[at].0 |= TOLD;
                true
            }
            _ => false,
        }
    }
}

impl IoThread<'_> {
    /// Puts the events that a connection has yet to be told into its output. To be called before anything newer
    /// goes there.
    pub(super) fn settle_events(&mut self, slot: u32) {
        if self.fan_outs.is_empty() {
            return;
        }
        let id = self.id(slot);
        let mut fan_outs = std::mem::take(&mut self.fan_outs);
        for fan_out in &mut fan_outs {
            if fan_out.take(id) {
                self.push_event(slot, &fan_out.frame, fan_out.acl.as_ref());
            }
        }
        self.fan_outs = fan_outs;
    }

    /// Tells some of those who have yet to be told.
    pub(super) fn fan_out_some(&mut self) {
        let mut left = EVENTS_PER_ROUND;
        while left > 0
            && let Some(mut fan_out) = self.fan_outs.pop_front()
        {
            while left > 0
                && let Some(conn) = fan_out.next()
            {
                left -= 1;
                self.send_event(slot_of(conn), &fan_out);
            }
            if fan_out.len() > 0 {
                self.fan_outs.push_front(fan_out);
            }
        }
    }

    /// Sends an event straight from the shared frame. All older events of the connection are out: fan-outs are
    /// worked off in order.
    fn send_event(&mut self, slot: u32, fan_out: &FanOut) {
        let Some(conn) = self.slots.get(slot) else { return };
        if conn.unsent() > 0 || conn.phase != Phase::Open {
            self.push_event(slot, &fan_out.frame, fan_out.acl.as_ref());
            return;
        }
        if !may_see(fan_out.acl.as_ref(), &conn.auth, &self.net.providers) {
            return;
        }
        conn.counters.sent += 1;
        self.recorder.packet_sent();
        self.recorder.add(Counter::WatchBytes, fan_out.frame.len() as u64);
        let sent = conn.send(&fan_out.frame);
        self.after_sending(slot, sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_turn_or_out_of_it() {
        let conns = [1, 3, 5, 7].map(ConnId).to_vec();
        let mut fan_out = FanOut::new(Bytes::new(), conns, None);
        assert_eq!(fan_out.next(), Some(ConnId(1)));
        assert!(!fan_out.take(ConnId(1)), "told already");
        assert!(!fan_out.take(ConnId(4)), "does not watch");
        assert!(fan_out.take(ConnId(5)));
        assert!(!fan_out.take(ConnId(5)));
        assert_eq!(fan_out.next(), Some(ConnId(3)));
        assert_eq!(fan_out.next(), Some(ConnId(7)));
        assert_eq!(fan_out.next(), None);
        assert_eq!(fan_out.len(), 0);
    }
}
