//! The handle to a session.

use std::sync::Arc;

use tokio::time::Instant;
use zk_proto::SessionId;

use crate::builder::ConnectBuilder;
use crate::error::{Error, Result};
use crate::root::Root;
use crate::session::CloseKind;
use crate::shared::Handle;
use crate::state::{SessionState, SessionStates, SessionTicket, connected};

/// A handle to a ZooKeeper session. Cheap to clone; all clones share one connection, and requests go out in
/// the order in which they were enqueued, whatever handle they came from.
///
/// When the last handle is dropped (clones, watches and pending requests included) the session is closed in
/// the background; [`close`](Client::close) does it with a result.
#[derive(Clone)]
pub struct Client {
    pub(crate) handle: Arc<Handle>,
    pub(crate) root: Root,
    pub(crate) pin: Option<SessionId>,
    pub(crate) linearizable: bool,
}

impl Client {
    /// Describes a client for the servers in `hosts`: `host:port,host:port/chroot`. Await the builder to
    /// connect.
    ///
    /// The port defaults to 2181; IPv6 addresses stand in brackets; `tcp://` in front of a host is allowed.
    /// The chroot is not created.
    pub fn connect(hosts: &str) -> ConnectBuilder {
        ConnectBuilder::new(hosts)
    }

    /// A handle to the same session whose paths are all below `path`, which is not created.
    pub fn chroot(&self, path: &str) -> Result<Client> {
        let root = self.root.join(path);
        let root = root.map_err(|e| Error::InvalidArgument(format!("chroot {path:?}: {e}")))?;
        Ok(Client { root, ..self.clone() })
    }

    /// A handle whose reads see at least everything that was committed when they were sent: each is preceded
    /// by a `sync`, in the same flight.
    ///
    /// Apache's `sync` asks the leader but not the quorum, so a leader that was just deposed may answer for a
    /// short time. For a hard guarantee, write something.
    pub fn linearizable(&self) -> Client {
        Client { linearizable: true, ..self.clone() }
    }

    /// A handle bound to the current session: in any later one its calls fail with `SessionExpired` without
    /// being sent. Without a session at the moment, they all do.
    pub fn pinned(&self) -> Client {
        self.pinned_to(self.pin.unwrap_or_else(|| self.session_id()))
    }

    pub(crate) fn pinned_to(&self, session: SessionId) -> Client {
        Client { pin: Some(session), ..self.clone() }
    }

    /// The session that this handle is bound to, if it is [`pinned`](Client::pinned).
    pub fn pinned_session(&self) -> Option<SessionId> {
        self.pin
    }

    /// Waits until requests flow, and returns the session. Fails when the client is over, or when this handle
    /// is pinned to a session that is gone. Cancel safe.
    pub async fn connected(&self) -> Result<SessionId> {
        connected(self.states(), || match self.pin {
            Some(pin) if pin != self.session_id() => Err(Error::SessionExpired(pin)),
            _ => Ok(()),
        })
        .await
    }

    /// The session's states from now on.
    pub fn states(&self) -> SessionStates {
        self.handle.states()
    }

    /// The session's state now.
    pub fn state(&self) -> SessionState {
        self.states().current()
    }

    /// What another process needs to take the session over.
    pub fn session(&self) -> SessionTicket {
        self.handle.with(|session| session.ticket())
    }

    /// The current session, [`SessionId::NONE`] when there is none.
    pub fn session_id(&self) -> SessionId {
        self.handle.with(|session| session.id())
    }

    /// Until then the session is certain to be alive on the servers, by the chosen
    /// [`LeaseProof`](crate::LeaseProof), provided that clocks run at about the same rate and this process is
    /// not stopped in between. The past (or now) when nothing is proven.
    ///
    /// Under the proof `Commit` it moves only while something is [held](Client::hold_lease), or when writes
    /// happen.
    pub fn lease_deadline(&self) -> Instant {
        let now = Instant::now();
        self.handle.with(|session| session.lease_deadline(now))
    }

    /// Closes the session: waits until everything enqueued so far is answered and the cleanup queue is empty,
    /// deletes the session's ephemeral nodes by ending it, and makes every call on any clone fail with
    /// `Closed`.
    ///
    /// Fails with `Timeout` when the servers did not confirm within the session timeout; the session then
    /// ends by itself. Dropping the future does not stop the closing.
    pub async fn close(self) -> Result<()> {
        self.end(CloseKind::Close).await
    }

    /// Leaves the session without ending it: waits for the replies in flight, drops the connection and
    /// returns the ticket with which the session can be resumed before it times out. Ephemeral nodes stay;
    /// the cleanup queue is dropped.
    pub async fn detach(self) -> Result<SessionTicket> {
        self.end(CloseKind::Detach).await?;
        Ok(self.session())
    }

    /// A named point at which tests can hold a recipe (feature `testing`); otherwise nothing.
    #[doc(hidden)]
    pub async fn gate(&self, name: &'static str) {
        #[cfg(feature = "testing")]
        self.handle.gates.pass(name).await;
        let _ = name;
    }

    async fn end(&self, kind: CloseKind) -> Result<()> {
        self.handle.with(|session| session.close(kind, Instant::now()));
        let mut states = self.states();
        // The channel closes behind the last state.
        states.wait_for(|state| matches!(state, SessionState::Closed | SessionState::AuthFailed)).await;
        self.handle.with(|session| session.close_error()).map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session_id())
            .field("chroot", &self.root.as_str())
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}
