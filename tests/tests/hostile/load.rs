//! Attacks by the amount of work.

use std::time::Duration;

use zk_proto::{OpCode, Request, Response, SetWatches};
use zk_tests::wire::{Session, request_frame};

use crate::scene::{MIB, Scene, wait_until};

#[test]
fn slow_reader_asks_for_100_mib_and_does_not_read() {
    const REPLIES: usize = 100;
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    let data = vec![7; MIB - 1000];
    assert_eq!(session.create("/large", &data, 0).err(), 0);
    scene.attack_begins();
    for _ in 0..REPLIES {
        session.send(&Request::GetData { path: "/large".into(), watch: false });
    }
    // Time to do it wrong.
    std::thread::sleep(Duration::from_millis(500));
    assert!(scene.peak_growth() < 64 * MIB, "{}", scene.peak_growth());
    // When it reads again, everything is there.
    for _ in 0..REPLIES {
        let reply = session.reply();
        assert!(matches!(reply.ok(), Response::Data { data: Some(d), .. } if d == data));
    }
    scene.finish();
}

#[test]
fn a_watcher_that_does_not_read_is_cut_off_before_its_events_fill_the_memory() {
    let mut scene = Scene::new(&[]);
    let mut watcher = Session::open(scene.addr());
    watcher.add_watch("/", zk_proto::AddWatchMode::PersistentRecursive);
    let mut writer = Session::open(scene.addr());
    // Long paths make long events.
    let path = format!("/{}", "n".repeat(100_000));
    assert_eq!(writer.create(&path, b"", 0).err(), 0);
    scene.attack_begins();
    // 150 MB of events.
    for _ in 0..1500 {
        assert_eq!(writer.set(&path, b"", -1).err(), 0);
    }
    assert!(scene.peak_growth() < 64 * MIB, "{}", scene.peak_growth());
    let mut events = 0;
    while watcher.wire.recv_or_cut().is_some() {
        events += 1;
    }
    assert!(events < 1500, "it was not cut off");
    scene.finish();
}

#[test]
fn pipelined_requests_without_end() {
    // 80 MB.
    const REQUESTS: usize = 20_000;
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    assert_eq!(session.create("/pipe", b"", 0).err(), 0);
    let mut body = Vec::new();
    Request::SetData { path: "/pipe".into(), data: Some(&[1; 4000]), version: -1 }.encode(&mut body);
    let mut sender = session.wire.stream().try_clone().expect("a second handle of the socket");
    scene.attack_begins();
    let sending = std::thread::spawn(move || {
        for xid in 0..REQUESTS {
            let body = request_frame(xid as i32, OpCode::SetData as i32, &body);
            let mut frame = Vec::new();
            zk_proto::jute::frame(&mut frame, |w| w.extend_from_slice(&body));
            std::io::Write::write_all(&mut sender, &frame).expect("the server takes it sooner or later");
        }
    });
    // Nobody reads for a while. It is throttled, not cut off: every request is answered, in order.
    std::thread::sleep(Duration::from_millis(500));
    for xid in 0..REQUESTS {
        let reply = session.wire.recv().expect("a reply");
        assert_eq!(reply[..4], (xid as i32).to_be_bytes());
    }
    sending.join().expect("it sends");
    assert!(scene.peak_growth() < 32 * MIB, "{}", scene.peak_growth());
    assert_eq!(session.exists("/pipe", false).stat().version as usize, REQUESTS);
    scene.finish();
}

#[test]
fn a_client_that_pipelines_writes_and_leaves() {
    let mut scene = Scene::new(&[]);
    scene.attack_begins();
    for _ in 0..20 {
        let mut session = Session::open(scene.addr());
        for _ in 0..500 {
            session.send(&zk_tests::wire::create("/gone-", b"", 3));
        }
        // The connection is reset while the requests are on their way.
        drop(session);
    }
    assert!(scene.peak_growth() < 64 * MIB, "{}", scene.peak_growth());
    scene.finish();
}

#[test]
fn watches_of_one_client() {
    const WATCHES: usize = 100_000;
    const PATHS_PER_FRAME: usize = 10_000;
    let mut scene = Scene::new(&[]);
    let mut session = Session::open(scene.addr());
    // The first few make room for bookkeeping.
    assert_eq!(session.call(&exist_watches(0, 10)).err(), 0);
    scene.attack_begins();
    for first in (0..WATCHES).step_by(PATHS_PER_FRAME) {
        assert_eq!(session.call(&exist_watches(first, PATHS_PER_FRAME)).err(), 0);
    }
    let each = scene.growth() / WATCHES;
    assert!(each <= 200, "{each} bytes per watch");
    // They go with the connection.
    drop(session);
    wait_until("the watches' memory", || scene.growth() < MIB);
    scene.finish();
}

fn exist_watches(first: usize, count: usize) -> Request<'static> {
    Request::SetWatches(SetWatches {
        relative_zxid: i64::MAX,
        data: Some(vec![]),
        exist: Some((first..first + count).map(|i| format!("/watched/{i:07}").into()).collect()),
        child: Some(vec![]),
        ..SetWatches::default()
    })
}
