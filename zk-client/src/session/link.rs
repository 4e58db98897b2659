//! Connections: what happens when one is made, lost, or made too late.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zk_proto::{ConnectRequest, OpCode, Request, SessionId, SetWatches, Zxid};

use super::outbox::{Outbox, Target};
use super::{Failure, Phase, Session};
use crate::config::OnExpired;
use crate::error::Outcome;
use crate::state::SessionState;
use crate::watch::Rearm;

/// A server's answer to the connect request.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    pub(crate) requested: SessionId,
    pub(crate) session: SessionId,
    pub(crate) password: [u8; 16],
    /// Zero when the session was refused.
    pub(crate) timeout: Duration,
    pub(crate) read_only: bool,
    /// When the connect request was sent.
    pub(crate) sent: Instant,
    pub(crate) server: String,
}

/// What the driver does after a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Use the connection.
    Attached,
    /// Drop it and connect again at once: the old session is gone and a new one is wanted.
    Again,
    /// Drop it; this server is of no use now.
    Useless,
    /// Stop.
    Over,
}

/// Longest setWatches request: well below the frame limit of a server (ZOOKEEPER-706).
pub(super) const SET_WATCHES_BYTES_MAX: usize = 128 * 1024;

impl Session {
    /// The connect request for the next connection, and the session it asks for.
    pub(crate) fn connect_request(&self) -> (SessionId, Vec<u8>) {
        // What a read-only server handed out means nothing to others.
        let session_id = if self.is_local { SessionId::NONE } else { self.id };
        let mut frame = Vec::new();
        zk_proto::jute::frame(&mut frame, |w| {
            ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: Zxid(self.last_zxid),
                timeout_ms: i32::try_from(self.config.session_timeout.as_millis()).unwrap_or(i32::MAX),
                session_id,
                passwd: Some(if session_id == SessionId::NONE { &[0; 16] } else { &self.password }),
                read_only: Some(self.config.read_only),
            }
            .encode(w);
        });
        (session_id, frame)
    }

    /// A server answered the connect request.
    pub(crate) fn handshake(&mut self, handshake: Handshake, now: Instant) -> Verdict {
        if self.phase == Phase::Over {
            return Verdict::Over;
        }
        let Handshake { requested, session, timeout, .. } = handshake;
        let refused = timeout.is_zero() || session == SessionId::NONE;
        // Some servers silently give a new session to whom they do not know (ClickHouse Keeper).
        if requested != SessionId::NONE && (refused || session != requested) {
            self.session_expired();
            if self.phase == Phase::Over {
                return Verdict::Over;
            }
            if refused {
                return Verdict::Again;
            }
        }
        if refused {
            return Verdict::Useless;
        }
        self.attach(handshake, now);
        Verdict::Attached
    }

    fn attach(&mut self, handshake: Handshake, now: Instant) {
        let Handshake { requested, session, password, timeout, read_only, sent, server } = handshake;
        let is_new = session != requested;
        if is_new && self.id != SessionId::NONE {
            // The session of a read-only server is replaced without a word.
            self.cleanup.session_lost();
        }
        self.phase = Phase::Up;
        self.unconfirmed = false;
        (self.id, self.password, self.timeout) = (session, password, timeout);
        self.read_only = read_only;
        self.is_local = read_only && (is_new || self.is_local);
        self.generation += 1;
        self.drop_link = None;
        // A read-only server has no quorum behind it, so its answers prove nothing.
        self.lease.attached(timeout, sent, is_new && !read_only);
        self.next_lease_write = Some(now);
        if let Some(metrics) = &self.config.metrics {
            metrics.connected(self.generation);
        }
        // Whoever is told of the connection finds its own watches already marked.
        let rearm = self.watches.rearm(session, &mut self.wakers);
        let connected = SessionState::Connected { session, generation: self.generation, read_only, server };
        let (credentials, last_zxid) = (&self.credentials, self.last_zxid);
        self.outbox.restart(|outbox| {
            credentials.iter().for_each(|known| Session::push_auth(outbox, &known.auth));
            set_watches(outbox, &rearm, last_zxid, now);
        });
        self.auth_in_flight = (0..self.credentials.len()).collect();
        self.announce = Some(connected);
        self.announce_if_authenticated();
        self.read_ensemble();
        self.upkeep(now);
    }

    /// Requests flow from the start, but whoever waits for the connection wants to know whether the
    /// credentials were taken.
    pub(super) fn announce_if_authenticated(&mut self) {
        if self.auth_in_flight.is_empty()
            && let Some(connected) = self.announce.take()
        {
            self.publish(connected);
        }
    }

    /// The connection is gone after `written` bytes of it reached the socket.
    pub(crate) fn connection_lost(&mut self, written: u64, why: &str, now: Instant) {
        if self.phase != Phase::Up {
            return;
        }
        tracing::info!(session = %self.id, why, "connection lost");
        self.phase = Phase::Down;
        self.announce = None;
        self.lease.detached();
        // First the state, then the failures: who sees a failure must not see `Connected` any more.
        let lease_deadline = self.effective_lease_deadline().unwrap_or(now);
        self.publish(SessionState::Suspended { since: now, lease_deadline });
        if let Some(metrics) = &self.config.metrics {
            metrics.disconnected();
        }
        self.fail_all(written, |sent| {
            Failure::ConnectionLoss(if sent { Outcome::Unknown } else { Outcome::NotSent })
        });
        self.cleanup.connection_lost();
        self.auth_in_flight.clear();
        self.ping_sent = None;
        self.close_connection_lost();
    }

    /// Ends every request; `failure` is told whether a part of it may have been written.
    pub(super) fn fail_all(&mut self, written: u64, failure: impl Fn(bool) -> Failure) {
        for (entry, sent) in self.outbox.drain(written) {
            self.drop_entry(entry, failure(sent));
        }
    }

    /// A server said that the session is gone.
    pub(super) fn session_expired(&mut self) {
        let expired = self.id;
        self.fail_all(0, |_| Failure::SessionExpired(expired));
        self.lease.reset();
        self.holds.retain(|hold| hold.session != expired);
        self.cleanup.session_lost();
        self.publish(SessionState::Expired { session: expired, confirmed: true });
        if let Some(metrics) = &self.config.metrics {
            metrics.session_expired();
        }
        (self.id, self.password) = (SessionId::NONE, [0; 16]);
        self.is_local = false;
        if self.closing.is_some() {
            // What closing was to bring about has happened.
            self.finish(Failure::Closed, 0);
            return;
        }
        match self.config.on_expired {
            OnExpired::Fail => self.finish(Failure::SessionExpired(expired), 0),
            OnExpired::NewSession => {
                self.watches.session_lost(&mut self.wakers);
                self.publish(SessionState::Connecting);
                self.unconfirmed = false;
                self.timeout = self.config.session_timeout;
            }
        }
    }

    /// Time passes without a connection.
    pub(crate) fn tick_down(&mut self, now: Instant) {
        if let Some(limit) = now.checked_sub(self.timeout) {
            while let Some(stale) = self.outbox.pop_stale(limit) {
                self.drop_entry(stale, Failure::ConnectionLoss(Outcome::NotSent));
            }
        }
        if self.lease_pending().is_some_and(|deadline| deadline <= now) {
            self.unconfirmed = true;
            self.publish(SessionState::Expired { session: self.id, confirmed: false });
        }
        self.check_close(now);
    }

    /// When [`tick_down`](Self::tick_down) has something to do.
    pub(crate) fn deadline_down(&self) -> Option<Instant> {
        let stale = self.outbox.oldest_queued().map(|since| since + self.timeout);
        [stale, self.lease_pending(), self.close_deadline()].into_iter().flatten().min()
    }

    /// The lease that is running out during a disconnect.
    fn lease_pending(&self) -> Option<Instant> {
        let suspended = self.phase == Phase::Down && self.id != SessionId::NONE && !self.unconfirmed;
        // A resumed session that was never attached has no lease and nothing to lose.
        if suspended { self.effective_lease_deadline() } else { None }
    }

    /// What the state stream reports. While nothing is held nothing is proven either, and any answer will do.
    pub(super) fn effective_lease_deadline(&self) -> Option<Instant> {
        if self.holds.is_empty() { self.lease.ping_deadline() } else { self.lease.deadline() }
    }
}

