//! A server, an ordinary client on it, and how much memory the process has.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use zk_proto::Response;
use zk_tests::server::TestServer;
use zk_tests::wire::Session;

/// 2^20 bytes.
pub const MIB: usize = 1 << 20;

/// Attacks are measured for the whole process: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The ordinary client must be answered within this time, however busy the machine.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// A server under attack.
pub struct Scene {
    server: TestServer,
    ordinary: Option<JoinHandle<Ordinary>>,
    stop: Arc<AtomicBool>,
    memory_before: usize,
    _alone: MutexGuard<'static, ()>,
}

/// What the ordinary client saw.
struct Ordinary {
    rounds: u32,
    slowest: Duration,
}

impl Scene {
    /// A server with these settings, on which an ordinary client has begun to work.
    pub fn new(settings: &[&str]) -> Scene {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let server = TestServer::start(settings);
        let stop = Arc::new(AtomicBool::new(false));
        let ordinary = std::thread::spawn({
            let (stop, addr) = (stop.clone(), server.addr());
            move || work(addr, &stop)
        });
        PeakAlloc.reset_peak_usage();
        let memory_before = PeakAlloc.current_usage();
        Scene { server, ordinary: Some(ordinary), stop, memory_before, _alone: alone }
    }

    /// The server's address.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Forgets what was allocated so far: what follows is the attack.
    pub fn attack_begins(&mut self) {
        PeakAlloc.reset_peak_usage();
        self.memory_before = PeakAlloc.current_usage();
    }

    /// How much more memory there is than when the attack began.
    pub fn growth(&self) -> usize {
        PeakAlloc.current_usage().saturating_sub(self.memory_before)
    }

    /// How much more there was at most.
    pub fn peak_growth(&self) -> usize {
        PeakAlloc.peak_usage().saturating_sub(self.memory_before)
    }

    /// Ends the test: the ordinary client worked all the time.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ordinary = self.ordinary.take().expect("only finish takes it").join();
        let ordinary = ordinary.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(ordinary.rounds > 0, "the ordinary client did nothing");
        assert!(ordinary.slowest < ANSWER_TIME_MAX, "the ordinary client waited {:?}", ordinary.slowest);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Writes and reads and checks what it reads.
fn work(server: SocketAddr, stop: &AtomicBool) -> Ordinary {
    let mut session = Session::open(server);
    assert_eq!(session.create("/ordinary", b"", 0).err(), 0);
    let mut ordinary = Ordinary { rounds: 0, slowest: Duration::ZERO };
    loop {
        let start = Instant::now();
        let value = ordinary.rounds.to_be_bytes();
        assert_eq!(session.set("/ordinary", &value, -1).err(), 0);
        let reply = session.get("/ordinary", false);
        assert!(matches!(reply.ok(), Response::Data { data: Some(data), .. } if data == value));
        ordinary.slowest = ordinary.slowest.max(start.elapsed());
        ordinary.rounds += 1;
        if stop.load(Ordering::Relaxed) {
            return ordinary;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `done`.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < zk_tests::wire::PATIENCE, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
