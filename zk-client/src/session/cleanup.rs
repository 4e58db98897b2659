//! Deletions in the background: nodes of guards that were dropped, of creates whose outcome is unknown.
//! Started in order, repeated over reconnects for as long as the session lives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use zk_proto::SessionId;

use crate::error::{Error, Result};

/// Deletions that may be under way at a time.
pub(crate) const ACTIVE_MAX: usize = 32;
/// Attempts for nodes that do not go away with the session.
pub(crate) const ATTEMPTS_MAX: u32 = 20;
/// Wait before an attempt is repeated on a connection that stands.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A node to delete in the background; paths are the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cleanup {
    /// One ephemeral node. Dropped when the session is gone, since the server deletes it then.
    Delete {
        /// The node.
        path: String,
        /// Transaction that created it. Needed when the name can be used again: the node is then deleted
        /// only if it is still the same one. Without it the name must be unique.
        czxid: Option<i64>,
    },
    /// Every child of `dir` whose name starts with `prefix` and that belongs to the session: what a create
    /// with unknown outcome may have left.
    DeleteByGuid {
        /// The directory.
        dir: String,
        /// The prefix; it contains a GUID.
        prefix: String,
    },
    /// One node that does not belong to a session. Survives session changes; given up, with an error in the
    /// log, after 20 attempts.
    DeletePersistent {
        /// The node; its name must be unique.
        path: String,
    },
    /// As `DeleteByGuid`, for nodes of no session, as persistent as [`DeletePersistent`](Self::DeletePersistent).
    DeletePersistentByGuid {
        /// The directory.
        dir: String,
        /// The prefix; it contains a GUID.
        prefix: String,
    },
}

/// Which request of an item a reply belongs to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The answer says nothing: sync.
    Nothing,
    Delete,
    /// exists of the node itself.
    Look,
    List,
    /// exists of a child that has the prefix.
    LookChild(Box<str>),
}

/// What an item is about, in the server's paths.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Delete { path: Arc<str>, czxid: Option<i64> },
    ByPrefix { dir: Arc<str>, prefix: Arc<str> },
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) job: Job,
    /// The session whose nodes these are; `None` for nodes of no session.
    pub(crate) session: Option<SessionId>,
    attempts: u32,
    /// Requests under way; 0 when the item waits.
    pub(crate) outstanding: u32,
    not_before: Option<Instant>,
    /// An error that may go away, met in this attempt.
    retry: bool,
    failed: Option<Error>,
    done: Option<oneshot::Sender<Result<()>>>,
}

#[derive(Debug, Default)]
pub(crate) struct CleanupQueue {
    items: VecDeque<Item>,
    next_id: u64,
}

impl CleanupQueue {
    pub(crate) fn push(&mut self, job: Job, session: Option<SessionId>) -> oneshot::Receiver<Result<()>> {
        let (done, receiver) = oneshot::channel();
        self.next_id += 1;
        self.items.push_back(Item {
            id: self.next_id,
            job,
            session,
            attempts: 0,
            outstanding: 0,
            not_before: None,
            retry: false,
            failed: None,
            done: Some(done),
        });
        receiver
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn item(&mut self, id: u64) -> Option<&mut Item> {
        // Items leave roughly in order, so this looks at few of them.
        self.items.iter_mut().find(|item| item.id == id)
    }

    /// The next item to start, which counts as started.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(u64, Job)> {
        let window = self.items.iter_mut().take(ACTIVE_MAX);
        let item =
            window.into_iter().find(|i| i.outstanding == 0 && i.not_before.is_none_or(|at| at <= now))?;
        item.not_before = None;
        item.retry = false;
        item.attempts += 1;
        Some((item.id, item.job.clone()))
    }

    /// When the next item may start that waits for a repetition.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let waiting = self.items.iter().take(ACTIVE_MAX).filter(|item| item.outstanding == 0);
        waiting.filter_map(|item| item.not_before).min()
    }

    /// An error of the attempt of item `id`.
    pub(crate) fn trouble(&mut self, id: u64, error: Error, may_go_away: bool) {
        if let Some(item) = self.item(id) {
            item.retry |= may_go_away;
            item.failed = Some(error);
        }
    }

    /// One request of item `id` is done: ends the item, or its attempt, when that was the last.
    pub(crate) fn step_done(&mut self, id: u64, now: Instant) {
        let Some(at) = self.items.iter().position(|item| item.id == id) else { return };
        let item = &mut self.items[at];
        item.outstanding = item.outstanding.saturating_sub(1);
        if item.outstanding > 0 {
            return;
        }
        if item.retry && (item.session.is_some() || item.attempts < ATTEMPTS_MAX) {
            item.failed = None;
            item.not_before = Some(now + RETRY_AFTER);
            return;
        }
        if let Some(item) = self.items.remove(at) {
            item.finish();
        }
    }

    /// The connection is gone: everything under way starts again on the next one.
    pub(crate) fn connection_lost(&mut self) {
        for item in &mut self.items {
            item.outstanding = 0;
            item.not_before = None;
            item.failed = None;
        }
        self.items.retain_mut(|item| {
            let keep = item.session.is_some() || item.attempts < ATTEMPTS_MAX;
            if !keep {
                tracing::error!(job = ?item.job, "giving up a deletion in the background");
            }
            keep
        });
    }

    /// The session is gone, and its ephemeral nodes with it.
    pub(crate) fn session_lost(&mut self) {
        self.connection_lost();
        let (gone, kept) = std::mem::take(&mut self.items).into_iter().partition(|i| i.session.is_some());
        self.items = kept;
        let gone: VecDeque<Item> = gone;
        gone.into_iter().for_each(Item::finish);
    }

    /// The client is gone, or its nodes shall stay.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
    }
}

impl Item {
    fn finish(self) {
        let result = match self.failed {
            Some(error) => {
                tracing::error!(job = ?self.job, %error, "a deletion in the background failed");
                Err(error)
            }
            None => Ok(()),
        };
        if let Some(done) = self.done {
            let _ = done.send(result);
        }
    }
}
