//! Targets for transactions: their encoding, and that whatever clients send becomes transactions that apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use zk_proto::jute::Reader;
use zk_proto::{ErrorCode, MultiResult, OpCode, Request, RequestHeader, Response, SessionId, Zxid};
use zk_server::replica::messages::{
    Input, IoThread, Item, ItemKind, Letter, Mail, Now, Shell, Submission, conn_id,
};
use zk_server::replica::prepare::PrepareOptions;
use zk_server::replica::{Replica, ReplicaOptions, Shared};
use zk_server::session::SessionIdGenerator;
use zk_server::storage::{Replay, SnapshotDigest, SnapshotSink};
use zk_server::tree::{Ignore, SnapshotPin, Tree, TreeLoader};
use zk_server::txn::{self, Txn};
use zk_server::watch::ConnId;

use super::{MIB, Target};
use crate::vectors::{self, Part};

/// The payload of a log record.
pub const TXN: Target = Target {
    name: "txn",
    fixed_bytes: MIB,
    seeds: || WRITES.seeds_as(|log| log.payloads),
    run: |input| {
        let Ok((header, body, digest)) = txn::decode(input) else { return };
        let mut bytes = Vec::new();
        // With a digest of the version in use: without it closeSession's list of paths is ambiguous.
        let value = digest.map_or(7, |digest| digest.value);
        let digest = txn::Digest { version: txn::DIGEST_VERSION, value };
        txn::encode(&header, &body, Some(digest), &mut bytes);
        assert_eq!(txn::decode(&bytes), Ok((header, body, Some(digest))));
    },
};

/// Requests of two sessions, as `control u8, length u16, frame` each: every one that is well formed goes to the
/// replica. Whatever it logs must apply, live and in replay, to the same tree.
pub const WRITES: Target = Target {
    name: "writes",
    // Three trees and a log.
    fixed_bytes: 8 * MIB,
    seeds: || {
        let mut connections = BTreeMap::<u64, Vec<u8>>::new();
        for e in vectors::all().into_iter().filter(|e| e.part == Part::Request) {
            let sequence = connections.entry(e.conn).or_default();
            sequence.push(FLUSH);
            sequence.extend((e.bytes.len() as u16).to_be_bytes());
            sequence.extend(e.bytes);
        }
        connections.into_values().collect()
    },
    run: |input| {
        run_writes(input);
    },
};

/// Everything logged becomes durable behind this request.
const FLUSH: u8 = 1;
/// Time passes in front of this request.
const TIME_PASSES: u8 = 2;
/// The other session sends it.
const OTHER_SESSION: u8 = 4;

/// Requests of one input; longer inputs would only take longer.
const REQUESTS_MAX: usize = 200;

impl Target {
    /// What `part` of the log each seed leads to.
    fn seeds_as(&self, part: fn(Log) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        (self.seeds)().iter().flat_map(|seed| part(run_writes(seed))).collect()
    }
}

/// A shell whose log becomes durable when it is told so.
#[derive(Default)]
pub struct Log {
    /// Payloads of the records.
    pub payloads: Vec<Vec<u8>>,
    last: Zxid,
    sessions: Vec<SessionId>,
    answered: usize,
}

impl Shell for Log {
    fn append(&mut self, records: Bytes, first: Zxid, last: Zxid) {
        assert_eq!(Some(first), self.last.next(), "a gap in the log");
        let mut rest = Reader::new(&records);
        while rest.remaining() > 0 {
            let _checksum = rest.i64().expect("a record");
            let payload = rest.buffer().expect("a payload").expect("not null").to_vec();
            assert_eq!(rest.take(1), Ok(&b"B"[..]));
            let (header, txn, digest) = txn::decode(&payload).expect("what is logged decodes");
            assert_eq!(Some(header.zxid), self.last.next());
            let mut again = Vec::new();
            txn::encode(&header, &txn, digest, &mut again);
            assert_eq!(again, payload);
            self.last = header.zxid;
            self.payloads.push(payload);
        }
        assert_eq!(self.last, last);
    }

