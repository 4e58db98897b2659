//! A tree as simple as can be, to check recovery against: full paths in one map, the digest summed anew for
//! every transaction. It knows nothing of the server's tree.

use std::collections::BTreeMap;

use zk_proto::jute::{DecodeError, Reader};
use zk_proto::{Acl, Zxid};
use zk_server::storage::{
    LoadError, NodeStat, RecordHeader, Replay, ReplayError, SnapshotDigest, SnapshotSink,
};

pub const CONTAINER_OWNER: i64 = i64::MIN;
pub const OPEN_ACL_ID: i64 = -1;

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    /// `None`: the snapshot did not list the id.
    pub acl: Option<Vec<Acl<'static>>>,
    pub stat: NodeStat,
}

/// The database: nodes by path (the root's is empty), sessions by id.
#[derive(Debug, Clone)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    pub sessions: BTreeMap<i64, i32>,
    pub last_zxid: Zxid,
    acls: BTreeMap<i64, Vec<Acl<'static>>>,
    /// The digest section of the snapshot, until replay reaches it.
    awaited: Option<SnapshotDigest>,
    pub comparing: bool,
    pub mismatches: u32,
    pub applied: Vec<Zxid>,
}

impl Model {
    /// A new database.
    pub fn new() -> Self {
        let mut model = Model {
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_zxid: Zxid::ZERO,
            acls: BTreeMap::new(),
            awaited: None,
            comparing: true,
            mismatches: 0,
            applied: Vec::new(),
        };
        for path in ["", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            // Only the administrator changes the configuration; setting its ACL left this version.
            let config = path.ends_with("config");
            let acl = Some(vec![if config { Acl::read_only() } else { Acl::open() }]);
            let stat = NodeStat { aversion: if config { -1 } else { 0 }, ..NodeStat::default() };
            model.nodes.insert(path.into(), Node { data: Some(Vec::new()), acl, stat });
        }
        model
    }

    /// The digest of version 2.
    pub fn digest(&self) -> i64 {
        let counted = self.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper/"));
        counted.fold(0i64, |sum, (path, node)| sum.wrapping_add(node_digest(path, node)))
    }

    pub fn children(&self, path: &str) -> i32 {
        let prefix = format!("{path}/");
        let below = self.nodes.range(prefix.clone()..).take_while(|(p, _)| p.starts_with(&prefix));
        below.filter(|(p, _)| !p[prefix.len()..].contains('/')).count() as i32
    }

    fn txn(&mut self, header: &RecordHeader, kind: i32, body: &mut Reader<'_>) -> Result<(), ReplayError> {
        match kind {
            -1 => drop(body.i32()?),
            -10 => drop(self.sessions.insert(header.client_id, body.i32()?)),
            -11 => self.close_session(header, body)?,
            1 | 15 | 19 | 21 => self.create(header, kind, body)?,
            2 | 20 => {
                let path = string(body)?;
                self.delete(&path, header.zxid);
            }
            5 | 16 => {
                let (path, data, version) = (string(body)?, body.buffer()?, body.i32()?);
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.data = data.map(Into::into);
                    node.stat =
                        NodeStat { mzxid: header.zxid.0, mtime: header.time_ms, version, ..node.stat };
                }
            }
            7 => {
                let (path, acl, version) = (string(body)?, acl(body)?, body.i32()?);
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.acl = Some(acl);
                    node.stat.aversion = version;
                }
            }
            13 => drop((string(body)?, body.i32()?)),
            14 => {
                let subs = body.vector(|r| Ok((r.i32()?, r.buffer()?.unwrap_or_default())))?;
                let subs = subs.unwrap_or_default();
                if subs.iter().all(|(kind, _)| *kind != -1) {
                    for (kind, sub) in subs {
                        self.txn(header, kind, &mut Reader::new(sub))?;
                    }
                }
            }
            unknown => return Err(ReplayError::UnknownType(unknown)),
        }
        Ok(())
    }

    fn create(&mut self, header: &RecordHeader, kind: i32, body: &mut Reader<'_>) -> Result<(), ReplayError> {
        let (path, data, acl) = (string(body)?, body.buffer()?.map(<[u8]>::to_vec), acl(body)?);
        let ephemeral = matches!(kind, 1 | 15) && body.bool()?;
        let parent_cversion = if body.remaining() > 0 { body.i32()? } else { -1 };
        let ephemeral_owner = match kind {
            19 => CONTAINER_OWNER,
            21 => body.i64()? | 0xff << 56,
            _ if ephemeral => header.client_id,
            _ => 0,
        };
        let Some(parent) = self.nodes.get_mut(parent(&path)) else { return Ok(()) };
        let cversion = if parent_cversion == -1 { parent.stat.cversion + 1 } else { parent_cversion };
        if cversion > parent.stat.cversion {
            parent.stat.cversion = cversion;
            parent.stat.pzxid = header.zxid.0;
        }
        let (zxid, time) = (header.zxid.0, header.time_ms);
        let stat = NodeStat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            ephemeral_owner,
            ..NodeStat::default()
        };
        match self.nodes.entry(path) {
            std::collections::btree_map::Entry::Occupied(mut node) => node.get_mut().acl = Some(acl),
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(Node { data, acl: Some(acl), stat });
            }
        }
        Ok(())
    }

    fn delete(&mut self, path: &str, zxid: Zxid) {
        if let Some(parent) = self.nodes.get_mut(parent(path)) {
            parent.stat.pzxid = parent.stat.pzxid.max(zxid.0);
            self.nodes.remove(path);
        }
    }

    fn close_session(&mut self, header: &RecordHeader, body: &mut Reader<'_>) -> Result<(), ReplayError> {
        // A body is there since 3.6; without it and without digest nothing is.
        if body.remaining() > 0 {
            for path in body.vector(|r| r.required_string("path"))?.unwrap_or_default() {
                self.delete(&path, header.zxid);
            }
        }
        self.sessions.remove(&header.client_id);
        let owned = |(path, node): (&String, &Node)| {
            (node.stat.ephemeral_owner == header.client_id).then(|| path.clone())
        };
        for path in self.nodes.iter().filter_map(owned).collect::<Vec<_>>() {
            self.delete(&path, header.zxid);
        }
        Ok(())
    }

    fn compare(&mut self, zxid: Zxid, body: &mut Reader<'_>) -> Result<(), ReplayError> {
        if let Some(awaited) = self.awaited {
            if zxid > awaited.zxid {
                self.awaited = None;
            }
            if zxid == awaited.zxid {
                self.awaited = None;
                self.comparing = true;
                self.mismatches += u32::from(awaited.digest != self.digest());
            }
        }
        if body.remaining() >= 12 {
            let (version, digest) = (body.i32()?, body.i64()?);
            if self.comparing && version == 2 {
                self.mismatches += u32::from(digest != self.digest());
            }
        }
        Ok(())
    }
}

