//! Mail of the replica: replies, events, session changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;
use zk_proto::jute::frame;
use zk_proto::{Acl, ConnectResponse, Perms, SessionId};

use super::conn::Phase;
use super::fan_out::FanOut;
use super::limits::{FAN_OUTS_MAX, OUTPUT_MAX_BYTES, SMALL_EVENT};
use super::{IoThread, Serving};
use crate::admin::metrics::{Counter, Latency};
use crate::auth::{self, ConnAuth};
use crate::replica::messages::{Letter, slot_of};
use crate::tree::Tree;
use crate::watch::ConnId;

/// The tree, read-locked.
pub(super) type TreeGuard<'a> = RwLockReadGuard<'a, Tree>;

/// How often mail is delivered without the tree locked before it is delivered with it.
const GUARD_ATTEMPTS: usize = 3;

impl<'a> IoThread<'a> {
    /// Locks the tree for reading, with all mail up to the state that is read delivered: so events stand in the
    /// output before data that is newer than they are.
    pub(super) fn lock_tree(&mut self) -> TreeGuard<'a> {
        let net = self.net;
        for _ in 0..GUARD_ATTEMPTS {
            let tree = net.shared.tree.read();
            if !net.inboxes[self.index].has_mail() {
                return tree;
            }
            drop(tree);
            self.deliver_mail();
        }
        let tree = net.shared.tree.read();
        self.deliver_mail();
        tree
    }

    /// Delivers the mail and sends the replies that were in it.
    pub(super) fn take_mail(&mut self) {
        if self.net.inboxes[self.index].has_mail() {
            self.deliver_mail();
        }
        let mut replied = std::mem::take(&mut self.replied);
        for slot in replied.drain(..) {
            let Some(conn) = self.slots.get(slot) else { continue };
            conn.flushing = false;
            let sent = conn.flush();
            self.after_sending(slot, sent);
            // What had to wait for these replies can go on.
            if self.takes_requests(slot)
                && let Some(conn) = self.slots.get(slot)
                && (conn.readable || conn.has_backlog)
            {
                self.enqueue(slot);
            }
        }
        self.replied = replied;
    }

    /// Puts letters into outputs; sends nothing.
    fn deliver_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.spare_mail);
        self.net.inboxes[self.index].take_mail(&mut mail);
        let mut answered = 0;
        for letter in mail.letters.drain(..) {
            match letter {
                Letter::Reply { conn, frame, close } => {
                    answered += 1;
                    let frame = mail.bytes.get(frame.start as usize..frame.end as usize).unwrap_or_default();
                    self.deliver_reply(slot_of(conn), frame, close);
                }
                Letter::Event { frame, conns, acl } => self.deliver_event(FanOut::new(frame, conns, acl)),
                Letter::SessionReady { conn, session, timeout_ms, passwd } => {
                    self.session_ready(slot_of(conn), session, timeout_ms, &passwd);
                }
                Letter::SessionRefused { conn } => self.session_refused(slot_of(conn)),
                Letter::Close { conn, session } => {
                    let slot = slot_of(conn);
                    // The slot may have a new tenant, whom this does not concern.
                    if self.slots.get(slot).is_some_and(|conn| conn.session == session) {
                        self.close(slot, "session expired or moved");
                    }
                }
                Letter::Released { conn } => {
                    // A read that waited in the replica may have armed a watch after the connection was closed.
                    self.net.shared.watches.lock().connection_closed(conn);
                    answered += i64::from(self.slots.release(slot_of(conn)));
                }
            }
        }
        mail.bytes.clear();
        self.spare_mail = mail;
        self.net.outstanding.fetch_sub(answered, Ordering::Relaxed);
    }

    fn deliver_reply(&mut self, slot: u32, frame: &[u8], close: bool) {
        self.settle_events(slot);
        let now_us = self.now_us;
        let Some(conn) = self.slots.get(slot) else {
            self.slots.paid(slot);
            return;
        };
        conn.in_core = conn.in_core.saturating_sub(1);
        if conn.in_core == 0 {
            conn.waiting_cost = 0;
            self.net.large_bytes.fetch_sub(std::mem::take(&mut conn.large_bytes), Ordering::Relaxed);
        }
        conn.push(frame);
        conn.counters.sent += 1;
        conn.counters.last_response_ms = self.now_ms;
        if let Some(zxid) = frame.get(8..16).and_then(|bytes| bytes.first_chunk::<8>()) {
            conn.counters.last_zxid = i64::from_be_bytes(*zxid);
        }
        match &mut conn.sample {
            Some(sample) if sample.before == 0 => {
                let us = now_us.saturating_sub(sample.arrived_us);
                let kind = if sample.write { Latency::UpdateLatency } else { Latency::ReadLatency };
                conn.sample = None;
                conn.counters.latency.record(us);
                self.recorder.request_latency(us);
                self.recorder.latency(kind, us);
            }
            Some(sample) => sample.before -= 1,
            None => {}
        }
        self.recorder.packet_sent();
        self.recorder.response_size(frame.len() as u64);
        self.recorder.add(Counter::ResponseBytes, frame.len() as u64);
        self.replied(slot);
        if close {
            self.finish(slot, false);
        }
    }

    /// Notes that a connection has replies to send.
    fn replied(&mut self, slot: u32) {
        if let Some(conn) = self.slots.get(slot)
            && !std::mem::replace(&mut conn.flushing, true)
        {
            self.replied.push(slot);
        }
    }

    /// Few watchers are told at once; many in slices, so that nobody waits for them.
    fn deliver_event(&mut self, event: FanOut) {
        let mut due = Some(event);
        if due.as_ref().is_some_and(|event| event.len() > SMALL_EVENT) {
            self.fan_outs.extend(due.take());
            if self.fan_outs.len() > FAN_OUTS_MAX {
                due = self.fan_outs.pop_front();
            }
        }
        let Some(mut event) = due else { return };
        while let Some(conn) = event.next() {
            let slot = slot_of(conn);
            self.settle_events(slot);
            self.push_event(slot, &event.frame, event.acl.as_ref());
            self.replied(slot);
        }
    }

    /// Puts an event into a connection's output, if it may see it and is still there.
    pub(super) fn push_event(&mut self, slot: u32, frame: &[u8], acl: Option<&Arc<[Acl<'static>]>>) {
        let Some(conn) = self.slots.get(slot) else { return };
        if !may_see(acl, &conn.auth, &self.net.providers) {
            return;
        }
        if conn.unsent() > OUTPUT_MAX_BYTES {
            self.close(slot, "does not read its events");
            return;
        }
        conn.push(frame);
        conn.counters.sent += 1;
        self.recorder.packet_sent();
        self.recorder.add(Counter::WatchBytes, frame.len() as u64);
    }

    fn session_ready(&mut self, slot: u32, session: SessionId, timeout_ms: i32, passwd: &[u8; 16]) {
        let Some(conn) = self.slots.get(slot) else { return };
        let Phase::Connecting { read_only_field } = conn.phase else { return };
        conn.phase = Phase::Open;
        conn.session = session;
        conn.timeout_ms = timeout_ms;
        conn.heard_ms = self.now_ms;
        tracing::debug!(remote = %conn.remote(), %session, timeout_ms, "session attached");
        let read_only = self.net.serving.serving() == Serving::ReadOnly;
        self.connect_response(
            slot,
            &ConnectResponse {
                protocol_version: 0,
                timeout_ms,
                session_id: session,
                passwd: Some(passwd),
                read_only: read_only_field.then_some(read_only),
            },
        );
    }

    fn session_refused(&mut self, slot: u32) {
        let Some(conn) = self.slots.get(slot) else { return };
        let Phase::Connecting { read_only_field } = conn.phase else { return };
        self.recorder.count(Counter::UnsuccessfulHandshake);
        self.connect_response(slot, &ConnectResponse::refused(read_only_field));
        self.finish(slot, true);
    }

    fn connect_response(&mut self, slot: u32, response: &ConnectResponse<'_>) {
        let mut bytes = Vec::with_capacity(48);
        frame(&mut bytes, |out| response.encode(out));
        if let Some(conn) = self.slots.get(slot) {
            conn.push(&bytes);
            conn.counters.sent += 1;
        }
        self.recorder.packet_sent();
        self.replied(slot);
    }

    /// The slot of a connection of this thread.
    pub(super) fn slot_of_own(&self, conn: ConnId) -> Option<u32> {
        (crate::replica::messages::thread_of(conn) == self.index).then(|| slot_of(conn))
    }
}

/// Whether a connection may see an event of a node with this ACL.
pub(super) fn may_see(
    acl: Option<&Arc<[Acl<'static>]>>,
    auth: &ConnAuth,
    providers: &auth::Providers,
) -> bool {
    acl.is_none_or(|acl| auth::check(acl, Perms::READ, auth, providers))
}
