//! The replica against a shell in memory that is durable when the test says so.

use std::collections::BTreeMap;

use zk_proto::{Acl, CreateRequest, MultiOp, Reader, Request, Response, Stat, jute::Writer};

use bytes::Bytes;

use super::messages::conn_id;
use super::*;
use crate::storage::{NodeStat, RecordHeader, Replay, SnapshotDigest, SnapshotSink, record};
use crate::tree::{SnapshotPin, TreeLoader};
use crate::txn::Txn;

#[derive(Default)]
struct FakeShell {
    log: Vec<Bytes>,
    last: Zxid,
    letters: Vec<String>,
    replies: Vec<(ConnId, i32, i64, i32, Vec<u8>)>,
    sessions: Vec<(ConnId, SessionId)>,
    pins: Vec<Arc<SnapshotPin>>,
}

impl Shell for FakeShell {
    fn append(&mut self, records: Bytes, first: Zxid, last: Zxid) {
        assert_eq!(Some(first), self.last.next(), "the log has no gaps");
        self.last = last;
        self.log.push(records);
    }

    fn deliver(&mut self, _: IoThread, mail: &mut Mail) {
        for letter in mail.letters.drain(..) {
            match letter {
                Letter::Reply { conn, frame, .. } => {
                    let bytes = &mail.bytes[frame.start as usize..frame.end as usize];
                    let mut r = Reader::new(&bytes[4..]);
                    let header = ReplyHeader::decode(&mut r).unwrap();
                    self.letters.push(format!("reply {} {} {}", slot_of(conn), header.xid, header.err.0));
                    self.replies.push((conn, header.xid, header.zxid.0, header.err.0, r.rest().to_vec()));
                }
                Letter::Event { conns, frame, .. } => {
                    let mut r = Reader::new(&frame[20..]);
                    let event = zk_proto::WatcherEvent::decode(&mut r).unwrap();
                    for conn in conns {
                        let (kind, path) = (event.kind, &event.path);
                        self.letters.push(format!("event {} {kind:?} {path}", slot_of(conn)));
                    }
                }
                Letter::SessionReady { conn, session, .. } => self.sessions.push((conn, session)),
                Letter::SessionRefused { conn } => self.letters.push(format!("refused {}", slot_of(conn))),
                Letter::Close { conn, .. } => self.letters.push(format!("close {}", slot_of(conn))),
                Letter::Released { conn } => self.letters.push(format!("released {}", slot_of(conn))),
            }
        }
    }

    fn snapshot(&mut self, pin: Arc<SnapshotPin>) {
        self.pins.push(pin);
    }
}

#[test]
fn ephemerals_without_a_session_go_by_a_transaction() {
    let mut loader = TreeLoader::new(1);
    loader.begin(0);
    let node = |owner| NodeStat { ephemeral_owner: owner, ..NodeStat::default() };
    loader.node("", None, -1, &node(0)).unwrap();
    loader.node("/orphan", None, -1, &node(77)).unwrap();
    loader.snapshot_loaded(Zxid(9), None);
    let mut scene = Scene::with_tree(loader.finish());
    for ms in [0, 1000, 2000] {
        scene.now.mono_ms = ms;
        scene.step(Input::Touch { thread: 0, until_ms: ms, sessions: vec![] });
        scene.step(Input::Tick);
    }
    assert!(scene.shared.tree.read().find("/orphan").is_some());
    scene.flush();
    assert!(scene.shared.tree.read().find("/orphan").is_none());
    assert_eq!(scene.shared.tree.read().last_zxid(), Zxid(10));
}

struct Scene {
    shared: Arc<Shared>,
    replica: Replica,
    shell: FakeShell,
    now: Now,
}

impl Scene {
    fn new() -> Self {
        Self::with_tree(Tree::new(1))
    }

    fn with_tree(tree: Tree) -> Self {
        Self::with_options(tree, |_| {})
    }

