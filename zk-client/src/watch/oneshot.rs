//! One-shot watches.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use zk_proto::SessionId;

use super::Listening;
use super::event::{Event, EventKind};

/// A watch that fires once. A future: await it, or poll it by `&mut` in a `select!` loop. Cancel safe.
///
/// The event is ready before the reply of any read that shows what it is about. Dropping the watch removes it
/// from the server, unless other local watches share it. It survives reconnects: what happened in between
/// fires it. It always fires in the end: with `SessionLost`, `Resync` or `Closed` if nothing else can.
#[must_use = "the watch is removed when this is dropped"]
pub struct OneShot {
    listening: Listening,
}

impl OneShot {
    pub(crate) fn new(listening: Listening) -> Self {
        OneShot { listening }
    }

    /// Waits for the event.
    pub async fn fired(self) -> Event {
        self.await
    }
}

impl Future for OneShot {
    type Output = Event;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        self.listening.poll(cx).map(|event| {
            event.unwrap_or(Event {
                kind: EventKind::Closed,
                path: String::new(),
                zxid: None,
                session: SessionId::NONE,
            })
        })
    }
}

impl std::fmt::Debug for OneShot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneShot").field("listener", &self.listening.id).finish()
    }
}
