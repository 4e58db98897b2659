//! Random operations against a literal model: two tables, path -> connection -> modes, as Apache keeps them.

use std::collections::{BTreeMap, BTreeSet};

use zk_proto::WatcherType;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Standard,
    Persistent,
    Recursive,
}

type Table = BTreeMap<String, BTreeMap<u32, BTreeSet<Mode>>>;

#[derive(Default)]
struct Model {
    data: Table,
    child: Table,
}

/// `path` and all paths above it, the root last.
fn self_and_above(path: &str) -> Vec<&str> {
    let mut all = vec![path];
    let mut rest = path;
    while rest != "/" {
        rest = match rest.rfind('/') {
            Some(0) | None => "/",
            Some(end) => &rest[..end],
        };
        all.push(rest);
    }
    all
}

fn trigger(table: &mut Table, path: &str, minus: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut told = BTreeSet::new();
    for place in self_and_above(path) {
        let Some(conns) = table.get_mut(place) else { continue };
        for (conn, modes) in conns.iter_mut() {
            if place == path {
                told.insert(*conn);
                modes.remove(&Mode::Standard);
            } else if modes.contains(&Mode::Recursive) {
                told.insert(*conn);
            }
        }
        conns.retain(|_, modes| !modes.is_empty());
    }
    table.retain(|_, conns| !conns.is_empty());
    told.retain(|conn| !minus.contains(conn));
    told
}

fn remove(table: &mut Table, path: &str, conn: u32, mode: Option<Mode>) -> bool {
    let Some(modes) = table.get_mut(path).and_then(|conns| conns.get_mut(&conn)) else { return false };
    let before = modes.len();
    match mode {
        Some(mode) => drop(modes.remove(&mode)),
        None => modes.clear(),
    }
    let removed = modes.len() < before;
    table.values_mut().for_each(|conns| conns.retain(|_, modes| !modes.is_empty()));
    table.retain(|_, conns| !conns.is_empty());
    removed
}

impl Model {
    fn arm(&mut self, path: &str, conn: u32, mode: WatchMode) {
        let tables: &mut [(&mut Table, Mode)] = match mode {
            WatchMode::Data => &mut [(&mut self.data, Mode::Standard)],
            WatchMode::Child => &mut [(&mut self.child, Mode::Standard)],
            WatchMode::Persistent => {
                &mut [(&mut self.data, Mode::Persistent), (&mut self.child, Mode::Persistent)]
            }
            WatchMode::Recursive => &mut [(&mut self.data, Mode::Recursive)],
        };
        for (table, mode) in tables {
            table.entry(path.to_owned()).or_default().entry(conn).or_default().insert(*mode);
        }
    }

    fn remove(&mut self, path: &str, conn: u32, kind: WatcherType) -> bool {
        let Model { data, child } = self;
        match kind {
            WatcherType::Children => remove(child, path, conn, Some(Mode::Standard)),
            WatcherType::Data => remove(data, path, conn, Some(Mode::Standard)),
            WatcherType::Persistent => {
                remove(data, path, conn, Some(Mode::Persistent))
                    | remove(child, path, conn, Some(Mode::Persistent))
            }
            WatcherType::PersistentRecursive => remove(data, path, conn, Some(Mode::Recursive)),
            WatcherType::Any => remove(data, path, conn, None) | remove(child, path, conn, None),
        }
    }

    fn close(&mut self, conn: u32) {
        for table in [&mut self.data, &mut self.child] {
            table.values_mut().for_each(|conns| drop(conns.remove(&conn)));
            table.retain(|_, conns| !conns.is_empty());
        }
    }

    fn created(&mut self, path: &str) -> Vec<Line> {
        let none = BTreeSet::new();
        let parent = self_and_above(path)[1].to_owned();
        lines_of([
            (EventType::NodeCreated, path, trigger(&mut self.data, path, &none)),
            (EventType::NodeChildrenChanged, &parent, trigger(&mut self.child, &parent, &none)),
        ])
    }

    fn deleted(&mut self, path: &str) -> Vec<Line> {
        let none = BTreeSet::new();
        let parent = self_and_above(path)[1].to_owned();
        let told = trigger(&mut self.data, path, &none);
        let late = trigger(&mut self.child, path, &told);
        lines_of([
            (EventType::NodeDeleted, path, told),
            (EventType::NodeDeleted, path, late),
            (EventType::NodeChildrenChanged, &parent, trigger(&mut self.child, &parent, &none)),
        ])
    }

    fn data_changed(&mut self, path: &str) -> Vec<Line> {
        let told = trigger(&mut self.data, path, &BTreeSet::new());
        lines_of([(EventType::NodeDataChanged, path, told)])
    }

    fn watch_count(&self) -> usize {
        self.data.values().chain(self.child.values()).map(BTreeMap::len).sum()
    }

