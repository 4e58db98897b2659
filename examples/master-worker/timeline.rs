//! What happened when: printed line by line, or kept.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Since the start.
    pub at_ms: u64,
    /// Name of the role, or `system`.
    pub who: String,
    /// For people.
    pub what: String,
}

/// Where roles say what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Instant,
    details: bool,
    sink: Sink,
}

#[derive(Debug, Clone)]
enum Sink {
    Print { color: bool },
    Keep(Arc<Mutex<Vec<Entry>>>),
}

impl Timeline {
    /// Prints to standard output; with details, a line per task.
    pub fn printing(details: bool) -> Timeline {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Timeline { start: Instant::now(), details, sink: Sink::Print { color } }
    }

    /// Keeps everything for [`entries`](Timeline::entries).
    pub fn keeping(details: bool) -> Timeline {
        Timeline { start: Instant::now(), details, sink: Sink::Keep(Arc::default()) }
    }

    /// Something worth a line happened.
    pub fn say(&self, who: &str, what: impl Display) {
        let at = self.elapsed();
        match &self.sink {
            Sink::Print { color } => {
                let (on, off) = if *color { (color_of(who), "\x1b[0m") } else { ("", "") };
                let line = format!("{:7.3} s  {on}{who:<10}{off} {what}\n", at.as_secs_f64());
                // Nobody listens any more: no reason to stop working.
                let _ = std::io::stdout().lock().write_all(line.as_bytes());
            }
            Sink::Keep(entries) => {
                let at_ms = at.as_millis() as u64;
                let entry = Entry { at_ms, who: who.to_owned(), what: what.to_string() };
                entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
        }
    }

    /// Something happened that is worth a line only to those who want to see everything.
    pub fn detail(&self, who: &str, what: impl Display) {
        if self.details {
            self.say(who, what);
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What was kept.
    pub fn entries(&self) -> Vec<Entry> {
        match &self.sink {
            Sink::Print { .. } => Vec::new(),
            Sink::Keep(entries) => entries.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn color_of(who: &str) -> &'static str {
    match who.split('-').next() {
        Some("master") => "\x1b[35m",
        Some("worker") => "\x1b[36m",
        Some("client") => "\x1b[32m",
        _ => "\x1b[33m",
    }
}
