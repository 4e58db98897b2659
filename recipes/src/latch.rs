//! Leader election for the life of a process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use zk_client::{Client, Error, Multi};

use crate::contender::Line;
use crate::error::{RecipeError, Result};
use crate::held::{Held, Holding, LossReason, OnSuspend};
use crate::layout::{Kind, Layout};
use crate::lock::{Participant, participants};
use crate::token::FencingToken;

/// Wait before trying again after an error that is no connection loss, for instance NoAuth.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// State of a latch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leadership {
    /// In line, or about to be.
    Waiting,
    /// This participant leads.
    Leading {
        /// Grows from leader to leader.
        token: FencingToken,
    },
    /// Leadership was lost; the latch goes to the end of the line.
    Lost(LossReason),
    /// The latch or its client was closed; final.
    Closed,
}

/// Takes part in an election until it is closed: leads when its turn comes, and stands in line again when
/// leadership was lost.
///
/// ```no_run
/// # async fn example(zk: &zk_client::Client) -> Result<(), zk_recipes::RecipeError> {
/// use zk_recipes::{Held, LeaderLatch};
///
/// let latch = LeaderLatch::start(zk, "/leaders/scheduler", "node-1").await?;
/// let term = latch.await_leadership().await?;
/// tokio::select! {
///     () = async { /* lead */ } => {}
///     why = term.lost() => eprintln!("no longer leading: {why}"),
/// }
/// latch.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// Takes part in the same election as Curator's `LeaderLatch` on the same path. Dropping it leaves the election
/// in the background.
#[derive(Debug)]
#[must_use = "dropping the latch leaves the election"]
pub struct LeaderLatch {
    client: Client,
    line: Line,
    state: watch::Receiver<Term>,
    stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

/// What the latch's task publishes.
#[derive(Debug, Clone)]
struct Term {
    leadership: Leadership,
    holding: Option<Arc<Holding>>,
}

/// Options of a [`LeaderLatch`].
#[derive(Debug, Clone)]
#[must_use = "call start"]
pub struct LatchBuilder {
    client: Client,
    path: String,
    id: String,
    layout: Layout,
    on_suspend: OnSuspend,
}

impl LatchBuilder {
    /// How nodes are named; [`Layout::Curator`] by default.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// When a leader without connection gives up; [`OnSuspend::Lease`] by default.
    pub fn on_suspend(mut self, on_suspend: OnSuspend) -> Self {
        self.on_suspend = on_suspend;
        self
    }

    /// Enters the election: returns when our node is in line. Cancel safe: nothing remains.
    pub async fn start(self) -> Result<LeaderLatch> {
        let line = Line::new(&self.path, self.layout, Kind::Latch);
        let first = line.join(&self.client, self.id.clone().into()).await?;
        let (publish, state) = watch::channel(Term { leadership: Leadership::Waiting, holding: None });
        let (stop, stopped) = watch::channel(false);
        let task = Task {
            client: self.client.clone(),
            line: line.clone(),
            id: self.id,
            on_suspend: self.on_suspend,
            publish,
            stopped,
        };
        let task = Some(tokio::spawn(task.run(first)));
        Ok(LeaderLatch { client: self.client, line, state, stop, task })
    }
}

impl LeaderLatch {
    /// Enters the election at `path` as `id`, which [`participants`](LeaderLatch::participants) shows to others.
    /// Returns when our node is in line. Cancel safe: nothing remains.
    pub async fn start(client: &Client, path: &str, id: &str) -> Result<Self> {
        Self::builder(client, path, id).start().await
    }

    /// A latch with options.
    pub fn builder(client: &Client, path: &str, id: &str) -> LatchBuilder {
        LatchBuilder {
            client: client.clone(),
            path: path.to_owned(),
            id: id.to_owned(),
            layout: Layout::default(),
            on_suspend: OnSuspend::default(),
        }
    }

    /// Whether this participant leads, as far as can be told without asking a server.
    pub fn is_leader(&self) -> bool {
        self.state.borrow().holding.as_ref().is_some_and(|holding| holding.is_held())
    }

    /// The state now.
    pub fn leadership(&self) -> Leadership {
        self.state.borrow().leadership
    }

