//! Counters and latencies that cost next to nothing to record.
//!
//! Every thread that records has its own shard, which no other thread writes. So recording is a
//! plain load, add and store of relaxed atomics, without a locked instruction and without two cores
//! fighting for a cache line; who wants to know adds the shards up. A snapshot taken while threads
//! record may hold one half of what a single call records.

mod catalog;
mod histogram;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use catalog::{Counter, Latency, Summary};
use histogram::{Distribution, Histogram};

/// All metrics of a server. Cheap to clone; clones are the same metrics.
#[derive(Clone, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    shards: Mutex<Shards>,
    /// Incremented by each reset. A shard whose own number is older counts as empty.
    epoch: AtomicU32,
}

#[derive(Default)]
struct Shards {
    all: Vec<Arc<Shard>>,
    /// Those without a recorder, for the next one: threads may come and go.
    free: Vec<Arc<Shard>>,
}

impl Metrics {
    /// A way to record for one thread. What it recorded stays when it is dropped.
    pub fn recorder(&self) -> Recorder {
        let mut shards = self.shared.shards.lock();
        let shard = shards.free.pop().unwrap_or_else(|| {
            let shard = Arc::new(Shard::default());
            shards.all.push(Arc::clone(&shard));
            shard
        });
        Recorder { shared: Arc::clone(&self.shared), shard, one_thread: PhantomData }
    }

    /// Adds up what all recorders recorded.
    pub fn snapshot(&self) -> Snapshot {
        let shards = self.shared.shards.lock().all.clone();
        let epoch = self.shared.epoch.load(Relaxed);
        let sum = |cell: &dyn Fn(&Shard) -> SummaryValue| {
            shards.iter().fold(SummaryValue::default(), |sum, shard| sum.and(cell(shard)))
        };
        let latency = |latency: Latency| {
            let mut distribution = Distribution::new();
            for histogram in shards.iter().filter_map(|s| s.latency(latency).histogram.get()) {
                distribution.add(histogram);
            }
            let values = sum(&|shard| shard.latency(latency).values.get());
            LatencyValue::new(values, &distribution)
        };
        Snapshot {
            counters: Counter::ALL
                .map(|counter| shards.iter().map(|s| s.counter(counter).load(Relaxed)).sum()),
            summaries: Summary::ALL.map(|summary| sum(&|shard| shard.summary(summary).get())),
            latencies: Latency::ALL.map(latency),
            traffic: Traffic {
                packets_received: since_reset(&shards, epoch, |t| t.packets_received.load(Relaxed)),
                packets_sent: since_reset(&shards, epoch, |t| t.packets_sent.load(Relaxed)),
                request_latency: sum(&|shard| shard.traffic.get(epoch, |t| t.request_latency.get())),
                response_size: sum(&|shard| shard.traffic.get(epoch, |t| t.response_size.get())),
                last_response_size: since_reset_last_response(&shards, epoch),
            },
        }
    }

    /// Forgets [`Snapshot::traffic`], and only that: the four-letter word `srst`.
    pub fn reset_traffic(&self) {
        self.shared.epoch.fetch_add(1, Relaxed);
    }
}

fn since_reset(shards: &[Arc<Shard>], epoch: u32, read: impl Fn(&TrafficCells) -> u64) -> u64 {
    shards.iter().map(|shard| shard.traffic.get(epoch, &read)).sum()
}

/// Shards have no common clock, so "last" is the last one of the thread that sent most.
fn since_reset_last_response(shards: &[Arc<Shard>], epoch: u32) -> Option<u64> {
    let last = |shard: &Arc<Shard>| {
        shard.traffic.get(epoch, |t| (t.response_size.get().count, t.last_response_size.load(Relaxed)))
    };
    shards.iter().map(last).max().filter(|(count, _)| *count > 0).map(|(_, size)| size)
}

/// Records the metrics of one thread. May move to another thread, but not be shared by two.
pub struct Recorder {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    /// Not `Sync`: a shard has one writer.
    one_thread: PhantomData<Cell<()>>,
}

