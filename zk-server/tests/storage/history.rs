//! Histories to write and to find again: transactions with digests, and the tree after each.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::jute::Writer;
use zk_proto::{Acl, Zxid};
use zk_server::storage::RecordHeader;
use zk_server::storage::sim::SimDisk;
use zk_server::storage::{
    DataDirs, Fs, Recovered, RecoveryError, RecoveryOptions, Replay, SnapshotError, SnapshotName,
    SnapshotOptions, SnapshotWriter, record, recover,
};

use crate::model::{Model, Node};

/// Makes transactions one after the other and remembers what each leads to.
#[derive(Clone)]
pub struct History {
    /// The tree after each transaction; the first is that of the empty database.
    pub states: Vec<Model>,
}

impl History {
    pub fn new() -> Self {
        History { states: vec![Model::new()] }
    }

    pub fn last(&self) -> &Model {
        self.states.last().unwrap()
    }

    pub fn at(&self, zxid: Zxid) -> &Model {
        self.states.iter().find(|state| state.last_zxid == zxid).unwrap()
    }

    /// Forgets what came behind `zxid`.
    pub fn cut(&mut self, zxid: Zxid) {
        self.states.retain(|state| state.last_zxid <= zxid);
    }

    /// The next transaction, framed: a create, or every third time a change of an older node.
    pub fn next(&mut self, data: &[u8]) -> Bytes {
        self.next_at(Zxid(self.last().last_zxid.0 + 1), data)
    }

    /// As [`History::next`], with a zxid of the caller's choice.
    pub fn next_at(&mut self, zxid: Zxid, data: &[u8]) -> Bytes {
        let payload = self.payload_at(zxid, data);
        let mut out = Vec::new();
        record::frame(&mut out, |out| out.extend_from_slice(&payload));
        out.into()
    }

    /// As [`History::next_at`], not framed.
    pub fn payload_at(&mut self, zxid: Zxid, data: &[u8]) -> Vec<u8> {
        let kind = if zxid.0 % 3 == 0 { 5 } else { 1 };
        let header = RecordHeader {
            client_id: 0x100,
            cxid: zxid.0 as i32,
            zxid,
            time_ms: 1_700_000_000_000 + zxid.0,
            kind,
        };
        let mut payload = Vec::new();
        header.encode(&mut payload);
        if kind == 5 {
            payload.put_str(&format!("/n{}", zxid.0 - 1));
            payload.put_buffer(Some(data));
            payload.put_int(1);
        } else {
            payload.put_str(&format!("/n{}", zxid.0));
            payload.put_buffer(Some(data));
            Acl::encode_list(Some(&[Acl::open()]), &mut payload);
            payload.put_bool(false);
            payload.put_int(self.last().nodes[""].stat.cversion + 1);
        }
        let mut state = self.last().clone();
        state.applied.clear();
        state.apply(&header, &payload).unwrap();
        payload.put_int(2);
        payload.put_long(state.digest());
        self.states.push(state);
        payload
    }
}

/// Writes the snapshot of a tree.
pub fn write_snapshot(dirs: &DataDirs, model: &Model) -> Result<Option<SnapshotName>, SnapshotError> {
    let options = SnapshotOptions { bytes_per_second: None, ..SnapshotOptions::default() };
    let acls: Vec<(i64, Vec<Acl<'static>>)> =
        model.nodes.values().zip(1..).map(|(node, id)| (id, node.acl.clone().unwrap())).collect();
    let writer = SnapshotWriter::create(
        Arc::clone(dirs.fs()),
        dirs.data(),
        model.last_zxid,
        &options,
        model.sessions.iter().map(|(&id, &timeout)| (id, timeout)),
        acls.iter().map(|(id, acl)| (*id, &acl[..])),
    )?;
    let Some(mut writer) = writer else { return Ok(None) };
    fill(&mut writer, model)?;
    writer.finish(model.last_zxid, Some(model.digest())).map(Some)
}

/// Writes the nodes of a tree, with the ACL ids that [`write_snapshot`] gives them.
pub fn fill(writer: &mut SnapshotWriter, model: &Model) -> Result<(), SnapshotError> {
    for ((path, Node { data, stat, .. }), id) in model.nodes.iter().zip(1..) {
        writer.node(path, data.as_deref(), id, stat)?;
    }
    Ok(())
}

pub fn open(disk: &SimDisk) -> DataDirs {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    DataDirs::open(fs, Path::new("/data"), None, true).unwrap()
}

pub fn recover_from(disk: &SimDisk) -> Result<Recovered<Model>, RecoveryError> {
    recover(&open(disk), &RecoveryOptions::default(), Model::new)
}

/// Asserts that recovery gave exactly the tree that the history had at the zxid it claims.
pub fn assert_at(recovered: &Recovered<Model>, history: &History, context: &str) {
    let model = &recovered.sink;
    assert_eq!(recovered.last_zxid, model.last_zxid, "{context}");
    let expected = history.at(recovered.last_zxid);
    assert_eq!(model.nodes, expected.nodes, "{context}");
    assert_eq!(model.sessions, expected.sessions, "{context}");
    assert_eq!(model.mismatches, 0, "{context}");
}
