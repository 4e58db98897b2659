//! Reading a node's data.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::check_path;
use crate::call::{Call, Plan, Reply, SubmitMode, one_request};
use crate::client::Client;
use crate::error::Result;
use crate::watch::{Ask, ListenerId, Listening, OneShot, Want};

/// Reads data and `Stat` of a node.
///
/// The data is a slice of the receive buffer: nothing is copied, but a small value that is kept for long
/// keeps up to 16 KiB alive. Copy such values (`Bytes::copy_from_slice`).
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Get<'a> {
    client: &'a Client,
    path: &'a str,
}

impl Client {
    /// Reads data and `Stat` of a node. Data that is null (never set) reads as empty.
    pub fn get<'a>(&'a self, path: &'a str) -> Get<'a> {
        Get { client: self, path }
    }
}

impl<'a> Get<'a> {
    fn call(self, mode: SubmitMode) -> Result<Call<'a, (Bytes, Stat)>> {
        self.call_watching(mode, None)
    }

    fn call_watching(
        self,
        mode: SubmitMode,
        listener: Option<ListenerId>,
    ) -> Result<Call<'a, (Bytes, Stat)>> {
        let Get { client, path } = self;
        check_path(OpCode::GetData, path)?;
        let plan = Plan {
            client,
            op: OpCode::GetData,
            path: path.into(),
            decode: decode_data,
            watch: listener.map(|listener| (Want::Data, listener)),
            is_read: true,
            operations: 0,
            mode,
        };
        Call::submit(plan, |w, ask| {
            client.root.put(w, path);
            w.put_bool(ask == Ask::OneShot);
        })
    }

    /// Also sets a watch that fires when the data changes or the node is deleted. A node that does not exist
    /// is not watched: use `exists`.
    pub async fn watched(self) -> Result<(Bytes, Stat, OneShot)> {
        let listening = Listening::new(self.client, self.path, false);
        let (data, stat) = self.call_watching(SubmitMode::default(), Some(listening.id))?.await?;
        Ok((data, stat, OneShot::new(listening)))
    }

    /// `None` if the node does not exist.
    pub async fn optional(self) -> Result<Option<(Bytes, Stat)>> {
        match self.await {
            Err(e) if e.is_no_node() => Ok(None),
            result => result.map(Some),
        }
    }
}

one_request!(Get, (Bytes, Stat));

pub(super) fn decode_data(reply: &Reply<'_>) -> Result<(Bytes, Stat)> {
    reply.ok()?;
    let mut reader = reply.reader();
    let decoded = reader.buffer().and_then(|data| Ok((data, Stat::decode(&mut reader)?)));
    let (data, stat) = decoded.map_err(|e| reply.garbled(e))?;
    Ok((reply.share(data), stat))
}
