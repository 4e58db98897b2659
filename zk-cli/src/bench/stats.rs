//! Latencies, counts and what is printed of them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use zk_proto::ErrorCode;

/// Latencies of one kind of operation, kept to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Longest latency that is told apart.
    const NS_MAX: u64 = 600_000_000_000;

    /// None yet.
    pub fn new() -> Self {
        Latencies(Histogram::new_with_bounds(1, Self::NS_MAX, 3).expect("constant bounds are valid"))
    }

    /// Adds one, ns.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds one.
    pub fn record_duration(&mut self, latency: Duration) {
        self.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The percentiles.
    pub fn summary(&self) -> Percentiles {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile| us(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            mean_us: self.0.mean() / 1000.0,
            p50_us: at(0.50),
            p90_us: at(0.90),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(self.0.max()),
        }
    }
}

/// Percentiles of latencies, µs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Latencies seen.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90 % are not above it.
    pub p90_us: f64,
    /// 99 % are not above it.
    pub p99_us: f64,
    /// 99.9 % are not above it.
    pub p999_us: f64,
    /// Longest.
    pub max_us: f64,
}

/// Answers that were not what they must be, and what was never answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Replies with an unexpected error code, by code.
    pub errors: BTreeMap<i32, u64>,
    /// Replies out of order, of a wrong length or with wrong content.
    pub invalid: u64,
    /// Requests without a reply, and connections that the server closed.
    pub lost: u64,
    /// What the first few were.
    pub examples: Vec<String>,
}

impl Faults {
    const EXAMPLES_MAX: usize = 5;

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.invalid + self.lost
    }

    /// Counts a reply with an unexpected error code.
    pub fn error(&mut self, what: &str, code: ErrorCode) {
        *self.errors.entry(code.0).or_default() += 1;
        self.example(|| format!("{what}: {code}"));
    }

    /// Counts a wrong reply.
    pub fn invalid(&mut self, what: &str, why: &str) {
        self.invalid += 1;
        self.example(|| format!("{what}: {why}"));
    }

    /// Counts requests that were not answered, or connections that were closed.
    pub fn lost(&mut self, count: u64, why: &str) {
        if count > 0 {
            self.lost += count;
            self.example(|| format!("{count} × {why}"));
        }
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < Self::EXAMPLES_MAX {
            self.examples.push(text());
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Faults) {
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.invalid += other.invalid;
        self.lost += other.lost;
        let room = Self::EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// Completions per millisecond from the start of a measurement: shows pauses.
#[derive(Debug, Clone, Default)]
pub struct Timeline(Vec<u32>);

impl Timeline {
    /// Longest time that is followed, ms; what comes later is left out.
    const MS_MAX: usize = 3_600_000;

    /// Counts `count` completions at `at` after the start.
    pub fn add(&mut self, at: Duration, count: u32) {
        let ms = at.as_millis() as usize;
        if ms >= Self::MS_MAX {
            return;
        }
        if self.0.len() <= ms {
            self.0.resize(ms + 1, 0);
        }
        self.0[ms] += count;
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Timeline) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn part(&self, from: Duration, to: Duration) -> impl Iterator<Item = u32> + '_ {
        let (from, to) = (from.as_millis() as usize, to.as_millis() as usize);
        (from..to).map(|ms| self.0.get(ms).copied().unwrap_or(0))
    }

    /// The longest time without a completion between two moments, in whole milliseconds.
    pub fn gap_max(&self, from: Duration, to: Duration) -> Duration {
        let mut longest = 0u64;
        let mut current = 0u64;
        for count in self.part(from, to) {
            current = if count == 0 { current + 1 } else { 0 };
            longest = longest.max(current);
        }
        Duration::from_millis(longest)
    }

    /// Completions between two moments.
    pub fn completed(&self, from: Duration, to: Duration) -> u64 {
        self.part(from, to).map(u64::from).sum()
    }
}

/// The middle value; the mean of the two middle ones of an even number. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_latencies() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        let summary = latencies.summary();
        assert_eq!(summary.count, 1000);
        for (got, expected) in [(summary.p50_us, 500.0), (summary.p99_us, 990.0), (summary.max_us, 1000.0)] {
            assert!((got / expected - 1.0).abs() < 0.002, "{got} is not {expected}");
        }
    }

    #[test]
    fn the_longest_gap_counts_a_silent_end() {
        let ms = Duration::from_millis;
        let mut timeline = Timeline::default();
        for at in [0, 1, 5, 6, 7] {
            timeline.add(ms(at), 2);
        }
        assert_eq!(timeline.gap_max(ms(0), ms(8)), ms(3));
        assert_eq!(timeline.gap_max(ms(0), ms(20)), ms(12));
        assert_eq!(timeline.completed(ms(1), ms(6)), 4);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
