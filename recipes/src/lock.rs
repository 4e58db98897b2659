//! Exclusive lock, first come first served.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use zk_client::{Client, Error, Multi};

use crate::contender::Line;
use crate::error::{RecipeError, Result};
use crate::held::{Held, Holding, LossReason, OnSuspend};
use crate::layout::{Kind, Layout};
use crate::token::FencingToken;

/// An exclusive lock. Contenders stand in line in a directory; each watches only the one in front.
///
/// ```no_run
/// # async fn example(zk: &zk_client::Client) -> Result<(), zk_recipes::RecipeError> {
/// use zk_recipes::{DistributedLock, Held};
///
/// let lock = DistributedLock::new(zk, "/locks/report");
/// let guard = lock.acquire().await?;
/// tokio::select! {
///     () = async { /* work */ } => {}
///     why = guard.lost() => eprintln!("lost: {why}"),
/// }
/// guard.fenced().set("/report", "done", None).await?; // fails as a whole if the lock is gone
/// guard.release().await?; // or drop it: released in the background
/// # Ok(())
/// # }
/// ```
///
/// Excludes Curator's `InterProcessMutex` on the same path, or kazoo's `Lock` with [`Layout::Kazoo`]. Not
/// re-entrant: two `acquire` calls on one handle stand in line twice.
#[derive(Debug, Clone)]
pub struct DistributedLock {
    client: Client,
    line: Line,
    data: Bytes,
    on_suspend: OnSuspend,
    retry_expired: bool,
}

/// Options of a [`DistributedLock`].
#[derive(Debug, Clone)]
#[must_use = "call build"]
pub struct LockBuilder {
    client: Client,
    path: String,
    layout: Layout,
    data: Bytes,
    on_suspend: OnSuspend,
    retry_expired: bool,
}

/// Somebody in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// What the contender wrote into its node: its id or address, may be empty.
    pub id: String,
    /// The contender's node.
    pub path: String,
    /// Its token.
    pub token: FencingToken,
}

impl DistributedLock {
    /// A lock at `path`, whose parents are created when needed. Does nothing yet.
    pub fn new(client: &Client, path: &str) -> Self {
        Self::builder(client, path).build()
    }

    /// A lock with options.
    pub fn builder(client: &Client, path: &str) -> LockBuilder {
        LockBuilder {
            client: client.clone(),
            path: path.to_owned(),
            layout: Layout::default(),
            data: Bytes::new(),
            on_suspend: OnSuspend::default(),
            retry_expired: false,
        }
    }

    /// Waits for the lock. Connection losses in between are ridden out; if the session expires, it fails with
    /// `SessionExpired` (or starts again, see [`LockBuilder::retry_expired`]).
    ///
    /// Cancel safe: dropped at any point, nothing remains in line.
    pub async fn acquire(&self) -> Result<LockGuard> {
        loop {
            match self.acquire_once().await {
                Err(error) if self.retry_expired && error.is_session_expired() => {}
                result => return result,
            }
        }
    }

    async fn acquire_once(&self) -> Result<LockGuard> {
        let (contender, listing) = self.line.join(&self.client, self.data.clone()).await?;
        self.line.wait_turn(&contender, listing).await?;
        Ok(LockGuard { holding: Holding::begin(contender, self.on_suspend) })
    }

    /// Takes the lock if nobody is in line; `None` otherwise. Cancel safe.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        if !self.line.places(&self.client).await?.is_empty() {
            return Ok(None);
        }
        let (contender, listing) = self.line.join(&self.client, self.data.clone()).await?;
        let line = match listing {
            Some(children) => self.line.layout.line(self.line.kind, &self.line.dir, children)?,
            None => self.line.places(&contender.client).await?,
        };
        match line.first() {
            Some(first) if first.sequence.is_exhausted() => {
                Err(RecipeError::SequenceExhausted(self.line.dir.clone()))
            }
            Some(first) if first.name == contender.name => {
                Ok(Some(LockGuard { holding: Holding::begin(contender, self.on_suspend) }))
            }
            _ => Ok(None),
        }
    }

    /// As [`acquire`](DistributedLock::acquire), giving up after `within`: `None` then, and nothing remains in
    /// line. Cancel safe.
    pub async fn acquire_timeout(&self, within: Duration) -> Result<Option<LockGuard>> {
        match tokio::time::timeout(within, self.acquire()).await {
            Ok(guard) => guard.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Who is in line, the holder first. Somebody who leaves meanwhile is left out. Cancel safe.
    pub async fn contenders(&self) -> Result<Vec<Participant>> {
        participants(&self.client, &self.line).await
    }

    /// Runs `work` under the lock; if the lock is lost, `work` is dropped and the error is
    /// [`RecipeError::Lost`]. Dropping the future releases the lock.
    pub async fn with<T, F, Fut>(&self, work: F) -> Result<T>
    where
        F: FnOnce(FencingToken) -> Fut,
        Fut: Future<Output = T>,
    {
        let guard = self.acquire().await?;
        let result = tokio::select! {
            result = work(guard.token()) => Ok(result),
            reason = guard.lost() => Err(RecipeError::Lost(reason)),
        };
        guard.release().await?;
        result
    }
}

/// The members of a line with their data.
pub(crate) async fn participants(client: &Client, line: &Line) -> Result<Vec<Participant>> {
    let mut participants = Vec::new();
    for place in line.places(client).await? {
        let path = line.path(&place.name);
        if let Some((data, stat)) = client.get(&path).optional().await? {
            let id = String::from_utf8_lossy(&data).into_owned();
            participants.push(Participant { id, path, token: FencingToken(stat.czxid as u64) });
        }
    }
    Ok(participants)
}

impl LockBuilder {
    /// How nodes are named; [`Layout::Curator`] by default.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// What [`contenders`](DistributedLock::contenders) shows of us; empty by default.
    pub fn id(mut self, id: impl Into<Bytes>) -> Self {
        self.data = id.into();
        self
    }

    /// When a holder without connection gives up; [`OnSuspend::Lease`] by default.
    pub fn on_suspend(mut self, on_suspend: OnSuspend) -> Self {
        self.on_suspend = on_suspend;
        self
    }

    /// Whether `acquire` goes to the end of the line in the client's next session when the session expires
    /// while waiting; false by default.
    pub fn retry_expired(mut self, retry: bool) -> Self {
        self.retry_expired = retry;
        self
    }

    /// The lock.
    pub fn build(self) -> DistributedLock {
        DistributedLock {
            line: Line::new(&self.path, self.layout, Kind::Lock),
            client: self.client,
            data: self.data,
            on_suspend: self.on_suspend,
            retry_expired: self.retry_expired,
        }
    }
}

/// A lock that is held. Dropping it releases the lock in the background.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    holding: Holding,
}

impl LockGuard {
    /// Releases the lock and waits until the next in line can have it. `Ok` also when it was lost before.
    /// Dropping the future does not stop the release.
    pub async fn release(self) -> Result<()> {
        match self.holding.release().await {
            Ok(()) | Err(Error::SessionExpired(_) | Error::Closed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Held for LockGuard {
    fn token(&self) -> FencingToken {
        self.holding.token()
    }

    fn path(&self) -> &str {
        self.holding.path()
    }

    fn is_held(&self) -> bool {
        self.holding.is_held()
    }

    fn held_until(&self) -> Instant {
        self.holding.held_until()
    }

    fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static {
        self.holding.lost()
    }

    fn fenced(&self) -> Multi<'_> {
        self.holding.fenced()
    }
}
