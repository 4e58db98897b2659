//! A job system on ZooKeeper, to look at and to play with; see [`zk_examples::master_worker`] for how it works.
//!
//! ```text
//! cargo run --release --example master-worker
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use zk_client::Client;
use zk_examples::master_worker::error::Result;
use zk_examples::master_worker::faults::Faults;
use zk_examples::master_worker::process::{Settings, interrupted, run_here};
use zk_examples::master_worker::system::{self, Options, Plan};
use zk_examples::master_worker::timeline::Timeline;
use zk_examples::master_worker::worker::Tools;
use zk_examples::master_worker::{client, master, worker};

/// A job system: masters assign tasks to workers, and whoever dies, nothing is lost or counted twice.
///
/// Without options: an embedded server, three workers, two masters (one leads, one stands by) and a client that
/// has the words of the workspace's text files counted. On the way a worker and the leading master are killed.
/// The exit code tells whether the result is right.
///
/// Against any ZooKeeper, each role as a process of its own, to be killed by hand:
///
///   master-worker --connect 127.0.0.1:2181 --role master
///   master-worker --connect 127.0.0.1:2181 --role worker --name worker-1
///   master-worker --connect 127.0.0.1:2181 --role client --tasks 500
#[derive(Debug, Parser)]
#[command(name = "master-worker", verbatim_doc_comment)]
struct Args {
    /// Servers to use instead of an embedded one, as `host:port,host:port/chroot`. Without --role, everything
    /// happens below a new node, which is deleted in the end.
    #[arg(long, value_name = "SERVERS")]
    connect: Option<String>,
    /// The one role to run, until its work is done or Ctrl-C.
    #[arg(long, requires = "connect")]
    role: Option<Role>,
    /// Name of the role, unique among its kind. A client that is started again under its former name goes on
    /// with its former tasks. By default, the role and the process id.
    #[arg(long, requires = "role", value_parser = name)]
    name: Option<String>,
    /// Number of workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..), conflicts_with = "role")]
    workers: u8,
    /// Number of masters; all but one stand by.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..), conflicts_with = "role")]
    masters: u8,
    /// Number of tasks: files are cut into smaller pieces, or some left out. By default, a task per file.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    tasks: Option<u16>,
    /// Directory of the texts (*.md, *.rs, *.toml, *.txt). By default the workspace under cargo, the current
    /// directory otherwise. All workers need the same.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Kill nobody.
    #[arg(long, conflicts_with = "role")]
    no_faults: bool,
    /// Decides when the two are killed. By default, different every time.
    #[arg(long, conflicts_with_all = ["role", "no_faults"])]
    seed: Option<u64>,
    /// Milliseconds that a task takes at least, so that one can watch.
    #[arg(long, default_value_t = 30, value_name = "MS")]
    pace: u32,
    /// Milliseconds until the servers give a silent role up; they may insist on more.
    #[arg(long, default_value_t = 1500, value_name = "MS", value_parser = clap::value_parser!(u32).range(100..))]
    session_timeout: u32,
    /// Print timeline and summary as JSON when all is done.
    #[arg(long, conflicts_with = "role")]
    json: bool,
    /// Tell of every task.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Master,
    Worker,
    Client,
}

/// A name that can be that of a node.
fn name(name: &str) -> Result<String, String> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    match !name.is_empty() && name.len() <= 100 && name.chars().all(fits) && !name.chars().all(|c| c == '.') {
        true => Ok(name.to_owned()),
        false => Err("up to 100 letters, digits, '-', '_' or '.'".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let run = async {
        match args.role {
            Some(role) => run_role(&args, role).await,
            None => tokio::select! {
                result = run_system(&args) => result,
                error = interrupted() => Err(error),
            },
        }
    };
    match run.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("master-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything in this process.
async fn run_system(args: &Args) -> Result<bool> {
    let timeline = if args.json { Timeline::keeping(args.verbose) } else { Timeline::printing(args.verbose) };
    let session_timeout = Duration::from_millis(args.session_timeout.into());
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..10_000));
    let options = Options {
        workers: args.workers.into(),
        masters: args.masters.into(),
        tasks: args.tasks.map(usize::from),
        path: args.path.clone(),
        pace: Duration::from_millis(args.pace.into()),
        session_timeout,
        plan: if args.no_faults { Plan::Peace } else { Plan::Usual { seed } },
        time_limit: Duration::from_secs(600),
    };
    if !args.no_faults {
        timeline.say("system", format!("--seed {seed} decides who is killed when"));
    }
    let summary = match &args.connect {
        None => {
            // Sessions end with the tick after their timeout, so short ticks let a death be noticed soon.
            let tick = session_timeout / 10;
            let server = zk_server::Server::builder().memory().tick_time(tick).start()?;
            let servers = server.connect_string();
            timeline.say("system", format!("embedded server at {servers}, in memory"));
            let summary = system::run(&servers, &options, timeline.clone()).await?;
            server.shutdown().await;
            summary
        }
        Some(servers) => {
            let zk = Client::connect(servers).await?;
            let root = format!("/master-worker-{:08x}", fastrand::u32(..));
            zk.ensure_path(&root).await?;
            timeline.say("system", format!("below {root} of {servers}"));
            let summary = system::run(&format!("{servers}{root}"), &options, timeline.clone()).await?;
            zk.delete(&root).recursive().idempotent().await?;
            zk.close().await?;
            summary
        }
    };
    let text = match args.json {
        true => format!("{:#}\n", serde_json::json!({ "timeline": timeline.entries(), "summary": summary })),
        false => format!("\n{summary}"),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(summary.is_ok())
}

/// One role against the given servers.
async fn run_role(args: &Args, role: Role) -> Result<bool> {
    let kind = match role {
        Role::Master => "master",
        Role::Worker => "worker",
        Role::Client => "client",
    };
    let name = args.name.clone().unwrap_or_else(|| format!("{kind}-{}", std::process::id()));
    let settings = Settings {
        servers: args.connect.clone().unwrap_or_default(),
        session_timeout: Duration::from_millis(args.session_timeout.into()),
        timeline: Timeline::printing(args.verbose),
        faults: Faults::default(),
    };
    let tools = || Tools::new(args.path.clone(), Duration::from_millis(args.pace.into()));
    match role {
        Role::Master => run_here(&name, settings, master::run).await?,
        Role::Worker => {
            let tools = tools()?;
            run_here(&name, settings, |context| worker::run(context, tools)).await?;
        }
        Role::Client => {
            let corpus = tools()?.corpus;
            let pieces = corpus.pieces(args.tasks.map(usize::from))?;
            let direct = corpus.count_directly(&pieces)?;
            let answer = run_here(&name, settings, |context| client::run(context, pieces, true)).await?;
            let same = answer.counts == direct;
            let words: u64 = answer.counts.values().sum();
            let mut text = String::new();
            for (worker, (done, words)) in &answer.workers {
                text += &format!("{worker:20} {done:6} tasks {words:10} words\n");
            }
            let verdict =
                if same { "ok, equals a direct count" } else { "FAILED: differs from a direct count" };
            text += &format!("{:20} {:6} tasks {words:10} words: {verdict}\n", "all", answer.tasks.len());
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(same);
        }
    }
    Ok(true)
}
