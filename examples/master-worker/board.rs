//! What a master knows of the tree, and what it concludes from it. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::nodes;

/// Workers, tasks without a result, and assignments, as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Board {
    workers: BTreeSet<String>,
    /// In the order of their numbers, as long as those have ten digits: older ones first is all we want of it.
    unfinished: BTreeSet<String>,
    /// Worker to its tasks; the worker may be dead.
    assignments: BTreeMap<String, BTreeSet<String>>,
}

/// Something that the master should do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Give a task to a worker for the first time.
    Assign {
        /// The task.
        task: String,
        /// The worker.
        worker: String,
    },
    /// Take a task from a dead worker and give it to one that lives.
    Move {
        /// The task.
        task: String,
        /// The dead one.
        from: String,
        /// The living one.
        worker: String,
    },
    /// Delete what a dead worker was to do and nobody needs any more.
    Forget {
        /// The task.
        task: String,
        /// The dead worker.
        from: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Assign { task, worker } => write!(f, "assigns {task} to {worker}"),
            Step::Move { task, from, worker } => write!(f, "moves {task} from {from} to {worker}"),
            Step::Forget { task, from } => write!(f, "forgets that {from} had {task}"),
        }
    }
}

impl Board {
    /// A node came to be or went away.
    pub fn note(&mut self, path: &str, exists: bool) {
        let mut parts = path.split('/').skip(1);
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        match parts {
            (Some(dir), Some(worker), None, None) if is(dir, nodes::WORKERS) => {
                change(&mut self.workers, worker, exists);
            }
            (Some(dir), Some(task), None, None) if is(dir, nodes::TASKS) => {
                change(&mut self.unfinished, task, exists);
            }
            (Some(dir), Some(task), Some("status"), None) if is(dir, nodes::TASKS) && exists => {
                change(&mut self.unfinished, task, false);
            }
            (Some(dir), Some(worker), Some(task), None) if is(dir, nodes::ASSIGN) => {
                change(self.assignments.entry(worker.to_owned()).or_default(), task, exists);
            }
            _ => {}
        }
    }

    /// What should be done now: tasks of the dead first, then new ones, the oldest first, each to the worker
    /// with the fewest, and none to a worker that has `window` already.
    ///
    /// The window keeps work off a worker that may die before it gets to it, and shares it out by speed.
    pub fn steps(&self, window: usize) -> Vec<Step> {
        let mut load: BTreeMap<&str, usize> = BTreeMap::new();
        for worker in &self.workers {
            load.insert(worker, self.assignments.get(worker).map_or(0, BTreeSet::len));
        }
        let mut pick = || {
            let (worker, tasks) = load.iter_mut().min_by_key(|(_, tasks)| **tasks)?;
            let free = *tasks < window;
            *tasks += 1;
            free.then(|| (*worker).to_owned())
        };
        let mut steps = Vec::new();
        for (from, tasks) in self.assignments.iter().filter(|(worker, _)| !self.workers.contains(*worker)) {
            for task in tasks {
                let (task, from) = (task.clone(), from.clone());
                if !self.unfinished.contains(&task) {
                    steps.push(Step::Forget { task, from });
                } else if let Some(worker) = pick() {
                    steps.push(Step::Move { task, from, worker });
                } else {
                    return steps;
                }
            }
        }
        for task in self.unfinished.iter().filter(|task| !self.is_assigned(task)) {
            let Some(worker) = pick() else { break };
            steps.push(Step::Assign { task: task.clone(), worker });
        }
        steps
    }

    fn is_assigned(&self, task: &str) -> bool {
        self.assignments.values().any(|tasks| tasks.contains(task))
    }

    /// Names of the workers that live.
    pub fn workers(&self) -> &BTreeSet<String> {
        &self.workers
    }

    /// How many tasks have no result, and how many of them are assigned.
    pub fn open(&self) -> (usize, usize) {
        (self.unfinished.len(), self.assignments.values().map(BTreeSet::len).sum())
    }

    /// How many tasks a worker has.
    pub fn load(&self, worker: &str) -> usize {
        self.assignments.get(worker).map_or(0, BTreeSet::len)
    }
}

fn is(name: &str, dir: &str) -> bool {
    dir.strip_prefix('/') == Some(name)
}

fn change(set: &mut BTreeSet<String>, name: &str, exists: bool) {
    if exists {
        set.insert(name.to_owned());
    } else {
        set.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(nodes: &str) -> Board {
        let mut board = Board::default();
        nodes.split_whitespace().for_each(|path| board.note(path, true));
        board
    }

    fn steps(board: &Board, window: usize) -> String {
        let step = |step: &Step| match step {
            Step::Assign { task, worker } => format!("{task}:{worker}"),
            Step::Move { task, from, worker } => format!("{task}:{from}>{worker}"),
            Step::Forget { task, from } => format!("{task}:{from}>"),
        };
        board.steps(window).iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_follows_from_the_tree() {
        let cases = [
            ("nobody there", "/tasks/t1", 2, ""),
            ("shared out evenly", "/workers/a /workers/b /tasks/t1 /tasks/t2 /tasks/t3", 2, "t1:a t2:b t3:a"),
            ("no more than the window", "/workers/a /tasks/t1 /tasks/t2 /tasks/t3", 2, "t1:a t2:a"),
            ("assigned already", "/workers/a /tasks/t1 /assign/a/t1", 2, ""),
            ("finished already", "/workers/a /tasks/t1 /tasks/t1/status", 2, ""),
            ("a dead worker's", "/workers/b /tasks/t1 /assign/a/t1 /tasks/t2", 2, "t1:a>b t2:b"),
            ("the dead's first", "/workers/b /tasks/t1 /tasks/t2 /assign/a/t2", 1, "t2:a>b"),
            ("a dead worker's, all dead", "/tasks/t1 /assign/a/t1", 2, ""),
            ("withdrawn under a dead worker", "/workers/b /assign/a/t1", 2, "t1:a>"),
            ("the least loaded", "/workers/a /workers/b /tasks/t1 /tasks/t2 /assign/a/t1", 2, "t2:b"),
        ];
        for (what, nodes, window, expected) in cases {
            assert_eq!(steps(&board(nodes), window), expected, "{what}");
        }
    }

    #[test]
    fn a_move_is_noted_in_any_order_of_its_halves() {
        let before = "/workers/b /tasks/t1 /assign/a/t1";
        let mut board = board(before);
        board.note("/assign/a/t1", false);
        board.note("/assign/b/t1", true);
        assert_eq!(steps(&board, 2), "");
        assert_eq!(board.open(), (1, 1));
    }
}
