//! A histogram with constant relative error and constant size.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Each power of two is divided into so many buckets, which bounds the relative error to 1/16.
const SUB_BUCKETS: usize = 1 << SUB_BITS;
const SUB_BITS: u32 = 4;
/// Values from 2^36 on (19 hours, in microseconds) share the last bucket.
const VALUE_BITS: u32 = 36;
const BUCKETS: usize = SUB_BUCKETS * (VALUE_BITS - SUB_BITS + 1) as usize;

/// Counts of values by size, written by one thread and read by any. 4 KiB.
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS],
}

impl Histogram {
    pub fn new() -> Self {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS] }
    }

    /// Counts `value`. Only one thread may do this; see [`super::add`].
    pub fn record(&self, value: u64) {
        if let Some(count) = self.counts.get(bucket_of(value)) {
            super::add(count, 1);
        }
    }
}

/// Counts of several histograms added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    counts: Vec<u64>,
}

impl Distribution {
    pub fn new() -> Self {
        Distribution { counts: Vec::new() }
    }

    pub fn add(&mut self, histogram: &Histogram) {
        self.counts.resize(BUCKETS, 0);
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Relaxed);
        }
    }

    /// The value below or at which the share `quantile` (0 to 1) of all values lies, rounded up to
    /// the largest value of its bucket; 0 if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        bucket.map_or(0, largest_of)
    }
}

fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    // Of the bits below the highest one, the four that follow it select the bucket. Values below 16
    // are treated like those of 16 to 31: one bucket each.
    let shift = (value | SUB_BUCKETS as u64).ilog2() - SUB_BITS;
    shift as usize * SUB_BUCKETS + (value >> shift) as usize
}

fn largest_of(bucket: usize) -> u64 {
    let shift = (bucket / SUB_BUCKETS).saturating_sub(1);
    let leading_bits = (bucket - shift * SUB_BUCKETS) as u64;
    ((leading_bits + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut last = 0;
        for value in 0..100_000 {
            let bucket = bucket_of(value);
            assert!(bucket == last || bucket == last + 1, "{value}");
            last = bucket;
            let largest = largest_of(bucket);
            assert!(largest >= value && largest - value <= value / 16, "{value} {largest}");
        }
        for exponent in 5..VALUE_BITS {
            for value in [(1 << exponent) - 1, 1 << exponent, (1 << exponent) + 1] {
                let bucket = bucket_of(value);
                assert!(largest_of(bucket) >= value && largest_of(bucket - 1) < value, "{value}");
            }
        }
        assert_eq!(bucket_of((1 << VALUE_BITS) - 1), BUCKETS - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles() {
        let histogram = Histogram::new();
        let mut sum = Distribution::new();
        sum.add(&histogram);
        assert_eq!(sum.quantile(0.5), 0);
        for value in 1..=1000 {
            histogram.record(value);
        }
        let mut sum = Distribution::new();
        sum.add(&histogram);
        sum.add(&histogram);
        for (quantile, exact) in [(0.0, 1), (0.5, 500), (0.95, 950), (0.99, 990), (1.0, 1000)] {
            let value = sum.quantile(quantile);
            assert!(value >= exact && value <= exact + exact / 16, "{quantile}: {value}");
        }
    }
}
