//! Applying transactions. The same rules serve live transactions, the log at start and what a leader sends:
//! idempotent where a snapshot may already hold the effect.

use zk_proto::jute::Writer;
use zk_proto::{Acl, ErrorCode, MultiResult, path};

use super::node::{NodeIdx, NodeStat};
use super::{Tree, acl, digest, owner};
use crate::txn::{DIGEST_VERSION, Digest, NodeKind, Txn, TxnHeader, kind};

/// Told of every change to a node while a transaction is applied, in order; collects watch events.
pub trait Observer {
    /// A node was created (and is linked).
    fn created(&mut self, tree: &Tree, idx: NodeIdx, path: &str);
    /// A node is about to be deleted (and still linked).
    fn deleted(&mut self, tree: &Tree, idx: NodeIdx, path: &str);
    /// A node's data was replaced.
    fn data_changed(&mut self, tree: &Tree, idx: NodeIdx, path: &str);
}

/// Observes nothing: for replay.
#[derive(Debug, Clone, Copy)]
pub struct Ignore;

impl Observer for Ignore {
    fn created(&mut self, _: &Tree, _: NodeIdx, _: &str) {}
    fn deleted(&mut self, _: &Tree, _: NodeIdx, _: &str) {}
    fn data_changed(&mut self, _: &Tree, _: NodeIdx, _: &str) {}
}

impl Tree {
    /// Applies one transaction. `reply`, if given, gets the body of the reply to the request behind it. Returns
    /// the error code of that reply; outside of replay that is the code of an error transaction, or OK.
    pub fn apply(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        digest: Option<Digest>,
        observer: &mut impl Observer,
        reply: Option<&mut Vec<u8>>,
    ) -> ErrorCode {
        let code = self.apply_body(header, txn, observer, reply);
        self.last_zxid = self.last_zxid.max(header.zxid);
        self.record_digest();
        if let Some(digest) = digest
            && digest.version == DIGEST_VERSION
            && digest.value != self.digest
        {
            self.digest_mismatches += 1;
            if self.digest_mismatches == 1 {
                tracing::error!(
                    zxid = %header.zxid,
                    kind = header.kind,
                    recorded = digest.value,
                    computed = self.digest,
                    "tree digest mismatch: this tree is not the one that the transaction was made for"
                );
            }
        }
        code
    }

