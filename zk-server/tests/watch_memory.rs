//! Memory of a watch, measured at the allocator. One test, so that nothing else allocates meanwhile.

use std::alloc::System;

use cap::Cap;
use zk_server::watch::{ConnId, Target, WatchMode, WatchTable};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that each of `count` watches keeps allocated.
fn bytes_per_watch(count: u32, arm: impl Fn(&mut WatchTable, u32)) -> f64 {
    let before = ALLOCATOR.allocated();
    let mut table = WatchTable::new();
    for i in 0..count {
        arm(&mut table, i);
    }
    let bytes = ALLOCATOR.allocated() - before;
    assert_eq!(table.watch_count(), count as usize);
    (0..count).for_each(|conn| table.connection_closed(ConnId(conn)));
    assert!(table.is_empty());
    let left = ALLOCATOR.allocated() - before;
    assert!(left < 64 * 1024, "{left} bytes of an empty table");
    bytes as f64 / f64::from(count)
}

#[test]
fn a_watch_takes_few_bytes() {
    const COUNT: u32 = 100_000;
    // 48271 and COUNT have no common divisor: every number once, in no simple order.
    let scattered = |i: u32| (u64::from(i) * 48_271 % u64::from(COUNT)) as u32;
    type Arm<'a> = &'a dyn Fn(u32) -> (u32, u32);
    let cases: [(&str, f64, Arm<'_>); 7] = [
        ("one connection, a node each", 24.0, &|i| (i, 0)),
        ("one connection, a node each, scattered", 24.0, &|i| (scattered(i), 0)),
        ("one node, a connection each", 24.0, &|i| (0, i)),
        ("one node, a connection each, scattered", 24.0, &|i| (0, scattered(i))),
        ("100 connections, 1000 nodes each", 24.0, &|i| (i / 100, i % 100)),
        ("a node and a connection each", 24.0, &|i| (i, scattered(i))),
        // The dearest case: a list for every two watches.
        ("two connections on every node", 48.0, &|i| (i / 2, i % 2)),
    ];
    for (name, at_most, place) in cases {
        let bytes = bytes_per_watch(COUNT, |table, i| {
            let (node, conn) = place(i);
            assert!(table.add(Target::Node(node), ConnId(conn), WatchMode::Data));
        });
        println!("{name}: {bytes:.1} bytes");
        assert!(bytes <= at_most, "{name}: {bytes:.1} bytes");
    }

    let bytes = bytes_per_watch(COUNT, |table, i| {
        let path = format!("/a/path/that/is/no/node/{i:06}");
        assert!(table.add(Target::Path(&path), ConnId(i % 10), WatchMode::Data));
    });
    println!("paths of 30 characters: {bytes:.1} bytes");
    assert!(bytes <= 90.0, "paths: {bytes:.1} bytes");
}
