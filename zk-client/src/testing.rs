//! Hooks that break things on purpose. Feature `testing`; never for production.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use zk_proto::jute::{Writer, frame};
use zk_proto::{OpCode, SessionId};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::state::SessionState;

/// What tests may do to a client; from [`Client::testing`].
pub struct Testing<'a> {
    client: &'a Client,
}

impl Client {
    /// Hooks for tests.
    pub fn testing(&self) -> Testing<'_> {
        Testing { client: self }
    }
}

impl Testing<'_> {
    /// Drops the connection, as a network failure would. The client reconnects.
    pub fn kill_connection(&self) {
        self.client.handle.with(|session| session.drop_link("killed by a test"));
    }

    /// Keeps the client from making connections until called with `false`.
    pub fn pause_dialing(&self, pause: bool) {
        self.client.handle.with(|session| session.dialing_paused = pause);
    }

    /// Stops reading from the connection, as a stalled network would, until called with `false`.
    pub fn pause_reads(&self, pause: bool) {
        self.client.handle.with(|session| session.pause_reads(pause));
    }

    /// Ends the session behind the client's back, from a second connection, and waits until the client has
    /// noticed.
    pub async fn expire_session(&self) -> Result<()> {
        let expired = self.client.connected().await?;
        let mut states = self.client.states();
        // Re-attaching closes the first connection, which must not come back in between.
        self.pause_dialing(true);
        let ended = self.end_session().await;
        self.pause_dialing(false);
        ended.map_err(Error::Protocol)?;
        let over = |state: &SessionState| match state {
            SessionState::Expired { confirmed, .. } => *confirmed,
            SessionState::Connected { session, .. } => *session != expired,
            SessionState::Closed | SessionState::AuthFailed => true,
            _ => false,
        };
        states.wait_for(over).await;
        Ok(())
    }

    async fn end_session(&self) -> std::result::Result<(), String> {
        let shared = &self.client.handle.shared;
        let SessionState::Connected { server, .. } = self.client.state() else {
            return Err("not connected".to_owned());
        };
        let host = shared.config.hosts.iter().find(|host| host.to_string() == server);
        let host = host.ok_or("the server is not in the list")?;
        let wait = Duration::from_secs(5);
        let (mut stream, ..) = crate::driver::attempt(shared, host, wait).await?;
        let mut close = Vec::new();
        frame(&mut close, |w| {
            w.put_int(1);
            w.put_int(OpCode::CloseSession as i32);
        });
        stream.write_all(&close).await.map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map(drop).map_err(|e| e.to_string())
    }

    /// Number of watches that the server keeps for this client.
    pub fn server_watches(&self) -> usize {
        self.client.handle.with(|session| session.watches.armed())
    }

    /// Number of deletions in the background that are not done.
    pub fn cleanup_backlog(&self) -> usize {
        self.client.handle.with(|session| session.cleanup_backlog())
    }

    /// The session that the client is attached to, without looking at pins.
    pub fn session_id(&self) -> SessionId {
        self.client.session_id()
    }

    /// Closes the gate `name`: whoever comes to it ([`Client::gate`]) waits until the gate is dropped.
    pub fn close_gate(&self, name: &'static str) -> Gate {
        let state = Arc::new(GateState { open: watch::channel(false).0, arrivals: watch::channel(0).0 });
        self.client.handle.gates.0.lock().insert(name, state.clone());
        Gate { state }
    }
}

/// A closed gate; opens when dropped.
pub struct Gate {
    state: Arc<GateState>,
}

struct GateState {
    open: watch::Sender<bool>,
    arrivals: watch::Sender<usize>,
}

impl Gate {
    /// Waits until `count` tasks have come to the gate.
    pub async fn reached(&self, count: usize) {
        let _ = self.state.arrivals.subscribe().wait_for(|arrivals| *arrivals >= count).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.open.send_replace(true);
    }
}

#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<&'static str, Arc<GateState>>>);

impl Gates {
    pub(crate) async fn pass(&self, name: &'static str) {
        let Some(gate) = self.0.lock().get(name).cloned() else { return };
        gate.arrivals.send_modify(|arrivals| *arrivals += 1);
        let _ = gate.open.subscribe().wait_for(|open| *open).await;
    }
}
