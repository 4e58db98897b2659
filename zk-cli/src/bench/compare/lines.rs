//! The lines of the comparison: what is measured, and what is wanted of it.

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    More,
    /// Less is better.
    Less,
}

/// What is wanted of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    /// Of candidate ÷ reference.
    Ratio(f64),
    /// Of the candidate's own value.
    Value(f64),
    /// Nothing.
    Nothing,
}

/// Unit of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests per second of the server's CPU time.
    PerCpuSecond,
    /// Requests per second.
    PerSecond,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// 10^6 bytes.
    Megabytes,
    /// CPU seconds per second.
    Cores,
    /// Hundredths.
    Percent,
    /// A quotient.
    Times,
    /// A number of things.
    Count,
}

impl Unit {
    /// A value with its unit, in about three digits.
    pub fn format(self, value: f64) -> String {
        let number = |v: f64| match v.abs() {
            a if a >= 100.0 => format!("{v:.0}"),
            a if a >= 10.0 => format!("{v:.1}"),
            a if a >= 1.0 => format!("{v:.2}"),
            _ => format!("{v:.3}"),
        };
        match self {
            Unit::PerCpuSecond | Unit::PerSecond if value >= 1000.0 => {
                format!("{} k/s", number(value / 1000.0))
            }
            Unit::PerCpuSecond | Unit::PerSecond => format!("{}/s", number(value)),
            Unit::Micros if value >= 1000.0 => format!("{} ms", number(value / 1000.0)),
            Unit::Micros => format!("{} µs", number(value)),
            Unit::Millis if value >= 1000.0 => format!("{} s", number(value / 1000.0)),
            Unit::Millis => format!("{} ms", number(value)),
            Unit::Seconds => format!("{} s", number(value)),
            Unit::Bytes => format!("{} B", number(value)),
            Unit::Megabytes => format!("{} MB", number(value)),
            Unit::Cores => format!("{} cores", number(value)),
            Unit::Percent => format!("{} %", number(value)),
            Unit::Times => format!("{} ×", number(value)),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// Something that is measured at both servers.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The line that it belongs to.
    pub line: &'static str,
    /// Tells it from others of the same line; the name in recorded samples.
    pub key: &'static str,
    /// What it is, for readers.
    pub title: &'static str,
    /// Unit of its value.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// What a release must hold.
    pub floor: Want,
    /// What to aim at.
    pub goal: Want,
}

impl Metric {
    /// Whether what is wanted is reached; `None` when nothing is wanted or the figure is missing.
    pub fn reached(&self, want: Want, value: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        let (measured, wanted) = match want {
            Want::Ratio(wanted) => (ratio?, wanted),
            Want::Value(wanted) => (value?, wanted),
            Want::Nothing => return None,
        };
        Some(match self.better {
            Better::More => measured >= wanted,
            Better::Less => measured <= wanted,
        })
    }

    /// What is wanted, for readers.
    pub fn format_want(&self, want: Want) -> String {
        let sign = match self.better {
            Better::More => "≥",
            Better::Less => "≤",
        };
        match want {
            Want::Ratio(ratio) => format!("{sign} {ratio} ×"),
            Want::Value(value) => format!("{sign} {}", self.unit.format_plain(value)),
            Want::Nothing => String::new(),
        }
    }
}

impl Unit {
    /// As [`Unit::format`], without digits that say nothing.
    fn format_plain(self, value: f64) -> String {
        let text = self.format(value);
        match text.split_once(' ') {
            Some((number, unit)) if number.contains('.') => {
                format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
            }
            _ => text,
        }
    }
}

const fn cpu(line: &'static str, key: &'static str, title: &'static str, floor: f64, goal: f64) -> Metric {
    Metric {
        line,
        key,
        title,
        unit: Unit::PerCpuSecond,
        better: Better::More,
        floor: Want::Ratio(floor),
        goal: Want::Ratio(goal),
    }
}

const fn less(
    line: &'static str,
    key: &'static str,
    title: &'static str,
    unit: Unit,
    floor: Want,
    goal: Want,
) -> Metric {
    Metric { line, key, title, unit, better: Better::Less, floor, goal }
}

/// The rate of a mixed ensemble beside that of a pure one of the reference.
const fn rate(key: &'static str, title: &'static str, unit: Unit) -> Metric {
    Metric { line: "E5", key, title, unit, better: Better::More, floor: Ratio(1.0), goal: Nothing }
}

use Unit::{
    Bytes, Cores, Count, Megabytes, Micros, Millis, PerCpuSecond, PerSecond, Percent, Seconds, Times,
};
use Want::{Nothing, Ratio, Value};

/// All metrics, in the order of the table.
pub const METRICS: &[Metric] = &[
    cpu("G1", "get", "get, 50 × depth 8, per CPU second", 6.0, 12.0),
    cpu("G2", "get", "get, 50 × depth 1, per CPU second", 3.0, 4.2),
    cpu("G3", "exists", "exists, 50 × depth 8, per CPU second", 6.0, 12.0),
    cpu("G3", "getChildren", "getChildren (1000), 50 × depth 8, per CPU second", 2.5, 5.0),
    less("G4", "p50", "ping-pong get, p50", Micros, Value(35.0), Value(20.0)),
    cpu("W1", "set", "set, 50 × depth 8, per CPU second", 4.0, 7.0),
    cpu("W2", "set", "set, 50 × depth 1, per CPU second", 2.5, 4.0),
    less("W3", "p50", "ping-pong set, p50", Micros, Value(160.0), Value(125.0)),
    cpu("W4", "create", "create, per CPU second", 3.0, 6.0),
    cpu("W4", "create-delete", "create + delete, per CPU second", 3.0, 6.0),
    cpu("W4", "lock", "lock cycle (3 requests), requests per CPU second", 3.0, 6.0),
    cpu("W4", "multi", "multi of 5 sets, per CPU second", 3.0, 6.0),
    less("M1", "get-p50", "mixed 9:1, depth 4: get p50", Micros, Ratio(0.3), Nothing),
    less(
        "M1",
        "beside-pure",
        "get p50 of the mix ÷ of pure get at the same rate",
        Times,
        Nothing,
        Value(1.3),
    ),
    cpu("M2", "9:1", "mixed 9:1, depth 4, per CPU second", 4.0, 8.0),
    cpu("M2", "1:1", "mixed 1:1, depth 4, per CPU second", 4.0, 8.0),
    less("T1", "get-p99", "get at half of the reference's most, p99", Micros, Ratio(0.5), Ratio(0.25)),
    less("T1", "get-p999", "get at half of the reference's most, p999", Micros, Ratio(0.3), Ratio(0.1)),
    less("T1", "set-p99", "set at half of the reference's most, p99", Micros, Ratio(0.5), Ratio(0.25)),
    less("T1", "set-p999", "set at half of the reference's most, p999", Micros, Ratio(0.3), Ratio(0.1)),
    cpu("S1", "visits", "connect + exists + close, per CPU second", 3.0, 5.0),
    less("S2", "open-p99", "10 k sessions opened at once, p99", Millis, Value(100.0), Value(30.0)),
    less("S3", "bytes", "memory per idle session", Bytes, Value(1500.0), Value(600.0)),
    less("S4", "cores", "10 k idle sessions, ping every 4 s", Cores, Value(0.04), Value(0.02)),
    less("S5", "cores", "100 k idle sessions, ping every 10 s", Cores, Value(0.3), Value(0.1)),
    less("S5", "rss", "100 k idle sessions, resident memory", Megabytes, Value(180.0), Value(70.0)),
    less("F1", "all-told", "fan-out to 1000 sessions, all told, p50", Millis, Value(5.0), Value(2.5)),
    less("F2", "ack-1000", "set answered with 1000 watchers, p50", Millis, Value(2.0), Value(0.5)),
    less("F2", "ack-5000", "set answered with 5000 watchers, p50", Millis, Value(5.0), Value(0.5)),
    less("F3", "bytes", "memory per watch", Bytes, Value(60.0), Value(24.0)),
    less("N1", "bytes", "memory per node (100 B, 1 M nodes)", Bytes, Value(300.0), Value(200.0)),
    less("N2", "rss", "resident memory after a restart, 1 M nodes", Megabytes, Value(350.0), Value(220.0)),
    less("N3", "rss", "resident memory, 10 M nodes", Megabytes, Value(3200.0), Value(2100.0)),
    less("N3", "restart", "restart, 10 M nodes", Seconds, Value(15.0), Value(6.0)),
    less("N3", "set-p99", "set p99, 10 M nodes ÷ 1 M nodes", Times, Value(1.5), Value(1.1)),
    less(
        "R1",
        "restart",
        "restart after kill -9, 1 M nodes, to the first read",
        Seconds,
        Value(1.5),
        Value(0.6),
    ),
    less("R2", "start", "empty start to the first read", Millis, Value(100.0), Value(20.0)),
    less(
        "P1",
        "gap",
        "snapshot of 1 M nodes under 20 k set/s: longest gap",
        Millis,
        Value(50.0),
        Value(10.0),
    ),
    less("P1", "loss", "the same: throughput lost", Percent, Value(20.0), Value(10.0)),
    cpu("B1", "creates", "bulk load, multi of 50 creates, creates per CPU second", 3.0, 6.0),
    cpu("E1", "set", "ensemble of 3: set, 50 × depth 8, per CPU second of all", 3.0, 6.0),
    less("E2", "p50", "ensemble of 3: ping-pong set over a follower, p50", Micros, Ratio(0.7), Ratio(0.45)),
    cpu("E3", "get", "ensemble of 3: get, 50 × depth 8, per CPU second of all", 6.0, 12.0),
    less(
        "E4",
        "gap",
        "leader killed under load: longest time without a write",
        Millis,
        Ratio(1.0),
        Ratio(0.4),
    ),
    less("E4", "gap-fast", "the same at tickTime 500", Millis, Ratio(1.0), Ratio(0.4)),
    rate("our-follower", "our follower of the reference's leader: set", PerSecond),
    rate("our-follower-cpu", "the same, per CPU second of all", PerCpuSecond),
    rate("our-leader", "our leader of the reference's followers: set", PerSecond),
    rate("our-leader-cpu", "the same, per CPU second of all", PerCpuSecond),
    less("Q1", "faults", "errors and wrong answers in all of the above", Count, Value(0.0), Value(0.0)),
];

/// The metric of a line and key.
pub fn metric(line: &str, key: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.line == line && metric.key == key)
}

/// The lines, each once, in order.
pub fn lines() -> Vec<&'static str> {
    let mut lines: Vec<&str> = METRICS.iter().map(|metric| metric.line).collect();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_judged_in_the_right_direction() {
        let get = metric("G1", "get").unwrap();
        assert_eq!(get.reached(get.floor, Some(1.0), Some(6.0)), Some(true));
        assert_eq!(get.reached(get.goal, Some(1.0), Some(6.0)), Some(false));
        assert_eq!(get.reached(get.goal, Some(1.0), None), None);
        let restart = metric("R1", "restart").unwrap();
        assert_eq!(restart.reached(restart.floor, Some(1.4), None), Some(true));
        assert_eq!(restart.reached(restart.goal, Some(1.4), None), Some(false));
        assert_eq!(restart.reached(Want::Nothing, Some(1.4), None), None);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(Unit::PerCpuSecond.format(712_345.0), "712 k/s");
        assert_eq!(Unit::Micros.format(2345.6), "2.35 ms");
        let cores = metric("S4", "cores").unwrap();
        assert_eq!(cores.format_want(cores.floor), "≤ 0.04 cores");
        let p50 = metric("W3", "p50").unwrap();
        assert_eq!(p50.format_want(p50.floor), "≤ 160 µs");
    }

    #[test]
    fn no_two_metrics_are_the_same() {
        let mut keys: Vec<_> = METRICS.iter().map(|metric| (metric.line, metric.key)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), METRICS.len());
    }
}
