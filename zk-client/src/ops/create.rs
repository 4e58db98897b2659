//! Creating nodes.

use std::time::Duration;

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::path::PathError;
use zk_proto::{CreateMode, MAX_TTL_MS, OpCode, Stat};

use super::create_task::CreateTask;
use crate::call::{Call, Plan, Reply, SubmitMode, invalid, several_requests};
use crate::client::Client;
use crate::config::Acl;
use crate::error::{Error, Result};
use crate::root::Root;

/// What kind of node to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Lives until it is deleted.
    #[default]
    Persistent,
    /// Lives as long as the session; has no children.
    Ephemeral,
    /// Deleted by the server some time after its last child is gone. Servers since 3.5.3.
    Container,
    /// Deleted by the server when it had no children and no change for this long, in whole milliseconds from
    /// 1 ms to about 34 years. Servers since 3.5.3 with `extendedTypesEnabled`.
    Ttl(Duration),
}

/// What to do about missing parents of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Parents {
    /// Nothing: the create fails with `NoNode`.
    #[default]
    MustExist,
    /// Create them as persistent nodes.
    Persistent,
    /// Create them as containers, or as persistent nodes on servers without containers. Whoever creates a
    /// node first decides its kind.
    Container,
}

/// A node that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its path, relative to the client's chroot, with the sequence number that the server has appended.
    pub path: String,
    /// Its `Stat` at the moment of the create.
    pub stat: Stat,
}

/// Creates a node. **Not** cancel safe unless [`protected`](Create::protected): dropped after it was enqueued,
/// the node may come to be.
#[must_use = "nothing is sent until this is awaited or sent"]
pub struct Create<'a> {
    pub(super) client: &'a Client,
    pub(super) path: &'a str,
    pub(super) data: Bytes,
    pub(super) acl: Option<Vec<Acl>>,
    pub(super) mode: Mode,
    pub(super) sequential: bool,
    pub(super) parents: Parents,
    pub(super) protection: Option<Protection>,
    pub(super) or_set: bool,
    pub(super) idempotent: bool,
}

/// The unique prefix of a protected node's name.
pub(super) enum Protection {
    /// Curator's: `_c_<guid>-`.
    Curator,
    Prefix(String),
}

impl Client {
    /// Creates a node: persistent, with the client's default ACL, unless the builder says otherwise.
    pub fn create<'a>(&'a self, path: &'a str, data: impl Into<Bytes>) -> Create<'a> {
        Create {
            client: self,
            path,
            data: data.into(),
            acl: None,
            mode: Mode::Persistent,
            sequential: false,
            parents: Parents::MustExist,
            protection: None,
            or_set: false,
            idempotent: false,
        }
    }
}

impl<'a> Create<'a> {
    /// The kind of node.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// [`Mode::Ephemeral`].
    pub fn ephemeral(self) -> Self {
        self.mode(Mode::Ephemeral)
    }

    /// The server appends a ten-digit number to the name. Not for containers.
    pub fn sequential(mut self) -> Self {
        self.sequential = true;
        self
    }

    /// Who may do what with the node. Must not be empty.
    pub fn acl(mut self, acl: Vec<Acl>) -> Self {
        self.acl = Some(acl);
        self
    }

    /// What to do about missing parents.
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }

    /// Puts a GUID in front of the name (`_c_<guid>-`, as Curator does), finds the node again after a
    /// connection loss instead of creating a second one, and deletes it in the background when this future is
    /// dropped. For sequential and ephemeral nodes, whose names others do not rely on.
    ///
    /// With this, a connection loss is not reported: the create ends with the node, with an error that proves
    /// that there is none, or with `SessionExpired`.
    pub fn protected(mut self) -> Self {
        self.protection = Some(Protection::Curator);
        self
    }

    /// As [`protected`](Create::protected), with a prefix of the caller's own, which must be unique: see
    /// [`Client::guid`].
    pub fn protected_by(mut self, prefix: impl Into<String>) -> Self {
        self.protection = Some(Protection::Prefix(prefix.into()));
        self
    }

    /// If the node exists, sets its data instead. Not for sequential nodes.
    pub fn or_set(mut self) -> Self {
        self.or_set = true;
        self
    }

    /// Repeats after an unknown outcome; finding the node with the same data then counts as success, though
    /// it may be the doing of another client that wrote the same. Not for sequential nodes.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    fn is_one_request(&self) -> bool {
        self.parents == Parents::MustExist && self.protection.is_none() && !self.or_set && !self.idempotent
    }

    fn call(self, mode: SubmitMode) -> Result<Call<'a, Created>> {
        let Create { client, path, data, acl, mode: kind, sequential, .. } = self;
        submit_create(client, path, &data, acl.as_deref(), kind, sequential, mode)
    }

    fn run(self) -> impl Future<Output = Result<Created>> + Send + 'static {
        CreateTask::new(self).run()
    }
}

