//! What comes from the server.

use bytes::Bytes;
use tokio::time::Instant;
use zk_proto::jute::Writer;
use zk_proto::{ErrorCode, OpCode, Reader, ReplyHeader, WatcherEvent, Zxid, xid};

use super::link::is_committed_write;
use super::outbox::{Entry, Target};
use super::slots::Completion;
use super::{Answer, Failure, Session};
use crate::ensemble::{CONFIG, client_addresses};
use crate::watch::Removal;

impl Session {
    /// A frame (without its length) came. An error means that the connection cannot be used any longer.
    pub(crate) fn on_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), String> {
        let mut reader = Reader::new(&frame);
        let header = ReplyHeader::decode(&mut reader).map_err(|e| format!("reply header: {e}"))?;
        match header.xid {
            xid::EVENT => return self.on_event(header.zxid, &mut reader),
            xid::PING => {
                let Some(sent) = self.ping_sent.take() else {
                    return Err("an answer to a ping that was not sent".to_owned());
                };
                self.prove_alive(sent, false);
                if let Some(metrics) = &self.config.metrics {
                    metrics.ping(now - sent);
                }
                return Ok(());
            }
            xid::AUTH => return self.on_auth(header.err),
            _ => {}
        }
        let Some(entry) = self.outbox.answered(header.xid) else {
            return Err(format!("reply with unexpected xid {}", header.xid));
        };
        // Events, pings and auth do not count: their zxid may be ahead of what was read, or none at all.
        if header.zxid.0 > 0 {
            self.last_zxid = self.last_zxid.max(header.zxid.0);
        }
        self.prove_alive(entry.since, header.err == ErrorCode::OK && is_committed_write(entry.op));
        let body = frame.slice(ReplyHeader::WIRE_LEN..);
        self.on_reply(entry, header.err, header.zxid, body, now);
        Ok(())
    }

    /// A message sent at `sent` was answered. Without a quorum behind the server that says nothing about the
    /// session.
    fn prove_alive(&mut self, sent: Instant, committed: bool) {
        if !self.read_only {
            self.lease.answered(sent, committed);
        }
    }

    fn on_reply(&mut self, entry: Entry, code: ErrorCode, zxid: Zxid, body: Bytes, now: Instant) {
        if let Some(registration) = entry.registration {
            let answer = match code {
                ErrorCode::OK => Answer::Ok,
                ErrorCode::NO_NODE => Answer::NoNode,
                _ => Answer::Failed,
            };
            let removal = self.watches.complete(*registration, answer, &mut self.wakers);
            if let Some(removal) = removal {
                self.remove_watch(removal);
            }
        }
        match entry.target {
            Target::Caller(slot) => {
                self.has_served = true;
                if let Some(metrics) = &self.config.metrics {
                    metrics.request(entry.op, Some(code.0), now - entry.since);
                }
                self.slots.complete(slot, Completion::Reply { code, zxid, body }, &mut self.wakers);
            }
            Target::Sync(slot) => {
                if code != ErrorCode::OK {
                    self.slots.poison(slot, code);
                }
            }
            Target::Cleanup { item, step } => self.on_cleanup_reply(item, step, code, &body, now),
            Target::SetWatches => {
                if code != ErrorCode::OK {
                    // Watches that are not set are worse than a connection less.
                    self.drop_link(&format!("setWatches: {code}"));
                }
            }
            Target::RemoveWatch => {
                if code == ErrorCode::UNIMPLEMENTED {
                    self.cannot_remove_watches = true;
                }
            }
            Target::Lease | Target::Nobody => {}
            Target::Ensemble => self.on_ensemble(code, &body),
            Target::CloseSession => self.finish(Failure::Closed, 0),
        }
    }

    fn on_event(&mut self, zxid: Zxid, reader: &mut Reader<'_>) -> Result<(), String> {
        let event = WatcherEvent::decode(reader).map_err(|e| format!("watch event: {e}"))?;
        tracing::debug!(name: "zk.watch", path = %event.path, kind = ?event.kind, "event");
        self.watches.event(event.kind, &event.path, zxid, &mut self.wakers);
        if event.path == CONFIG {
            self.read_ensemble();
        }
        if self.watches.events_lost > 0 {
            let lost = std::mem::take(&mut self.watches.events_lost);
            tracing::warn!(path = %event.path, lost, "a watch stream overflowed");
            if let Some(metrics) = &self.config.metrics {
                metrics.events_dropped(lost);
            }
        }
        Ok(())
    }

    /// Reads the ensemble's configuration and watches it, if that is wanted.
    pub(super) fn read_ensemble(&mut self) {
        if !self.config.track_ensemble {
            return;
        }
        let now = self.enqueue_time();
        let _ = self.outbox.push(OpCode::GetData, Target::Ensemble, None, now, |w| {
            w.put_str(CONFIG);
            w.put_bool(true);
        });
        self.wake_driver();
    }

    fn on_ensemble(&mut self, code: ErrorCode, body: &[u8]) {
        let data = Reader::new(body).buffer();
        let hosts = match data {
            Ok(Some(data)) if code == ErrorCode::OK => client_addresses(&String::from_utf8_lossy(data)),
            _ => Vec::new(),
        };
        match hosts.is_empty() {
            true => tracing::debug!(%code, "no client addresses in the ensemble's configuration"),
            false => self.ensemble = Some(hosts),
        }
    }

    fn on_auth(&mut self, code: ErrorCode) -> Result<(), String> {
        let Some(at) = self.auth_in_flight.pop_front() else {
            return Err("an answer to credentials that were not sent".to_owned());
        };
        let credentials = &mut self.credentials[at];
        if code != ErrorCode::OK {
            let why = format!("scheme {}: {code}", credentials.auth.scheme);
            self.finish(Failure::AuthFailed(why.into()), u64::MAX);
            return Ok(());
        }
        for slot in std::mem::take(&mut credentials.waiting) {
            let completion = Completion::Reply { code, zxid: Zxid::ZERO, body: Bytes::new() };
            self.slots.complete(slot, completion, &mut self.wakers);
        }
        self.announce_if_authenticated();
        Ok(())
    }

    /// Tells the server that a watch is not needed any more, if there is a connection that has it.
    pub(crate) fn remove_watch(&mut self, removal: Removal) {
        if self.is_up() && !self.cannot_remove_watches {
            let Removal { path, kind } = removal;
            let target = Target::RemoveWatch;
            let _ = self.outbox.push(OpCode::RemoveWatches, target, None, self.enqueue_time(), |w| {
                w.put_str(&path);
                w.put_int(kind as i32);
            });
            self.wake_driver();
        }
    }
}
