//! Asking whether a node exists.

use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::{check_path, decode_stat};
use crate::call::{Call, Plan, Reply, SubmitMode, one_request};
use crate::client::Client;
use crate::error::{Error, Result, ServerCode};
use crate::watch::{Ask, EventKind, ListenerId, Listening, OneShot, Want};

/// Reads the `Stat` of a node that may not exist.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Exists<'a> {
    client: &'a Client,
    path: &'a str,
}

impl Client {
    /// Reads the `Stat` of a node; `None` if it does not exist.
    pub fn exists<'a>(&'a self, path: &'a str) -> Exists<'a> {
        Exists { client: self, path }
    }
}

impl<'a> Exists<'a> {
    fn call(self, mode: SubmitMode) -> Result<Call<'a, Option<Stat>>> {
        self.call_watching(mode, None)
    }

    fn call_watching(self, mode: SubmitMode, listener: Option<ListenerId>) -> Result<Call<'a, Option<Stat>>> {
        let Exists { client, path } = self;
        check_path(OpCode::Exists, path)?;
        let plan = Plan {
            client,
            op: OpCode::Exists,
            path: path.into(),
            decode: decode_optional_stat,
            watch: listener.map(|listener| (Want::Exists, listener)),
            is_read: true,
            operations: 0,
            mode,
        };
        Call::submit(plan, |w, ask| {
            client.root.put(w, path);
            w.put_bool(ask == Ask::OneShot);
        })
    }

    /// Also sets a watch that fires when the node is created, deleted, or its data changes.
    pub async fn watched(self) -> Result<(Option<Stat>, OneShot)> {
        let listening = Listening::new(self.client, self.path, false);
        let stat = self.call_watching(SubmitMode::default(), Some(listening.id))?.await?;
        Ok((stat, OneShot::new(listening)))
    }

    /// Waits until the node exists. Goes on over reconnects and session changes; fails when the client ends
    /// or a read fails for another reason than a lost connection. Cancel safe.
    pub async fn until_created(self) -> Result<Stat> {
        loop {
            if let Some(stat) = self.watch_until(Option::is_some).await? {
                return Ok(stat);
            }
        }
    }

    /// Waits until the node does not exist. As [`until_created`](Exists::until_created).
    pub async fn until_deleted(self) -> Result<()> {
        self.watch_until(Option::is_none).await.map(drop)
    }

    async fn watch_until(&self, wanted: fn(&Option<Stat>) -> bool) -> Result<Option<Stat>> {
        loop {
            let (stat, event) = match self.client.exists(self.path).watched().await {
                Err(Error::ConnectionLoss { .. }) => {
                    self.client.connected().await?;
                    continue;
                }
                read => read?,
            };
            if wanted(&stat) {
                return Ok(stat);
            }
            if event.fired().await.kind == EventKind::Closed {
                // Says why the client has ended.
                self.client.connected().await?;
            }
        }
    }
}

one_request!(Exists, Option<Stat>);

fn decode_optional_stat(reply: &Reply<'_>) -> Result<Option<Stat>> {
    match reply.code {
        ServerCode::NO_NODE => Ok(None),
        _ => decode_stat(reply).map(Some),
    }
}
