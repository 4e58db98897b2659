//! Divergences and data losses of Apache's servers as scripts: here nothing diverges and nothing is lost.

use zk_proto::Request;
use zk_server::member::PeerPort;
use zk_tests::sim::script::{Answer, create, stage};
use zk_tests::sim::{Swarm, Tracing, Violation, World, run_script};

fn play(swarm: Swarm, script: impl FnOnce(&mut World) -> Result<(), Violation>) {
    let report = run_script(swarm, Tracing::Off, script);
    assert_eq!(report.violation, None);
}

fn assert_nodes(world: &World, servers: &[usize], there: &[&str], not_there: &[&str]) {
    for &server in servers {
        for path in there {
            assert!(world.has(server, path), "server {server} lacks {path}");
        }
        for path in not_there {
            assert!(!world.has(server, path), "server {server} has {path}");
        }
    }
}

/// Lets the leader log something that nobody else hears of, and kills everybody.
fn log_alone_and_die(
    world: &mut World,
    leader: usize,
    others: &[usize],
    path: &str,
) -> Result<(), Violation> {
    let mut connection = world.connect_to(leader)?;
    world.wait_ms(500)?;
    let before = world.durable(leader);
    for &other in others {
        world.set_cut(leader, other, PeerPort::Quorum, true);
    }
    world.ask_for(&mut connection, &create(path));
    world.wait_until("it is in the leader's log", |world| world.durable(leader) > before)?;
    world.kill(&[leader]);
    world.kill(others);
    for &other in others {
        world.set_cut(leader, other, PeerPort::Quorum, false);
    }
    Ok(())
}

/// R1, ZOOKEEPER-4925: a follower that came back by DIFF leads, and serves a DIFF to one that is further behind.
#[test]
fn a_follower_that_caught_up_by_diff_has_no_hole_to_hand_on() {
    for history in [1, 500] {
        play(Swarm { history, ..stage(3, 1) }, |world| {
            world.start_servers(&[1, 2])?;
            assert_eq!(world.leader_server(), Some(2));
            world.start_servers(&[3, 4])?;
            world.create_over(2, "/t0")?;
            world.wait_until_equal()?;
            world.kill(&[3, 4]);
            for path in ["/t1", "/t2", "/t3"] {
                world.create_over(2, path)?;
            }
            world.start_servers(&[3])?;
            world.create_over(2, "/t4")?;
            world.wait_ms(500)?;
            world.kill(&[2]);
            world.wait_until("3 leads", |world| world.leader_server() == Some(3))?;
            world.start_servers(&[4])?;
            world.start_servers(&[2])?;
            world.wait_until_equal()?;
            assert_nodes(world, &[1, 2, 3, 4], &["/t0", "/t1", "/t2", "/t3", "/t4"], &[]);
            Ok(())
        });
    }
}

/// R1, the variant with TRUNC: nobody is told to give up what is committed.
#[test]
fn no_voter_is_told_to_truncate_what_is_committed() {
    play(stage(3, 0), |world| {
        world.start_servers(&[1, 2])?;
        world.start_servers(&[3])?;
        world.create_over(2, "/t0")?;
        world.wait_until_equal()?;
        world.kill(&[3]);
        for path in ["/t1", "/t2", "/t3"] {
            world.create_over(2, path)?;
        }
        world.start_servers(&[3])?;
        world.wait_until_equal()?;
        world.kill(&[1]);
        world.create_over(2, "/t4")?;
        world.wait_ms(500)?;
        world.kill(&[2]);
        world.power_on(&[1])?;
        world.wait_until("3 leads", |world| world.leader_server() == Some(3))?;
        world.start_servers(&[1, 2])?;
        world.wait_until_equal()?;
        assert_nodes(world, &[1, 2, 3], &["/t0", "/t1", "/t2", "/t3", "/t4"], &[]);
        Ok(())
    });
}

