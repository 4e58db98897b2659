//! The job system of `examples/master-worker` under deaths, lost sessions and restarts of the server, each at
//! moments that a seed decides; in the end the tree must show that nothing was lost or counted twice.

use std::collections::BTreeMap;
use std::time::Duration;

use zk_client::{Client, SessionId};
use zk_examples::master_worker::corpus::{Corpus, count};
use zk_examples::master_worker::faults::{Fault, Moment};
use zk_examples::master_worker::nodes::{self, Status};
use zk_examples::master_worker::report::Summary;
use zk_examples::master_worker::system::{self, Options, Plan};
use zk_examples::master_worker::timeline::Timeline;
use zk_server::{Ensemble, Server};

const TASKS: usize = 60;
const TICK: Duration = Duration::from_millis(80);
const SESSION_TIMEOUT: Duration = Duration::from_millis(800);

fn server() -> Server {
    Server::builder().memory().tick_time(TICK).start().expect("a server")
}

fn options(plan: Plan) -> Options {
    Options {
        workers: 3,
        masters: 3,
        tasks: Some(TASKS),
        path: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples").into()),
        pace: Duration::from_millis(10),
        session_timeout: SESSION_TIMEOUT,
        plan,
        time_limit: Duration::from_secs(100),
    }
}

/// Runs a system while `trouble` is made, and checks what it says of itself and what it has left behind.
async fn run(what: &str, servers: &str, options: Options, trouble: impl Future<Output = ()>) -> Summary {
    let timeline = Timeline::keeping(false);
    let system = system::run(servers, &options, timeline.clone());
    let mut trouble = std::pin::pin!(trouble);
    let mut system = std::pin::pin!(system);
    let summary = tokio::select! {
        summary = &mut system => summary,
        // Trouble that ends leaves the system to finish.
        () = &mut trouble => system.await,
    };
    let story = || {
        let entries = timeline.entries();
        let lines: Vec<_> =
            entries.iter().map(|e| format!("{:6} ms {} {}", e.at_ms, e.who, e.what)).collect();
        format!("{what}\n{}", lines.join("\n"))
    };
    let summary = summary.unwrap_or_else(|error| panic!("{error}: {}", story()));
    assert!(summary.is_ok(), "{}\n{summary}", story());
    if let Err(wrong) = check_tree(servers, &options).await {
        panic!("{wrong}: {}\n{summary}", story());
    }
    summary
}

/// The invariants, read off the tree and the texts alone.
async fn check_tree(servers: &str, options: &Options) -> Result<(), String> {
    let zk = Client::connect(servers).await.map_err(|e| e.to_string())?;
    let nodes = zk.walk("/").await.map_err(|e| e.to_string())?;
    let below = |dir: &str| {
        let dir = format!("{dir}/");
        nodes.iter().filter(move |node| node.path.starts_with(&dir))
    };

    // Nobody has anything to do any more.
    for node in below(nodes::ASSIGN) {
        if node.path.split('/').count() > 3 {
            return Err(format!("{} is left over", node.path));
        }
    }
    let mut counts = BTreeMap::new();
    let mut ids = Vec::new();
    for node in below(nodes::TASKS) {
        match node.path.split('/').collect::<Vec<_>>()[..] {
            ["", "tasks", _] => {
                // Assigned; one status, and never another one.
                let stat = node.stat;
                if stat.version == 0 || (stat.num_children, stat.cversion) != (1, 1) {
                    return Err(format!("{}: {stat:?}", node.path));
                }
                ids.push(nodes::decode::<nodes::Command>(&node.data)?.id);
            }
            ["", "tasks", _, "status"] => match nodes::decode(&node.data)? {
                Status::Done { counts: more, .. } => {
                    for (word, n) in more {
                        *counts.entry(word).or_insert(0) += n;
                    }
                }
                Status::Failed { reason, .. } => return Err(format!("{}: {reason}", node.path)),
            },
            _ => return Err(format!("what is {}?", node.path)),
        }
    }
    let added = ids.len();
    ids.sort();
    ids.dedup();
    if (added, ids.len()) != (TASKS, TASKS) {
        return Err(format!("{added} tasks for {} of {TASKS} commands", ids.len()));
    }
    let mut expected = BTreeMap::new();
    let corpus = Corpus::open(options.path.as_deref()).map_err(|e| e.to_string())?;
    for piece in corpus.pieces(options.tasks).map_err(|e| e.to_string())? {
        for (word, n) in count(&corpus.read(&piece).map_err(|e| e.to_string())?) {
            *expected.entry(word).or_insert(0) += n;
        }
    }
    match counts == expected {
        true => Ok(()),
        false => Err("words were lost or counted twice".to_owned()),
    }
}

