//! What a single measurement prints.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::engine::Outcome;
use super::process::Memory;
use super::stats::{Faults, Percentiles};

/// The figures of a load, for people and as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Answers within the measurement.
    pub answered: u64,
    /// Length of the measurement, s.
    pub seconds: f64,
    /// Answers per second.
    pub per_second: f64,
    /// Longest time without an answer, ms.
    pub gap_max_ms: f64,
    /// Latencies by kind of request.
    pub latency: BTreeMap<&'static str, Percentiles>,
    /// What went wrong.
    pub faults: Faults,
    /// CPU time of the load generator, s.
    pub client_cpu_s: f64,
    /// What the server spent, when its pid is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerReport>,
}

/// What a server spent.
#[derive(Debug, Serialize)]
pub struct ServerReport {
    /// CPU time, s.
    pub cpu_s: f64,
    /// CPU time per second.
    pub cores: f64,
    /// Answers per second of CPU time.
    pub per_cpu_second: f64,
    /// Memory at the end.
    #[serde(flatten)]
    pub memory: Memory,
}

impl Report {
    /// The figures of `outcome`.
    pub fn new(outcome: &Outcome) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        Report {
            answered: outcome.answered,
            seconds,
            per_second: outcome.per_second(),
            gap_max_ms: outcome.timeline.gap_max(Default::default(), outcome.elapsed).as_secs_f64() * 1000.0,
            latency: outcome.kinds.iter().map(|(kind, latencies)| (*kind, latencies.summary())).collect(),
            faults: outcome.faults.clone(),
            client_cpu_s: outcome.client_cpu_s,
            server: outcome.cost.map(|cost| ServerReport {
                cpu_s: cost.cpu_s,
                cores: cost.cpu_s / seconds,
                per_cpu_second: outcome.answered as f64 / cost.cpu_s,
                memory: cost.memory,
            }),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} answers in {:.2} s: {:.0}/s, longest gap {:.0} ms",
            self.answered, self.seconds, self.per_second, self.gap_max_ms
        )?;
        for (kind, latency) in &self.latency {
            writeln!(f, "{kind:<12} {latency}")?;
        }
        if let Some(server) = &self.server {
            writeln!(
                f,
                "server       {:.0} per CPU second, {:.2} cores, rss {:.1} MB, pss {:.1} MB",
                server.per_cpu_second,
                server.cores,
                server.memory.rss as f64 / 1e6,
                server.memory.pss as f64 / 1e6
            )?;
        }
        writeln!(f, "generator    {:.2} cores", self.client_cpu_s / self.seconds)?;
        write!(f, "faults       {}", self.faults)
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1} µs, p90 {:.1}, p99 {:.1}, p999 {:.1}, max {:.1} ({} in all)",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us, self.count
        )
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: u64 = self.errors.values().sum();
        write!(f, "{errors} errors, {} wrong answers, {} lost", self.invalid, self.lost)?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}
