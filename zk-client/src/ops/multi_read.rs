//! Groups of reads in one request.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::check_path;
use super::multi::{put_end, put_header};
use crate::call::{Call, Plan, Reply, SubmitMode, one_request};
use crate::client::Client;
use crate::error::{Error, Result, ServerCode};

/// A group of reads that the server answers from one state of the tree. Each succeeds or fails by itself.
/// Servers since 3.6.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct MultiRead<'a> {
    client: &'a Client,
    body: Vec<u8>,
    operations: usize,
    invalid: Option<Error>,
}

/// The result of one read of a [`MultiRead`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadResult {
    /// get.
    Data(Bytes, Stat),
    /// children, without the `Stat`.
    Children(Vec<String>),
}

impl Client {
    /// Begins a group of reads.
    pub fn multi_read(&self) -> MultiRead<'_> {
        MultiRead { client: self, body: Vec::new(), operations: 0, invalid: None }
    }
}

impl<'a> MultiRead<'a> {
    fn operation(mut self, op: OpCode, path: &str) -> Self {
        if let Err(error) = check_path(op, path) {
            self.invalid.get_or_insert(error);
            return self;
        }
        put_header(&mut self.body, op as i32, false);
        self.client.root.put(&mut self.body, path);
        self.body.put_bool(false);
        self.operations += 1;
        self
    }

    /// Reads data and `Stat` of a node.
    pub fn get(self, path: &str) -> Self {
        self.operation(OpCode::GetData, path)
    }

    /// Reads the names of a node's children.
    pub fn children(self, path: &str) -> Self {
        self.operation(OpCode::GetChildren, path)
    }

    fn call(self, mode: SubmitMode) -> Result<Call<'a, Vec<Result<ReadResult, ServerCode>>>> {
        let MultiRead { client, body, operations, invalid } = self;
        if let Some(error) = invalid {
            return Err(error);
        }
        let plan = Plan {
            client,
            op: OpCode::MultiRead,
            path: "/".into(),
            decode: decode_results,
            watch: None,
            is_read: true,
            operations,
            mode,
        };
        Call::submit(plan, |w, _| {
            w.extend_from_slice(&body);
            put_end(w);
        })
    }
}

one_request!(MultiRead, Vec<Result<ReadResult, ServerCode>>);

fn decode_results(reply: &Reply<'_>) -> Result<Vec<Result<ReadResult, ServerCode>>> {
    use zk_proto::MultiResult as Wire;
    reply.ok()?;
    let wire = Wire::decode_list(&mut reply.reader()).map_err(|e| reply.garbled(e))?;
    if wire.len() != reply.operations {
        let why = format!("{} reads have {} results", reply.operations, wire.len());
        return Err(Error::Protocol(why));
    }
    let result = |wire: Wire<'_>| match wire {
        Wire::GetData { data, stat } => Ok(Ok(ReadResult::Data(reply.share(data), stat))),
        Wire::GetChildren { children } => {
            Ok(Ok(ReadResult::Children(children.into_iter().map(|name| name.into_owned()).collect())))
        }
        Wire::Error(code) => Ok(Err(code)),
        _ => Err(Error::Protocol("a write among the results of reads".to_owned())),
    };
    wire.into_iter().map(result).collect()
}
