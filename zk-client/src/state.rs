//! What the session is doing, as a value and as a stream.

use std::fmt;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use zk_proto::SessionId;

use crate::error::{Error, Result};

/// State of a client's session.
///
/// ```text
/// Connecting -> Connected <-> Suspended -> Expired{confirmed: false} -> Connected   (same session after all)
///                                                                    -> Expired{confirmed: true} -> Connecting
/// ```
/// `AuthFailed` and `Closed` are final, and so is `Expired{confirmed: true}` under
/// [`OnExpired::Fail`](crate::OnExpired).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// Looking for a server; there is no session yet.
    Connecting,
    /// Requests flow.
    Connected {
        /// The session.
        session: SessionId,
        /// Number of connections made so far. A receiver that missed a `Suspended` in between sees it here.
        generation: u64,
        /// The server is without quorum and refuses writes.
        read_only: bool,
        /// The server, as `host:port`.
        server: String,
    },
    /// The connection is lost; the session may live on.
    Suspended {
        /// When the loss was noticed.
        since: Instant,
        /// Until then no server can have expired the session, see
        /// [`Client::lease_deadline`](crate::Client::lease_deadline).
        lease_deadline: Instant,
    },
    /// Unconfirmed: the lease deadline has passed, so the session may be gone. Confirmed: a server said so.
    Expired {
        /// The session that is gone.
        session: SessionId,
        /// Whether a server said so.
        confirmed: bool,
    },
    /// The servers refused the credentials; final.
    AuthFailed,
    /// Closed or detached; final.
    Closed,
}

impl SessionState {
    /// The session, while requests flow.
    pub fn connected_session(&self) -> Option<SessionId> {
        match self {
            SessionState::Connected { session, .. } => Some(*session),
            _ => None,
        }
    }
}

/// The state of a session as it changes. A slow receiver misses intermediate states, never the last one.
#[derive(Debug, Clone)]
pub struct SessionStates {
    receiver: watch::Receiver<SessionState>,
}

impl SessionStates {
    pub(crate) fn new(receiver: watch::Receiver<SessionState>) -> Self {
        SessionStates { receiver }
    }

    /// The state now.
    pub fn current(&self) -> SessionState {
        self.receiver.borrow().clone()
    }

    /// Waits for a state that this receiver has not seen, and returns it; `None` after a final state was
    /// seen. Cancel safe.
    pub async fn changed(&mut self) -> Option<SessionState> {
        self.receiver.changed().await.ok()?;
        Some(self.see())
    }

    /// Waits until `wanted` holds and returns that state; `None` when the client ended first. Cancel safe.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&SessionState) -> bool) -> Option<SessionState> {
        // Not the receiver's own `wait_for`: that one keeps the value locked while `wanted` runs, which may
        // well ask the client something.
        let mut state = self.see();
        while !wanted(&state) {
            state = self.changed().await?;
        }
        Some(state)
    }

    /// The state now, which counts as seen.
    fn see(&mut self) -> SessionState {
        self.receiver.borrow_and_update().clone()
    }

    /// The current state and then every change, ending after the final one.
    pub fn into_stream(mut self) -> impl Stream<Item = SessionState> + Send + Unpin {
        self.receiver.mark_changed();
        stream::unfold(self, |mut states| async move { states.changed().await.map(|s| (s, states)) }).boxed()
    }
}

/// What identifies a session, so that another process can take it over
/// ([`ConnectBuilder::resume`](crate::ConnectBuilder::resume)).
///
/// Two processes that use one ticket at the same time move the session back and forth between them. The
/// password guards against accidents only: servers compute it from the id.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SessionTicket {
    id: i64,
    password: [u8; 16],
    last_zxid: i64,
    timeout_ms: u32,
}

impl SessionTicket {
    pub(crate) fn new(id: SessionId, password: [u8; 16], last_zxid: i64, timeout: Duration) -> Self {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        SessionTicket { id: id.0, password, last_zxid, timeout_ms }
    }

    /// The session; [`SessionId::NONE`] when there was none yet.
    pub fn id(&self) -> SessionId {
        SessionId(self.id)
    }

    /// Highest transaction that the session has seen. Servers that are behind it refuse the session.
    pub fn last_zxid(&self) -> i64 {
        self.last_zxid
    }

    /// The negotiated session timeout.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.into())
    }

    pub(crate) fn password(&self) -> [u8; 16] {
        self.password
    }
}

impl fmt::Debug for SessionTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTicket")
            .field("id", &self.id())
            .field("last_zxid", &self.last_zxid)
            .field("timeout", &self.timeout())
            .finish_non_exhaustive()
    }
}

/// Waits until requests flow, or until `check`, which is asked at every state, fails.
pub(crate) async fn connected(
    mut states: SessionStates,
    check: impl Fn() -> Result<()>,
) -> Result<SessionId> {
    let mut state = states.see();
    loop {
        match state {
            SessionState::AuthFailed => return Err(Error::AuthFailed("credentials refused".to_owned())),
            SessionState::Closed => return Err(Error::Closed),
            _ => check()?,
        }
        if let SessionState::Connected { session, .. } = state {
            return Ok(session);
        }
        state = match (states.changed().await, state) {
            (Some(state), _) => state,
            // Final, under `OnExpired::Fail`.
            (None, SessionState::Expired { session, .. }) => return Err(Error::SessionExpired(session)),
            (None, _) => return Err(Error::Closed),
        };
    }
}