several_requests!(Create, Created);

/// Enqueues one create request.
pub(super) fn submit_create<'a>(
    client: &'a Client,
    path: &'a str,
    data: &[u8],
    acl: Option<&[Acl]>,
    mode: Mode,
    sequential: bool,
    submit: SubmitMode,
) -> Result<Call<'a, Created>> {
    let wire = WireCreate::new(mode, sequential, &client.root, path)?;
    let acl = AclOf::new(client, acl, path);
    let plan = Plan {
        client,
        op: wire.op,
        path: path.into(),
        decode: decode_created,
        watch: None,
        is_read: false,
        operations: 0,
        mode: submit,
    };
    Call::submit(plan, |w, _| wire.put(w, &client.root, path, data, acl.get()))
}

/// The ACL to send for a node.
pub(super) enum AclOf<'a> {
    Given(&'a [Acl]),
    Provided(Vec<Acl>),
}

impl<'a> AclOf<'a> {
    pub(super) fn new(client: &Client, given: Option<&'a [Acl]>, path: &str) -> Self {
        const OPEN: &[Acl] = &[Acl::open()];
        match (given, &client.handle.config.default_acl) {
            (Some(acl), _) => AclOf::Given(acl),
            (None, Some(provider)) => AclOf::Provided(provider.acl(path)),
            (None, None) => AclOf::Given(OPEN),
        }
    }

    pub(super) fn get(&self) -> &[Acl] {
        match self {
            AclOf::Given(acl) => acl,
            AclOf::Provided(acl) => acl,
        }
    }
}

/// Operation and flags of a create.
#[derive(Debug, Clone, Copy)]
pub(super) struct WireCreate {
    pub(super) op: OpCode,
    flags: CreateMode,
    ttl_ms: i64,
}

impl WireCreate {
    pub(super) fn new(mode: Mode, sequential: bool, root: &Root, path: &str) -> Result<Self> {
        let (op, flags, ttl_ms) = match (mode, sequential) {
            (Mode::Persistent, false) => (OpCode::Create2, CreateMode::Persistent, 0),
            (Mode::Persistent, true) => (OpCode::Create2, CreateMode::PersistentSequential, 0),
            (Mode::Ephemeral, false) => (OpCode::Create2, CreateMode::Ephemeral, 0),
            (Mode::Ephemeral, true) => (OpCode::Create2, CreateMode::EphemeralSequential, 0),
            (Mode::Container, false) => (OpCode::CreateContainer, CreateMode::Container, 0),
            (Mode::Container, true) => {
                let why = format!("create {path:?}: a container cannot be sequential");
                return Err(Error::InvalidArgument(why));
            }
            (Mode::Ttl(ttl), sequential) => {
                let ttl_ms = i64::try_from(ttl.as_millis()).ok();
                let Some(ttl_ms) = ttl_ms.filter(|ms| (1..=MAX_TTL_MS).contains(ms)) else {
                    let why = format!("create {path:?}: time to live {ttl:?} out of range");
                    return Err(Error::InvalidArgument(why));
                };
                let flags = match sequential {
                    true => CreateMode::PersistentSequentialWithTtl,
                    false => CreateMode::PersistentWithTtl,
                };
                (OpCode::CreateTtl, flags, ttl_ms)
            }
        };
        let checked = match (sequential, path.strip_suffix('/')) {
            // A number is appended, so the name itself may be empty.
            (true, Some("")) => Ok(()),
            (true, Some(parent)) => zk_proto::path::validate(parent),
            // Below a chroot, `/` is a node as any other.
            _ if path == "/" && root.as_str().is_empty() => Err(PathError::TrailingSlash),
            _ => zk_proto::path::validate(path),
        };
        checked.map_err(|e| invalid(op, path, e))?;
        Ok(WireCreate { op, flags, ttl_ms })
    }

    pub(super) fn put(self, w: &mut Vec<u8>, root: &Root, path: &str, data: &[u8], acl: &[Acl]) {
        match (path, root.as_str()) {
            // Not the chroot itself, but a number below it.
            ("/", root) if !root.is_empty() && self.flags.is_sequential() => w.put_str(&format!("{root}/")),
            _ => root.put(w, path),
        }
        w.put_buffer(Some(data));
        Acl::encode_list(Some(acl), w);
        w.put_int(self.flags.flags());
        if self.op == OpCode::CreateTtl {
            w.put_long(self.ttl_ms);
        }
    }
}

fn decode_created(reply: &Reply<'_>) -> Result<Created> {
    reply.ok()?;
    let mut reader = reply.reader();
    let decoded = reader.required_string("path").and_then(|path| {
        Ok(Created { path: reply.root.strip(&path).to_owned(), stat: Stat::decode(&mut reader)? })
    });
    decoded.map_err(|e| reply.garbled(e))
}