    fn with_options(tree: Tree, change: impl FnOnce(&mut ReplicaOptions)) -> Self {
        let last = tree.last_zxid();
        let shared = Arc::new(Shared::new(tree));
        let mut options = ReplicaOptions {
            prepare: PrepareOptions {
                extended_types: true,
                enforce_quota: true,
                digest: true,
                close_session_paths: true,
                reconfig: false,
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
        change(&mut options);
        let now = Now { mono_ms: 0, wall_ms: 1_000_000 };
        let replica = Replica::new(shared.clone(), options, now);
        Scene { shared, replica, shell: FakeShell { last, ..FakeShell::default() }, now }
    }

    fn step(&mut self, input: Input) {
        self.replica.step(self.now, input, &mut self.shell);
    }

    fn flush(&mut self) {
        let last = self.shell.last;
        self.step(Input::Durable(last));
    }

    fn open(&mut self, slot: u32) -> SessionId {
        let kind = ItemKind::CreateSession { timeout_ms: 10_000 };
        let item = Item { conn: conn_id(0, slot), kind };
        self.step(Input::Submit(Submission { bytes: vec![], items: vec![item] }));
        self.flush();
        self.shell.sessions.last().unwrap().1
    }

    fn send(&mut self, slot: u32, session: SessionId, xid: i32, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let (op, body, auth) = (request.op(), 0..bytes.len() as u32, Arc::new(test_auth()));
        let read = matches!(request, Request::GetData { .. } | Request::Exists { .. });
        let kind = if read {
            ItemKind::Read { session, xid, op, body, auth }
        } else {
            ItemKind::Write { session, xid, op, body, auth }
        };
        self.step(Input::Submit(Submission { bytes, items: vec![Item { conn: conn_id(0, slot), kind }] }));
    }
}

fn create<'a>(path: &'a str, flags: i32) -> CreateRequest<'a> {
    CreateRequest {
        op: OpCode::Create2,
        path: path.into(),
        data: Some(b"data"),
        acl: Some(vec![Acl::open()]),
        flags,
        ttl_ms: 0,
    }
}

fn set<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::SetData { path: path.into(), data: Some(data), version: -1 }
}

#[test]
fn a_read_between_two_writes_of_a_connection_sees_exactly_the_first() {
    let mut scene = Scene::new();
    let session = scene.open(1);
    scene.send(1, session, 1, &Request::Create(create("/a", 0)));
    scene.send(1, session, 2, &set("/a", b"one"));
    scene.send(1, session, 3, &Request::GetData { path: "/a".into(), watch: false });
    scene.send(1, session, 4, &set("/a", b"two"));
    assert!(scene.shell.replies.is_empty(), "nothing is answered before it is durable");
    scene.flush();
    let (_, xid, _, err, body) = scene.shell.replies[2].clone();
    assert_eq!((xid, err), (3, 0));
    let Response::Data { data, stat } = Response::decode(OpCode::GetData, &mut Reader::new(&body)).unwrap()
    else {
        panic!("no data")
    };
    assert_eq!((data, stat.version), (Some(&b"one"[..]), 1));
    assert_eq!(scene.shell.letters, ["reply 1 1 0", "reply 1 2 0", "reply 1 3 0", "reply 1 4 0"]);
}

#[test]
fn the_event_is_in_the_mail_before_the_reply_of_its_cause() {
    let mut scene = Scene::new();
    let (a, b) = (scene.open(1), scene.open(2));
    scene.send(1, a, 1, &Request::Exists { path: "/x".into(), watch: true });
    scene.send(2, b, 1, &Request::Create(create("/x", 0)));
    scene.flush();
    assert_eq!(scene.shell.letters, ["reply 1 1 -101", "event 1 NodeCreated /x", "reply 2 1 0"]);
}

#[test]
fn an_expired_session_takes_its_ephemerals_with_it() {
    let mut scene = Scene::new();
    let session = scene.open(1);
    scene.send(1, session, 1, &Request::Create(create("/e", 1)));
    scene.flush();
    for ms in (0..12_000).step_by(250) {
        scene.now.mono_ms = ms;
        scene.step(Input::Touch { thread: 0, until_ms: ms, sessions: vec![] });
        scene.step(Input::Tick);
        scene.flush();
        assert_eq!(scene.shared.tree.read().find("/e").is_some(), ms < 11_000, "at {ms} ms");
    }
    assert_eq!(scene.shell.letters.last().map(String::as_str), Some("close 1"));
}