/// R2, the class of ZOOKEEPER-2099: the tail of a log that a snapshot replaced is never served.
#[test]
fn the_log_that_a_snapshot_replaced_is_never_served() {
    // The leader answers the stale tail by SNAP, and by TRUNC.
    for snapshot_instead_of_truncation_bytes in [16 << 20, 0] {
        for history in [0, 500] {
            let factor = Some(0.0);
            let swarm = Swarm {
                history,
                snapshot_instead_of_truncation_bytes,
                snapshot_size_factor: factor,
                ..stage(3, 1)
            };
            play(swarm, |world| {
                world.start_servers(&[1, 2, 3, 4])?;
                world.create_over(3, "/j0")?;
                world.wait_until_equal()?;
                assert_eq!(world.leader_server(), Some(3));
                log_alone_and_die(world, 3, &[1, 2, 4], "/lost")?;
                world.start_servers(&[1, 2])?;
                world.create_over(2, "/j1")?;
                world.start_servers(&[3])?;
                world.wait_ms(500)?;
                world.kill(&[2]);
                world.wait_until("3 leads", |world| world.leader_server() == Some(3))?;
                world.create_over(3, "/j2")?;
                world.start_servers(&[4])?;
                world.start_servers(&[2])?;
                world.wait_until_equal()?;
                assert_nodes(world, &[1, 2, 3, 4], &["/j0", "/j1", "/j2"], &["/lost"]);
                Ok(())
            });
        }
    }
}

/// R3, the class of ZOOKEEPER-1549: a server that wins an election and gets no followers puts nothing on its disk
/// that survives a truncation.
#[test]
fn a_leader_without_followers_leaves_no_trace_of_what_is_not_committed() {
    for snapshot_instead_of_truncation_bytes in [16 << 20, 0] {
        let swarm = Swarm { snapshot_instead_of_truncation_bytes, snap_count: 2, ..stage(3, 0) };
        play(swarm, |world| {
            world.start_servers(&[1, 2, 3])?;
            world.create_over(3, "/j0")?;
            world.wait_until_equal()?;
            log_alone_and_die(world, 3, &[1, 2], "/lost")?;
            // The winner of the next election is reached by nobody.
            for other in [1, 2] {
                world.set_cut(other, 3, PeerPort::Quorum, true);
            }
            world.power_on(&[3, 1])?;
            world.wait_ms(3000)?;
            assert!(!world.serves(3) && !world.serves(1));
            world.kill(&[3, 1]);
            for other in [1, 2] {
                world.set_cut(other, 3, PeerPort::Quorum, false);
            }
            world.start_servers(&[1, 2])?;
            world.create_over(2, "/j1")?;
            world.start_servers(&[3])?;
            world.wait_until_equal()?;
            assert_nodes(world, &[1, 2, 3], &["/j0", "/j1"], &["/lost"]);
            world.kill(&[3]);
            world.start_servers(&[3])?;
            world.wait_until_equal()?;
            assert_nodes(world, &[1, 2, 3], &["/j0", "/j1"], &["/lost"]);
            Ok(())
        });
    }
}

/// ZOOKEEPER-1675, 2136: a leader that was deposed while it stood still answers no sync.
#[test]
fn a_deposed_leader_answers_no_sync() {
    play(stage(3, 0), |world| {
        world.start_servers(&[1, 2, 3])?;
        assert_eq!(world.leader_server(), Some(3));
        let mut reader = world.connect_to(3)?;
        world.wait_ms(200)?;
        world.set_paused(3, true);
        world.wait_until("another leads", |world| world.leads(2) || world.leads(1))?;
        world.wait_ms(500)?;
        let newer = world.create_over(2, "/newer")?;
        world.ask_for(&mut reader, &Request::Sync { path: Some("/".into()) });
        world.wait_ms(10)?;
        world.set_paused(3, false);
        match world.answer_within(&reader, 5000)? {
            Answer::Closed => {}
            Answer::Reply(zxid, _) if zxid >= newer => {}
            other => panic!("a deposed leader answers {other:?}, {newer} is committed"),
        }
        world.wait_until_equal()
    });
}

/// The highest history wins, whatever the ids (ZOOKEEPER-1154, 1156).
#[test]
fn who_knows_most_leads() {
    play(stage(3, 0), |world| {
        world.start_servers(&[1, 2, 3])?;
        world.create_over(3, "/a")?;
        world.wait_until_equal()?;
        world.kill(&[3]);
        world.wait_until("2 leads", |world| world.leader_server() == Some(2))?;
        world.create_over(2, "/b")?;
        world.wait_ms(500)?;
        world.kill(&[2]);
        world.kill(&[1]);
        world.power_on(&[1, 3])?;
        world.wait_until("1 leads", |world| world.leader_server() == Some(1))?;
        world.start_servers(&[2, 3])?;
        world.wait_until_equal()?;
        assert_nodes(world, &[1, 2, 3], &["/a", "/b"], &[]);
        Ok(())
    });
}
