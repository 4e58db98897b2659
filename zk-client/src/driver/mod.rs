//! The one task of a client: dials, moves bytes, waits. Everything that needs a decision is asked of the
//! [session](crate::session).

mod connection;
mod dial;
mod frames;
mod probe;

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::error::Failure;
use crate::shared::Shared;
use connection::Connection;
use dial::Dialer;
#[cfg(feature = "testing")]
pub(crate) use dial::attempt;

/// Ends the session's waiters if the task is dropped with its runtime.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.with(|session| session.finish(Failure::Closed, u64::MAX));
    }
}

/// Runs a client until it is closed. Returns the last reason for which no server was found.
pub(crate) async fn run(shared: Arc<Shared>) {
    let guard = EndGuard(shared);
    let shared = &*guard.0;
    let mut dialer = Dialer::new(shared);
    loop {
        let dialed = tokio::select! {
            biased;
            () = wait_down(shared) => None,
            dialed = dialer.dial(shared) => dialed,
        };
        let Some(connection) = dialed else { break };
        let id = shared.with(|session| session.id());
        let span = tracing::info_span!("zk.session", session = %id, server = connection.server);
        serve(shared, connection, &mut dialer).instrument(span).await;
        if shared.with(|session| session.is_over()) {
            break;
        }
    }
}

async fn serve(shared: &Shared, mut connection: Connection, dialer: &mut Dialer) {
    let why = match connection.deliver(shared, Instant::now()) {
        Ok(()) if shared.with(|session| session.is_read_only()) => tokio::select! {
            why = poll_fn(|cx| connection.poll(shared, cx)) => why,
            () = dialer.find_read_write(&shared.config) => "a server that takes writes was found".to_owned(),
        },
        Ok(()) => poll_fn(|cx| connection.poll(shared, cx)).await,
        Err(why) => why,
    };
    let written = connection.written;
    drop(connection);
    shared.with(|session| session.connection_lost(written, &why, Instant::now()));
}

/// Lets time pass while there is no connection; returns when the client is over.
async fn wait_down(shared: &Shared) {
    loop {
        let deadline = shared.with(|session| {
            session.tick_down(Instant::now());
            session.deadline_down()
        });
        if shared.with(|session| session.is_over()) {
            return;
        }
        let woken = poll_fn(|cx| shared.with(|session| session.poll_woken(cx)));
        match deadline {
            Some(deadline) => tokio::select! {
                () = woken => {}
                () = sleep_until(deadline) => {}
            },
            None => woken.await,
        }
    }
}
