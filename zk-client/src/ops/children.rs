//! Listing children.

use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::check_path;
use crate::call::{Call, Plan, Reply, SubmitMode, one_request};
use crate::client::Client;
use crate::error::Result;
use crate::watch::{Ask, ListenerId, Listening, OneShot, Want};

/// Reads the names of a node's children, in no particular order, and its `Stat`.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Children<'a> {
    client: &'a Client,
    path: &'a str,
}

impl Client {
    /// Reads the names of a node's children, in no particular order, and the node's `Stat`.
    pub fn children<'a>(&'a self, path: &'a str) -> Children<'a> {
        Children { client: self, path }
    }
}

impl<'a> Children<'a> {
    fn call(self, mode: SubmitMode) -> Result<Call<'a, (Vec<String>, Stat)>> {
        self.call_watching(mode, None)
    }

    fn call_watching(
        self,
        mode: SubmitMode,
        listener: Option<ListenerId>,
    ) -> Result<Call<'a, (Vec<String>, Stat)>> {
        let Children { client, path } = self;
        check_path(OpCode::GetChildren2, path)?;
        let plan = Plan {
            client,
            op: OpCode::GetChildren2,
            path: path.into(),
            decode: decode_children,
            watch: listener.map(|listener| (Want::Child, listener)),
            is_read: true,
            operations: 0,
            mode,
        };
        Call::submit(plan, |w, ask| {
            client.root.put(w, path);
            w.put_bool(ask == Ask::OneShot);
        })
    }

    /// Also sets a watch that fires when a child is created or deleted, or the node itself is deleted.
    pub async fn watched(self) -> Result<(Vec<String>, Stat, OneShot)> {
        let listening = Listening::new(self.client, self.path, false);
        let (names, stat) = self.call_watching(SubmitMode::default(), Some(listening.id))?.await?;
        Ok((names, stat, OneShot::new(listening)))
    }
}

one_request!(Children, (Vec<String>, Stat));

fn decode_children(reply: &Reply<'_>) -> Result<(Vec<String>, Stat)> {
    reply.ok()?;
    let mut reader = reply.reader();
    let names = reader.vector(|r| r.required_string("name").map(|name| name.into_owned()));
    let decoded = names.and_then(|names| Ok((names.unwrap_or_default(), Stat::decode(&mut reader)?)));
    decoded.map_err(|e| reply.garbled(e))
}