    fn deliver(&mut self, _: IoThread, mail: &mut Mail) {
        for letter in mail.letters.drain(..) {
            match letter {
                Letter::SessionReady { session, .. } => self.sessions.push(session),
                Letter::Reply { frame, .. } => {
                    assert!(mail.bytes.get(frame.start as usize..frame.end as usize).is_some());
                    self.answered += 1;
                }
                _ => {}
            }
        }
    }

    fn snapshot(&mut self, _: Arc<SnapshotPin>) {}
}

fn run_writes(input: &[u8]) -> Log {
    let shared = Arc::new(Shared::new(Tree::new(1)));
    let options = ReplicaOptions {
        prepare: PrepareOptions {
            extended_types: true,
            enforce_quota: true,
            digest: true,
            close_session_paths: true,
            reconfig: true,
            providers: Default::default(),
        },
        tick_ms: 1000,
        snap_count: 1_000_000,
        snap_size_bytes: u64::MAX / 4,
        container_check_ms: 1000,
        container_max_per_minute: 60_000,
        container_max_never_used_ms: 0,
        session_ids: SessionIdGenerator::new(1, 1),
        seed: 1,
        io_threads: 1,
    };
    let mut now = Now { mono_ms: 0, wall_ms: 1_000_000 };
    let mut log = Log::default();
    let mut replica = Replica::new(shared.clone(), options, now);
    for slot in 0..2 {
        let item = Item { conn: conn_id(0, slot), kind: ItemKind::CreateSession { timeout_ms: 10_000 } };
        submit(&mut replica, now, &mut log, Vec::new(), item);
        flush(&mut replica, now, &mut log);
    }
    let sessions = log.sessions.clone();

    let mut submitted = 0;
    let mut rest = Reader::new(input);
    for _ in 0..REQUESTS_MAX {
        let Some((control, frame)) = next_request(&mut rest) else { break };
        if control & TIME_PASSES != 0 {
            now.mono_ms += 3000;
            now.wall_ms += 3000;
            replica.step(now, Input::Touch { thread: 0, until_ms: now.mono_ms, sessions: vec![] }, &mut log);
            replica.step(now, Input::Tick, &mut log);
        }
        let slot = u32::from(control & OTHER_SESSION != 0);
        if let Some(item) = item(conn_id(0, slot), sessions[slot as usize], frame) {
            submit(&mut replica, now, &mut log, frame.to_vec(), item);
            submitted += 1;
        }
        if control & FLUSH != 0 {
            flush(&mut replica, now, &mut log);
        }
    }
    flush(&mut replica, now, &mut log);
    assert_eq!(log.answered, submitted, "each request is answered once");
    let pin = shared.tree.write().pin();
    check(&pin, &shared.tree.read(), &log);
    log
}

fn next_request<'a>(r: &mut Reader<'a>) -> Option<(u8, &'a [u8])> {
    let &[control, high, low] = r.take(3).ok()? else { return None };
    let length = usize::from(u16::from_be_bytes([high, low])).min(r.remaining());
    Some((control, r.take(length).ok()?))
}

fn submit(replica: &mut Replica, now: Now, log: &mut Log, bytes: Vec<u8>, item: Item) {
    replica.step(now, Input::Submit(Submission { bytes, items: vec![item] }), log);
}

fn flush(replica: &mut Replica, now: Now, log: &mut Log) {
    // What is answered or swept in one step may append more.
    while replica.outstanding() > 0 {
        replica.step(now, Input::Durable(log.last), log);
    }
}

