//! What the client does on behalf of guards: deletions in the background, and the proof that the session is
//! alive while something is held.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use zk_proto::SessionId;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::session::Cleanup;
use crate::shared::Handle;

/// The end of a deletion in the background. Can be dropped: the deletion goes on.
///
/// `Ok` when the nodes are gone, also because their session is; an error when the servers refuse.
#[derive(Debug)]
pub struct Cleaned(Option<oneshot::Receiver<Result<()>>>);

impl Future for Cleaned {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(receiver) => Pin::new(receiver).poll(cx).map(|done| done.unwrap_or(Err(Error::Closed))),
        }
    }
}

impl Client {
    /// Queues a deletion that is repeated over reconnects for as long as the session lives. For what must go
    /// even though nobody waits for it: a node whose guard was dropped blocks those behind it.
    ///
    /// The session is the pinned one, or the current one if this handle is not pinned. Never waits.
    pub fn clean_up(&self, cleanup: Cleanup) -> Cleaned {
        self.clean_up_of(cleanup, self.pin)
    }

    pub(super) fn clean_up_of(&self, cleanup: Cleanup, owner: Option<SessionId>) -> Cleaned {
        Cleaned(self.handle.with(|session| {
            let owner = owner.unwrap_or(session.id());
            session.clean_up(cleanup, &self.root, owner)
        }))
    }

    /// From now until the hold is dropped, the session is proven alive by committed writes
    /// (`multi[check(path, -1)]`, every sixth of the session timeout), so that
    /// [`lease_deadline`](Client::lease_deadline) keeps moving. One write serves all holds of a client.
    /// Nothing is written under [`LeaseProof::Ping`](crate::LeaseProof).
    ///
    /// `path` is a node that the caller owns. The hold belongs to the session that this handle is pinned to,
    /// or to the current one.
    pub fn hold_lease(&self, path: &str) -> LeaseHold {
        let full: Arc<str> = self.root.full(path).into();
        let id = self.handle.with(|session| {
            let owner = self.pin.unwrap_or(session.id());
            session.hold(full, owner)
        });
        LeaseHold { handle: self.handle.clone(), id }
    }

    /// A new GUID, in the form `xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx`.
    pub fn guid(&self) -> String {
        let random = self.handle.random.lock().u128(..);
        // Version 4, variant 1.
        let bits = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

/// Keeps the proof that the session is alive going; see [`Client::hold_lease`].
#[must_use = "the lease is not kept any longer when this is dropped"]
pub struct LeaseHold {
    handle: Arc<Handle>,
    id: u64,
}

impl Drop for LeaseHold {
    fn drop(&mut self) {
        self.handle.with(|session| session.release_hold(self.id));
    }
}

impl std::fmt::Debug for LeaseHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseHold").field("id", &self.id).finish()
    }
}