impl Recorder {
    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        add(self.shard.counter(counter), n);
    }

    /// Records a measured value, in the unit that [`Summary::is_time`] tells.
    pub fn summary(&self, summary: Summary, value: u64) {
        self.shard.summary(summary).record(value);
    }

    /// Records a time.
    pub fn latency(&self, latency: Latency, microseconds: u64) {
        let cell = self.shard.latency(latency);
        cell.values.record(microseconds);
        cell.histogram.get_or_init(|| Box::new(Histogram::new())).record(microseconds);
    }

    /// Counts a packet from a client.
    pub fn packet_received(&self) {
        add(&self.traffic().packets_received, 1);
    }

    /// Counts a packet to a client.
    pub fn packet_sent(&self) {
        add(&self.traffic().packets_sent, 1);
    }

    /// Records how long a client's request took, from its arrival to its reply.
    pub fn request_latency(&self, microseconds: u64) {
        self.traffic().request_latency.record(microseconds);
    }

    /// Records the size of a reply.
    pub fn response_size(&self, bytes: u64) {
        let traffic = self.traffic();
        traffic.response_size.record(bytes);
        traffic.last_response_size.store(bytes, Relaxed);
    }

    /// The traffic cells, emptied first if there was a reset since their last use. The thread that
    /// resets could not empty them: it would race with this one.
    fn traffic(&self) -> &TrafficCells {
        let traffic = &self.shard.traffic;
        let epoch = self.shared.epoch.load(Relaxed);
        if traffic.epoch.load(Relaxed) != epoch {
            traffic.clear();
            traffic.epoch.store(epoch, Relaxed);
        }
        traffic
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.shards.lock().free.push(Arc::clone(&self.shard));
    }
}

/// Adds without a locked instruction. Correct only because each cell has a single writer.
fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

/// What one thread recorded. Aligned so that two shards never share a cache line.
#[repr(align(128))]
struct Shard {
    counters: [AtomicU64; Counter::ALL.len()],
    summaries: [SummaryCell; Summary::ALL.len()],
    latencies: [LatencyCell; Latency::ALL.len()],
    traffic: TrafficCells,
}

impl Default for Shard {
    fn default() -> Self {
        Shard {
            counters: std::array::from_fn(|_| AtomicU64::default()),
            summaries: std::array::from_fn(|_| SummaryCell::default()),
            latencies: std::array::from_fn(|_| LatencyCell::default()),
            traffic: TrafficCells::default(),
        }
    }
}

impl Shard {
    // The arrays have one element per variant, so these cannot fail.
    fn counter(&self, counter: Counter) -> &AtomicU64 {
        &self.counters[counter as usize]
    }

    fn summary(&self, summary: Summary) -> &SummaryCell {
        &self.summaries[summary as usize]
    }

    fn latency(&self, latency: Latency) -> &LatencyCell {
        &self.latencies[latency as usize]
    }
}

struct SummaryCell {
    count: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Default for SummaryCell {
    fn default() -> Self {
        let zero = AtomicU64::default;
        SummaryCell { count: zero(), sum: zero(), min: AtomicU64::new(u64::MAX), max: zero() }
    }
}

impl SummaryCell {
    fn record(&self, value: u64) {
        add(&self.count, 1);
        add(&self.sum, value);
        if value < self.min.load(Relaxed) {
            self.min.store(value, Relaxed);
        }
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
    }

    fn get(&self) -> SummaryValue {
        SummaryValue {
            count: self.count.load(Relaxed),
            sum: self.sum.load(Relaxed),
            min: self.min.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }

    fn clear(&self) {
        self.count.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }
}

#[derive(Default)]
struct LatencyCell {
    values: SummaryCell,
    /// Made at the first value: most of these are never used, and a thread has many.
    histogram: OnceLock<Box<Histogram>>,
}

#[derive(Default)]
struct TrafficCells {
    epoch: AtomicU32,
    packets_received: AtomicU64,
    packets_sent: AtomicU64,
    request_latency: SummaryCell,
    response_size: SummaryCell,
    last_response_size: AtomicU64,
}

impl TrafficCells {
    fn clear(&self) {
        self.packets_received.store(0, Relaxed);
        self.packets_sent.store(0, Relaxed);
        self.request_latency.clear();
        self.response_size.clear();
        self.last_response_size.store(0, Relaxed);
    }

    /// What `read` finds, or nothing if the cells are older than the last reset.
    fn get<T: Default>(&self, epoch: u32, read: impl FnOnce(&Self) -> T) -> T {
        if self.epoch.load(Relaxed) == epoch { read(self) } else { T::default() }
    }
}

/// The metrics of all threads at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    counters: [u64; Counter::ALL.len()],
    summaries: [SummaryValue; Summary::ALL.len()],
    latencies: [LatencyValue; Latency::ALL.len()],
    /// What `srst` resets.
    pub traffic: Traffic,
}

impl Snapshot {
    /// How often something was counted.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// What was recorded, in the unit that [`Summary::is_time`] tells.
    pub fn summary(&self, summary: Summary) -> SummaryValue {
        self.summaries[summary as usize]
    }

    /// Puts in what was not recorded but measured by another room.
    pub fn set_summary(&mut self, summary: Summary, value: SummaryValue) {
        self.summaries[summary as usize] = value;
    }

    /// What was recorded, in microseconds.
    pub fn latency(&self, latency: Latency) -> LatencyValue {
        self.latencies[latency as usize]
    }
}

/// What went over the client connections since the last reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_received: u64,
    /// Packets to clients.
    pub packets_sent: u64,
    /// Time from request to reply, in microseconds.
    pub request_latency: SummaryValue,
    /// Size of replies, in bytes.
    pub response_size: SummaryValue,
    /// Size of a recent reply, in bytes; `None` before the first.
    pub last_response_size: Option<u64>,
}