/// Enqueues the watches of a new connection, in as many requests as it takes.
fn set_watches(outbox: &mut Outbox, rearm: &Rearm, relative_zxid: i64, now: Instant) {
    type Pick = for<'a, 'b> fn(&'b mut SetWatches<'a>) -> &'b mut Option<Vec<Cow<'a, str>>>;
    let tables: [(&[Arc<str>], Pick); 5] = [
        (&rearm.data, |w| &mut w.data),
        (&rearm.exist, |w| &mut w.exist),
        (&rearm.child, |w| &mut w.child),
        (&rearm.persistent, |w| &mut w.persistent),
        (&rearm.recursive, |w| &mut w.persistent_recursive),
    ];
    let mut flush = |chunk: &mut SetWatches<'_>| {
        let with_persistent = [&chunk.persistent, &chunk.persistent_recursive]
            .into_iter()
            .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
        let chunk = std::mem::take(chunk);
        let request = match with_persistent {
            true => Request::SetWatches2(chunk),
            false => Request::SetWatches(chunk),
        };
        let _ = outbox.push(request.op(), Target::SetWatches, None, now, |w| request.encode(w));
    };
    let empty = || SetWatches {
        relative_zxid,
        data: Some(Vec::new()),
        exist: Some(Vec::new()),
        child: Some(Vec::new()),
        persistent: Some(Vec::new()),
        persistent_recursive: Some(Vec::new()),
    };
    // Header, zxid and the five counts.
    const FIXED: usize = 64;
    let (mut chunk, mut bytes) = (empty(), FIXED);
    for (paths, pick) in tables {
        for path in paths {
            if bytes + 4 + path.len() > SET_WATCHES_BYTES_MAX && bytes > FIXED {
                flush(&mut chunk);
                (chunk, bytes) = (empty(), FIXED);
            }
            bytes += 4 + path.len();
            pick(&mut chunk).get_or_insert_default().push(Cow::Borrowed(path));
        }
    }
    if bytes > FIXED {
        flush(&mut chunk);
    }
}

/// Whether a successful reply to `op` proves a commit by a quorum.
pub(super) fn is_committed_write(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::SetAcl
            | OpCode::Multi
            | OpCode::Reconfig
    )
}
