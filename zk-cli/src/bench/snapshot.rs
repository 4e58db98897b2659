//! What a snapshot does to the writes that go on meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::engine::{Extent, Load, Outcome, Pace};
use super::error::Result;
use super::space::Space;
use super::workload::{self, Target, Workload};

/// How often the data directory is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Writes during snapshots, and between them.
pub struct Impact {
    /// Sets per second that were offered.
    pub offered: f64,
    /// Number of snapshots that began and ended during the load.
    pub snapshots: usize,
    /// Time that they took together.
    pub snapshot_time: Duration,
    /// The longest time without a completed set during a snapshot.
    pub gap_max: Duration,
    /// The share of throughput that is lost during snapshots, 0 to 1.
    pub loss: f64,
    /// The load.
    pub outcome: Outcome,
}

/// Sets keys of the space at up to `rate` per second for `duration`, while the server takes snapshots by
/// itself. When the server cannot keep up with `rate`, 70 % of what it can do is offered. `None` when no
/// snapshot was seen in `data_dir`.
pub fn run(
    target: &Target,
    space: &Space,
    data_dir: &Path,
    rate: f64,
    duration: Duration,
    session_timeout_ms: i32,
) -> Result<Option<Impact>> {
    let load = |pace, duration| Load {
        connections: 20,
        threads: 1,
        pace,
        extent: Extent::Time { warmup: Duration::from_millis(500), duration },
        session_timeout_ms,
    };
    let most = load(Pace::Closed { depth: 8 }, Duration::from_secs(2));
    let most = workload::run(target, space, Workload::Set, &most)?.per_second();
    let offered = rate.min(0.7 * most);
    let open = load(Pace::Open { per_second: offered }, duration);

    let stop = AtomicBool::new(false);
    let (outcome, snapshots) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(data_dir, &stop));
        let outcome = workload::run(target, space, Workload::Set, &open);
        stop.store(true, Ordering::Relaxed);
        (outcome, watcher.join().expect("the watching thread does not panic"))
    });
    let outcome = outcome?;
    let windows: Vec<(Duration, Duration)> = snapshots
        .into_iter()
        .map(|(from, to)| {
            let since = |moment: Instant| moment.saturating_duration_since(outcome.start);
            (since(from), (since(to) + LOOK).min(duration))
        })
        .filter(|(from, to)| from < to && *to < duration)
        .collect();
    if windows.is_empty() {
        return Ok(None);
    }
    let inside: u64 = windows.iter().map(|&(from, to)| outcome.timeline.completed(from, to)).sum();
    let snapshot_time: Duration = windows.iter().map(|&(from, to)| to - from).sum();
    let gap_max =
        windows.iter().map(|&(from, to)| outcome.timeline.gap_max(from, to)).max().unwrap_or_default();
    let rate_inside = inside as f64 / snapshot_time.as_secs_f64();
    Ok(Some(Impact {
        offered,
        snapshots: windows.len(),
        snapshot_time,
        gap_max,
        loss: (1.0 - rate_inside / offered).max(0.0),
        outcome,
    }))
}

/// Notes when snapshot files appear and when they stop growing.
fn watch(data_dir: &Path, stop: &AtomicBool) -> Vec<(Instant, Instant)> {
    let dir = data_dir.join("version-2");
    let sizes = || -> BTreeMap<String, u64> {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let named =
            entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len())));
        named.filter(|(name, _)| name.contains("snapshot")).collect()
    };
    let old = sizes();
    // A file that is written under another name first is the same snapshot: only the zxid counts.
    let key = |name: &str| {
        let from = name.find("snapshot").unwrap_or(0);
        name[from..].split('.').take(2).collect::<Vec<_>>().join(".")
    };
    let mut seen: BTreeMap<String, (u64, Instant, Instant)> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (name, size) in sizes().into_iter().filter(|(name, _)| !old.contains_key(name)) {
            let entry = seen.entry(key(&name)).or_insert((size, now, now));
            if entry.0 != size {
                (entry.0, entry.2) = (size, now);
            }
        }
        std::thread::sleep(LOOK);
    }
    seen.into_values().map(|(_, from, to)| (from, to)).collect()
}
