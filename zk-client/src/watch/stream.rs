//! Persistent watches.

use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use zk_proto::OpCode;
use zk_proto::jute::Writer;
use zk_proto::path::validate;

use super::event::Event;
use super::registry::{Ask, Want};
use super::{Listening, Removal};
use crate::call::{Call, Decode, Plan, Reply, SubmitMode, invalid};
use crate::client::Client;
use crate::error::{Error, Result, ServerCode};

/// A persistent watch that is not set yet. Await it.
#[must_use = "the watch is set when this is awaited"]
pub struct WatchBuilder<'a> {
    client: &'a Client,
    path: &'a str,
    recursive: bool,
}

impl Client {
    /// Watches a node (which need not exist) until the watch is dropped: `Created`, `Deleted`, `DataChanged`
    /// and `ChildrenChanged` of the node itself.
    ///
    /// Needs a server of version 3.6; older ones answer `Unsupported`.
    pub fn watch<'a>(&'a self, path: &'a str) -> WatchBuilder<'a> {
        WatchBuilder { client: self, path, recursive: false }
    }
}

impl WatchBuilder<'_> {
    /// The node and everything below it, with `Created`, `Deleted` and `DataChanged` for each; there is no
    /// `ChildrenChanged` then.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    async fn set(self) -> Result<Watch> {
        let WatchBuilder { client, path, recursive } = self;
        validate(path).map_err(|e| invalid(OpCode::AddWatch, path, e))?;
        let listening = Listening::new(client, path, true);
        let want = if recursive { Want::Recursive } else { Want::Persistent };
        let plan = Plan {
            client,
            op: OpCode::AddWatch,
            path: path.into(),
            decode: added as Decode<()>,
            watch: Some((want, listening.id)),
            is_read: false,
            operations: 0,
            mode: SubmitMode::default(),
        };
        let root = &client.root;
        Call::submit(plan, |w, ask| {
            root.put(w, path);
            w.put_int(i32::from(ask == Ask::Add { recursive: true }));
        })?
        .await?;
        Ok(Watch { client: client.clone(), path: path.to_owned(), listening: Some(listening) })
    }
}

fn added(reply: &Reply<'_>) -> Result<()> {
    if reply.code == ServerCode::UNIMPLEMENTED {
        return Err(Error::Unsupported("persistent watches"));
    }
    reply.ok()
}

impl<'a> IntoFuture for WatchBuilder<'a> {
    type Output = Result<Watch>;
    type IntoFuture = crate::call::Boxed<'a, Watch>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set())
    }
}

/// A persistent watch: a stream of events that ends only with the client.
///
/// After a reconnect it yields `Resync`, since what happened in between is lost; after the session was lost
/// and replaced, `SessionLost` and then `Resync`. It holds up to 1024 events; a consumer that falls behind
/// further finds one `Resync` in their place. Dropping it removes the watch from the server.
#[must_use = "the watch is removed when this is dropped"]
pub struct Watch {
    client: Client,
    path: String,
    /// `None` once removed.
    listening: Option<Listening>,
}

impl Watch {
    /// The next event; `None` after `Closed`. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match &self.listening {
            Some(listening) => listening.poll(cx),
            None => Poll::Ready(None),
        }
    }

    /// Removes the watch and waits until the server has done so. (Dropping removes it in the background.)
    pub async fn remove(mut self) -> Result<()> {
        let Some(listening) = self.listening.take() else { return Ok(()) };
        let handle = listening.handle.clone();
        let removal = handle.with(|session| session.watches.forget(listening.id));
        let Some(Removal { path, kind }) = removal else { return Ok(()) };
        let plan = Plan {
            client: &self.client,
            op: OpCode::RemoveWatches,
            path: self.path.as_str().into(),
            decode: removed as Decode<()>,
            watch: None,
            is_read: false,
            operations: 0,
            mode: SubmitMode { detached: true, ..SubmitMode::default() },
        };
        Call::submit(plan, |w, _| {
            w.put_str(&path);
            w.put_int(kind as i32);
        })?
        .await
    }
}

fn removed(reply: &Reply<'_>) -> Result<()> {
    match reply.code {
        ServerCode::NO_WATCHER => Ok(()),
        _ => reply.ok(),
    }
}

impl Stream for Watch {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("path", &self.path).finish_non_exhaustive()
    }
}