    fn by_path(&self) -> BTreeMap<String, Vec<ConnId>> {
        let conns = |conns: &BTreeMap<u32, _>| conns.keys().map(|conn| ConnId(*conn)).collect();
        self.data.iter().map(|(path, modes)| (path.clone(), conns(modes))).collect()
    }
}

fn lines_of<const N: usize>(walks: [(EventType, &str, BTreeSet<u32>); N]) -> Vec<Line> {
    let told = walks.into_iter().filter(|(_, _, conns)| !conns.is_empty());
    told.map(|(kind, path, conns)| (kind, path.to_owned(), conns.into_iter().collect())).collect()
}

const MODES: [WatchMode; 4] =
    [WatchMode::Data, WatchMode::Child, WatchMode::Persistent, WatchMode::Recursive];
const TYPES: [WatcherType; 5] = [
    WatcherType::Children,
    WatcherType::Data,
    WatcherType::Any,
    WatcherType::Persistent,
    WatcherType::PersistentRecursive,
];

/// A path of up to three names, sometimes one that no node can have.
fn random_path(rng: &mut fastrand::Rng, names: u32) -> String {
    if rng.u8(..40) == 0 {
        return ["", "/a/", "//", "a"][rng.usize(..4)].to_owned();
    }
    let depth = rng.usize(..4);
    let path: String = (0..depth).map(|_| format!("/n{}", rng.u32(..names))).collect();
    if path.is_empty() { "/".to_owned() } else { path }
}

fn check_reports(scene: &Scene, model: &Model) {
    assert_eq!(scene.table.watch_count(), model.watch_count());
    assert_eq!(scene.table.is_empty(), model.watch_count() == 0);
    let path_of = |node: u32| scene.nodes[node as usize].clone().expect("a watched node exists");
    let by_path: BTreeMap<_, _> = scene.table.by_path(path_of).collect();
    let expected = model.by_path();
    assert_eq!(by_path, expected);
    let mut by_connection: BTreeMap<ConnId, BTreeSet<String>> = BTreeMap::new();
    for (path, conns) in &expected {
        for conn in conns {
            by_connection.entry(*conn).or_default().insert(path.clone());
        }
    }
    let ours = scene.table.by_connection(path_of).map(|(conn, paths)| (conn, paths.into_iter().collect()));
    assert_eq!(ours.collect::<BTreeMap<_, BTreeSet<_>>>(), by_connection);
    let summary = WatchSummary {
        connections: by_connection.len(),
        paths: expected.len(),
        watches: expected.values().map(Vec::len).sum(),
    };
    assert_eq!(scene.table.summary(), summary);
}

fn run(seed: u64, conns: u32, names: u32, steps: u32) {
    let check_every = steps / 20;
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut scene, mut model) = (Scene::with(&[]), Model::default());
    for step in 0..steps {
        let path = random_path(&mut rng, names);
        let conn = rng.u32(..conns);
        let exists = scene.index(&path).is_some();
        match rng.u8(..20) {
            0..8 => {
                let mode = MODES[rng.usize(..4)];
                scene.arm(&path, conn, mode);
                model.arm(&path, conn, mode);
            }
            8..10 => {
                let kind = TYPES[rng.usize(..5)];
                let target = scene.target(&path);
                let found = scene.table.contains(target, ConnId(conn), kind);
                assert_eq!(scene.table.remove(target, ConnId(conn), kind), found);
                assert_eq!(model.remove(&path, conn, kind), found, "seed {seed} step {step}");
            }
            10 if rng.u8(..8) == 0 => {
                scene.table.connection_closed(ConnId(conn));
                model.close(conn);
            }
            10..13 if exists => {
                assert_eq!(scene.set(&path), model.data_changed(&path), "seed {seed} step {step}");
            }
            13..20 if exists && path != "/" => {
                let below = format!("{path}/");
                if !scene.nodes.iter().flatten().any(|node| node.starts_with(&below)) {
                    assert_eq!(scene.delete(&path), model.deleted(&path), "seed {seed} step {step}");
                }
            }
            13..20 if path.starts_with("/n") && scene.index(self_and_above(&path)[1]).is_some() => {
                assert_eq!(scene.create(&path), model.created(&path), "seed {seed} step {step}");
            }
            _ => {}
        }
        if step % check_every == 0 {
            check_reports(&scene, &model);
        }
    }
    check_reports(&scene, &model);
    for conn in 0..conns {
        scene.table.connection_closed(ConnId(conn));
    }
    assert!(scene.table.is_empty());
    check_reports(&scene, &Model::default());
}

#[test]
fn few_connections_on_a_small_tree() {
    for seed in 0..40 {
        run(seed, 4, 2, 1_500);
    }
}

#[test]
fn many_connections_on_a_tiny_tree() {
    run(100, 3_000, 1, 12_000);
}

#[test]
fn few_connections_on_a_wide_tree() {
    for seed in 200..203 {
        run(seed, 3, 12, 6_000);
    }
}