#[test]
fn a_close_names_the_ephemerals_unless_that_is_switched_off() {
    for named in [true, false] {
        let mut scene =
            Scene::with_options(Tree::new(1), |options| options.prepare.close_session_paths = named);
        let session = scene.open(1);
        scene.send(1, session, 1, &Request::Create(create("/e", 1)));
        scene.send(1, session, 2, &Request::CloseSession);
        scene.flush();
        let record = scene.shell.log.last().unwrap();
        let (_, txn, digest) = txn::decode(&record[record::PREFIX..record.len() - 1]).unwrap();
        assert_eq!(txn, Txn::CloseSession { paths: named.then(|| vec!["/e".into()]) });
        let tree = scene.shared.tree.read();
        assert!(tree.find("/e").is_none());
        assert_eq!(digest.map(|digest| digest.value), Some(tree.digest()));
    }
}

#[test]
fn a_moved_session_closes_the_old_connection_and_its_writes() {
    let mut scene = Scene::new();
    let session = scene.open(1);
    let reattach = |session: SessionId, passwd| ItemKind::Reattach {
        session,
        passwd,
        passwd_ok: true,
        timeout_ms: 5000,
    };
    let good = session::password(session);
    for (slot, passwd) in [(2, [0; 16]), (3, good)] {
        let item = Item { conn: conn_id(0, slot), kind: reattach(session, passwd) };
        scene.step(Input::Submit(Submission { bytes: vec![], items: vec![item] }));
    }
    scene.send(1, session, 9, &Request::Create(create("/late", 0)));
    scene.flush();
    assert_eq!(scene.shell.letters, ["refused 2", "close 1", "close 1"]);
    assert!(scene.shared.tree.read().find("/late").is_none());
}

/// A sequence of requests that succeed and fail, some in multis, applied in irregular batches.
fn random_load(scene: &mut Scene, rounds: usize, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let sessions: Vec<_> = (0..4).map(|slot| scene.open(slot + 1)).collect();
    let mut open = sessions.clone();
    for xid in 0..rounds as i32 {
        let slot = rng.usize(..open.len());
        let session = open[slot];
        let paths: Vec<String> = (0..6)
            .map(|_| match rng.u8(..4) {
                0 => format!("/p{}", rng.u8(..4)),
                1 => format!("/p{}/c{}", rng.u8(..4), rng.u8(..4)),
                2 => format!("/p{}/c{}/d", rng.u8(..4), rng.u8(..4)),
                _ => format!("/zookeeper/n{}", rng.u8(..3)),
            })
            .collect();
        let flags = [0, 0, 1, 2, 3, 4][rng.usize(..6)];
        let version = rng.i32(-1..3);
        let op = |rng: &mut fastrand::Rng, path: &'static str| match rng.u8(..5) {
            0 | 1 => MultiOp::Create(create(path, flags)),
            2 => MultiOp::Delete { path: path.into(), version },
            3 => MultiOp::SetData { path: path.into(), data: Some(b"m"), version },
            _ => MultiOp::Check { path: path.into(), version },
        };
        let leak = |path: &String| -> &'static str { Box::leak(path.clone().into_boxed_str()) };
        let request = match rng.u8(..10) {
            0..=3 => Request::Create(create(leak(&paths[0]), flags)),
            4 | 5 => Request::Delete { path: leak(&paths[0]).into(), version: -1 },
            6 => set(leak(&paths[0]), b"x"),
            7 => Request::SetAcl { path: leak(&paths[0]).into(), acl: Some(vec![Acl::open()]), version },
            8 => Request::Multi((0..rng.usize(..5)).map(|i| op(&mut rng, leak(&paths[i]))).collect()),
            _ if rng.u8(..20) == 0 && open.len() > 1 => {
                open.remove(slot);
                Request::CloseSession
            }
            _ => Request::Multi(vec![op(&mut rng, leak(&paths[0])), op(&mut rng, leak(&paths[1]))]),
        };
        let conn = sessions.iter().position(|s| *s == session).unwrap() as u32 + 1;
        scene.send(conn, session, xid, &request);
        if rng.u8(..4) == 0 {
            scene.flush();
        }
    }
    scene.flush();
}

