//! What happened, for people, and its hash.

use std::cell::Cell;
use std::fmt;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::Us;

/// What is told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tracing {
    /// Nothing.
    #[default]
    Off,
    /// Everything that happens, on standard output, and what the servers log.
    On,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trace {
    on: bool,
    hash: u64,
}

thread_local! {
    static NOW: Cell<(Us, usize)> = const { Cell::new((0, 0)) };
}

/// Tells the log what time it is.
pub(super) fn set_time(now: Us) {
    NOW.with(|cell| cell.set((now, cell.get().1)));
}

/// Tells the log whose turn it is; 0 for nobody's.
pub(super) fn set_node(node: usize) {
    NOW.with(|cell| cell.set((cell.get().0, node)));
}

fn prefix() -> String {
    let (now, node) = NOW.with(Cell::get);
    let node = if node == 0 { "  ".into() } else { format!("n{node}") };
    format!("{:>6}.{:06} {node}", now / 1_000_000, now % 1_000_000)
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", prefix())
    }
}

/// Runs something with the servers' log going where the trace goes.
pub(super) fn with_log<T>(tracing: Tracing, run: impl FnOnce() -> T) -> T {
    if tracing == Tracing::Off {
        return run();
    }
    let level =
        if std::env::var_os("ZK_SIM_DEBUG").is_some() { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let subscriber = tracing_subscriber::fmt()
        .with_timer(SimulatedTime)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .finish();
    tracing::subscriber::with_default(subscriber, run)
}

impl Trace {
    pub fn new(tracing: Tracing) -> Self {
        Trace { on: tracing == Tracing::On, hash: 0 }
    }

    /// Adds to the hash.
    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Tells something, if anybody listens.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if self.on {
            println!("{}      {}", prefix(), line());
        }
    }

    /// Hash of everything mixed in.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
