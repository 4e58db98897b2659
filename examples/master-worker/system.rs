//! The whole system in one process: roles in threads of their own, deaths by plan, and an auditor.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zk_client::Client;

use super::audit::{self, Auditor};
use super::error::{Error, Result};
use super::faults::{Fault, Faults, Moment};
use super::process::{Context, Exit, Process, Settings};
use super::report::{Death, Summary};
use super::timeline::Timeline;
use super::worker::Tools;
use super::{client, master, worker};

/// Who dies.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Nobody.
    Peace,
    /// A worker halfway through a task, and the leading master while it assigns one. When depends on the seed.
    Usual {
        /// Same seed, same moments.
        seed: u64,
    },
    /// These.
    These(Vec<Fault>),
}

/// A system to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of workers, at least one.
    pub workers: usize,
    /// Number of masters, at least one; all but one stand by.
    pub masters: usize,
    /// Number of tasks; without one, a task per file.
    pub tasks: Option<usize>,
    /// Where the texts are; without it, see [`Corpus::open`](super::corpus::Corpus::open).
    pub path: Option<PathBuf>,
    /// How long a task takes at least.
    pub pace: Duration,
    /// How long the servers wait before they give a silent role up.
    pub session_timeout: Duration,
    /// Who dies.
    pub plan: Plan,
    /// How long everything may take.
    pub time_limit: Duration,
}

impl Plan {
    fn faults(&self, options: &Options, tasks: usize) -> Vec<Fault> {
        match self {
            Plan::Peace => Vec::new(),
            Plan::These(faults) => faults.clone(),
            Plan::Usual { seed } => {
                let mut random = fastrand::Rng::with_seed(*seed);
                let mut part = |from: f64, to: f64| {
                    let part = from + (to - from) * random.f64();
                    (part * tasks as f64).ceil() as usize
                };
                // The last of its kind has to come back.
                let again = |number| (number == 1).then_some(Duration::from_millis(500));
                let (worker, master) = (part(0.1, 0.2), part(0.6, 0.75));
                vec![
                    Fault { at: Moment::TaskHalfDone, nth: worker, restart_after: again(options.workers) },
                    Fault { at: Moment::AssignSent, nth: master, restart_after: again(options.masters) },
                ]
            }
        }
    }
}

/// Runs a system on the given servers until the client has its answer, and checks it. The servers' tree (below
/// the connect string's chroot) should be empty; it stays as it is in the end, for others to look at.
///
/// Dropping the future tells the roles to end.
pub async fn run(servers: &str, options: &Options, timeline: Timeline) -> Result<Summary> {
    let tools = Tools::new(options.path.clone(), options.pace)?;
    let pieces = tools.corpus.pieces(options.tasks)?;
    let say = |what: String| timeline.say("system", what);
    say(format!("{} tasks: count the words of {}", pieces.len(), tools.corpus.describe()));

    let zk = Client::connect(servers).session_timeout(options.session_timeout).await?;
    let mut auditor = Auditor::begin(&zk).await?;
    let settings = Settings {
        servers: servers.to_owned(),
        session_timeout: options.session_timeout,
        timeline: timeline.clone(),
        faults: Faults::new(options.plan.faults(options, pieces.len())),
    };
    let keeper = Keeper { settings, stop: watch::channel(false).0, deaths: Arc::default() };

    let mut crew = JoinSet::new();
    for n in 1..=options.masters {
        crew.spawn(keeper.clone().keep(format!("master-{n}"), master::run));
    }
    let names: Vec<_> = (1..=options.workers).map(|n| format!("worker-{n}")).collect();
    for name in &names {
        let tools = tools.clone();
        crew.spawn(keeper.clone().keep(name.clone(), move |context| worker::run(context, tools.clone())));
    }
    let wanted = pieces.clone();
    let ask = move |context| client::run(context, wanted.clone(), false);
    let client = keeper.clone().keep("client-1".to_owned(), ask);
    tokio::pin!(client);

    let answer = async {
        loop {
            tokio::select! {
                answer = &mut client => return answer,
                // Nobody ends before it is told to, but by death or by an error.
                Some(ended) = crew.join_next() => drop(joined(ended)?),
                () = auditor.follow() => {}
            }
        }
    };
    let answer =
        timeout(options.time_limit, answer).await.map_err(|_| Error::TooLate(options.time_limit))??;
    let seconds = timeline.elapsed().as_secs_f64();
    say("the client has its answer; everybody ends".to_owned());
    let _ = keeper.stop.send(true);
    while let Some(ended) =
        timeout(options.time_limit, crew.join_next()).await.map_err(|_| Error::TooLate(options.time_limit))?
    {
        joined(ended)?;
    }

    let answer = answer.unwrap_or_default();
    let history = auditor.finish().await?;
    let checks = audit::check(&zk, &tools.corpus, &pieces, &answer, &history).await?;
    zk.close().await?;
    let deaths = keeper.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Summary::new(seconds, names, &answer, &history, deaths, checks))
}

fn joined<T>(ended: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.unwrap_or_else(|error| Err(Error::Panicked(error.to_string())))
}

/// Keeps roles running, and buries them.
#[derive(Debug, Clone)]
struct Keeper {
    settings: Settings,
    stop: watch::Sender<bool>,
    deaths: Arc<Mutex<Vec<Death>>>,
}

impl Keeper {
    /// Runs a role as often as it takes; `None` if it was killed for good.
    async fn keep<T, F, Fut>(self, name: String, role: F) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Fn(Context) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T>>,
    {
        let timeline = &self.settings.timeline;
        loop {
            let mut process = Process::start(&name, &self.settings, self.stop.subscribe(), role.clone())?;
            let (fault, task) = match process.ended().await {
                Exit::Done(result) => return result.map(Some),
                Exit::Killed(fault, task) => (fault, task),
            };
            timeline.say(&name, format!("KILLED {} {task}", fault.at));
            let death = Death::new(timeline.elapsed(), &name, &fault, &task);
            self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(death);
            let Some(after) = fault.restart_after else { return Ok(None) };
            let mut stop = self.stop.subscribe();
            tokio::select! {
                () = sleep(after) => timeline.say(&name, "started again"),
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
            }
        }
    }
}