/// What a tree holds, as something to compare.
fn dump(tree: &Tree) -> BTreeMap<String, (Option<Vec<u8>>, Stat, usize)> {
    let mut todo = vec![crate::tree::ROOT];
    let mut out = BTreeMap::new();
    while let Some(idx) = todo.pop() {
        let data = tree.data(idx).map(<[u8]>::to_vec);
        out.insert(tree.path(idx), (data, tree.stat(idx), tree.acl(idx).len()));
        todo.extend(tree.children(idx));
    }
    out
}

fn replay(loader: &mut TreeLoader, log: &[Bytes], after: Zxid) {
    for batch in log {
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let len = i32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            let payload = &rest[record::PREFIX..record::PREFIX + len];
            let header = RecordHeader::decode(payload).unwrap();
            if header.zxid > after {
                loader.apply(&header, payload).unwrap();
            }
            rest = &rest[record::PREFIX + len + 1..];
        }
    }
}

#[test]
fn the_digest_that_prepare_foretells_is_the_one_of_the_applied_tree() {
    for seed in 0..40 {
        let mut scene = Scene::new();
        random_load(&mut scene, 300, seed);
        let tree = scene.shared.tree.read();
        assert_eq!(tree.digest_mismatches(), 0, "seed {seed}");
        let mut loader = TreeLoader::new(2);
        loader.snapshot_loaded(Zxid::ZERO, None);
        replay(&mut loader, &scene.shell.log, Zxid::ZERO);
        let replayed = loader.finish();
        assert_eq!(dump(&replayed), dump(&tree), "seed {seed}");
        assert_eq!((replayed.digest(), replayed.digest_mismatches()), (tree.digest(), 0));
    }
}

#[test]
fn a_snapshot_taken_under_load_is_the_tree_at_its_pin() {
    for seed in 0..40 {
        let mut scene = Scene::new();
        random_load(&mut scene, 150, seed);
        let (pin, before) = {
            let mut tree = scene.shared.tree.write();
            (tree.pin(), dump(&tree))
        };
        let mut loader = TreeLoader::new(3);
        loader.begin(0);
        pin.sessions.iter().for_each(|&(id, timeout)| loader.session(id, timeout));
        pin.acls.iter().for_each(|(id, acl)| loader.acl(*id, acl.to_vec()));
        let mut more = true;
        let mut round = 0;
        while more {
            more = pin
                .next_nodes(&scene.shared.tree.read(), 3, |path, data, acl, stat| {
                    loader.node(path, data, acl, stat)
                })
                .unwrap();
            round += 1;
            random_load(&mut scene, 30, seed * 1000 + round);
        }
        let digest = SnapshotDigest { zxid: pin.zxid, version: 2, digest: pin.digest as i64 };
        loader.snapshot_loaded(pin.zxid, Some(digest));
        assert_eq!(loader.tree().digest(), pin.digest, "seed {seed}");
        assert_eq!(dump(loader.tree()), before, "seed {seed}");
        replay(&mut loader, &scene.shell.log, pin.zxid);
        let (replayed, tree) = (loader.finish(), scene.shared.tree.read());
        assert_eq!(dump(&replayed), dump(&tree), "seed {seed}");
        assert_eq!(replayed.digest_mismatches(), 0, "seed {seed}");
    }
}

#[test]
fn an_undecodable_multi_takes_a_zxid_and_changes_nothing() {
    let mut scene = Scene::new();
    let session = scene.open(1);
    let mut bytes = Vec::new();
    bytes.put_int(99);
    let kind =
        ItemKind::Write { session, xid: 1, op: OpCode::Multi, body: 0..4, auth: Arc::new(test_auth()) };
    scene.step(Input::Submit(Submission { bytes, items: vec![Item { conn: conn_id(0, 1), kind }] }));
    scene.flush();
    let (_, xid, zxid, err, body) = scene.shell.replies[0].clone();
    assert_eq!((xid, zxid, err, body.len()), (1, 2, -5, 0));
}

fn test_auth() -> ConnAuth {
    #[allow(clippy::default_constructed_unit_structs)]
    ConnAuth::default()
}
