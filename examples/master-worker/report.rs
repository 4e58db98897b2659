//! The summary at the end.

use std::fmt;

use serde::Serialize;

use super::audit::{Check, History, Leader};
use super::client::Answer;
use super::faults::Fault;

/// How many of the most frequent words are shown.
const TOP_WORDS: usize = 8;
/// Shorter words say nothing about a text.
const TOP_WORD_LETTERS_MIN: usize = 5;

/// A role that was killed.
#[derive(Debug, Clone, Serialize)]
pub struct Death {
    /// Since the start.
    pub at_ms: u64,
    /// The role.
    pub who: String,
    /// What it was at.
    pub while_doing: String,
    /// Whether it was started again.
    pub restarted: bool,
}

impl Death {
    /// A death that just happened.
    pub fn new(at: std::time::Duration, who: &str, fault: &Fault, task: &str) -> Death {
        Death {
            at_ms: at.as_millis() as u64,
            who: who.to_owned(),
            while_doing: format!("{} {task}", fault.at),
            restarted: fault.restart_after.is_some(),
        }
    }
}

/// What a worker has done.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerLine {
    /// Its name.
    pub name: String,
    /// Tasks whose status it has written.
    pub done: u64,
    /// Words that it has counted in them.
    pub words: u64,
    /// Tasks that it got from a dead worker.
    pub taken_over: usize,
    /// Tasks that went to others after its death.
    pub moved_away: usize,
}

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Time from start to the last result.
    pub seconds: f64,
    /// Tasks.
    pub tasks: usize,
    /// Words counted.
    pub words: u64,
    /// Different words among them.
    pub different_words: usize,
    /// The most frequent ones of five letters or more.
    pub top_words: Vec<(String, u64)>,
    /// By name.
    pub workers: Vec<WorkerLine>,
    /// Who has led, one after the other.
    pub leaders: Vec<Leader>,
    /// Who was killed.
    pub deaths: Vec<Death>,
    /// What must hold.
    pub checks: Vec<Check>,
}

impl Summary {
    /// Puts together what everybody has to say.
    pub fn new(
        seconds: f64,
        workers: Vec<String>,
        answer: &Answer,
        history: &History,
        deaths: Vec<Death>,
        checks: Vec<Check>,
    ) -> Summary {
        let mut top: Vec<_> = answer.counts.iter().map(|(word, n)| (word.clone(), *n)).collect();
        top.retain(|(word, _)| word.chars().count() >= TOP_WORD_LETTERS_MIN);
        top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top.truncate(TOP_WORDS);
        let line = |name: String| {
            let (done, words) = answer.workers.get(&name).copied().unwrap_or_default();
            let (taken_over, moved_away) = history.moved(&name);
            WorkerLine { name, done, words, taken_over, moved_away }
        };
        Summary {
            seconds,
            tasks: answer.tasks.len(),
            words: answer.counts.values().sum(),
            different_words: answer.counts.len(),
            top_words: top,
            workers: workers.into_iter().map(line).collect(),
            leaders: history.leaders.clone(),
            deaths,
            checks,
        }
    }

    /// Whether everything holds that must hold.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:12} {:>6} {:>10} {:>11} {:>11}", "", "tasks", "words", "taken over", "moved away")?;
        for WorkerLine { name, done, words, taken_over, moved_away } in &self.workers {
            writeln!(f, "{name:12} {done:6} {words:10} {taken_over:11} {moved_away:11}")?;
        }
        writeln!(f, "{:12} {:6} {:10}   in {:.1} s", "all", self.tasks, self.words, self.seconds)?;
        writeln!(f)?;
        for Leader { address, assignments } in &self.leaders {
            writeln!(f, "led: {address}, made {assignments} assignments")?;
        }
        for Death { at_ms, who, while_doing, restarted } in &self.deaths {
            let again = if *restarted { ", started again" } else { "" };
            writeln!(f, "killed at {:.3} s: {who}, {while_doing}{again}", *at_ms as f64 / 1000.0)?;
        }
        let top: Vec<_> = self.top_words.iter().map(|(word, n)| format!("{word} {n}")).collect();
        writeln!(f, "{} different words; the most frequent long ones:", self.different_words)?;
        writeln!(f, "  {}", top.join(", "))?;
        writeln!(f)?;
        for Check { ok, what } in &self.checks {
            writeln!(f, "{:6} {what}", if *ok { "ok" } else { "FAILED" })?;
        }
        Ok(())
    }
}