/// Number, sum and extremes of recorded values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryValue {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: u64,
    /// The smallest; `u64::MAX` if there was none.
    min: u64,
    /// The largest; 0 if there was none.
    pub max: u64,
}

impl Default for SummaryValue {
    fn default() -> Self {
        SummaryValue { count: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

impl SummaryValue {
    /// A summary of `count` values with this `sum`, smallest and largest value.
    pub fn new(count: u64, sum: u64, min: u64, max: u64) -> Self {
        SummaryValue { count, sum, min, max }
    }

    /// The smallest value; 0 if there was none.
    pub fn min(self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The mean; 0 if there was no value.
    pub fn avg(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// A summary of the values of both.
    pub fn and(self, other: Self) -> Self {
        SummaryValue {
            count: self.count.wrapping_add(other.count),
            sum: self.sum.wrapping_add(other.sum),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// A summary with percentiles, which are at most a sixteenth too large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyValue {
    /// Number, sum and extremes.
    pub values: SummaryValue,
    /// Half of the values are not larger.
    pub p50: u64,
    /// 95 % of the values are not larger.
    pub p95: u64,
    /// 99 % of the values are not larger.
    pub p99: u64,
    /// 99.9 % of the values are not larger.
    pub p999: u64,
}

impl LatencyValue {
    fn new(values: SummaryValue, distribution: &Distribution) -> Self {
        // No percentile is above the largest value, whatever its bucket says.
        let quantile = |quantile| distribution.quantile(quantile).min(values.max);
        LatencyValue {
            values,
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names = Counter::ALL.map(Counter::name).into_iter();
        let names = names.chain(Summary::ALL.map(Summary::name));
        let names: Vec<_> = names.chain(Latency::ALL.map(Latency::name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn nothing_recorded_is_all_zero() {
        let metrics = Metrics::default();
        let _recorder = metrics.recorder();
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot, Metrics::default().snapshot());
        let values = snapshot.latency(Latency::ReadLatency).values;
        assert_eq!((values.count, values.min(), values.max, values.avg()), (0, 0, 0, 0.0));
        assert_eq!(snapshot.traffic.last_response_size, None);
    }

    #[test]
    fn threads_add_up() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for thread in 1..=4_u64 {
                let recorder = metrics.recorder();
                scope.spawn(move || {
                    for i in 0..1000 {
                        recorder.count(Counter::CommitCount);
                        recorder.add(Counter::ResponseBytes, thread);
                        recorder.summary(Summary::FsyncTime, thread * 10);
                        recorder.latency(Latency::UpdateLatency, i);
                        recorder.packet_sent();
                        recorder.response_size(thread);
                    }
                });
            }
        });
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.counter(Counter::CommitCount), 4000);
        assert_eq!(snapshot.counter(Counter::ResponseBytes), 10_000);
        assert_eq!(snapshot.summary(Summary::FsyncTime), SummaryValue::new(4000, 100_000, 10, 40));
        let latency = snapshot.latency(Latency::UpdateLatency);
        assert_eq!(latency.values, SummaryValue::new(4000, 4 * 499_500, 0, 999));
        assert!((499..=531).contains(&latency.p50), "{latency:?}");
        assert!((989..=999).contains(&latency.p99) && latency.p999 <= 999, "{latency:?}");
        assert_eq!(snapshot.traffic.packets_sent, 4000);
        assert_eq!(snapshot.traffic.response_size, SummaryValue::new(4000, 10_000, 1, 4));
    }

    #[test]
    fn a_reset_forgets_traffic_only() {
        let metrics = Metrics::default();
        let (busy, idle) = (metrics.recorder(), metrics.recorder());
        for recorder in [&busy, &idle] {
            recorder.packet_received();
            recorder.request_latency(5);
            recorder.response_size(7);
            recorder.count(Counter::SnapCount);
        }
        metrics.reset_traffic();
        assert_eq!(metrics.snapshot().traffic, Traffic::default());
        busy.request_latency(9);
        busy.response_size(3);
        let snapshot = metrics.snapshot();
        let expected = Traffic {
            request_latency: SummaryValue::new(1, 9, 9, 9),
            response_size: SummaryValue::new(1, 3, 3, 3),
            last_response_size: Some(3),
            ..Traffic::default()
        };
        assert_eq!(snapshot.traffic, expected);
        assert_eq!(snapshot.counter(Counter::SnapCount), 2);
    }

    #[test]
    fn shards_are_used_again() {
        let metrics = Metrics::default();
        for _ in 0..100 {
            metrics.recorder().count(Counter::SnapCount);
        }
        assert_eq!(metrics.shared.shards.lock().all.len(), 1);
        assert_eq!(metrics.snapshot().counter(Counter::SnapCount), 100);
    }
}
