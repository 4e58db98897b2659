//! Transactions: what the log and the wire between servers carry, and what [`crate::tree::Tree::apply`] takes.
//!
//! A payload is a header, a body and (for everything but `error`) the digest of the tree after the
//! transaction. Transactions are unconditional: every check was done when they were prepared.

use std::borrow::Cow;

use zk_proto::jute::Writer;
use zk_proto::{Acl, DecodeError, ErrorCode, Reader};

/// Digest algorithm version of a [`Digest`]: CRC-32 over path, data and persisted stat.
pub const DIGEST_VERSION: i32 = 2;

/// Type numbers of transactions; those of requests where there is one.
pub mod kind {
    #![allow(missing_docs)]
    pub const ERROR: i32 = -1;
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const SET_DATA: i32 = 5;
    pub const SET_ACL: i32 = 7;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const CREATE_SESSION: i32 = -10;
    pub const CLOSE_SESSION: i32 = -11;
}

pub use crate::storage::RecordHeader as TxnHeader;

/// How a created node lives. Taken from the transaction's type and flags, never from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Until deleted.
    Persistent,
    /// As long as the session of the header.
    Ephemeral,
    /// Until it is empty after having had children.
    Container,
    /// Until it is empty and was not modified for this many ms.
    Ttl(i64),
}

/// A transaction's body. Borrows from the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // fields are those of the format
pub enum Txn<'a> {
    /// create, create2, createContainer, createTTL. `parent_cversion` is the parent's raw cversion afterwards;
    /// -1 in logs of releases before 3.4.
    Create {
        kind: i32,
        path: Cow<'a, str>,
        data: Option<&'a [u8]>,
        acl: Vec<Acl<'a>>,
        node: NodeKind,
        parent_cversion: i32,
    },
    /// delete, deleteContainer.
    Delete { kind: i32, path: Cow<'a, str> },
    /// setData, reconfig. `version` is the new one.
    SetData { kind: i32, path: Cow<'a, str>, data: Option<&'a [u8]>, version: i32 },
    /// setACL. `version` is the new one.
    SetAcl { path: Cow<'a, str>, acl: Vec<Acl<'a>>, version: i32 },
    /// check; inside a multi only.
    Check { path: Cow<'a, str>, version: i32 },
    /// createSession.
    CreateSession { timeout_ms: i32 },
    /// closeSession. `None`: written by a release before 3.6, the tree's own list decides.
    CloseSession { paths: Option<Vec<Cow<'a, str>>> },
    /// A rejected write: changes nothing but the last zxid.
    Error(ErrorCode),
    /// A group: if any of them is an error, none is applied.
    Multi(Vec<Txn<'a>>),
}

/// Digest of the tree after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Algorithm version.
    pub version: i32,
    /// Sum of the node digests.
    pub value: u64,
}

impl<'a> Txn<'a> {
    /// Reads the body of a transaction of type `kind`.
    pub fn decode(kind: i32, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::decode_at(kind, r, true)
    }

    fn decode_at(kind: i32, r: &mut Reader<'a>, top: bool) -> Result<Self, DecodeError> {
        use self::kind::*;
        Ok(match kind {
            CREATE | CREATE2 => {
                let (path, data, acl) = (path(r)?, r.buffer()?, acl(r)?);
                let node = if r.bool()? { NodeKind::Ephemeral } else { NodeKind::Persistent };
                let parent_cversion = if r.remaining() >= 4 { r.i32()? } else { -1 };
                Txn::Create { kind, path, data, acl, node, parent_cversion }
            }
            CREATE_CONTAINER => {
                let (path, data, acl) = (path(r)?, r.buffer()?, acl(r)?);
                let parent_cversion = r.i32()?;
                Txn::Create { kind, path, data, acl, node: NodeKind::Container, parent_cversion }
            }
            CREATE_TTL => {
                let (path, data, acl) = (path(r)?, r.buffer()?, acl(r)?);
                let parent_cversion = r.i32()?;
                Txn::Create { kind, path, data, acl, node: NodeKind::Ttl(r.i64()?), parent_cversion }
            }
            DELETE | DELETE_CONTAINER => Txn::Delete { kind, path: path(r)? },
            SET_DATA | RECONFIG => {
                Txn::SetData { kind, path: path(r)?, data: r.buffer()?, version: r.i32()? }
            }
            SET_ACL => Txn::SetAcl { path: path(r)?, acl: acl(r)?, version: r.i32()? },
            CHECK => Txn::Check { path: path(r)?, version: r.i32()? },
            CREATE_SESSION => Txn::CreateSession { timeout_ms: r.i32()? },
            // Logs before 3.6 have no body; 12 bytes can be a digest only (an empty list has 4).
            CLOSE_SESSION if r.remaining() == 0 || r.remaining() == 12 && is_digest(r) => {
                Txn::CloseSession { paths: None }
            }
            CLOSE_SESSION => Txn::CloseSession { paths: r.vector(path)? },
            ERROR => Txn::Error(ErrorCode(r.i32()?)),
            MULTI if top => Txn::Multi(
                r.vector(|r| {
                    let kind = r.i32()?;
                    let body = r.buffer()?.ok_or(DecodeError::Null("sub-transaction"))?;
                    Self::decode_at(kind, &mut Reader::new(body), false)
                })?
                .unwrap_or_default(),
            ),
            _ => return Err(DecodeError::Unexpected { what: "transaction type", value: i64::from(kind) }),
        })
    }

    /// The type number.
    pub fn kind(&self) -> i32 {
        match self {
            Txn::Create { kind, .. } | Txn::Delete { kind, .. } | Txn::SetData { kind, .. } => *kind,
            Txn::SetAcl { .. } => kind::SET_ACL,
            Txn::Check { .. } => kind::CHECK,
            Txn::CreateSession { .. } => kind::CREATE_SESSION,
            Txn::CloseSession { .. } => kind::CLOSE_SESSION,
            Txn::Error(_) => kind::ERROR,
            Txn::Multi(_) => kind::MULTI,
        }
    }

    /// Appends the body.
    pub fn encode(&self, w: &mut Vec<u8>) {
        match self {
            Txn::Create { path, data, acl, node, parent_cversion, .. } => {
                w.put_str(path);
                w.put_buffer(*data);
                Acl::encode_list(Some(acl), w);
                match node {
                    NodeKind::Persistent => w.put_bool(false),
                    NodeKind::Ephemeral => w.put_bool(true),
                    NodeKind::Container | NodeKind::Ttl(_) => {}
                }
                w.put_int(*parent_cversion);
                if let NodeKind::Ttl(ttl) = node {
                    w.put_long(*ttl);
                }
            }
            Txn::Delete { path, .. } => w.put_str(path),
            Txn::SetData { path, data, version, .. } => {
                w.put_str(path);
                w.put_buffer(*data);
                w.put_int(*version);
            }
            Txn::SetAcl { path, acl, version } => {
                w.put_str(path);
                Acl::encode_list(Some(acl), w);
                w.put_int(*version);
            }
            Txn::Check { path, version } => {
                w.put_str(path);
                w.put_int(*version);
            }
            Txn::CreateSession { timeout_ms } => w.put_int(*timeout_ms),
            Txn::CloseSession { paths: None } => {}
            Txn::CloseSession { paths: Some(paths) } => {
                w.put_len(paths.len());
                paths.iter().for_each(|path| w.put_str(path));
            }
            Txn::Error(code) => w.put_int(code.0),
            Txn::Multi(txns) => {
                w.put_len(txns.len());
                for txn in txns {
                    w.put_int(txn.kind());
                    zk_proto::jute::frame(w, |w| txn.encode(w));
                }
            }
        }
    }
}

/// Decodes a whole payload. Bytes behind the digest are ignored, as Apache does.
pub fn decode(payload: &[u8]) -> Result<(TxnHeader, Txn<'_>, Option<Digest>), DecodeError> {
    let mut r = Reader::new(payload);
    let header = TxnHeader::read(&mut r)?;
    let txn = Txn::decode(header.kind, &mut r)?;
    let digest = match r.remaining() {
        0..12 => None,
        _ => Some(Digest { version: r.i32()?, value: r.i64()? as u64 }),
    };
    Ok((header, txn, digest))
}

/// Appends a whole payload.
pub fn encode(header: &TxnHeader, txn: &Txn<'_>, digest: Option<Digest>, w: &mut Vec<u8>) {
    header.encode(w);
    txn.encode(w);
    if let Some(digest) = digest {
        w.put_int(digest.version);
        w.put_long(digest.value as i64);
    }
}

fn is_digest(r: &Reader<'_>) -> bool {
    r.rest().starts_with(&DIGEST_VERSION.to_be_bytes())
}

fn path<'a>(r: &mut Reader<'a>) -> Result<Cow<'a, str>, DecodeError> {
    r.required_string("path")
}