/// What an I/O thread would submit for a frame: nothing for what it cannot decode, except a multi.
fn item(conn: ConnId, session: SessionId, frame: &[u8]) -> Option<Item> {
    let mut r = Reader::new(frame);
    let header = RequestHeader::decode(&mut r).ok()?;
    let op = OpCode::from_i32(header.op)?;
    let span = r.position() as u32..frame.len() as u32;
    let decoded = Request::decode(op, &mut r);
    let (xid, body, auth) = (header.xid, span, Arc::new(Default::default()));
    let write = matches!(
        op,
        OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::DeleteContainer
            | OpCode::SetData
            | OpCode::SetAcl
            | OpCode::Multi
            | OpCode::Reconfig
            | OpCode::CloseSession
    );
    let read = !matches!(op, OpCode::Auth | OpCode::Sasl | OpCode::CreateSession | OpCode::Check);
    let kind = match (write, decoded) {
        (true, Ok(_)) => ItemKind::Write { session, xid, op, body, auth },
        (true, Err(_)) if op == OpCode::Multi => ItemKind::Write { session, xid, op, body, auth },
        (false, _) if read => ItemKind::Read { session, xid, op, body, auth },
        _ => return None,
    };
    Some(Item { conn, kind })
}

/// The tree is the one that its log gives, transaction by transaction, and the one that its snapshot gives.
fn check(pin: &SnapshotPin, tree: &Tree, log: &Log) {
    assert_eq!(tree.digest_mismatches(), 0, "a transaction did not do what it was prepared to do");
    let mut replayed = Tree::new(2);
    for payload in &log.payloads {
        let (header, txn, digest) = txn::decode(payload).expect("it did before");
        let mut reply = Vec::new();
        let code = replayed.apply(&header, &txn, digest, &mut Ignore, Some(&mut reply));
        match &txn {
            Txn::Error(error) => assert_eq!(code, *error),
            Txn::Multi(parts) => {
                let failed = parts.iter().any(|part| matches!(part, Txn::Error(_)));
                let results = Response::decode(OpCode::Multi, &mut Reader::new(&reply)).expect("results");
                let Response::Multi(results) = results else { unreachable!("a multi has results") };
                let errors = results.iter().filter(|r| matches!(r, MultiResult::Error(_))).count();
                assert_eq!(errors, if failed { parts.len() } else { 0 }, "{txn:?}");
            }
            _ => assert_eq!(code, ErrorCode::OK, "{txn:?}"),
        }
    }
    let mut loader = TreeLoader::new(3);
    loader.begin(0);
    pin.sessions.iter().for_each(|&(id, timeout_ms)| loader.session(id, timeout_ms));
    pin.acls.iter().for_each(|(id, acl)| loader.acl(*id, acl.to_vec()));
    while pin
        .next_nodes(tree, 7, |path, data, acl, stat| loader.node(path, data, acl, stat))
        .expect("a snapshot of a tree loads")
    {}
    loader.snapshot_loaded(
        pin.zxid,
        Some(SnapshotDigest { zxid: pin.zxid, version: txn::DIGEST_VERSION, digest: pin.digest as i64 }),
    );
    for (other, what) in [(&replayed, "replay"), (loader.tree(), "snapshot")] {
        assert_eq!(other.digest_mismatches(), 0, "{what}");
        assert_eq!(other.last_zxid(), tree.last_zxid(), "{what}");
        assert_eq!(other.digest(), tree.digest(), "{what}");
        assert_same_nodes(other, tree, what);
        assert_eq!(other.sessions().collect::<BTreeMap<_, _>>(), tree.sessions().collect(), "{what}");
    }
}

fn assert_same_nodes(other: &Tree, tree: &Tree, what: &str) {
    let (other, tree) = (nodes(other), nodes(tree));
    for path in other.keys().chain(tree.keys()) {
        // The statistics of quotas are counted anew when a snapshot is loaded.
        if what == "snapshot" && path.ends_with("/zookeeper_stats") {
            continue;
        }
        assert_eq!(other.get(path), tree.get(path), "{path:?} in {what}");
    }
}

type Node = (Option<Vec<u8>>, zk_proto::Stat, Vec<zk_proto::Acl<'static>>);

fn nodes(tree: &Tree) -> BTreeMap<String, Node> {
    let mut todo = vec![zk_server::tree::ROOT];
    let mut nodes = BTreeMap::new();
    while let Some(idx) = todo.pop() {
        let node = (tree.data(idx).map(<[u8]>::to_vec), tree.stat(idx), tree.acl(idx).to_vec());
        nodes.insert(tree.path(idx), node);
        todo.extend(tree.children(idx));
    }
    nodes
}
