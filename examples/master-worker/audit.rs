//! The auditor: looks on from outside and holds the system to its promises.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use serde::Serialize;
use zk_client::{Client, Event, EventKind, Watch};

use super::client::Answer;
use super::corpus::{Corpus, Piece};
use super::error::{Result, try_again};
use super::nodes;

/// Something that must hold, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it holds.
    pub ok: bool,
    /// What was looked at.
    pub what: String,
}

/// A master's time in office.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// As it has shown itself in `/master`.
    pub address: String,
    /// Assignments that were made until the next one showed itself.
    pub assignments: usize,
}

/// What was seen while the system was at work.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Whether events were missed: then the history proves nothing.
    pub has_gaps: bool,
    /// Task to the workers that have had it, in this order.
    pub assigned: BTreeMap<String, Vec<String>>,
    /// Tasks that two workers had at the same time.
    pub shared: BTreeSet<String>,
    /// Task to the number of times that a status was created.
    pub reported: BTreeMap<String, u32>,
    /// Who has led, one after the other.
    pub leaders: Vec<Leader>,
    /// Task to those who have it now.
    now: BTreeMap<String, BTreeSet<String>>,
}

impl History {
    fn note(&mut self, event: &Event) {
        let created = match event.kind {
            EventKind::Created => true,
            EventKind::Deleted => false,
            EventKind::DataChanged => return,
            _ => {
                self.has_gaps = true;
                return;
            }
        };
        match event.path.split('/').collect::<Vec<_>>()[..] {
            ["", "assign", worker, task] => {
                let holders = self.now.entry(task.to_owned()).or_default();
                if !created {
                    holders.remove(worker);
                    return;
                }
                holders.insert(worker.to_owned());
                if holders.len() > 1 {
                    self.shared.insert(task.to_owned());
                }
                self.assigned.entry(task.to_owned()).or_default().push(worker.to_owned());
                if let Some(leader) = self.leaders.last_mut() {
                    leader.assignments += 1;
                }
            }
            ["", "tasks", task, "status"] if created => {
                *self.reported.entry(task.to_owned()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// How many tasks a worker was given that another one had before, and how many of its own went to others.
    pub fn moved(&self, worker: &str) -> (usize, usize) {
        let mut moved = (0, 0);
        for (from, to) in
            self.assigned.values().flat_map(|workers| workers.iter().zip(workers.iter().skip(1)))
        {
            moved.0 += usize::from(to == worker);
            moved.1 += usize::from(from == worker);
        }
        moved
    }
}

/// Follows every assignment and every report.
pub struct Auditor {
    zk: Client,
    assign: Watch,
    tasks: Watch,
    master: Watch,
    history: History,
}

impl Auditor {
    /// Begins to follow; before anything happens, so that nothing is missed.
    pub async fn begin(zk: &Client) -> Result<Auditor> {
        Ok(Auditor {
            zk: zk.clone(),
            assign: zk.watch(nodes::ASSIGN).recursive().await?,
            tasks: zk.watch(nodes::TASKS).recursive().await?,
            master: zk.watch(nodes::MASTER).await?,
            history: History::default(),
        })
    }

    /// Follows without end. Dropping the future may cost the name of a new leader.
    pub async fn follow(&mut self) {
        loop {
            let event = tokio::select! {
                event = self.assign.next() => event,
                event = self.tasks.next() => event,
                event = self.master.next() => event,
            };
            match event {
                Some(event) if event.kind == EventKind::Created && event.path == nodes::MASTER => {
                    if let Ok((leader, _)) = self.zk.get(nodes::MASTER).await {
                        let address = String::from_utf8_lossy(&leader).into_owned();
                        self.history.leaders.push(Leader { address, assignments: 0 });
                    }
                }
                Some(event) => self.history.note(&event),
                // The client is closed.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes in what was committed so far, and returns what was seen.
    pub async fn finish(mut self) -> Result<History> {
        while let Err(error) = self.zk.sync(nodes::ASSIGN).await {
            try_again(&self.zk, error).await?;
        }
        for watch in [&mut self.assign, &mut self.tasks] {
            while let Some(Some(event)) = watch.next().now_or_never() {
                self.history.note(&event);
            }
        }
        Ok(self.history)
    }
}

/// Checks the tree, the history and the answer against each other and against the texts.
pub async fn check(
    zk: &Client,
    corpus: &Corpus,
    pieces: &[Piece],
    answer: &Answer,
    history: &History,
) -> Result<Vec<Check>> {
    let all = pieces.len();
    let mut checks = Vec::new();
    let mut check = |ok: bool, what: String| checks.push(Check { ok, what });

    let tree = loop {
        match look(zk).await {
            Ok(tree) => break tree,
            Err(error) => try_again(zk, error).await?,
        }
    };
    let Tree { tasks, with_status, left } = tree;
    check(
        tasks == all && answer.tasks.len() == all,
        format!("every task was added exactly once ({tasks} of {all})"),
    );
    check(with_status == all, format!("every task has exactly one status ({with_status} of {all})"));
    check(left == 0, format!("no assignment is left over ({left})"));

    let assignments: usize = history.assigned.values().map(Vec::len).sum();
    let twice = history.reported.values().filter(|times| **times > 1).count();
    match history.has_gaps {
        true => check(true, "(the auditor missed events, so who had what when is not checked)".to_owned()),
        false => check(
            history.shared.is_empty() && twice == 0 && history.reported.len() == all,
            format!(
                "no task was with two workers at once, or reported twice ({assignments} assignments seen)"
            ),
        ),
    }

    let failed = answer.failed.len();
    check(failed == 0, format!("every task succeeded ({failed} failed)"));
    let counted: u64 = answer.counts.values().sum();
    let direct = corpus.count_directly(pieces)?;
    let directly: u64 = direct.values().sum();
    check(
        answer.counts == direct,
        format!("the result equals a direct count, word by word ({counted} and {directly} words)"),
    );
    Ok(checks)
}

/// What is in the tree, counted.
#[derive(Debug, Default)]
struct Tree {
    tasks: usize,
    with_status: usize,
    /// Assignments.
    left: usize,
}

async fn look(zk: &Client) -> zk_client::Result<Tree> {
    let mut tree = Tree::default();
    for task in zk.children(nodes::TASKS).await?.0 {
        let stat = zk.exists(&nodes::task(&task)).await?.unwrap_or_default();
        tree.tasks += 1;
        // One child now, and only one change of the children ever: the status came once and stayed.
        tree.with_status += usize::from(stat.num_children == 1 && stat.cversion == 1);
    }
    for worker in zk.children(nodes::ASSIGN).await?.0 {
        match zk.children(&nodes::assignments(&worker)).await {
            Ok((tasks, _)) => tree.left += tasks.len(),
            Err(error) if error.is_no_node() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tree)
}
