//! What a seed decides before it starts.

use fastrand::Rng;

use super::{MS, SECOND, Us};

/// Faults per simulated minute, by kind; 0 for a kind that does not happen with this seed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// kill -9 of one process at any moment: nothing written is lost.
    pub kill: f64,
    /// Power loss of one machine at any moment: of what was not synced, anything may be lost.
    pub power: f64,
    /// One of the two in the middle of a disk operation.
    pub crash_in_operation: f64,
    /// The leader is killed.
    pub kill_leader: f64,
    /// All machines lose power.
    pub power_all: f64,
    /// A write or sync fails.
    pub disk_error: f64,
    /// A disk is slow for a while.
    pub slow_disk: f64,
    /// Some directions of some links carry nothing for a while.
    pub partition: f64,
    /// A connection between servers breaks; one end may not notice.
    pub drop_connection: f64,
    /// A process stands still for a while.
    pub pause: f64,
    /// A wall clock jumps.
    pub clock_jump: f64,
    /// A client loses its connection.
    pub drop_client: f64,
    /// Messages take longer for a while.
    pub slow_network: f64,
}

impl Faults {
    /// Whether anything goes wrong at all.
    pub fn any(&self) -> bool {
        self.total() > 0.0
    }

    /// All kinds together, per minute.
    pub fn total(&self) -> f64 {
        let Faults { kill, power, crash_in_operation, kill_leader, power_all, disk_error, .. } = self;
        let Faults { slow_disk, partition, drop_connection, pause, clock_jump, .. } = self;
        kill + power
            + crash_in_operation
            + kill_leader
            + power_all
            + disk_error
            + slow_disk
            + partition
            + drop_connection
            + pause
            + clock_jump
            + self.drop_client
            + self.slow_network
    }

    fn draw(rng: &mut Rng) -> Faults {
        // Each kind is off, rare or frequent: a seed that has few kinds goes deep where one with all of them
        // never gets a write done.
        let mut rate = |max: f64| match rng.u8(0..4) {
            0 | 1 => 0.0,
            2 => max / 4.0,
            _ => max,
        };
        Faults {
            kill: rate(4.0),
            power: rate(4.0),
            crash_in_operation: rate(6.0),
            kill_leader: rate(4.0),
            power_all: rate(1.0),
            disk_error: rate(2.0),
            slow_disk: rate(3.0),
            partition: rate(4.0),
            drop_connection: rate(8.0),
            pause: rate(4.0),
            clock_jump: rate(2.0),
            drop_client: rate(8.0),
            slow_network: rate(3.0),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Swarm {
    /// Decides everything that is decided later.
    pub seed: u64,
    /// Servers with a vote.
    pub voters: usize,
    /// Servers without.
    pub observers: usize,
    /// Sessions at a time.
    pub clients: usize,
    /// Mean time between two requests of one client.
    pub op_interval_us: Us,
    /// How long there are faults.
    pub duration_us: Us,
    /// How long everything may take to be in order again.
    pub healing_us: Us,
    /// When faults begin.
    pub faults_from_us: Us,
    /// Faults and their rates.
    pub faults: Faults,
    /// `tickTime`.
    pub tick_ms: u64,
    /// `initLimit`.
    pub init_limit: u32,
    /// `syncLimit`.
    pub sync_limit: u32,
    /// How far from the true speed clocks may be, millionths.
    pub clock_drift_ppm: u64,
    /// Delay of a message between servers.
    pub latency_us: (Us, Us),
    /// Time of a disk operation.
    pub disk_us: (Us, Us),
    /// `commitLogCount`.
    pub history: usize,
    /// `snapCount`.
    pub snap_count: u64,
    /// Log files are followed by a new one from this size on.
    pub log_bytes_max: u64,
    /// `snapshotSizeFactor`.
    pub snapshot_size_factor: Option<f64>,
    /// See [`zk_server::zab::leader::LeaderOptions::snapshot_instead_of_truncation_bytes`].
    pub snapshot_instead_of_truncation_bytes: u64,
    /// Whether a sync is answered only after a quorum was asked.
    pub confirm_syncs: bool,
    /// The older election algorithm.
    pub query_rounds: bool,
    /// The leader steps down at this counter.
    pub roll_over_counter: u32,
    /// All servers start by themselves.
    pub autostart: bool,
    /// Chance that the disk is looked at as after a power loss when an acknowledgement leaves.
    pub look_at_disk: f64,
}

impl Swarm {
    /// Three servers, nothing goes wrong.
    pub fn calm(seed: u64) -> Swarm {
        Swarm {
            seed,
            voters: 3,
            observers: 0,
            clients: 4,
            op_interval_us: 200 * MS,
            duration_us: 60 * SECOND,
            healing_us: 60 * SECOND,
            faults_from_us: 10 * SECOND,
            faults: Faults::default(),
            tick_ms: 400,
            init_limit: 10,
            sync_limit: 5,
            clock_drift_ppm: 0,
            latency_us: (200, 2000),
            disk_us: (200, 3000),
            history: 500,
            snap_count: 100_000,
            log_bytes_max: 1 << 20,
            snapshot_size_factor: Some(0.33),
            snapshot_instead_of_truncation_bytes: 0,
            confirm_syncs: true,
            query_rounds: false,
            roll_over_counter: u32::MAX - 1000,
            autostart: true,
            look_at_disk: 0.002,
        }
    }

    /// What a seed decides.
    pub fn draw(seed: u64) -> Swarm {
        let mut rng = Rng::with_seed(seed ^ 0x5eed_5eed_5eed_5eed);
        let rng = &mut rng;
        let ms = |rng: &mut Rng, low: u64, high: u64| rng.u64(low..high) * MS;
        Swarm {
            voters: *rng.choice(&[3, 3, 3, 3, 5, 1, 2]).unwrap_or(&3),
            observers: *rng.choice(&[0, 0, 1, 2]).unwrap_or(&0),
            clients: rng.usize(2..8),
            op_interval_us: ms(rng, 50, 400),
            duration_us: rng.u64(60..300) * SECOND,
            faults: Faults::draw(rng),
            clock_drift_ppm: *rng.choice(&[0, 100, 50_000]).unwrap_or(&0),
            latency_us: *rng
                .choice(&[(100, 500), (200, 2000), (1000, 20_000), (100, 80_000)])
                .unwrap_or(&(200, 2000)),
            disk_us: *rng.choice(&[(50, 500), (200, 3000), (2000, 30_000)]).unwrap_or(&(200, 3000)),
            history: *rng.choice(&[0, 1, 5, 50, 500]).unwrap_or(&500),
            snap_count: *rng.choice(&[20, 100, 1000, 100_000]).unwrap_or(&1000),
            log_bytes_max: *rng.choice(&[2 << 10, 16 << 10, 1 << 20]).unwrap_or(&(1 << 20)),
            snapshot_size_factor: *rng.choice(&[Some(0.33), Some(0.0), None, Some(10.0)]).unwrap_or(&None),
            snapshot_instead_of_truncation_bytes: *rng.choice(&[0, 0, 16 << 20]).unwrap_or(&0),
            query_rounds: rng.u8(0..6) == 0,
            roll_over_counter: *rng.choice(&[u32::MAX - 1000, u32::MAX - 1000, 50]).unwrap_or(&50),
            ..Swarm::calm(seed)
        }
    }

    /// Members in total.
    pub fn servers(&self) -> usize {
        self.voters + self.observers
    }
}
