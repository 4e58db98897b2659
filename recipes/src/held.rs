//! What a guard has in common with every other: a token, a lease, and the signal that it is lost.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use zk_client::{Cleaned, Cleanup, Client, Error, LeaseHold, Multi, SessionId, SessionState};

use crate::contender::{Contender, reconnected};
use crate::error::Result;
use crate::token::{FencingToken, Sequencer};

/// When a holder that has lost its connection gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnSuspend {
    /// When the session can no longer be proven alive, or is known to be gone: survives short reconnects, and
    /// is over before a successor can begin.
    #[default]
    Lease,
    /// At once.
    Strict,
    /// Only when a server says that the session is gone: for idempotent work.
    Never,
}

/// Why something is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The connection was lost, under [`OnSuspend::Strict`].
    Suspended,
    /// The session can no longer be proven alive.
    LeaseDeadline,
    /// A server said that the session is gone.
    SessionExpired,
    /// Somebody deleted the node.
    NodeDeleted,
    /// It was released.
    Released,
    /// The client was closed.
    Closed,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossReason::Suspended => "connection lost",
            LossReason::LeaseDeadline => "the session can no longer be proven alive",
            LossReason::SessionExpired => "session expired",
            LossReason::NodeDeleted => "the node was deleted",
            LossReason::Released => "released",
            LossReason::Closed => "client closed",
        })
    }
}

/// Implemented by everything that is held: lock guards, terms of leadership.
pub trait Held {
    /// Grows from holder to holder; see [`FencingToken`].
    fn token(&self) -> FencingToken;
    /// The node that stands for it.
    fn path(&self) -> &str;
    /// Whether it is held, as far as can be told without asking a server.
    fn is_held(&self) -> bool;
    /// Until then no successor can hold it (under [`OnSuspend::Lease`]); moves on while the connection stands.
    fn held_until(&self) -> Instant;
    /// Resolves when it is not held any more. Cancel safe; independent of the guard's lifetime.
    fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static;
    /// A multi that is applied only if the node still exists; bound to the session of the guard. This is how
    /// to write to ZooKeeper under a lock.
    fn fenced(&self) -> Multi<'_>;
    /// The proof of ownership in a form that can be sent to others.
    fn sequencer(&self) -> Sequencer {
        Sequencer { path: self.path().to_owned(), token: self.token() }
    }
}

/// A node that we hold, watched over by a task.
#[derive(Debug)]
pub(crate) struct Holding {
    client: Client,
    path: String,
    token: FencingToken,
    on_suspend: OnSuspend,
    lost: Arc<watch::Sender<Option<LossReason>>>,
    watcher: tokio::task::AbortHandle,
    _lease: LeaseHold,
}

impl Holding {
    /// Takes over a contender whose turn has come.
    pub fn begin(contender: Contender, on_suspend: OnSuspend) -> Self {
        let (client, path, czxid) = contender.disarm();
        let lost = Arc::new(watch::Sender::new(None));
        let lease = client.hold_lease(&path);
        let task = Watcher {
            session: client.pinned_session().unwrap_or(SessionId::NONE),
            client: client.clone(),
            path: path.clone(),
            on_suspend,
            lost: lost.clone(),
        };
        let watcher = tokio::spawn(task.run()).abort_handle();
        Holding { client, path, token: FencingToken(czxid as u64), on_suspend, lost, watcher, _lease: lease }
    }

