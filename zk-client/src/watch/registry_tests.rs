//! The registry against a model of the server's watch tables, in both generations: up to 3.8, where a path has
//! one mode per connection, and from 3.9 on, where modes stack. Requests, replies and events travel in order,
//! with random delays.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/a/b/c", "/d"];

const STANDARD: u8 = 1;
const PERSISTENT_MODE: u8 = 2;
const RECURSIVE_MODE: u8 = 4;

/// One of the server's two watch managers.
#[derive(Default)]
struct Manager {
    modes: BTreeMap<String, u8>,
}

impl Manager {
    fn add(&mut self, path: &str, mode: u8, stacks: bool) {
        let entry = self.modes.entry(path.to_owned()).or_default();
        *entry = if stacks { *entry | mode } else { mode };
    }

    fn remove(&mut self, path: &str, modes: u8) {
        if let Some(entry) = self.modes.get_mut(path) {
            *entry &= !modes;
        }
        self.modes.retain(|_, modes| *modes != 0);
    }

    /// Whether an event is sent; uses up one-shot watches.
    fn trigger(&mut self, kind: EventType, path: &str) -> bool {
        let recursive = kind != EventType::NodeChildrenChanged;
        let mut fires = false;
        let mut at = Some(path);
        while let Some(node) = at {
            let modes = self.modes.get(node).copied().unwrap_or(0);
            fires |= recursive && modes & RECURSIVE_MODE != 0;
            fires |= node == path && modes & (STANDARD | PERSISTENT_MODE) != 0;
            at = split(node).map(|(parent, _)| parent);
        }
        self.remove(path, STANDARD);
        fires
    }
}

enum ToServer {
    Watch(Registration, Ask),
    Remove(Removal),
    Change(EventType, &'static str),
}

enum ToClient {
    Reply(Registration, Answer),
    Event(EventType, String),
}

/// What a listener must hear.
struct Expected {
    want: Want,
    path: &'static str,
    /// Whether the server has seen its request, so that changes count.
    active: bool,
    events: Vec<(EventKind, String)>,
}

struct World {
    registry: Registry,
    stacks: bool,
    data: Manager,
    child: Manager,
    nodes: Vec<&'static str>,
    to_server: VecDeque<ToServer>,
    to_client: VecDeque<ToClient>,
    expected: BTreeMap<ListenerId, Expected>,
    wakers: Vec<Waker>,
}

impl World {
    fn new(stacks: bool) -> Self {
        World {
            registry: Registry::default(),
            stacks,
            data: Manager::default(),
            child: Manager::default(),
            nodes: vec!["/"],
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            expected: BTreeMap::new(),
            wakers: Vec::new(),
        }
    }

    fn watch(&mut self, want: Want, path: &'static str) {
        let stream = matches!(want, Want::Persistent | Want::Recursive);
        let id = self.registry.listen(path.into(), Root::default(), stream);
        let (registration, ask) = self.registry.begin(want, id);
        self.to_server.push_back(ToServer::Watch(registration, ask));
        self.expected.insert(id, Expected { want, path, active: false, events: Vec::new() });
    }

    fn forget(&mut self, id: ListenerId) {
        self.expected.remove(&id);
        let removal = self.registry.forget(id);
        self.to_server.extend(removal.map(ToServer::Remove));
    }

    fn step_server(&mut self) {
        match self.to_server.pop_front() {
            None => {}
            Some(ToServer::Remove(Removal { path, kind })) => {
                let all = STANDARD | PERSISTENT_MODE | RECURSIVE_MODE;
                let one = if self.stacks { STANDARD } else { all };
                match kind {
                    WatcherType::Data => self.data.remove(&path, one),
                    WatcherType::Children => self.child.remove(&path, one),
                    WatcherType::Any => {
                        self.data.remove(&path, all);
                        self.child.remove(&path, all);
                    }
                    other => panic!("older servers do not know {other:?}"),
                }
            }
            Some(ToServer::Watch(registration, ask)) => self.serve(registration, ask),
            Some(ToServer::Change(kind, path)) => self.change(kind, path),
        }
    }

