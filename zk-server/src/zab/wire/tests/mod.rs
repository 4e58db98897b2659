//! The wire forms against recorded ensembles of Apache servers, against each other, and against garbage.

mod arbitrary;
mod forms;
mod vectors;

use std::path::Path;

use serde_json::Value;
use zk_proto::Acl;
use zk_proto::jute::Writer;

use crate::storage::snapshot::layout;
use crate::storage::{LoadError, NodeStat, SnapshotSink};

/// One recorded message.
struct Recorded {
    name: String,
    /// Whether the dialer, who is the learner on quorum ports, sent it.
    from_dialer: bool,
    fields: Value,
    bytes: Vec<u8>,
}

/// The recorded files: names without `.json`, and messages in their order.
fn recorded() -> Vec<(String, Vec<Recorded>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/quorum");
    let mut paths = vec![dir.join("messages.json")];
    paths.extend(std::fs::read_dir(dir.join("conversations")).unwrap().map(|entry| entry.unwrap().path()));
    paths.sort();
    let files = paths.into_iter().map(|path| {
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let messages = file["messages"].as_array_mut().unwrap().iter_mut().map(|message| Recorded {
            name: message["name"].as_str().unwrap().into(),
            from_dialer: matches!(
                message["dir"].as_str().unwrap(),
                "initiator->acceptor" | "learner->leader"
            ),
            bytes: unhex(message["hex"].as_str().unwrap()),
            fields: message["fields"].take(),
        });
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), messages.collect())
    });
    files.collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().map(|c| (c as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Writes what it is given as a stream again, in the same order.
#[derive(Default)]
struct Rewriter {
    sessions: Vec<(i64, i32)>,
    acls: Vec<(i64, Vec<Acl<'static>>)>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct Node {
    path: String,
    data: Option<Vec<u8>>,
    acl_id: i64,
    stat: [u8; NodeStat::LEN],
}

impl SnapshotSink for Rewriter {
    fn begin(&mut self, _: u64) {}

    fn session(&mut self, id: i64, timeout_ms: i32) {
        self.sessions.push((id, timeout_ms));
    }

    fn acl(&mut self, id: i64, acl: Vec<Acl<'static>>) {
        self.acls.push((id, acl));
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_id: i64,
        stat: &NodeStat,
    ) -> Result<(), LoadError> {
        let (path, data) = (path.to_owned(), data.map(Into::into));
        self.nodes.push(Node { path, data, acl_id, stat: stat.encode() });
        Ok(())
    }
}

impl Rewriter {
    fn stream(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_len(self.sessions.len());
        self.sessions.iter().for_each(|(id, timeout)| layout::put_session(&mut out, *id, *timeout));
        out.put_len(self.acls.len());
        self.acls.iter().for_each(|(id, acl)| layout::put_acl(&mut out, *id, acl));
        for Node { path, data, acl_id, stat } in &self.nodes {
            layout::put_node(&mut out, path, data.as_deref(), *acl_id, &NodeStat::decode(stat));
        }
        layout::put_end(&mut out);
        out.put_buffer(Some(b"BenWasHere"));
        out
    }

    /// The nodes without what depends on the writer: order and ACL ids.
    fn nodes(&self) -> Vec<(Node, Vec<Acl<'static>>)> {
        let nodes = self.nodes.iter().map(|node| {
            let found = self.acls.iter().find(|(id, _)| *id == node.acl_id);
            let acl = found.map_or_else(|| vec![Acl::open()], |(_, acl)| acl.clone());
            (Node { acl_id: 0, ..node.clone() }, acl)
        });
        let mut nodes: Vec<_> = nodes.collect();
        nodes.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        nodes
    }
}
