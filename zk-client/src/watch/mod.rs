//! Watches: one-shot ones as futures, persistent ones as streams.

mod event;
mod listener;
mod oneshot;
mod registry;
mod stream;

pub use event::{Event, EventKind};
pub(crate) use listener::ListenerId;
pub use oneshot::OneShot;
pub(crate) use registry::{Answer, Ask, Rearm, Registration, Registry, Removal, Want};
pub use stream::{Watch, WatchBuilder};

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::client::Client;
use crate::shared::Handle;

/// A listener, as long as somebody wants to hear.
pub(crate) struct Listening {
    pub(crate) handle: Arc<Handle>,
    pub(crate) id: ListenerId,
}

impl Listening {
    /// A listener for `path` (the caller's), not registered yet.
    pub(crate) fn new(client: &Client, path: &str, stream: bool) -> Self {
        let full = Arc::from(client.root.full(path));
        let root = client.root.clone();
        let id = client.handle.with(|session| session.watches.listen(full, root, stream));
        Listening { handle: client.handle.clone(), id }
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.handle.with(|session| session.watches.poll(self.id, cx))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.handle.with(|session| {
            if let Some(removal) = session.watches.forget(self.id) {
                session.remove_watch(removal);
            }
        });
    }
}