    fn serve(&mut self, registration: Registration, ask: Ask) {
        let path = registration.path.clone();
        let exists = self.nodes.iter().any(|&node| node == &*path);
        let answer = match registration.want {
            Want::Data | Want::Child if !exists => Answer::Failed,
            Want::Exists if !exists => Answer::NoNode,
            _ => Answer::Ok,
        };
        if answer != Answer::Failed {
            match (ask, registration.want) {
                (Ask::Nothing, _) => {}
                (Ask::OneShot, Want::Child) => self.child.add(&path, STANDARD, self.stacks),
                (Ask::OneShot, _) => self.data.add(&path, STANDARD, self.stacks),
                (Ask::Add { recursive }, _) => {
                    let mode = if recursive { RECURSIVE_MODE } else { PERSISTENT_MODE };
                    self.data.add(&path, mode, self.stacks);
                    self.child.add(&path, mode, self.stacks);
                }
            }
            if let Some(expected) = self.expected.get_mut(&registration.listener) {
                expected.active = true;
            }
        }
        self.to_client.push_back(ToClient::Reply(registration, answer));
    }

    /// Applies a change, if it is possible, and tells whom it concerns.
    fn change(&mut self, kind: EventType, path: &'static str) {
        let exists = self.nodes.contains(&path);
        let parent = split(path).map(|(parent, _)| parent);
        let has_children = self.nodes.iter().any(|node| split(node).is_some_and(|(p, _)| p == path));
        let possible = match kind {
            EventType::NodeCreated => !exists && parent.is_none_or(|parent| self.nodes.contains(&parent)),
            EventType::NodeDeleted => exists && !has_children && path != "/",
            _ => exists,
        };
        if !possible {
            return;
        }
        let mut fires = self.data.trigger(kind, path);
        match kind {
            EventType::NodeCreated => self.nodes.push(path),
            EventType::NodeDeleted => {
                self.nodes.retain(|&node| node != path);
                fires |= self.child.trigger(kind, path);
            }
            _ => {}
        }
        if fires {
            self.to_client.push_back(ToClient::Event(kind, path.to_owned()));
        }
        self.expect(kind, path);
        if let Some(parent) = parent.filter(|_| kind != EventType::NodeDataChanged) {
            if self.child.trigger(EventType::NodeChildrenChanged, parent) {
                self.to_client.push_back(ToClient::Event(EventType::NodeChildrenChanged, parent.to_owned()));
            }
            self.expect(EventType::NodeChildrenChanged, parent);
        }
    }

    fn expect(&mut self, kind: EventType, path: &str) {
        use EventType::*;
        for expected in self.expected.values_mut().filter(|expected| expected.active) {
            let here = expected.path == path;
            let concerns = match (expected.want, kind) {
                (Want::Data | Want::Exists, NodeCreated | NodeDataChanged | NodeDeleted) => here,
                (Want::Child, NodeChildrenChanged | NodeDeleted) => here,
                (Want::Persistent, _) => here,
                (Want::Recursive, NodeCreated | NodeDataChanged | NodeDeleted) => {
                    here || expected.path == "/" || path.starts_with(&format!("{}/", expected.path))
                }
                _ => false,
            };
            if concerns {
                expected.events.push((kind.into(), path.to_owned()));
                expected.active = matches!(expected.want, Want::Persistent | Want::Recursive);
            }
        }
    }

    fn step_client(&mut self) {
        match self.to_client.pop_front() {
            None => {}
            Some(ToClient::Event(kind, path)) => {
                self.registry.event(kind, &path, Zxid(1), &mut self.wakers);
            }
            Some(ToClient::Reply(registration, answer)) => {
                let removal = self.registry.complete(registration, answer, &mut self.wakers);
                self.to_server.extend(removal.map(ToServer::Remove));
            }
        }
    }

    fn settle(&mut self) {
        while !(self.to_server.is_empty() && self.to_client.is_empty()) {
            self.step_server();
            self.step_client();
        }
    }

    fn heard(&mut self, id: ListenerId) -> Vec<(EventKind, String)> {
        let mut cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match self.registry.poll(id, &mut cx) {
            Poll::Ready(event) => event.map(|event| (event.kind, event.path)),
            Poll::Pending => None,
        })
        .collect()
    }

