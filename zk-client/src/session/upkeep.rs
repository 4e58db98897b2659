//! What the client does by itself on a connection: pings, lease writes, deletions in the background.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use zk_proto::jute::Writer;
use zk_proto::{ErrorCode, MultiOp, OpCode, Reader, Request, Response, SessionId, Stat, xid};

use super::cleanup::{Job, Step};
use super::outbox::Target;
use super::{Cleanup, Hold, Phase, Session};
use crate::error::{Error, Result};
use crate::root::Root;

impl Session {
    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether the connected server refuses writes.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_up() && self.read_only
    }

    /// Everything that is due on a connection. Called when time has passed and after replies.
    pub(crate) fn upkeep(&mut self, now: Instant) {
        self.clock = now;
        if !self.is_up() {
            return;
        }
        self.outbox.admit_parked();
        self.write_lease(now);
        self.start_cleanup(now);
        self.check_close(now);
    }

    /// When [`upkeep`](Self::upkeep) has something to do even if nothing comes from the server.
    pub(crate) fn deadline_up(&self) -> Option<Instant> {
        let lease = self.next_lease_write.filter(|_| self.lease_path().is_some());
        let cleanup = self.cleanup.next_retry().filter(|_| !self.read_only);
        [lease, cleanup, self.close_deadline()].into_iter().flatten().min()
    }

    /// Keeps the session alive on an idle connection.
    pub(crate) fn ping(&mut self, now: Instant) {
        if self.ping_sent.is_none() {
            self.ping_sent = Some(now);
            self.outbox.push_raw(xid::PING, OpCode::Ping, |_| {});
        }
    }

    /// Hands everything that waits to be written over to the connection; `out` must be empty.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>, now: Instant) {
        self.outbox.take(out, now);
    }

    /// Why the connection shall end, if it shall.
    pub(crate) fn must_drop(&mut self) -> Option<String> {
        if self.phase == Phase::Over {
            return Some("the client is closed".to_owned());
        }
        self.drop_link.take()
    }

    /// A batch of replies was handed in.
    pub(crate) fn after_replies(&mut self) {
        if let Some(metrics) = &self.config.metrics {
            metrics.in_flight(self.outbox.in_flight());
        }
    }

    fn lease_path(&self) -> Option<&Arc<str>> {
        let needed = self.lease.needs_writes() && !self.read_only;
        self.holds.iter().find(|hold| needed && hold.session == self.id).map(|hold| &hold.path)
    }

    /// Proves the session alive with a small committed write, every sixth of the timeout.
    fn write_lease(&mut self, now: Instant) {
        if self.next_lease_write.is_some_and(|at| at > now) {
            return;
        }
        let Some(path) = self.lease_path().cloned() else { return };
        self.next_lease_write = Some(now + self.timeout / 6);
        // A check that fails proves as much as one that holds: both are committed.
        let request = Request::Multi(vec![MultiOp::Check { path: (&*path).into(), version: -1 }]);
        let _ = self.outbox.push(OpCode::Multi, Target::Lease, None, now, |w| request.encode(w));
    }

    /// From now on the session must be provably alive, because `path` (the server's name) is held.
    pub(crate) fn hold(&mut self, path: Arc<str>, session: SessionId) -> u64 {
        self.next_hold += 1;
        if self.holds.is_empty() {
            self.next_lease_write = None;
        }
        self.holds.push(Hold { id: self.next_hold, session, path });
        self.wake_driver();
        self.next_hold
    }

    pub(crate) fn release_hold(&mut self, id: u64) {
        self.holds.retain(|hold| hold.id != id);
    }

    /// Until when the session is certain to live; `now` when nothing is proven.
    pub(crate) fn lease_deadline(&self, now: Instant) -> Instant {
        self.lease.deadline().unwrap_or(now)
    }

    /// Queues a deletion. `session` is the one whose nodes these are; the answer comes at once when it is
    /// gone already.
    pub(crate) fn clean_up(
        &mut self,
        cleanup: Cleanup,
        root: &Root,
        session: SessionId,
    ) -> Option<oneshot::Receiver<Result<()>>> {
        let (job, session) = match cleanup {
            Cleanup::Delete { path, czxid } => {
                (Job::Delete { path: root.full(&path).into(), czxid }, Some(session))
            }
            Cleanup::DeleteByGuid { dir, prefix } => {
                (Job::ByPrefix { dir: root.full(&dir).into(), prefix: prefix.into() }, Some(session))
            }
            Cleanup::DeletePersistent { path } => {
                (Job::Delete { path: root.full(&path).into(), czxid: None }, None)
            }
            Cleanup::DeletePersistentByGuid { dir, prefix } => {
                (Job::ByPrefix { dir: root.full(&dir).into(), prefix: prefix.into() }, None)
            }
        };
        let gone = session.is_some_and(|session| session != self.id);
        if gone || self.phase == Phase::Over || self.is_detaching() {
            return None;
        }
        let receiver = self.cleanup.push(job, session);
        self.wake_driver();
        Some(receiver)
    }

    fn start_cleanup(&mut self, now: Instant) {
        if self.read_only || self.cleanup.is_empty() {
            return;
        }
        while let Some((item, job)) = self.cleanup.next(now) {
            match job {
                Job::Delete { path, czxid: None } => {
                    self.push_delete(item, &path, now);
                }
                Job::Delete { path, czxid: Some(_) } => {
                    // The server may lag behind what another one has applied.
                    self.push_path(item, Step::Nothing, OpCode::Sync, &path, None, now);
                    self.push_path(item, Step::Look, OpCode::Exists, &path, Some(false), now);
                }
                Job::ByPrefix { dir, .. } => {
                    self.push_path(item, Step::Nothing, OpCode::Sync, &dir, None, now);
                    self.push_path(item, Step::List, OpCode::GetChildren, &dir, Some(false), now);
                }
            }
        }
        if let Some(metrics) = &self.config.metrics {
            metrics.cleanup_backlog(self.cleanup.len());
        }
    }

    fn push_path(
        &mut self,
        item: u64,
        step: Step,
        op: OpCode,
        path: &str,
        watch: Option<bool>,
        now: Instant,
    ) {
        let _ = self.outbox.push(op, Target::Cleanup { item, step }, None, now, |w| {
            w.put_str(path);
            if let Some(watch) = watch {
                w.put_bool(watch);
            }
        });
        if let Some(item) = self.cleanup.item(item) {
            item.outstanding += 1;
        }
    }

    fn push_delete(&mut self, item: u64, path: &str, now: Instant) {
        let target = Target::Cleanup { item, step: Step::Delete };
        let _ = self.outbox.push(OpCode::Delete, target, None, now, |w| {
            w.put_str(path);
            w.put_int(-1);
        });
        if let Some(item) = self.cleanup.item(item) {
            item.outstanding += 1;
        }
    }

    pub(super) fn on_cleanup_reply(
        &mut self,
        item: u64,
        step: Step,
        code: ErrorCode,
        body: &[u8],
        now: Instant,
    ) {
        let (job, session) = match self.cleanup.item(item) {
            Some(item) => (item.job.clone(), item.session),
            None => return,
        };
        let mut reader = Reader::new(body);
        match (code, step, &job) {
            (_, Step::Nothing, _) | (ErrorCode::OK, Step::Delete, _) | (ErrorCode::NO_NODE, _, _) => {}
            (ErrorCode::OK, Step::Look, Job::Delete { path, czxid }) => match Stat::decode(&mut reader) {
                Ok(stat) if Some(stat.czxid) == *czxid => self.push_delete(item, path, now),
                Ok(_) => tracing::debug!(%path, "the node has been created anew by someone else"),
                Err(e) => self.cleanup.trouble(item, Error::Protocol(e.to_string()), false),
            },
            (ErrorCode::OK, Step::List, Job::ByPrefix { dir, prefix }) => {
                let Ok(Response::Paths(names)) = Response::decode(OpCode::GetChildren, &mut reader) else {
                    let error = Error::Protocol("list of children".to_owned());
                    self.cleanup.trouble(item, error, false);
                    self.cleanup.step_done(item, now);
                    return;
                };
                for name in names.iter().filter(|name| name.starts_with(&**prefix)) {
                    let path = zk_proto::path::join(dir, name);
                    let step = Step::LookChild(path.as_str().into());
                    self.push_path(item, step, OpCode::Exists, &path, Some(false), now);
                }
            }
            (ErrorCode::OK, Step::LookChild(path), _) => match Stat::decode(&mut reader) {
                Ok(stat) if session.is_none_or(|s| s.0 == stat.ephemeral_owner) => {
                    self.push_delete(item, &path, now);
                }
                Ok(_) => {}
                Err(e) => self.cleanup.trouble(item, Error::Protocol(e.to_string()), false),
            },
            (code, _, Job::Delete { path, .. } | Job::ByPrefix { dir: path, .. }) => {
                let may_go_away = matches!(
                    code,
                    ErrorCode::THROTTLED_OP | ErrorCode::NOT_READ_ONLY | ErrorCode::SESSION_MOVED
                );
                let error = Error::Server { op: "cleanup", path: path.to_string(), code };
                self.cleanup.trouble(item, error, may_go_away);
            }
        }
        self.cleanup.step_done(item, now);
    }
}
