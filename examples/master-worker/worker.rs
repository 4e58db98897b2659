//! A worker: registers, does what it is assigned, and reports each result in one write that counts only if the
//! task is still its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use zk_client::{Client, Error as ZkError, Mode, Parents, ServerCode, SessionId, SessionState};

use super::corpus::{self, Corpus};
use super::error::{Result, try_again};
use super::faults::Moment;
use super::nodes::{self, Command, Status};
use super::process::Context;

/// What a worker works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The texts.
    pub corpus: Arc<Corpus>,
    /// How long a task takes at least, so that people can watch.
    pub pace: Duration,
}

impl Tools {
    /// Texts below `root`, or where [`Corpus::open`] finds them.
    pub fn new(root: Option<PathBuf>, pace: Duration) -> Result<Tools> {
        Ok(Tools { corpus: Arc::new(Corpus::open(root.as_deref())?), pace })
    }
}

/// Works until told to stop.
pub async fn run(context: Context, tools: Tools) -> Result<()> {
    let zk = context.connect().await?;
    loop {
        // Bound to one session: a worker whose session is gone cannot report through its successor's.
        let worker = Worker { zk: zk.pinned(), context: &context, tools: &tools };
        let ended = tokio::select! {
            ended = worker.work_in_this_session() => ended,
            session = session_over(&worker.zk) => Err(ZkError::SessionExpired(session)),
        };
        match ended {
            Ok(End::Stopped) => break,
            Err(_) if context.is_stopped() => break,
            Ok(End::Unregistered) => context.say("finds itself unregistered, registers again"),
            Err(error) => {
                if matches!(error, ZkError::SessionExpired(_)) {
                    context.say("has lost its session: drops its tasks, registers again");
                }
                try_again(&zk, error).await?;
            }
        }
    }
    // Goes in one step, and leaves its directory only if there is something in it for the master to move. A
    // failure is no loss: the end of the session deletes the registration.
    let leave = zk.multi().delete(&nodes::worker(&context.name), None);
    let _ = leave.delete(&nodes::assignments(&context.name), None).await;
    let _ = zk.close().await;
    context.say("left");
    Ok(())
}

/// How a worker's time in a session ends.
enum End {
    /// It was told to stop.
    Stopped,
    /// Somebody has deleted its registration.
    Unregistered,
}

/// What has become of a task.
enum Outcome {
    /// Nothing more to do about it.
    Settled,
    /// The worker is not registered any more.
    Unregistered,
}

/// A worker in one session.
struct Worker<'a> {
    zk: Client,
    context: &'a Context,
    tools: &'a Tools,
}

