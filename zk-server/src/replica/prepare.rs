//! PREPARE: turns a request into an unconditional transaction, or an error transaction.
//!
//! All checks happen here, against the tree plus the changes that are prepared but not applied yet. The order
//! of checks decides the error. Every prepared request takes a zxid, also one that fails.

mod changes;
mod reconfig;

use std::borrow::Cow;
use std::sync::Arc;

use zk_proto::{
    Acl, CreateMode, CreateRequest, ErrorCode, MAX_TTL_MS, MultiOp, OpCode, Perms, Reader, Request, Zxid,
    path as paths,
};

use self::changes::{Changes, Pending};
use super::messages::Now;
use crate::auth::{self, ConnAuth, Providers};
use crate::tree::owner::{self, Owner};
use crate::tree::{NodeStat, QuotaCheck, Tree, acl::is_open, is_poison};
use crate::txn::{self, DIGEST_VERSION, Digest, NodeKind, Txn, TxnHeader, kind};
use crate::zab::ensemble::Ensemble;
use crate::zab::leader::ReconfigView;

/// Apache servers with default settings read no longer record than this (`jute.maxbuffer` twice).
const RECORD_BYTES_MAX: usize = 2_097_150;

/// The paths of a session's ephemerals must fit the record that closes it (ZOOKEEPER-4306).
const EPHEMERAL_BYTES_MAX: usize = RECORD_BYTES_MAX - 4096;

/// Settings that decide what is allowed.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Whether TTL nodes may be created.
    pub extended_types: bool,
    /// Whether hard quotas are enforced.
    pub enforce_quota: bool,
    /// Whether transactions carry the tree's digest.
    pub digest: bool,
    /// Whether the transaction that closes a session names the nodes that go with it.
    pub close_session_paths: bool,
    /// Whether reconfig may be asked for at all.
    pub reconfig: bool,
    /// ACL rules and schemes.
    pub providers: Providers,
}

/// A write of a client.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    /// The session that asks.
    pub session: i64,
    /// The request's xid.
    pub cxid: i32,
    /// The operation.
    pub op: OpCode,
    /// The record behind the header.
    pub body: &'a [u8],
    /// The connection's identities.
    pub auth: &'a ConnAuth,
    /// Whether the session may write (else the error to answer).
    pub session_check: Result<(), ErrorCode>,
}

/// The preparing stage.
#[derive(Debug)]
pub struct Prepare {
    options: PrepareOptions,
    changes: Changes,
    last: Zxid,
    /// The ensemble as its leader saw it before the present request, if that is about it.
    reconfig_view: Option<ReconfigView>,
    /// Zxid of the last reconfiguration.
    last_reconfig: i64,
    reconfigured: Vec<Arc<Ensemble>>,
}

struct Scope<'t> {
    tree: &'t Tree,
    zxid: i64,
    time: i64,
    in_multi: bool,
}

impl Prepare {
    /// Starts behind what the tree holds.
    pub fn new(options: PrepareOptions, tree: &Tree) -> Self {
        Prepare {
            options,
            changes: Changes::new(tree.digest()),
            last: tree.last_zxid(),
            reconfig_view: None,
            last_reconfig: 0,
            reconfigured: Vec::new(),
        }
    }

    /// The last zxid given out.
    pub fn last_zxid(&self) -> Zxid {
        self.last
    }

    /// A leader's first transaction comes behind `start`, the beginning of its epoch.
    pub fn begin_epoch(&mut self, start: Zxid) {
        self.last = start;
    }

    /// The settings.
    pub fn options(&self) -> &PrepareOptions {
        &self.options
    }

    /// Forgets the pending changes of transactions up to `zxid`: they are in the tree now.
    pub fn applied(&mut self, zxid: Zxid) {
        self.changes.applied(zxid.0);
    }

    /// Prepares a client's write and appends the transaction's payload to `out`.
    pub fn request(&mut self, tree: &Tree, now: Now, req: &WriteRequest<'_>, out: &mut Vec<u8>) -> Zxid {
        let zxid = self.next();
        let scope = Scope { tree, zxid: zxid.0, time: now.wall_ms, in_multi: false };
        let config;
        let prepared = match Request::decode(req.op, &mut Reader::new(req.body)) {
            Ok(Request::CloseSession) => Ok(self.close_session(&scope, req.session)),
            Ok(Request::Reconfig(wanted)) => match self.reconfig(&scope, req, &wanted) {
                Ok(text) => {
                    config = text;
                    Ok(Txn::SetData {
                        kind: kind::RECONFIG,
                        path: Cow::Borrowed(reconfig::CONFIG_NODE),
                        data: Some(config.as_bytes()),
                        version: -1,
                    })
                }
                Err(code) => Err(code),
            },
            Ok(request) => self.client_write(&scope, req, request),
            Err(_) => Err(ErrorCode::MARSHALLING_ERROR),
        };
        self.finish(&scope, req.session, req.cxid, prepared, out);
        zxid
    }