    /// Everyone has heard what concerns them, no more and no less.
    fn check(&mut self, what: &str) {
        self.settle();
        let ids: Vec<ListenerId> = self.expected.keys().copied().collect();
        for id in ids {
            let heard = self.heard(id);
            let expected = self.expected.get_mut(&id).expect("listed");
            let should = std::mem::take(&mut expected.events);
            assert_eq!(heard, should, "{what}: {:?} {}", expected.want, expected.path);
        }
    }

    /// A new connection, on which the server starts with what the client sets again.
    fn reconnect(&mut self) {
        (self.data, self.child) = (Manager::default(), Manager::default());
        let rearm = self.registry.rearm(SessionId(1), &mut self.wakers);
        for path in rearm.data.iter().chain(&rearm.exist) {
            self.data.add(path, STANDARD, self.stacks);
        }
        rearm.child.iter().for_each(|path| self.child.add(path, STANDARD, self.stacks));
        for (paths, mode) in [(&rearm.persistent, PERSISTENT_MODE), (&rearm.recursive, RECURSIVE_MODE)] {
            for path in paths {
                self.data.add(path, mode, self.stacks);
                self.child.add(path, mode, self.stacks);
            }
        }
        let ids: Vec<ListenerId> = self.expected.keys().copied().collect();
        for id in ids {
            let heard = self.heard(id);
            let expected = self.expected.get_mut(&id).expect("listed");
            let resync = [(EventKind::Resync, expected.path.to_owned())];
            match expected.want {
                Want::Persistent | Want::Recursive => assert_eq!(heard, resync),
                // Used up if it was covered; still waiting if it was not.
                _ if heard.is_empty() => {}
                _ => {
                    assert_eq!(heard, resync);
                    expected.active = false;
                }
            }
        }
    }
}

fn run(seed: u64, stacks: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(stacks);
    let what = format!("seed {seed}, stacking modes: {stacks}");
    for _ in 0..120 {
        let path = PATHS[random.usize(..PATHS.len())];
        match random.u32(..12) {
            0 => world.watch(Want::Data, path),
            1 => world.watch(Want::Exists, path),
            2 => world.watch(Want::Child, path),
            3 => world.watch(Want::Persistent, path),
            4 => world.watch(Want::Recursive, path),
            5 => {
                if let Some(&id) = random.choice(world.expected.keys().collect::<Vec<_>>()) {
                    world.forget(id);
                }
            }
            6 => world.to_server.push_back(ToServer::Change(EventType::NodeDeleted, path)),
            7 => world.to_server.push_back(ToServer::Change(EventType::NodeDataChanged, path)),
            8 => world.to_server.push_back(ToServer::Change(EventType::NodeCreated, path)),
            9 => world.step_server(),
            10 => world.step_client(),
            _ if random.u32(..8) == 0 => {
                world.check(&what);
                world.reconnect();
            }
            _ => {}
        }
    }
    world.check(&what);
    let ids: Vec<ListenerId> = world.expected.keys().copied().collect();
    ids.into_iter().for_each(|id| world.forget(id));
    world.settle();
    assert!(world.data.modes.is_empty() && world.child.modes.is_empty(), "{what}: watches stay behind");
    assert!(world.registry.paths.is_empty() && world.registry.listeners.is_empty(), "{what}");
}

#[test]
fn everyone_hears_what_concerns_them() {
    for seed in 0..1000 {
        run(seed, false);
        run(seed, true);
    }
}

#[test]
fn the_end_of_the_session_reaches_everyone() {
    let mut world = World::new(true);
    for want in [Want::Data, Want::Child, Want::Persistent, Want::Recursive] {
        world.watch(want, "/");
    }
    world.settle();
    world.registry.session_lost(&mut world.wakers);
    let ids: Vec<ListenerId> = world.expected.keys().copied().collect();
    for &id in &ids {
        assert_eq!(world.heard(id), [(EventKind::SessionLost, "/".to_owned())]);
    }
    let rearm = world.registry.rearm(SessionId(2), &mut world.wakers);
    assert_eq!(rearm.recursive.len() + rearm.persistent.len() + rearm.data.len() + rearm.child.len(), 1);
    assert_eq!(world.heard(ids[3]), [(EventKind::Resync, "/".to_owned())]);
    world.registry.closed(&mut world.wakers);
    assert_eq!(
        world.heard(ids[2]),
        [(EventKind::Resync, "/".to_owned()), (EventKind::Closed, "/".to_owned())]
    );
}