    /// Waits for a state other than `than` and returns it. Cancel safe.
    pub async fn changed_from(&self, than: Leadership) -> Leadership {
        let mut state = self.state.clone();
        match state.wait_for(|term| term.leadership != than).await {
            Ok(term) => term.leadership,
            Err(_) => Leadership::Closed,
        }
    }

    /// Waits until this participant leads. The term is bound to this time in office: what it fences fails once
    /// leadership was lost, also if it was won again. Cancel safe; the latch stays in line.
    pub async fn await_leadership(&self) -> Result<LeaderTerm> {
        let mut state = self.state.clone();
        let leads_or_over = |term: &Term| term.holding.is_some() || term.leadership == Leadership::Closed;
        let holding = match state.wait_for(leads_or_over).await {
            Ok(term) => term.holding.clone(),
            Err(_) => None,
        };
        Ok(LeaderTerm { holding: holding.ok_or(Error::Closed)? })
    }

    /// Who takes part, the leader first. Somebody who leaves meanwhile is left out. Cancel safe.
    pub async fn participants(&self) -> Result<Vec<Participant>> {
        participants(&self.client, &self.line).await
    }

    /// Leaves the election and waits until our node is gone. Dropping the future does not stop the leaving.
    pub async fn close(mut self) -> Result<()> {
        let _ = self.stop.send(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
        Ok(())
    }
}

impl Drop for LeaderLatch {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// All transitions happen here, one after the other.
struct Task {
    client: Client,
    line: Line,
    id: String,
    on_suspend: OnSuspend,
    publish: watch::Sender<Term>,
    stopped: watch::Receiver<bool>,
}

impl Task {
    async fn run(mut self, first: (crate::contender::Contender, Option<Vec<String>>)) {
        let mut joined = Some(first);
        let mut stopped = self.stopped.clone();
        let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::pin!(stop);
        loop {
            let term = tokio::select! {
                term = self.next_term(joined.take()) => term,
                () = &mut stop => break,
            };
            let holding = match term {
                Ok(holding) => Arc::new(holding),
                Err(error) if is_final(&error) => break,
                Err(error) if error.is_session_expired() || matches!(error, RecipeError::NodeDeleted) => {
                    continue;
                }
                Err(error) => {
                    tracing::warn!(dir = %self.line.dir, %error, "election: trying again");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_AFTER) => continue,
                        () = &mut stop => break,
                    }
                }
            };
            self.publish(Leadership::Leading { token: holding.token() }, Some(holding.clone()));
            let reason = tokio::select! {
                reason = holding.lost() => reason,
                () = &mut stop => {
                    self.publish(Leadership::Lost(LossReason::Released), None);
                    let _ = holding.release().await;
                    break;
                }
            };
            self.publish(Leadership::Lost(reason), None);
            drop(holding);
            if reason == LossReason::Closed {
                break;
            }
        }
        self.publish(Leadership::Closed, None);
    }

    /// Stands in line until it is our turn.
    async fn next_term(
        &mut self,
        joined: Option<(crate::contender::Contender, Option<Vec<String>>)>,
    ) -> Result<Holding> {
        let (contender, listing) = match joined {
            Some(joined) => joined,
            None => {
                let joined = self.line.join(&self.client, self.id.clone().into()).await?;
                self.publish(Leadership::Waiting, None);
                joined
            }
        };
        self.line.wait_turn(&contender, listing).await?;
        Ok(Holding::begin(contender, self.on_suspend))
    }

    fn publish(&self, leadership: Leadership, holding: Option<Arc<Holding>>) {
        self.publish.send_replace(Term { leadership, holding });
    }
}

/// Nothing will ever work again on this client.
fn is_final(error: &RecipeError) -> bool {
    matches!(error, RecipeError::Client(Error::Closed | Error::AuthFailed(_)))
}

/// A time in office. Dropping it changes nothing: the latch leads until it loses leadership or is closed.
#[derive(Debug, Clone)]
pub struct LeaderTerm {
    holding: Arc<Holding>,
}

impl LeaderTerm {
    /// A client bound to the session of this term.
    pub fn client(&self) -> &Client {
        self.holding.client()
    }
}

impl Held for LeaderTerm {
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