    /// Opens a session.
    pub fn create_session(&mut self, session: i64, timeout_ms: i32, now: Now, out: &mut Vec<u8>) -> Zxid {
        let zxid = self.next();
        let header = self.header(session, 0, zxid.0, now.wall_ms, kind::CREATE_SESSION);
        txn::encode(&header, &Txn::CreateSession { timeout_ms }, self.digest(), out);
        zxid
    }

    /// Closes a session that has expired.
    pub fn expire_session(&mut self, tree: &Tree, session: i64, now: Now, out: &mut Vec<u8>) -> Zxid {
        let zxid = self.next();
        let scope = Scope { tree, zxid: zxid.0, time: now.wall_ms, in_multi: false };
        let txn = self.close_session(&scope, session);
        self.finish(&scope, session, 0, Ok(txn), out);
        zxid
    }

    /// Deletes an empty container or an expired TTL node. `None`: it is in use again, and no zxid is taken.
    pub fn reap(&mut self, tree: &Tree, path: &str, now: Now, out: &mut Vec<u8>) -> Option<Zxid> {
        let next = self.last.next()?;
        let scope = Scope { tree, zxid: next.0, time: now.wall_ms, in_multi: false };
        let txn = self.delete_container(&scope, Cow::Borrowed(path)).ok()?;
        self.last = next;
        self.finish(&scope, 0, 0, Ok(txn), out);
        Some(next)
    }

    fn next(&mut self) -> Zxid {
        // Standalone: epoch 0 has room for 4 billion transactions, after that the next epoch is as good.
        self.last = self.last.next().unwrap_or(Zxid::new(self.last.epoch() + 1, 1));
        self.last
    }

    fn header(&self, client_id: i64, cxid: i32, zxid: i64, time: i64, kind: i32) -> TxnHeader {
        TxnHeader { client_id, cxid, zxid: Zxid(zxid), time_ms: time, kind }
    }

    fn digest(&self) -> Option<Digest> {
        self.options.digest.then_some(Digest { version: DIGEST_VERSION, value: self.changes.digest() })
    }

    fn finish(
        &mut self,
        scope: &Scope<'_>,
        session: i64,
        cxid: i32,
        prepared: Result<Txn<'_>, ErrorCode>,
        out: &mut Vec<u8>,
    ) {
        let (txn, digest) = match prepared {
            Ok(txn) => (txn, self.digest()),
            Err(code) => (Txn::Error(code), None),
        };
        let header = self.header(session, cxid, scope.zxid, scope.time, txn.kind());
        txn::encode(&header, &txn, digest, out);
    }

