//! The parts that a snapshot file and the stream behind a SNAP packet have in common: sessions, ACL table, nodes
//! and their end.

use zk_proto::Acl;
use zk_proto::jute::Writer;

use super::NodeStat;

/// Stands where a node's path would: behind the last node and in every seal of a file.
pub(crate) const END_PATH: &[u8] = b"/";

/// Appends a session: id and timeout in ms. Their number comes first.
pub(crate) fn put_session(out: &mut Vec<u8>, id: i64, timeout_ms: i32) {
    out.put_long(id);
    out.put_int(timeout_ms);
}

/// Appends an entry of the ACL table. Their number comes first.
pub(crate) fn put_acl(out: &mut Vec<u8>, id: i64, acl: &[Acl<'_>]) {
    out.put_long(id);
    Acl::encode_list(Some(acl), out);
}

/// Appends a node. The root comes first, with the empty path; parents come before their children.
pub(crate) fn put_node(out: &mut Vec<u8>, path: &str, data: Option<&[u8]>, acl_id: i64, stat: &NodeStat) {
    assert!(path.as_bytes() != END_PATH, "the root's path is empty in a snapshot");
    out.put_str(path);
    out.put_buffer(data);
    out.put_long(acl_id);
    out.extend_from_slice(&stat.encode());
}

/// Appends what stands behind the last node.
pub(crate) fn put_end(out: &mut Vec<u8>) {
    out.put_buffer(Some(END_PATH));
}
