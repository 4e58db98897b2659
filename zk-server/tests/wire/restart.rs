use std::path::Path;
use std::time::Duration;

use zk_proto::ErrorCode;
use zk_server::{Server, StartError};

use crate::client::{Wire, create, eventually, get, set};

fn start(dir: &Path) -> Server {
    Server::builder().data_dir(dir).tick_time(Duration::from_millis(100)).start().unwrap()
}

#[test]
fn a_stopped_server_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut wire = Wire::connect_for(&server, 2_000);
    wire.ok(&create("/n", b"1", 0));
    wire.ok(&create("/e", b"", 1));
    let (zxid, digest) = (server.last_zxid(), server.tree_digest());
    server.shutdown_blocking();
    assert!(wire.frame().is_none());

    let server = start(dir.path());
    assert_eq!((server.last_zxid(), server.tree_digest()), (zxid, digest));
    let mut wire = wire.reattach(&server).expect("the session lives on");
    assert_eq!(wire.ok(&get("/n", false)).data(), b"1");
    wire.ok(&get("/e", false));
    assert_eq!(wire.ok(&set("/n", b"2")).zxid, zxid.0 + 1);
}

#[test]
fn sessions_that_nobody_continues_expire_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    Wire::connect_for(&server, 300).ok(&create("/e", b"", 1));
    drop(server);
    let server = start(dir.path());
    let mut wire = Wire::connect_for(&server, 2_000);
    eventually("expired", || wire.call(&get("/e", false)).err == ErrorCode::NO_NODE);
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for _ in 0..10 {
        let server = start(dir.path());
        let mut wire = Wire::connect(&server);
        let found = wire.call(&get("/count", false));
        if found.err == ErrorCode::NO_NODE {
            wire.ok(&create("/count", b"0", 0));
        } else {
            let count: i32 = String::from_utf8(found.data()).unwrap().parse().unwrap();
            assert!(count >= acknowledged, "{count} of {acknowledged}");
            acknowledged = count;
        }
        let texts: Vec<_> = (1..=200).map(|i| (acknowledged + i).to_string()).collect();
        let requests: Vec<_> = texts.iter().map(|text| set("/count", text.as_bytes())).collect();
        wire.ask_all(&requests);
        for text in &texts[..37] {
            wire.reply().stat();
            acknowledged = text.parse().unwrap();
        }
        server.kill();
    }
}

#[test]
fn shutdown_answers_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut wire = Wire::connect(&server);
    let requests: Vec<_> = (0..100).map(|_| create("/n-", b"", 2)).collect();
    wire.ask_all(&requests);
    wire.reply();
    futures::executor::block_on(server.shutdown());
    let mut answered = 1;
    while wire.try_reply().is_some() {
        answered += 1;
    }
    let server = start(dir.path());
    let mut wire = Wire::connect(&server);
    let last = wire.ok(&create("/n-", b"", 2)).path();
    assert_eq!(last, format!("/n-{answered:010}"), "executed as much as was answered");
}

#[test]
fn one_directory_serves_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let error = Server::builder().data_dir(dir.path()).start().unwrap_err();
    assert!(matches!(error, StartError::Directory(_)), "{error}");
    assert_eq!(error.exit_code(), zk_server::cli::ExitCode::DataDirNotAccessible);
    drop(server);
    start(dir.path());
}

#[test]
fn a_port_that_is_taken_is_reported() {
    let server = Server::builder().memory().start().unwrap();
    let port = server.local_addr().port();
    let error = Server::builder().memory().client_port(port).start().unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn snapshots_are_taken_and_old_files_purged_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = Path::new("unused");
    let (mut config, _) = zk_server::config::Config::dev(path, 0, &Default::default(), false).unwrap();
    config.snap_count = 100;
    config.autopurge.snap_retain_count = 3;
    let server = Server::builder().config(config).data_dir(dir.path()).start().unwrap();
    let mut wire = Wire::connect(&server);
    wire.ok(&create("/n", b"", 0));
    let files = |prefix: &str| {
        let names = std::fs::read_dir(dir.path().join("version-2")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).collect::<Vec<_>>()
    };
    for i in 0..40 {
        let texts: Vec<_> = (0..100).map(|j| format!("{i}-{j}")).collect();
        let requests: Vec<_> = texts.iter().map(|text| set("/n", text.as_bytes())).collect();
        wire.ask_all(&requests);
        requests.iter().for_each(|_| assert_eq!(wire.reply().err, ErrorCode::OK));
        std::thread::sleep(Duration::from_millis(5));
    }
    eventually("old files are gone", || {
        let snapshots = files("snapshot.");
        snapshots.len() <= 4 && !snapshots.contains(&"snapshot.0".to_string())
    });
    assert!(files("log.").len() > 1, "a new log with each snapshot: {:?}", files("log."));
    let digest = server.tree_digest();
    server.shutdown_blocking();
    let server = start(dir.path());
    assert_eq!(server.tree_digest(), digest);
}

#[test]
fn many_servers_run_in_one_process_also_inside_a_runtime() {
    let servers: Vec<_> = (0..5).map(|_| Server::builder().memory().start().unwrap()).collect();
    for server in &servers {
        Wire::connect(server).ok(&create("/mine", b"", 0));
    }
    futures::executor::block_on(async {
        for server in servers {
            server.shutdown().await;
        }
    });
}

#[test]
fn starting_takes_no_time() {
    let begun = std::time::Instant::now();
    let server = Server::builder().memory().start().unwrap();
    Wire::connect(&server).ping();
    drop(server);
    // A goal of 50 ms; bounded loosely, since other tests run meanwhile.
    assert!(begun.elapsed() < Duration::from_secs(5));
}