    pub fn token(&self) -> FencingToken {
        self.token
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn is_held(&self) -> bool {
        self.lost.borrow().is_none()
            && (self.on_suspend != OnSuspend::Lease || Instant::now() < self.held_until())
    }

    pub fn held_until(&self) -> Instant {
        self.client.lease_deadline()
    }

    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static {
        let mut lost = self.lost.subscribe();
        async move {
            match lost.wait_for(Option::is_some).await {
                Ok(reason) => reason.unwrap_or(LossReason::Released),
                Err(_) => LossReason::Released,
            }
        }
    }

    pub fn fenced(&self) -> Multi<'_> {
        self.client.multi().check(&self.path, None)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Deletes the node in the background; the answer tells when it is gone.
    pub fn release(&self) -> Cleaned {
        mark(&self.lost, LossReason::Released);
        self.watcher.abort();
        self.client.clean_up(Cleanup::Delete { path: self.path.clone(), czxid: None })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if !matches!(*self.lost.borrow(), Some(LossReason::Released)) {
            drop(self.release());
        }
        self.watcher.abort();
    }
}

/// The first reason stays.
fn mark(lost: &watch::Sender<Option<LossReason>>, reason: LossReason) {
    lost.send_if_modified(|lost| {
        let first = lost.is_none();
        *lost = lost.or(Some(reason));
        first
    });
}

/// Looks after a held node until it is lost.
struct Watcher {
    client: Client,
    session: SessionId,
    path: String,
    on_suspend: OnSuspend,
    lost: Arc<watch::Sender<Option<LossReason>>>,
}

impl Watcher {
    async fn run(self) {
        let reason = self.watch().await;
        tracing::info!(path = %self.path, %reason, "lost");
        mark(&self.lost, reason);
        if reason == LossReason::LeaseDeadline || reason == LossReason::Suspended {
            // The session may come back, and our node must not block those behind it.
            let _ = self.client.clean_up(Cleanup::Delete { path: self.path.clone(), czxid: None }).await;
        }
    }

    async fn watch(&self) -> LossReason {
        let mut states = self.client.states();
        loop {
            // Our own node: somebody may delete it. Also the check after a reconnect.
            let own = tokio::select! {
                own = self.own_node() => match own {
                    Ok(own) => own,
                    Err(reason) => return reason,
                },
                reason = self.session_trouble(&mut states) => return reason,
            };
            tokio::select! {
                _ = own.fired() => {}
                trouble = self.next_connection(&mut states) => match trouble {
                    Some(reason) => return reason,
                    None => continue,
                },
            }
        }
    }

    /// Arms a watch on our node, waiting for a connection if need be.
    async fn own_node(&self) -> Result<zk_client::OneShot, LossReason> {
        loop {
            match self.client.get(&self.path).watched().await {
                Ok((_, stat, watch)) if stat.ephemeral_owner == self.session.0 => return Ok(watch),
                Ok(_) => return Err(LossReason::NodeDeleted),
                Err(error) if error.is_no_node() => return Err(LossReason::NodeDeleted),
                // Without the right to read it we cannot see it go: the lease has to do.
                Err(error) if error.code() == Some(zk_client::ServerCode::NO_AUTH) => {
                    std::future::pending::<()>().await;
                }
                Err(Error::SessionExpired(_)) => return Err(LossReason::SessionExpired),
                Err(Error::Closed) => return Err(LossReason::Closed),
                Err(error) => {
                    if reconnected(&self.client, error).await.is_err() {
                        // The state tells why.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    /// Only returns when the session gives us reason to give up.
    async fn session_trouble(&self, states: &mut zk_client::SessionStates) -> LossReason {
        loop {
            if let Some(reason) = self.next_connection(states).await {
                return reason;
            }
        }
    }

    /// Waits for a reconnect (`None`) or a reason to give up.
    async fn next_connection(&self, states: &mut zk_client::SessionStates) -> Option<LossReason> {
        loop {
            let lease = async {
                if self.on_suspend != OnSuspend::Lease {
                    std::future::pending::<()>().await;
                }
                loop {
                    let deadline = self.client.lease_deadline();
                    if deadline <= Instant::now() {
                        return;
                    }
                    tokio::time::sleep_until(deadline).await;
                }
            };
            let state = tokio::select! {
                () = lease => {
                    // A new session proves nothing about ours: its deadline begins in the past.
                    let gone = self.client.session_id() != self.session;
                    return Some(if gone { LossReason::SessionExpired } else { LossReason::LeaseDeadline });
                }
                state = states.changed() => state,
            };
            match state {
                None | Some(SessionState::Closed | SessionState::AuthFailed) => {
                    return Some(LossReason::Closed);
                }
                Some(SessionState::Expired { confirmed: true, .. }) => {
                    return Some(LossReason::SessionExpired);
                }
                Some(SessionState::Connected { session, .. }) if session != self.session => {
                    return Some(LossReason::SessionExpired);
                }
                Some(SessionState::Connected { .. }) => return None,
                Some(SessionState::Suspended { .. }) if self.on_suspend == OnSuspend::Strict => {
                    return Some(LossReason::Suspended);
                }
                Some(SessionState::Expired { confirmed: false, .. })
                    if self.on_suspend == OnSuspend::Lease =>
                {
                    return Some(LossReason::LeaseDeadline);
                }
                Some(_) => {}
            }
        }
    }
}