    fn apply_body(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        observer: &mut impl Observer,
        reply: Option<&mut Vec<u8>>,
    ) -> ErrorCode {
        match txn {
            Txn::Error(code) => *code,
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.client_id, *timeout_ms);
                ErrorCode::OK
            }
            Txn::CloseSession { paths } => {
                let listed = paths.iter().flatten().map(|path| path.as_ref());
                self.close_session(header, listed, observer);
                ErrorCode::OK
            }
            Txn::Multi(txns) => {
                self.apply_multi(header, txns, observer, reply);
                ErrorCode::OK
            }
            single => match self.apply_single(header, single, observer) {
                Ok(idx) => {
                    if let Some(reply) = reply {
                        self.write_reply(single, idx, reply);
                    }
                    ErrorCode::OK
                }
                Err(code) => code,
            },
        }
    }

    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        txns: &[Txn<'_>],
        observer: &mut impl Observer,
        reply: Option<&mut Vec<u8>>,
    ) {
        let mut scratch = Vec::new();
        let results = reply.unwrap_or(&mut scratch);
        let failed = txns.iter().any(|txn| matches!(txn, Txn::Error(_)));
        for txn in txns {
            if failed {
                let code = if let Txn::Error(code) = txn { *code } else { ErrorCode::OK };
                MultiResult::Error(code).encode(results);
                continue;
            }
            match self.apply_single(header, txn, observer) {
                Err(code) => MultiResult::Error(code).encode(results),
                Ok(idx) => self.multi_result(txn, idx).encode(results),
            }
        }
        MultiResult::encode_end(results);
    }

    fn multi_result<'a>(&self, txn: &'a Txn<'_>, idx: NodeIdx) -> MultiResult<'a> {
        match txn {
            Txn::Create { kind: kind::CREATE, path, .. } => {
                MultiResult::Create { path: path.as_ref().into() }
            }
            Txn::Create { path, .. } => {
                MultiResult::Create2 { path: path.as_ref().into(), stat: self.stat(idx) }
            }
            Txn::SetData { .. } | Txn::SetAcl { .. } => MultiResult::SetData { stat: self.stat(idx) },
            Txn::Check { .. } => MultiResult::Check,
            _ => MultiResult::Delete,
        }
    }

    fn write_reply(&self, txn: &Txn<'_>, idx: NodeIdx, reply: &mut Vec<u8>) {
        match txn {
            Txn::Create { kind, path, .. } => {
                reply.put_str(path);
                if *kind != kind::CREATE {
                    self.stat(idx).encode(reply);
                }
            }
            Txn::SetData { kind: kind::RECONFIG, .. } => {
                reply.put_buffer(self.data(idx));
                self.stat(idx).encode(reply);
            }
            Txn::SetData { .. } | Txn::SetAcl { .. } => self.stat(idx).encode(reply),
            _ => {}
        }
    }

    /// Applies a transaction that touches one node. Returns its slot (that of the parent for a delete).
    fn apply_single(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        observer: &mut impl Observer,
    ) -> Result<NodeIdx, ErrorCode> {
        match txn {
            Txn::Create { path, data, acl, node, parent_cversion, .. } => {
                self.create(header, path, *data, acl, *node, *parent_cversion, observer)
            }
            Txn::Delete { path, .. } => self.delete(header.zxid.0, path, observer),
            Txn::SetData { path, data, version, .. } => {
                self.set_data(header, path, *data, *version, observer)
            }
            Txn::SetAcl { path, acl, version } => {
                let idx = self.find(path).ok_or(ErrorCode::NO_NODE)?;
                self.save_for_snapshots(idx);
                self.replace_acl(idx, acl);
                self.update_stat(idx, digest::counts(path), |stat| stat.aversion = *version);
                Ok(idx)
            }
            Txn::Check { path, .. } => self.find(path).ok_or(ErrorCode::NO_NODE),
            Txn::Error(code) => Err(*code),
            Txn::CreateSession { .. } | Txn::CloseSession { .. } | Txn::Multi(_) => {
                Err(ErrorCode::UNIMPLEMENTED)
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of the transaction
    fn create(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl<'_>],
        node: NodeKind,
        parent_cversion: i32,
        observer: &mut impl Observer,
    ) -> Result<NodeIdx, ErrorCode> {
        let (parent_path, name) = path::split(path).ok_or(ErrorCode::NO_NODE)?;
        let parent = self.find(parent_path).ok_or(ErrorCode::NO_NODE)?;
        let existing = self.child(parent, name);
        let mut raw = self.slab.stat(parent);
        let new_cversion = if parent_cversion == -1 { raw.cversion.wrapping_add(1) } else { parent_cversion };
        // A snapshot may already have a later create's counter (ZOOKEEPER-3249).
        if new_cversion > raw.cversion {
            self.save_for_snapshots(parent);
            self.update_stat(parent, digest::counts(parent_path), |stat| {
                stat.cversion = new_cversion;
                stat.pzxid = header.zxid.0.max(stat.pzxid);
                raw = *stat;
            });
        }
        if let Some(existing) = existing {
            // The snapshot's ACL table may lack the list (ZOOKEEPER-4846).
            self.save_for_snapshots(existing);
            self.replace_acl(existing, acl);
            return Err(ErrorCode::NODE_EXISTS);
        }
        let owner = match node {
            NodeKind::Persistent => 0,
            NodeKind::Ephemeral => header.client_id,
            NodeKind::Container => owner::CONTAINER,
            NodeKind::Ttl(ms) if (1..=zk_proto::MAX_TTL_MS).contains(&ms) => owner::ttl(ms),
            NodeKind::Ttl(ms) => {
                tracing::error!(
                    zxid = %header.zxid,
                    ttl_ms = ms,
                    "TTL out of range in a transaction: the node lives for ever"
                );
                0
            }
        };
        let acl = self.acls.acquire(acl);
        let stat = NodeStat::created(header.zxid.0, header.time_ms, owner);
        let idx = self.add(path, Some(parent), data, &stat, acl);
        self.quota_created(idx, path);
        observer.created(self, idx, path);
        Ok(idx)
    }

    fn delete(&mut self, zxid: i64, path: &str, observer: &mut impl Observer) -> Result<NodeIdx, ErrorCode> {
        let (parent_path, name) = path::split(path).ok_or(ErrorCode::NO_NODE)?;
        let parent = self.find(parent_path).ok_or(ErrorCode::NO_NODE)?;
        let child = self.child(parent, name);
        if let Some(idx) = child {
            // Cannot happen with prepared transactions; a fuzzy snapshot replays the children's deletes first.
            if self.slab.num_children(idx) > 0 {
                return Err(ErrorCode::NOT_EMPTY);
            }
            observer.deleted(self, idx, path);
            self.save_for_snapshots(idx);
            self.quota_deleted(idx, path);
            self.take(idx, path);
        }
        self.save_for_snapshots(parent);
        self.update_stat(parent, digest::counts(parent_path), |stat| stat.pzxid = stat.pzxid.max(zxid));
        child.map(|_| parent).ok_or(ErrorCode::NO_NODE)
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        observer: &mut impl Observer,
    ) -> Result<NodeIdx, ErrorCode> {
        let idx = self.find(path).ok_or(ErrorCode::NO_NODE)?;
        self.save_for_snapshots(idx);
        let counts = digest::counts(path);
        let mut stat = self.slab.stat(idx);
        let old_len = self.slab.data(idx).map_or(0, <[u8]>::len);
        let new_len = data.map_or(0, <[u8]>::len);
        if counts {
            let old = digest::node_digest(self.slab.prefix_crc(idx), &stat);
            self.digest = self.digest.wrapping_sub(old);
        }
        stat.mzxid = header.zxid.0;
        stat.mtime = header.time_ms;
        stat.version = version;
        let crc = digest::prefix_crc(path, data);
        self.slab.set_data(idx, data, crc);
        self.slab.set_stat(idx, &stat);
        if counts {
            self.digest = self.digest.wrapping_add(digest::node_digest(crc, &stat));
        }
        self.bytes = self.bytes - old_len as u64 + new_len as u64;
        self.quota_changed(path, new_len as i64 - old_len as i64);
        observer.data_changed(self, idx, path);
        Ok(idx)
    }

    fn close_session<'p>(
        &mut self,
        header: &TxnHeader,
        listed: impl Iterator<Item = &'p str>,
        observer: &mut impl Observer,
    ) {
        for path in listed {
            // Missing: the snapshot has the delete already.
            let _ = self.delete(header.zxid.0, path, observer);
        }
        let left: Vec<_> = self.ephemerals(header.client_id).collect();
        for idx in left {
            let path = self.path(idx);
            let _ = self.delete(header.zxid.0, &path, observer);
        }
        self.sessions.remove(&header.client_id);
    }

    fn replace_acl(&mut self, idx: NodeIdx, acl: &[Acl<'_>]) {
        let new = self.acls.acquire(acl);
        let old = self.slab.set_acl(idx, new);
        self.acls.release(old);
        debug_assert!(new != acl::OPEN || self.is_open(idx));
    }
}