    fn client_write<'a>(
        &mut self,
        scope: &Scope<'_>,
        req: &WriteRequest<'_>,
        request: Request<'a>,
    ) -> Result<Txn<'a>, ErrorCode> {
        match request {
            Request::Create(create) => self.create(scope, req, create),
            Request::Delete { path, version } => {
                req.session_check?;
                self.delete(scope, req.auth, path, version)
            }
            Request::DeleteContainer { path } => self.delete_container(scope, path),
            Request::SetData { path, data, version } => {
                req.session_check?;
                self.set_data(scope, req.auth, path, data, version)
            }
            Request::SetAcl { path, acl, version } => {
                req.session_check?;
                self.set_acl(scope, req.auth, path, acl, version)
            }
            Request::Multi(ops) => self.multi(scope, req, ops),
            _ => Err(ErrorCode::UNIMPLEMENTED),
        }
    }

    fn multi<'a>(
        &mut self,
        scope: &Scope<'_>,
        req: &WriteRequest<'_>,
        ops: Vec<MultiOp<'a>>,
    ) -> Result<Txn<'a>, ErrorCode> {
        let scope = Scope { in_multi: true, ..*scope };
        let mark = self.changes.begin();
        let mut failed = false;
        let mut txns = Vec::with_capacity(ops.len());
        for op in ops {
            if failed {
                txns.push(Txn::Error(ErrorCode::RUNTIME_INCONSISTENCY));
                continue;
            }
            let prepared = match op {
                MultiOp::Create(create) => self.create(&scope, req, create),
                MultiOp::Delete { path, version } => {
                    req.session_check.and_then(|()| self.delete(&scope, req.auth, path, version))
                }
                MultiOp::SetData { path, data, version } => {
                    req.session_check.and_then(|()| self.set_data(&scope, req.auth, path, data, version))
                }
                MultiOp::Check { path, version } => {
                    req.session_check.and_then(|()| self.check(&scope, req.auth, path, version))
                }
                MultiOp::GetData { .. } | MultiOp::GetChildren { .. } => Err(ErrorCode::UNIMPLEMENTED),
            };
            txns.push(prepared.unwrap_or_else(|code| {
                failed = true;
                Txn::Error(code)
            }));
        }
        let txn = Txn::Multi(txns);
        // ACLs of the scheme `auth` grow when they are expanded.
        let too_long = req.body.len() > RECORD_BYTES_MAX / 4 && {
            let mut encoded = Vec::with_capacity(req.body.len());
            txn.encode(&mut encoded);
            encoded.len() > RECORD_BYTES_MAX - TxnHeader::LEN - 12
        };
        self.changes.end(mark, failed || too_long);
        if too_long { Err(ErrorCode::MARSHALLING_ERROR) } else { Ok(txn) }
    }

    fn create<'a>(
        &mut self,
        scope: &Scope<'_>,
        req: &WriteRequest<'_>,
        create: CreateRequest<'a>,
    ) -> Result<Txn<'a>, ErrorCode> {
        let (kind, node, sequential) = self.create_kind(scope, &create)?;
        req.session_check?;
        let CreateRequest { path, data, acl, .. } = create;
        let Some(slash) = path.rfind('/').filter(|_| !path.contains('\0')) else {
            return Err(ErrorCode::BAD_ARGUMENTS);
        };
        let acl = match acl {
            Some(acl) if is_open(&acl) => acl,
            acl => auth::fix_acl(acl, req.auth, &self.options.providers)?,
        };
        let parent_path = if slash == 0 { "/" } else { &path[..slash] };
        let mut parent = self.changes.node(scope.tree, parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&parent, Perms::CREATE, req.auth)?;
        let path = if sequential { Cow::Owned(format!("{path}{:010}", parent.stat.cversion)) } else { path };
        if paths::validate(&path).is_err() || is_poison(&path, data) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        if self.changes.exists(scope.tree, &path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if matches!(owner::classify(parent.stat.ephemeral_owner), Owner::Session(_)) {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        self.check_quota(scope.tree, &path, 1, data.map_or(0, <[u8]>::len) as i64)?;
        if node == NodeKind::Ephemeral {
            self.check_ephemeral_bytes(scope.tree, req.session, path.len())?;
        }

        let parent_cversion = parent.stat.cversion.wrapping_add(1);
        let parent_path = paths::split(&path).map_or("/", |(parent, _)| parent);
        parent.num_children += 1;
        if parent_cversion > parent.stat.cversion {
            parent.stat.cversion = parent_cversion;
            parent.stat.pzxid = scope.zxid;
        }
        let owner = match node {
            NodeKind::Persistent => 0,
            NodeKind::Ephemeral => req.session,
            NodeKind::Container => owner::CONTAINER,
            NodeKind::Ttl(ms) => owner::ttl(ms),
        };
        self.changes.put(scope.tree, scope.zxid, parent_path, parent);
        let stat = NodeStat::created(scope.zxid, scope.time, owner);
        self.changes.put(scope.tree, scope.zxid, &path, Pending::created(&path, data, stat, &acl));
        Ok(Txn::Create { kind, path, data, acl, node, parent_cversion })
    }

    /// What a create makes, by operation and flags: transaction type, node kind, sequential or not.
    fn create_kind(
        &self,
        scope: &Scope<'_>,
        create: &CreateRequest<'_>,
    ) -> Result<(i32, NodeKind, bool), ErrorCode> {
        let mode = CreateMode::try_from(create.flags).map_err(|_| ErrorCode::BAD_ARGUMENTS)?;
        let sequential = mode.is_sequential();
        let by_flags = match mode {
            CreateMode::Ephemeral | CreateMode::EphemeralSequential => NodeKind::Ephemeral,
            _ => NodeKind::Persistent,
        };
        let ttl = matches!(mode, CreateMode::PersistentWithTtl | CreateMode::PersistentSequentialWithTtl);
        match create.op {
            OpCode::CreateTtl if ttl => {
                if !self.options.extended_types {
                    return Err(ErrorCode::UNIMPLEMENTED);
                }
                if !(1..=MAX_TTL_MS).contains(&create.ttl_ms) {
                    return Err(ErrorCode::BAD_ARGUMENTS);
                }
                Ok((kind::CREATE_TTL, NodeKind::Ttl(create.ttl_ms), sequential))
            }
            _ if ttl => Err(ErrorCode::BAD_ARGUMENTS),
            // A TTL create that is none must never become a transaction: Apache servers die of it.
            OpCode::CreateTtl if !scope.in_multi => Err(ErrorCode::BAD_ARGUMENTS),
            OpCode::CreateContainer => Ok((kind::CREATE_CONTAINER, NodeKind::Container, sequential)),
            _ if mode == CreateMode::Container && scope.in_multi => {
                Ok((kind::CREATE_CONTAINER, NodeKind::Container, false))
            }
            OpCode::Create2 => Ok((kind::CREATE2, by_flags, sequential)),
            _ => Ok((kind::CREATE, by_flags, sequential)),
        }
    }

    fn delete<'a>(
        &mut self,
        scope: &Scope<'_>,
        auth: &ConnAuth,
        path: Cow<'a, str>,
        version: i32,
    ) -> Result<Txn<'a>, ErrorCode> {
        let parent_path = deletable(&path)?;
        let parent = self.changes.node(scope.tree, parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&parent, Perms::DELETE, auth)?;
        let node = self.changes.node(scope.tree, &path).ok_or(ErrorCode::NO_NODE)?;
        check_version(version, node.stat.version)?;
        if node.num_children > 0 {
            return Err(ErrorCode::NOT_EMPTY);
        }
        self.remove(scope, parent_path, parent, &path);
        Ok(Txn::Delete { kind: kind::DELETE, path })
    }

    fn delete_container<'a>(&mut self, scope: &Scope<'_>, path: Cow<'a, str>) -> Result<Txn<'a>, ErrorCode> {
        let parent_path = deletable(&path)?;
        let node = self.changes.node(scope.tree, &path).ok_or(ErrorCode::NO_NODE)?;
        if node.num_children > 0 {
            return Err(ErrorCode::NOT_EMPTY);
        }
        if matches!(owner::classify(node.stat.ephemeral_owner), Owner::Session(_)) {
            return Err(ErrorCode::BAD_VERSION);
        }
        let parent = self.changes.node(scope.tree, parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.remove(scope, parent_path, parent, &path);
        Ok(Txn::Delete { kind: kind::DELETE_CONTAINER, path })
    }

    fn remove(&mut self, scope: &Scope<'_>, parent_path: &str, mut parent: Pending, path: &str) {
        parent.num_children -= 1;
        parent.stat.pzxid = parent.stat.pzxid.max(scope.zxid);
        self.changes.put(scope.tree, scope.zxid, parent_path, parent);
        self.changes.delete(scope.tree, scope.zxid, path);
    }

    fn set_data<'a>(
        &mut self,
        scope: &Scope<'_>,
        auth: &ConnAuth,
        path: Cow<'a, str>,
        data: Option<&'a [u8]>,
        version: i32,
    ) -> Result<Txn<'a>, ErrorCode> {
        if paths::validate(&path).is_err() || is_poison_data(&path, data) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let mut node = self.changes.node(scope.tree, &path).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&node, Perms::WRITE, auth)?;
        if self.options.enforce_quota {
            let applied = scope.tree.find(&path).and_then(|idx| scope.tree.data(idx));
            let delta = data.map_or(0, <[u8]>::len) as i64 - applied.map_or(0, <[u8]>::len) as i64;
            self.check_quota(scope.tree, &path, 0, delta)?;
        }
        check_version(version, node.stat.version)?;
        node.stat.version = node.stat.version.wrapping_add(1);
        node.stat.mzxid = scope.zxid;
        node.stat.mtime = scope.time;
        node.prefix_crc = crate::tree::digest::prefix_crc(&path, data);
        let version = node.stat.version;
        self.changes.put(scope.tree, scope.zxid, &path, node);
        Ok(Txn::SetData { kind: kind::SET_DATA, path, data, version })
    }

    fn set_acl<'a>(
        &mut self,
        scope: &Scope<'_>,
        auth: &ConnAuth,
        path: Cow<'a, str>,
        acl: Option<Vec<Acl<'a>>>,
        version: i32,
    ) -> Result<Txn<'a>, ErrorCode> {
        if paths::validate(&path).is_err() {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let acl = auth::fix_acl(acl, auth, &self.options.providers)?;
        let mut node = self.changes.node(scope.tree, &path).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&node, Perms::ADMIN, auth)?;
        check_version(version, node.stat.aversion)?;
        node.stat.aversion = node.stat.aversion.wrapping_add(1);
        node.set_acl(&acl);
        let version = node.stat.aversion;
        self.changes.put(scope.tree, scope.zxid, &path, node);
        Ok(Txn::SetAcl { path, acl, version })
    }

    fn check<'a>(
        &mut self,
        scope: &Scope<'_>,
        auth: &ConnAuth,
        path: Cow<'a, str>,
        version: i32,
    ) -> Result<Txn<'a>, ErrorCode> {
        if paths::validate(&path).is_err() {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let node = self.changes.node(scope.tree, &path).ok_or(ErrorCode::NO_NODE)?;
        self.permit(&node, Perms::READ, auth)?;
        check_version(version, node.stat.version)?;
        Ok(Txn::Check { path, version: node.stat.version.wrapping_add(1) })
    }

    /// Deletes what the session owns: applied ephemerals, less pending deletes, plus pending creates.
    fn close_session(&mut self, scope: &Scope<'_>, session: i64) -> Txn<'static> {
        let mut paths: Vec<String> = scope
            .tree
            .ephemerals(session)
            .map(|idx| scope.tree.path(idx))
            .filter(|path| !self.changes.is_pending(path))
            .collect();
        paths.extend(self.changes.pending_ephemerals(session));
        paths.sort_unstable();
        for path in &paths {
            if let Some((parent_path, _)) = paths::split(path)
                && let Some(parent) = self.changes.node(scope.tree, parent_path)
            {
                self.remove(scope, parent_path, parent, path);
            }
        }
        let named = self.options.close_session_paths;
        Txn::CloseSession { paths: named.then(|| paths.into_iter().map(Cow::Owned).collect()) }
    }

    fn permit(&self, node: &Pending, perms: Perms, auth: &ConnAuth) -> Result<(), ErrorCode> {
        match &node.acl {
            None => Ok(()),
            Some(acl) if auth::check(acl, perms, auth, &self.options.providers) => Ok(()),
            Some(_) => Err(ErrorCode::NO_AUTH),
        }
    }

    fn check_ephemeral_bytes(&self, tree: &Tree, session: i64, more: usize) -> Result<(), ErrorCode> {
        let applied = tree.ephemeral_bytes(session) + more;
        if applied < EPHEMERAL_BYTES_MAX / 2 && more < EPHEMERAL_BYTES_MAX / 4096 {
            return Ok(());
        }
        let pending: usize = self.changes.pending_ephemerals(session).iter().map(|path| path.len() + 4).sum();
        if applied + pending > EPHEMERAL_BYTES_MAX { Err(ErrorCode::QUOTA_EXCEEDED) } else { Ok(()) }
    }

    fn check_quota(&self, tree: &Tree, path: &str, count: i64, bytes: i64) -> Result<(), ErrorCode> {
        if !self.options.enforce_quota || (count == 0 && bytes == 0) {
            return Ok(());
        }
        match tree.quota(path).map(|quota| quota.check(tree, count, bytes)) {
            None | Some(QuotaCheck::Ok) => Ok(()),
            Some(QuotaCheck::Exceeded) => Err(ErrorCode::QUOTA_EXCEEDED),
            Some(QuotaCheck::Unparsable) => Err(ErrorCode::MARSHALLING_ERROR),
        }
    }
}

/// The parent of a path that may be deleted.
fn deletable(path: &str) -> Result<&str, ErrorCode> {
    let slash = path.rfind('/').filter(|_| !path.contains('\0')).ok_or(ErrorCode::BAD_ARGUMENTS)?;
    let reserved = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(&path);
    if reserved || is_poison(path, None) {
        return Err(ErrorCode::BAD_ARGUMENTS);
    }
    Ok(if slash == 0 { "/" } else { &path[..slash] })
}

fn is_poison_data(path: &str, data: Option<&[u8]>) -> bool {
    path.ends_with("/zookeeper_stats") && is_poison(path, Some(data.unwrap_or_default()))
}

/// -1 matches any version; every other number has to be equal, negative ones too.
fn check_version(expected: i32, current: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == current { Ok(()) } else { Err(ErrorCode::BAD_VERSION) }
}