fn acl<'a>(r: &mut Reader<'a>) -> Result<Vec<Acl<'a>>, DecodeError> {
    Ok(Acl::decode_list(r)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips() {
        let acl = vec![Acl::open()];
        let path = || Cow::Borrowed("/a");
        let create = |kind, node| Txn::Create {
            kind,
            path: path(),
            data: Some(b"x"),
            acl: acl.clone(),
            node,
            parent_cversion: 7,
        };
        let singles = vec![
            create(kind::CREATE, NodeKind::Persistent),
            create(kind::CREATE2, NodeKind::Ephemeral),
            create(kind::CREATE_CONTAINER, NodeKind::Container),
            create(kind::CREATE_TTL, NodeKind::Ttl(99)),
            Txn::Delete { kind: kind::DELETE, path: path() },
            Txn::Delete { kind: kind::DELETE_CONTAINER, path: path() },
            Txn::SetData { kind: kind::SET_DATA, path: path(), data: None, version: 3 },
            Txn::SetAcl { path: path(), acl: acl.clone(), version: 3 },
            Txn::Check { path: path(), version: 5 },
            Txn::Error(ErrorCode::NO_NODE),
        ];
        let mut all = singles.clone();
        all.push(Txn::Multi(singles));
        all.push(Txn::CreateSession { timeout_ms: 1000 });
        all.push(Txn::CloseSession { paths: Some(vec![path(), path()]) });
        all.push(Txn::CloseSession { paths: Some(vec![]) });
        all.push(Txn::CloseSession { paths: None });
        for txn in all {
            for digest in [None, Some(Digest { version: 2, value: u64::MAX })] {
                let header = TxnHeader {
                    client_id: 1,
                    cxid: 2,
                    zxid: zk_proto::Zxid(3),
                    time_ms: 4,
                    kind: txn.kind(),
                };
                let mut bytes = Vec::new();
                encode(&header, &txn, digest, &mut bytes);
                assert_eq!(decode(&bytes).unwrap(), (header, txn.clone(), digest));
            }
        }
    }

    #[test]
    fn a_multi_inside_a_multi_is_no_transaction() {
        let nested = Txn::Multi(vec![Txn::Multi(vec![])]);
        let header =
            TxnHeader { client_id: 0, cxid: 0, zxid: zk_proto::Zxid(1), time_ms: 0, kind: kind::MULTI };
        let mut bytes = Vec::new();
        encode(&header, &nested, None, &mut bytes);
        assert!(decode(&bytes).is_err());
    }
}