impl SnapshotSink for Model {
    fn begin(&mut self, size_hint_bytes: u64) {
        assert!(size_hint_bytes > 0);
        self.nodes.clear();
    }

    fn session(&mut self, id: i64, timeout_ms: i32) {
        self.sessions.insert(id, timeout_ms);
    }

    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>) {
        self.acls.insert(id, acl);
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_id: i64,
        stat: &NodeStat,
    ) -> Result<(), LoadError> {
        if !path.is_empty() && !self.nodes.contains_key(parent(path)) {
            return Err(LoadError::MissingParent(path.to_owned()));
        }
        let acl =
            if acl_id == OPEN_ACL_ID { Some(vec![Acl::open()]) } else { self.acls.get(&acl_id).cloned() };
        self.nodes.insert(path.to_owned(), Node { data: data.map(Into::into), acl, stat: *stat });
        Ok(())
    }
}

impl Replay for Model {
    fn snapshot_loaded(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        self.last_zxid = zxid;
        if let Some(digest) = digest.filter(|d| d.zxid >= zxid && d.version == 2) {
            if digest.zxid == zxid {
                self.mismatches += u32::from(digest.digest != self.digest());
            } else {
                self.awaited = Some(digest);
                self.comparing = false;
            }
        }
    }

    fn apply(&mut self, header: &RecordHeader, payload: &[u8]) -> Result<(), ReplayError> {
        assert!(header.zxid > self.last_zxid, "{} behind {}", header.zxid, self.last_zxid);
        let mut body = Reader::new(payload);
        assert_eq!(RecordHeader::read(&mut body)?, *header);
        self.txn(header, header.kind, &mut body)?;
        self.last_zxid = header.zxid;
        self.applied.push(header.zxid);
        self.compare(header.zxid, &mut body)
    }
}

fn node_digest(path: &str, node: &Node) -> i64 {
    let stat = &node.stat;
    let mut crc = crc32fast::Hasher::new();
    crc.update(path.as_bytes());
    crc.update(node.data.as_deref().unwrap_or_default());
    for long in [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime] {
        crc.update(&long.to_be_bytes());
    }
    for int in [stat.version, stat.cversion, stat.aversion] {
        crc.update(&int.to_be_bytes());
    }
    crc.update(&stat.ephemeral_owner.to_be_bytes());
    i64::from(crc.finalize())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn string(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    r.required_string("path").map(Into::into)
}

fn acl(r: &mut Reader<'_>) -> Result<Vec<Acl<'static>>, DecodeError> {
    let list = Acl::decode_list(r)?.unwrap_or_default();
    Ok(list.into_iter().map(Acl::into_owned).collect())
}
