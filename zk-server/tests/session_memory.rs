//! Memory of a tracked session, measured at the allocator. One test, so that nothing else allocates meanwhile.

use std::alloc::System;

use cap::Cap;
use zk_proto::SessionId;
use zk_server::session::SessionTracker;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

#[test]
fn a_session_takes_few_bytes() {
    const COUNT: usize = 100_000;
    const PING_EVERY_MS: usize = 10_000;
    let before = ALLOCATOR.allocated();
    let per_session = || (ALLOCATOR.allocated() - before) as f64 / COUNT as f64;
    let id = |i: usize| SessionId(0x0100_000e_a755_0000 + i as i64);

    let mut tracker = SessionTracker::new(2_000);
    for i in 0..COUNT {
        assert!(tracker.add(id(i), 30_000, 1, (i * PING_EVERY_MS / COUNT) as u64));
    }
    println!("{:.1} bytes when new", per_session());
    assert!(per_session() <= 48.0, "{:.1} bytes", per_session());

    // A minute of pings, spread evenly, expires nobody and takes no memory.
    for ms in PING_EVERY_MS..60_000 {
        for i in (0..COUNT).skip(ms % PING_EVERY_MS).step_by(PING_EVERY_MS) {
            assert!(tracker.touch(id(i), ms as u64));
        }
        assert!(tracker.expire_until(ms as u64).is_empty());
    }
    println!("{:.1} bytes after a minute", per_session());
    assert!(per_session() <= 48.0, "{:.1} bytes", per_session());
    assert_eq!(tracker.expire_until(100_000).len(), COUNT);
}