impl Worker<'_> {
    /// Registers and works. Everything begins with a look at the tree, so that after a lost connection it can
    /// simply be called again.
    async fn work_in_this_session(&self) -> zk_client::Result<End> {
        let assignments = nodes::assignments(&self.context.name);
        // The directory first: once registered, the worker may be given something.
        self.zk.ensure_path(&assignments).await?;
        self.register().await?;
        loop {
            let (mut tasks, _, changed) = match self.zk.children(&assignments).watched().await {
                // An operator was here.
                Err(error) if error.is_no_node() => return Ok(End::Unregistered),
                listed => listed?,
            };
            // Older ones first, as long as numbers have ten digits; nothing depends on it.
            tasks.sort();
            for task in tasks {
                if self.context.is_stopped() {
                    return Ok(End::Stopped);
                }
                if let Outcome::Unregistered = self.perform(&task).await? {
                    return Ok(End::Unregistered);
                }
            }
            // Fires at once when something has come or gone since the listing.
            tokio::select! {
                _ = changed.fired() => {}
                () = self.context.stopped() => return Ok(End::Stopped),
            }
        }
    }

    /// Creates the ephemeral node by which masters know that this worker lives.
    async fn register(&self) -> zk_client::Result<()> {
        let path = nodes::worker(&self.context.name);
        loop {
            let create = self.zk.create(&path, self.context.address()).ephemeral();
            match create.parents(Parents::Persistent).await {
                Ok(_) => break,
                Err(error) if error.is_node_exists() => {}
                Err(error) => return Err(error),
            }
            // Whose is it? Ours, if an answer was lost; or of a former life whose session has not timed out yet.
            match self.zk.exists(&path).await? {
                Some(stat) if Some(SessionId(stat.ephemeral_owner)) == self.zk.pinned_session() => {
                    return Ok(());
                }
                Some(_) => {
                    self.context.say("waits until the servers give up its former session");
                    self.zk.exists(&path).until_deleted().await?;
                }
                None => {}
            }
        }
        self.context.say("registered");
        Ok(())
    }

    /// Does a task and reports it.
    async fn perform(&self, task: &str) -> zk_client::Result<Outcome> {
        let assignment = nodes::assignment(&self.context.name, task);
        // Not there: moved to another worker since the listing.
        let Some((command, _)) = self.zk.get(&assignment).optional().await? else {
            return Ok(Outcome::Settled);
        };
        self.context.detail(format!("begins {task}"));
        let worker = self.context.name.clone();
        let status = match self.count(task, &command).await {
            Ok(counts) => Status::Done { worker, counts },
            Err(reason) => Status::Failed { worker, reason },
        };
        self.context.moment(Moment::BeforeReport, task).await;
        self.report(task, &status).await
    }

    /// The work itself. An error is a result, too: the command may come from anybody.
    async fn count(&self, task: &str, command: &[u8]) -> Result<BTreeMap<String, u64>, String> {
        let command: Command = nodes::decode(command)?;
        let text = self.tools.corpus.read(&command.count).map_err(|e| e.to_string())?;
        sleep(self.tools.pace / 2).await;
        self.context.moment(Moment::TaskHalfDone, task).await;
        sleep(self.tools.pace / 2).await;
        Ok(corpus::count(&text))
    }

    /// Reports a result, if the task is still ours.
    ///
    /// When the answer is lost, sending the same again is right: this write cannot be applied twice, and the way
    /// in which it fails tells what has happened.
    async fn report(&self, task: &str, status: &Status) -> zk_client::Result<Outcome> {
        let (own, path) = (nodes::worker(&self.context.name), nodes::status(task));
        let assignment = nodes::assignment(&self.context.name, task);
        loop {
            let report = self.zk.multi().check(&own, None);
            let report = report.create(&path, nodes::encode(status), Mode::Persistent);
            let report = report.delete(&assignment, None).send();
            self.context.moment(Moment::ReportSent, task).await;
            let (index, code) = match report.await {
                Ok(_) => {
                    self.context.detail(format!("reports {task}"));
                    return Ok(Outcome::Settled);
                }
                Err(ZkError::Multi { index, code, .. }) => (index, code),
                Err(error) => {
                    try_again(&self.zk, error).await?;
                    continue;
                }
            };
            match (index, code) {
                (0, ServerCode::NO_NODE) => return Ok(Outcome::Unregistered),
                // Applied, and the answer was lost. Or the client has withdrawn the task.
                (1, ServerCode::NODE_EXISTS | ServerCode::NO_NODE) => {
                    self.zk.delete(&assignment).if_exists().await?;
                }
                (2, ServerCode::NO_NODE) => {
                    self.context.say(format!("was too slow with {task}: it belongs to another worker"));
                }
                _ => {
                    let op = "report";
                    return Err(ZkError::Server { op, path, code });
                }
            }
            return Ok(Outcome::Settled);
        }
    }
}

/// Resolves when the session that `zk` is bound to is gone for good, and returns it.
async fn session_over(zk: &Client) -> SessionId {
    let session = zk.pinned_session();
    let over = |state: &SessionState| match state {
        SessionState::Connected { session: now, .. } => Some(*now) != session,
        SessionState::Expired { confirmed, .. } => *confirmed,
        SessionState::Closed | SessionState::AuthFailed => true,
        _ => false,
    };
    zk.states().wait_for(over).await;
    session.unwrap_or(SessionId::NONE)
}