async fn dies_at(moment: Moment) {
    let server = server();
    let fault = |nth, restart_ms: Option<u64>| Fault {
        at: moment,
        nth,
        restart_after: restart_ms.map(Duration::from_millis),
    };
    // One comes back before its session has timed out, one after, and one never (clients always do).
    let last = if moment == Moment::SubmitSent { Some(2000) } else { None };
    let plan = Plan::These(vec![fault(5, Some(10)), fault(15, Some(1500)), fault(30, last)]);
    let summary =
        run(&moment.to_string(), &server.connect_string(), options(plan), std::future::pending()).await;
    assert_eq!(summary.deaths.len(), 3, "{summary}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_client_dies_while_submitting() {
    dies_at(Moment::SubmitSent).await;
}

#[tokio::test]
async fn masters_die_before_assigning() {
    dies_at(Moment::BeforeAssign).await;
}

#[tokio::test]
async fn masters_die_while_assigning() {
    dies_at(Moment::AssignSent).await;
}

#[tokio::test]
async fn workers_die_halfway() {
    dies_at(Moment::TaskHalfDone).await;
}

#[tokio::test]
async fn workers_die_before_reporting() {
    dies_at(Moment::BeforeReport).await;
}

#[tokio::test]
async fn workers_die_while_reporting() {
    dies_at(Moment::ReportSent).await;
}

#[tokio::test]
async fn anybody_dies_at_any_moment() {
    const MOMENTS: [Moment; 6] = [
        Moment::SubmitSent,
        Moment::BeforeAssign,
        Moment::AssignSent,
        Moment::TaskHalfDone,
        Moment::BeforeReport,
        Moment::ReportSent,
    ];
    for seed in 1..=4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let faults = (0..8).map(|_| Fault {
            at: MOMENTS[random.usize(..MOMENTS.len())],
            nth: random.usize(1..=TASKS),
            restart_after: Some(Duration::from_millis(random.u64(1..1500))),
        });
        let plan = Plan::These(faults.collect());
        let server = server();
        let what = format!("seed {seed}");
        run(&what, &server.connect_string(), options(plan), std::future::pending()).await;
        server.shutdown().await;
    }
}

/// Roles that are alive and well, but whose sessions the server gives up, or whose nodes somebody deletes: they
/// must notice, and stop.
#[tokio::test]
async fn living_roles_are_cut_off() {
    for seed in 1..=3 {
        let server = server();
        let servers = server.connect_string();
        let trouble = async {
            let mut random = fastrand::Rng::with_seed(seed);
            let zk = Client::connect(&servers).await.expect("a client");
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(random.u64(20..150))).await;
                let dir = if random.bool() { nodes::WORKERS } else { nodes::ELECTION };
                let Some(path) = any_child(&zk, dir, &mut random).await else { continue };
                match zk.exists(&path).await {
                    Ok(Some(stat)) if random.bool() => server.expire_session(SessionId(stat.ephemeral_owner)),
                    _ => drop(zk.delete(&path).await),
                }
            }
        };
        let options = Options { pace: Duration::from_millis(40), ..options(Plan::Peace) };
        run(&format!("seed {seed}"), &servers, options, trouble).await;
        server.shutdown().await;
    }
}

/// Somebody deletes assignments: nobody has those tasks any more, but they are not forgotten.
#[tokio::test]
async fn assignments_vanish() {
    let server = server();
    let servers = server.connect_string();
    let trouble = async {
        let mut random = fastrand::Rng::with_seed(1);
        let zk = Client::connect(&servers).await.expect("a client");
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(random.u64(20..100))).await;
            let Some(worker) = any_child(&zk, nodes::ASSIGN, &mut random).await else { continue };
            let Some(assignment) = any_child(&zk, &worker, &mut random).await else { continue };
            let _ = zk.delete(&assignment).await;
        }
    };
    let options = Options { pace: Duration::from_millis(40), ..options(Plan::Peace) };
    run("vanishing assignments", &servers, options, trouble).await;
    server.shutdown().await;
}

async fn any_child(zk: &Client, dir: &str, random: &mut fastrand::Rng) -> Option<String> {
    let (names, _) = zk.children(dir).await.ok()?;
    random.choice(names).map(|name| format!("{dir}/{name}"))
}

/// The server dies and comes back with what is on its disk, several times; connections break in between.
#[tokio::test]
async fn the_server_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = |port| {
        let server = Server::builder().data_dir(dir.path()).client_port(port).tick_time(TICK);
        server.start().expect("a server")
    };
    let first = start(0);
    let (servers, port) = (first.connect_string(), first.local_addr().port());
    let mut server = Some(first);
    let mut random = fastrand::Rng::with_seed(1);
    let mut pause = || tokio::time::sleep(Duration::from_millis(random.u64(50..300)));
    let trouble = async {
        for _ in 0..4 {
            pause().await;
            if let Some(server) = &server {
                server.drop_connections();
            }
            pause().await;
            if let Some(server) = server.take() {
                server.kill();
            }
            pause().await;
            server = Some(start(port));
        }
    };
    let options = Options { pace: Duration::from_millis(60), ..options(Plan::Peace) };
    run("restarts", &servers, options, trouble).await;
}

#[tokio::test]
async fn an_ensemble_loses_its_leader_again_and_again() {
    let mut ensemble = Ensemble::builder().tick_time(TICK).start().expect("an ensemble");
    let servers = ensemble.connect_string();
    let trouble = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let Some(leader) = ensemble.leader() else { continue };
            // Blocks for a moment: the roles live on this thread and notice it as a pause.
            ensemble.kill(leader);
            ensemble.restart(leader).expect("a server");
        }
    };
    let options = Options { pace: Duration::from_millis(30), ..options(Plan::Peace) };
    run("leaders die", &servers, options, trouble).await;
    let served = ensemble.wait(Duration::from_secs(20), Ensemble::all_serve);
    assert!(served, "everybody is back");
    ensemble.shutdown().await;
}
