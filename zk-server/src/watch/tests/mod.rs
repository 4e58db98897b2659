//! Tests of the watch rules.

mod matrix;
mod model;

use super::*;

/// A tree of nodes with indexes, as small as the table needs it, and the table on top.
#[derive(Default)]
struct Scene {
    table: WatchTable,
    /// Path of each index; a free index has none.
    nodes: Vec<Option<String>>,
}

/// An event as one line: kind, path, connections.
type Line = (EventType, String, Vec<u32>);

impl Scene {
    /// The root and what is given, parents first.
    fn with(paths: &[&str]) -> Self {
        let mut scene = Scene { nodes: vec![Some("/".to_owned())], ..Scene::default() };
        for path in paths {
            scene.create(path);
        }
        scene
    }

    fn index(&self, path: &str) -> Option<u32> {
        self.nodes.iter().position(|node| node.as_deref() == Some(path)).map(|index| index as u32)
    }

    fn target<'a>(&self, path: &'a str) -> Target<'a> {
        self.index(path).map_or(Target::Path(path), Target::Node)
    }

    /// Indexes of the nodes above `path`, parent first.
    fn ancestors(&self, path: &str) -> Vec<u32> {
        let mut above = Vec::new();
        let mut path = path;
        while path != "/" {
            path = match path.rfind('/') {
                Some(0) | None => "/",
                Some(end) => &path[..end],
            };
            above.push(self.index(path).expect("parents exist"));
        }
        above
    }

    fn create(&mut self, path: &str) -> Vec<Line> {
        assert!(self.index(path).is_none());
        let free = self.nodes.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() - 1
        });
        self.nodes[index] = Some(path.to_owned());
        let mut out = Vec::new();
        self.table.created(index as u32, path, self.ancestors(path), &mut out);
        lines(path, out)
    }

    fn delete(&mut self, path: &str) -> Vec<Line> {
        let index = self.index(path).expect("the node exists");
        let mut out = Vec::new();
        self.table.deleted(index, path, self.ancestors(path), &mut out);
        self.nodes[index as usize] = None;
        lines(path, out)
    }

    fn set(&mut self, path: &str) -> Vec<Line> {
        let index = self.index(path).expect("the node exists");
        let mut out = Vec::new();
        self.table.data_changed(index, self.ancestors(path), &mut out);
        lines(path, out)
    }

    fn arm(&mut self, path: &str, conn: u32, mode: WatchMode) -> bool {
        let target = self.target(path);
        self.table.add(target, ConnId(conn), mode)
    }
}

fn lines(path: &str, fired: Vec<Fired>) -> Vec<Line> {
    let parent = match path.rfind('/') {
        Some(0) | None => "/",
        Some(end) => &path[..end],
    };
    fired
        .into_iter()
        .map(|fired| {
            let subject = match fired.which {
                Subject::Node => path,
                Subject::Parent => parent,
            };
            (fired.kind, subject.to_owned(), fired.watchers.into_iter().map(|conn| conn.0).collect())
        })
        .collect()
}
