//! All-or-nothing groups of writes.

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{OpCode, Stat};

use super::check_path;
use super::create::{AclOf, Mode, WireCreate};
use crate::call::{Call, Plan, Reply, SubmitMode, one_request};
use crate::client::Client;
use crate::config::Acl;
use crate::error::{Error, Result, ServerCode};

/// A group of writes that are applied together or not at all. **Not** cancel safe for exactly-once logic:
/// dropped after it was enqueued, it may be applied or not.
///
/// A failure of one operation fails the group with [`Error::Multi`].
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Multi<'a> {
    client: &'a Client,
    /// The operations in wire form; the end header is still missing.
    body: Vec<u8>,
    operations: usize,
    /// The first operation that no server would take.
    invalid: Option<Error>,
}

/// A create within a [`Multi`], with everything that [`Multi::create`] leaves out.
#[derive(Debug, Clone)]
pub struct CreateOp {
    path: String,
    data: Bytes,
    mode: Mode,
    sequential: bool,
    acl: Option<Vec<Acl>>,
}

impl CreateOp {
    /// A persistent node with the client's default ACL, unless changed.
    pub fn new(path: impl Into<String>, data: impl Into<Bytes>) -> Self {
        CreateOp {
            path: path.into(),
            data: data.into(),
            mode: Mode::Persistent,
            sequential: false,
            acl: None,
        }
    }

    /// The kind of node.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The server appends a ten-digit number to the name.
    pub fn sequential(mut self) -> Self {
        self.sequential = true;
        self
    }

    /// Who may do what with the node.
    pub fn acl(mut self, acl: Vec<Acl>) -> Self {
        self.acl = Some(acl);
        self
    }
}

/// The result of one operation of a [`Multi`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultiResult {
    /// create.
    Created {
        /// The node's path, relative to the client's chroot.
        path: String,
        /// Its `Stat`.
        stat: Stat,
    },
    /// set.
    Set {
        /// The node's new `Stat`.
        stat: Stat,
    },
    /// delete.
    Deleted,
    /// check.
    Checked,
}

impl Client {
    /// Begins a group of writes that are applied together or not at all.
    pub fn multi(&self) -> Multi<'_> {
        Multi { client: self, body: Vec::new(), operations: 0, invalid: None }
    }
}

impl<'a> Multi<'a> {
    fn operation(mut self, op: OpCode, path: &str, put: impl FnOnce(&mut Vec<u8>)) -> Self {
        if let Err(error) = check_path(op, path) {
            self.invalid.get_or_insert(error);
            return self;
        }
        put_header(&mut self.body, op as i32, false);
        self.client.root.put(&mut self.body, path);
        put(&mut self.body);
        self.operations += 1;
        self
    }

    /// The node must exist, with this version of its data if one is given.
    pub fn check(self, path: &str, version: Option<i32>) -> Self {
        self.operation(OpCode::Check, path, |w| w.put_int(version.unwrap_or(-1)))
    }

    /// Creates a node with the client's default ACL.
    pub fn create(self, path: &str, data: impl Into<Bytes>, mode: Mode) -> Self {
        self.create_with(CreateOp::new(path, data).mode(mode))
    }

    /// Creates a node whose name the server completes with a ten-digit number.
    pub fn create_sequential(self, path: &str, data: impl Into<Bytes>, mode: Mode) -> Self {
        self.create_with(CreateOp::new(path, data).mode(mode).sequential())
    }

    /// Creates a node.
    pub fn create_with(mut self, create: CreateOp) -> Self {
        let CreateOp { path, data, mode, sequential, acl } = create;
        match WireCreate::new(mode, sequential, &self.client.root, &path) {
            Ok(wire) => {
                let acl = AclOf::new(self.client, acl.as_deref(), &path);
                put_header(&mut self.body, wire.op as i32, false);
                wire.put(&mut self.body, &self.client.root, &path, &data, acl.get());
                self.operations += 1;
            }
            Err(error) => {
                self.invalid.get_or_insert(error);
            }
        }
        self
    }

    /// Replaces a node's data, with this version if one is given.
    pub fn set(self, path: &str, data: impl Into<Bytes>, version: Option<i32>) -> Self {
        let data = data.into();
        self.operation(OpCode::SetData, path, |w| {
            w.put_buffer(Some(&data));
            w.put_int(version.unwrap_or(-1));
        })
    }

    /// Deletes a node, with this version of its data if one is given.
    pub fn delete(self, path: &str, version: Option<i32>) -> Self {
        self.operation(OpCode::Delete, path, |w| w.put_int(version.unwrap_or(-1)))
    }

    /// Number of operations so far.
    pub fn len(&self) -> usize {
        self.operations
    }

    /// Whether there is no operation yet. An empty group is sent all the same, and succeeds.
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    fn call(self, mode: SubmitMode) -> Result<Call<'a, Vec<MultiResult>>> {
        let Multi { client, body, operations, invalid } = self;
        if let Some(error) = invalid {
            return Err(error);
        }
        let plan = Plan {
            client,
            op: OpCode::Multi,
            path: "".into(),
            decode: decode_results,
            watch: None,
            is_read: false,
            operations,
            mode,
        };
        Call::submit(plan, |w, _| {
            w.extend_from_slice(&body);
            put_end(w);
        })
    }
}

one_request!(Multi, Vec<MultiResult>);

const END: i32 = -1;

/// The header in front of each operation, and behind the last one.
pub(super) fn put_header(w: &mut Vec<u8>, kind: i32, done: bool) {
    w.put_int(kind);
    w.put_bool(done);
    w.put_int(-1);
}

/// Ends the list of operations.
pub(super) fn put_end(w: &mut Vec<u8>) {
    put_header(w, END, true);
}

fn decode_results(reply: &Reply<'_>) -> Result<Vec<MultiResult>> {
    use zk_proto::MultiResult as Wire;
    reply.ok()?;
    let wire = Wire::decode_list(&mut reply.reader()).map_err(|e| reply.garbled(e))?;
    if wire.len() != reply.operations {
        let why = format!("multi of {} operations has {} results", reply.operations, wire.len());
        return Err(Error::Protocol(why));
    }
    let codes = wire.iter().map(|result| match result {
        Wire::Error(code) => code.ok(),
        _ => Ok(()),
    });
    if wire.iter().any(|result| matches!(result, Wire::Error(_))) {
        let results: Vec<_> = codes.collect();
        let failed = results.iter().enumerate().find_map(|(index, result)| match result {
            Err(code) if *code != ServerCode::RUNTIME_INCONSISTENCY => Some((index, *code)),
            _ => None,
        });
        let (index, code) = failed.unwrap_or((0, ServerCode::RUNTIME_INCONSISTENCY));
        return Err(Error::Multi { index, code, results });
    }
    let result = |wire: Wire<'_>| match wire {
        Wire::Create { path } => {
            let stat = Stat::default();
            Ok(MultiResult::Created { path: reply.root.strip(&path).to_owned(), stat })
        }
        Wire::Create2 { path, stat } => {
            Ok(MultiResult::Created { path: reply.root.strip(&path).to_owned(), stat })
        }
        Wire::SetData { stat } => Ok(MultiResult::Set { stat }),
        Wire::Delete => Ok(MultiResult::Deleted),
        Wire::Check => Ok(MultiResult::Checked),
        Wire::GetData { .. } | Wire::GetChildren { .. } | Wire::Error(_) => {
            Err(Error::Protocol("a read among the results of a multi".to_owned()))
        }
    };
    wire.into_iter().map(result).collect()
}
