//! What of a frame is the same in every run.

use zk_proto::jute::Reader;
use zk_proto::{
    ConnectResponse, MultiResult, OpCode, ReplyHeader, Response, SessionId, Stat, WatcherEvent, Zxid,
};
use zk_tests::vectors::{Element, Part};

/// The contents of a frame that answers as `element` does, as text, without what differs from run to run: ids
/// and passwords of sessions, zxids, times, the order of unordered lists.
pub fn shape(element: &Element, bytes: &[u8]) -> String {
    match element.part {
        Part::ConnectResponse => connect_response(bytes),
        Part::Response => response(element, bytes),
        Part::Event => event(bytes),
        _ => format!("{bytes:02x?}"),
    }
}

fn connect_response(bytes: &[u8]) -> String {
    let mut r = Reader::new(bytes);
    let mut record = match ConnectResponse::decode(&mut r) {
        Ok(record) => record,
        Err(e) => return format!("{e}: {bytes:02x?}"),
    };
    let refused = record.session_id == SessionId::NONE;
    if !refused {
        record.session_id = SessionId(1);
        record.passwd = record.passwd.map(|passwd| &[7u8; 64][..passwd.len().min(64)]);
    }
    format!("{record:#?} and {} bytes", r.remaining())
}

fn response(element: &Element, bytes: &[u8]) -> String {
    let mut r = Reader::new(bytes);
    let mut header = match ReplyHeader::decode(&mut r) {
        Ok(header) => header,
        Err(e) => return format!("{e}: {bytes:02x?}"),
    };
    header.zxid = sign(header.zxid);
    let op = (-20..=200).filter_map(OpCode::from_i32).find(|op| op.name() == element.op);
    let Some(op) = op.filter(|_| r.remaining() > 0) else {
        return format!("{header:#?} and {} bytes", r.remaining());
    };
    match Response::decode(op, &mut r) {
        Ok(mut body) => {
            normalize(&mut body, is_about_the_root(element));
            format!("{header:#?} {body:#?} and {} bytes", r.remaining())
        }
        Err(e) => format!("{header:#?} {e}: {bytes:02x?}"),
    }
}

fn event(bytes: &[u8]) -> String {
    let mut r = Reader::new(bytes);
    let header = ReplyHeader::decode(&mut r).map(|header| ReplyHeader { zxid: sign(header.zxid), ..header });
    format!("{header:#?} {:#?} and {} bytes", WatcherEvent::decode(&mut r), r.remaining())
}

/// Negative, zero or positive.
fn sign(zxid: Zxid) -> Zxid {
    Zxid(zxid.0.signum())
}

/// The recording does not show everything that was created below the root.
fn is_about_the_root(element: &Element) -> bool {
    element.name == "kazoo.reconnect" || element.name == "getData.empty-path-is-root"
}

fn normalize(response: &mut Response<'_>, root: bool) {
    match response {
        Response::Create2 { stat, .. } | Response::Stat(stat) | Response::Data { stat, .. } => {
            normalize_stat(stat, root);
        }
        Response::Acl { acl, stat } => {
            acl.sort_by(|a, b| (a.perms.0, &a.scheme, &a.id).cmp(&(b.perms.0, &b.scheme, &b.id)));
            normalize_stat(stat, root);
        }
        Response::Paths(paths) => paths.sort(),
        Response::Children2 { children, stat } => {
            children.sort();
            normalize_stat(stat, root);
        }
        Response::Multi(results) => results.iter_mut().for_each(normalize_result),
        Response::WhoAmI(infos) => {
            infos.sort_by(|a, b| (&a.auth_scheme, &a.user).cmp(&(&b.auth_scheme, &b.user)));
        }
        _ => {}
    }
}

fn normalize_result(result: &mut MultiResult<'_>) {
    match result {
        MultiResult::Create2 { stat, .. }
        | MultiResult::SetData { stat }
        | MultiResult::GetData { stat, .. } => normalize_stat(stat, false),
        MultiResult::GetChildren { children } => children.sort(),
        _ => {}
    }
}

/// Keeps which zxids of a Stat are zero and which equal the czxid; likewise for the times that are zero.
fn normalize_stat(stat: &mut Stat, root: bool) {
    let relative = |zxid: i64, czxid: i64| if zxid == 0 { 0 } else { 1 + i64::from(zxid != czxid) };
    let czxid = stat.czxid;
    *stat = Stat {
        czxid: czxid.signum(),
        mzxid: relative(stat.mzxid, czxid),
        pzxid: relative(stat.pzxid, czxid),
        ctime: stat.ctime.signum(),
        mtime: stat.mtime.signum(),
        ephemeral_owner: i64::from(stat.ephemeral_owner != 0),
        cversion: if root { 0 } else { stat.cversion },
        num_children: if root { 0 } else { stat.num_children },
        ..*stat
    };
}
