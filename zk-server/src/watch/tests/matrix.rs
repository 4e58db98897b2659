//! The rules of Apache ZooKeeper 3.9, one case each.

use EventType::{
    NodeChildrenChanged as ChildrenChanged, NodeCreated as Created, NodeDataChanged as DataChanged,
    NodeDeleted as Deleted,
};
use WatchMode::{Child, Data, Persistent, Recursive};
use zk_proto::WatcherType;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    Create(&'static str),
    Delete(&'static str),
    Set(&'static str),
}

fn run(scene: &mut Scene, op: Op) -> Vec<Line> {
    match op {
        Op::Create(path) => scene.create(path),
        Op::Delete(path) => scene.delete(path),
        Op::Set(path) => scene.set(path),
    }
}

/// What one connection is told, without its number.
fn told(lines: Vec<Line>) -> Vec<(EventType, String)> {
    lines
        .into_iter()
        .map(|(kind, path, conns)| {
            assert_eq!(conns, [1]);
            (kind, path)
        })
        .collect()
}

/// For a watch on `/a`: operation, nodes that exist before it, and what a watch of the modes Data, Child,
/// Persistent and Recursive is told.
#[test]
fn result_matrix() {
    type Told = Option<(EventType, &'static str)>;
    let cases: &[(Op, &[&str], [Told; 4])] = &[
        (Op::Create("/a"), &[], [Some((Created, "/a")), None, Some((Created, "/a")), Some((Created, "/a"))]),
        (
            Op::Set("/a"),
            &["/a"],
            [Some((DataChanged, "/a")), None, Some((DataChanged, "/a")), Some((DataChanged, "/a"))],
        ),
        (
            Op::Create("/a/x"),
            &["/a"],
            [None, Some((ChildrenChanged, "/a")), Some((ChildrenChanged, "/a")), Some((Created, "/a/x"))],
        ),
        (Op::Set("/a/x"), &["/a", "/a/x"], [None, None, None, Some((DataChanged, "/a/x"))]),
        (
            Op::Delete("/a/x"),
            &["/a", "/a/x"],
            [None, Some((ChildrenChanged, "/a")), Some((ChildrenChanged, "/a")), Some((Deleted, "/a/x"))],
        ),
        (Op::Create("/a/x/y"), &["/a", "/a/x"], [None, None, None, Some((Created, "/a/x/y"))]),
        (Op::Delete("/a/x/y"), &["/a", "/a/x", "/a/x/y"], [None, None, None, Some((Deleted, "/a/x/y"))]),
        (
            Op::Delete("/a"),
            &["/a"],
            [Some((Deleted, "/a")), Some((Deleted, "/a")), Some((Deleted, "/a")), Some((Deleted, "/a"))],
        ),
        (Op::Set("/ab"), &["/a", "/ab"], [None; 4]),
        (Op::Create("/b"), &["/a"], [None; 4]),
    ];
    for (op, before, expected) in cases {
        for (mode, expected) in [Data, Child, Persistent, Recursive].into_iter().zip(expected) {
            let mut scene = Scene::with(before);
            scene.arm("/a", 1, mode);
            let told = told(run(&mut scene, *op));
            let expected: Vec<_> = expected.iter().map(|(kind, path)| (*kind, (*path).to_owned())).collect();
            assert_eq!(told, expected, "{op:?} seen by {mode:?}");
        }
    }
}

#[test]
fn one_shot_watches_fire_once_persistent_ones_survive_delete_and_recreate() {
    for (mode, again) in [(Data, false), (Child, false), (Persistent, true), (Recursive, true)] {
        let mut scene = Scene::with(&["/a"]);
        scene.arm("/a", 1, mode);
        assert_eq!(told(scene.delete("/a")), [(Deleted, "/a".to_owned())]);
        let expected = if again { vec![(Created, "/a".to_owned())] } else { vec![] };
        assert_eq!(told(scene.create("/a")), expected, "{mode:?}");
        let expected = if again { vec![(DataChanged, "/a".to_owned())] } else { vec![] };
        assert_eq!(told(scene.set("/a")), expected, "{mode:?}");
        assert_eq!(scene.table.is_empty(), !again);
    }
}

#[test]
fn index_of_a_deleted_node_carries_no_watch_over() {
    let mut scene = Scene::with(&["/a"]);
    scene.arm("/a", 1, Persistent);
    scene.delete("/a");
    assert_eq!(scene.create("/b"), []);
    assert_eq!(scene.index("/b"), Some(1));
    assert_eq!(scene.set("/b"), []);
    assert_eq!(told(scene.create("/a")), [(Created, "/a".to_owned())]);
}

#[test]
fn deleted_node_with_data_and_child_watch_tells_each_connection_once() {
    let mut scene = Scene::with(&["/a"]);
    scene.arm("/a", 1, Data);
    scene.arm("/a", 1, Child);
    scene.arm("/a", 1, Persistent);
    scene.arm("/a", 2, Child);
    scene.arm("/", 3, Recursive);
    scene.arm("/a", 3, Child);
    scene.arm("/", 4, Child);
    scene.arm("/", 3, Child);
    assert_eq!(
        scene.delete("/a"),
        [
            (Deleted, "/a".to_owned(), vec![1, 3]),
            (Deleted, "/a".to_owned(), vec![2]),
            (ChildrenChanged, "/".to_owned(), vec![3, 4]),
        ]
    );
    // The child watch of connection 3 is used up although walk 1 told it.
    scene.create("/a");
    assert!(!scene.table.contains(scene.target("/a"), ConnId(3), WatcherType::Any));
}

#[test]
fn recursive_and_persistent_on_the_parent_see_a_new_child_twice() {
    let mut scene = Scene::with(&["/a"]);
    scene.arm("/a", 1, Recursive);
    scene.arm("/a", 1, Persistent);
    let expected = [(Created, "/a/x".to_owned()), (ChildrenChanged, "/a".to_owned())];
    assert_eq!(told(scene.create("/a/x")), expected);
}

#[test]
fn recursive_on_several_ancestors_is_one_event() {
    let mut scene = Scene::with(&["/a", "/a/x", "/a/x/y"]);
    for path in ["/", "/a", "/a/x", "/a/x/y"] {
        scene.arm(path, 1, Recursive);
        scene.arm(path, 2, Recursive);
    }
    scene.arm("/a/x/y", 1, Data);
    scene.arm("/a/x/y", 0, Data);
    assert_eq!(scene.set("/a/x/y"), [(DataChanged, "/a/x/y".to_owned(), vec![0, 1, 2])]);
    assert_eq!(scene.set("/a/x/y"), [(DataChanged, "/a/x/y".to_owned(), vec![1, 2])]);
}

/// The wire carries ChildrenChanged; hiding it from the recursive watcher is the client's part.
#[test]
fn recursive_above_a_child_watch_lets_children_changed_through() {
    let mut scene = Scene::with(&["/a", "/a/x"]);
    scene.arm("/", 1, Recursive);
    scene.arm("/a/x", 1, Child);
    let expected = [(Created, "/a/x/y".to_owned()), (ChildrenChanged, "/a/x".to_owned())];
    assert_eq!(told(scene.create("/a/x/y")), expected);
}

#[test]
fn root_has_no_ancestors() {
    let mut scene = Scene::with(&[]);
    scene.arm("/", 1, Recursive);
    scene.arm("/", 1, Child);
    assert_eq!(told(scene.set("/")), [(DataChanged, "/".to_owned())]);
}

#[test]
fn create_set_delete_of_one_node_in_a_multi_fires_everything() {
    let mut scene = Scene::with(&[]);
    scene.arm("/a", 1, Persistent);
    scene.arm("/a", 2, Data);
    let mut all = scene.create("/a");
    all.extend(scene.set("/a"));
    all.extend(scene.delete("/a"));
    let path = || "/a".to_owned();
    assert_eq!(
        all,
        [(Created, path(), vec![1, 2]), (DataChanged, path(), vec![1]), (Deleted, path(), vec![1])]
    );
}

#[test]
fn odd_paths_can_be_watched_and_never_fire() {
    let mut scene = Scene::with(&["/a"]);
    for path in ["", "/a/", "//a", "a", "/a/./b"] {
        assert!(scene.arm(path, 1, Data) && scene.arm(path, 1, Recursive) && !scene.arm(path, 1, Data));
    }
    assert_eq!(scene.set("/"), []);
    assert_eq!(scene.create("/a/b"), []);
    assert_eq!(scene.delete("/a/b"), []);
    assert!(scene.table.remove(Target::Path("/a/"), ConnId(1), WatcherType::Data));
    assert_eq!(scene.table.watch_count(), 5);
}

#[test]
fn arming_twice_is_a_no_op() {
    for mode in [Data, Child, Persistent, Recursive] {
        let mut scene = Scene::with(&["/a"]);
        assert!(scene.arm("/a", 1, mode));
        let count = scene.table.watch_count();
        assert!(!scene.arm("/a", 1, mode));
        assert_eq!(scene.table.watch_count(), count);
        assert_eq!(scene.delete("/a").len(), 1);
    }
}

/// For every set of modes and every type: found or not, and what is left.
#[test]
fn remove_watches_matrix() {
    let modes = [Data, Child, Persistent, Recursive];
    let types: [(WatcherType, &[WatchMode]); 5] = [
        (WatcherType::Children, &[Child]),
        (WatcherType::Data, &[Data]),
        (WatcherType::Any, &modes),
        (WatcherType::Persistent, &[Persistent]),
        (WatcherType::PersistentRecursive, &[Recursive]),
    ];
    for armed in 0..16_u32 {
        for (kind, removed) in types {
            for (path, others) in [("/a", 0), ("/missing", 0), ("/a", 3), ("/missing", 3)] {
                let mut scene = Scene::with(&["/a", "/a/x"]);
                let armed: Vec<_> = (0..4).filter(|i| armed & 1 << i != 0).map(|i| modes[i]).collect();
                for mode in &armed {
                    scene.arm(path, 5, *mode);
                    for other in 0..others {
                        scene.arm(path, 2 * other + 3, *mode);
                    }
                }
                let target = scene.target(path);
                let expected = armed.iter().any(|mode| removed.contains(mode));
                let expected_left = armed.iter().any(|mode| !removed.contains(mode));
                assert_eq!(scene.table.contains(target, ConnId(5), kind), expected);
                assert!(!scene.table.contains(target, ConnId(4), kind));
                assert!(!scene.table.remove(target, ConnId(4), kind));
                // The path must be equal, not an ancestor.
                assert!(!scene.table.remove(Target::Node(2), ConnId(5), kind));
                assert!(!scene.table.remove(Target::Path("/a/y"), ConnId(5), kind));
                assert_eq!(scene.table.remove(target, ConnId(5), kind), expected, "{armed:?} {kind:?}");
                assert!(!scene.table.remove(target, ConnId(5), kind));
                assert_eq!(scene.table.contains(target, ConnId(5), WatcherType::Any), expected_left);
            }
        }
    }
}

#[test]
fn removing_one_shot_types_keeps_the_persistent_watch() {
    let mut scene = Scene::with(&["/a"]);
    scene.arm("/a", 1, Persistent);
    scene.arm("/a", 1, Data);
    assert!(scene.table.remove(scene.target("/a"), ConnId(1), WatcherType::Data));
    assert_eq!(told(scene.set("/a")), [(DataChanged, "/a".to_owned())]);
    assert_eq!(told(scene.create("/a/x")), [(ChildrenChanged, "/a".to_owned())]);
}

/// The scene that the word `wchs` was recorded in: two connections, three data watches, one child watch.
#[test]
fn reports_count_the_data_table_as_apache_does() {
    let mut scene = Scene::with(&["/app", "/app/cfg"]);
    scene.arm("/app/cfg", 7, Data);
    scene.arm("/app/none", 8, Data);
    scene.arm("/app/cfg", 8, Data);
    scene.arm("/app", 7, Child);
    assert_eq!(scene.table.summary(), WatchSummary { connections: 2, paths: 2, watches: 3 });
    assert_eq!(scene.table.watch_count(), 4);

    let nodes = scene.nodes.clone();
    let path_of = |node: u32| nodes[node as usize].clone().expect("a watched node exists");
    let by_path: Vec<_> = scene.table.by_path(path_of).collect();
    let path = str::to_owned;
    assert_eq!(
        by_path,
        [(path("/app/cfg"), vec![ConnId(7), ConnId(8)]), (path("/app/none"), vec![ConnId(8)])]
    );
    let by_connection: Vec<_> = scene.table.by_connection(path_of).collect();
    assert_eq!(
        by_connection,
        [(ConnId(7), vec![path("/app/cfg")]), (ConnId(8), vec![path("/app/cfg"), path("/app/none")])]
    );
}

#[test]
fn persistent_watches_count_in_both_tables() {
    let mut scene = Scene::with(&["/a"]);
    scene.arm("/a", 1, Persistent);
    assert_eq!(scene.table.watch_count(), 2);
    scene.arm("/a", 1, Data);
    scene.arm("/a", 1, Recursive);
    assert_eq!(scene.table.watch_count(), 2);
    assert_eq!(scene.table.summary(), WatchSummary { connections: 1, paths: 1, watches: 1 });
}

#[test]
fn closing_a_connection_removes_its_watches_only() {
    let mut scene = Scene::with(&["/a", "/b"]);
    for conn in 1..=3 {
        for path in ["/", "/a", "/b", "/missing"] {
            scene.arm(path, conn, Persistent);
        }
    }
    scene.table.connection_closed(ConnId(2));
    scene.table.connection_closed(ConnId(2));
    scene.table.connection_closed(ConnId(9));
    assert_eq!(scene.set("/a"), [(DataChanged, "/a".to_owned(), vec![1, 3])]);
    assert_eq!(scene.create("/missing")[0], (Created, "/missing".to_owned(), vec![1, 3]));
    scene.table.connection_closed(ConnId(1));
    scene.table.connection_closed(ConnId(3));
    assert!(scene.table.is_empty());
    assert_eq!(scene.table.watch_count(), 0);
}

#[test]
fn thousands_of_watchers_on_one_node() {
    let mut scene = Scene::with(&["/a"]);
    // An order that is neither ascending nor descending: 7919 and 5000 have no common divisor.
    let conns: Vec<u32> = (0..5_000).map(|i| i * 7_919 % 5_000).collect();
    for conn in &conns {
        assert!(scene.arm("/a", *conn, Data));
        assert!(!scene.arm("/a", *conn, Data));
    }
    assert_eq!(scene.set("/a"), [(DataChanged, "/a".to_owned(), (0..5_000).collect())]);
    assert!(scene.table.is_empty());
    for conn in &conns {
        scene.arm("/a", *conn, Persistent);
    }
    scene.delete("/a");
    assert_eq!(scene.create("/a"), [(Created, "/a".to_owned(), (0..5_000).collect())]);
    for conn in &conns {
        scene.table.connection_closed(ConnId(*conn));
    }
    assert!(scene.table.is_empty());
}

#[test]
fn answers_do_not_depend_on_the_hash_seed() {
    let run = |seed| {
        let mut scene = Scene::with(&["/a", "/b", "/c"]);
        scene.table = WatchTable::with_hash_seed(seed);
        for conn in 0..100 {
            scene.arm(["/a", "/b", "/c", "/d", "/e"][conn as usize % 5], conn, Persistent);
            scene.arm(&format!("/odd{conn}"), conn, Data);
        }
        scene.table.connection_closed(ConnId(50));
        let mut all = scene.delete("/b");
        all.extend(scene.create("/d"));
        let path_of = |node: u32| node.to_string();
        let reports = (
            scene.table.by_path(path_of).collect::<Vec<_>>(),
            scene.table.by_connection(path_of).collect::<Vec<_>>(),
        );
        (all, reports)
    };
    assert_eq!(run(1), run(2));
}
