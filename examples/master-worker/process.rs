//! A role as a process of its own: with its own threads and connections, and with a death that takes all of it.

use std::fmt::Display;
use std::future::Future;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use zk_client::Client;

use super::error::{Error, Result};
use super::faults::{Fault, Faults, Moment};
use super::timeline::Timeline;

/// What all roles of a system share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connect string.
    pub servers: String,
    /// How long the servers wait before they give a silent role up.
    pub session_timeout: Duration,
    /// Where to tell what happens.
    pub timeline: Timeline,
    /// Who is to die when.
    pub faults: Faults,
}

/// What a role knows of the process it runs in.
#[derive(Debug, Clone)]
pub struct Context {
    /// Of the role; unique among its kind.
    pub name: String,
    settings: Settings,
    stop: watch::Receiver<bool>,
    death: mpsc::Sender<(Fault, String)>,
}

impl Context {
    /// Opens a session.
    pub async fn connect(&self) -> Result<Client> {
        Ok(Client::connect(&self.settings.servers).session_timeout(self.settings.session_timeout).await?)
    }

    /// The role's address, for people: roles do not talk to each other but through ZooKeeper.
    pub fn address(&self) -> String {
        format!("{} (process {})", self.name, std::process::id())
    }

    /// Tells what happens.
    pub fn say(&self, what: impl Display) {
        self.settings.timeline.say(&self.name, what);
    }

    /// Tells what only those want to know who want to know everything.
    pub fn detail(&self, what: impl Display) {
        self.settings.timeline.detail(&self.name, what);
    }

    /// Whether the role should end.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Waits until the role should end. Cancel safe.
    pub async fn stopped(&self) {
        // An error means that whoever could have said so is gone, which says it, too.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// The role has come to `moment` with `what`. Returns, unless it is to die here.
    pub async fn moment(&self, moment: Moment, what: &str) {
        let Some(fault) = self.settings.faults.due(moment) else { return };
        if matches!(moment, Moment::SubmitSent | Moment::AssignSent | Moment::ReportSent) {
            // So that what was sent leaves this process. Whether an answer comes back is up to chance.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = self.death.send((fault, what.to_owned())).await;
        std::future::pending().await
    }
}

/// How a process ended.
#[derive(Debug)]
pub enum Exit<T> {
    /// By itself.
    Done(Result<T>),
    /// Killed, with what it was at.
    Killed(Fault, String),
}

/// A role in a thread and tokio runtime of its own.
///
/// Killing it drops the runtime, and with it all its tasks and sockets at whatever point they are: the server
/// sees the connection break and nothing else, as after `kill -9`. The session lives on until it times out.
#[derive(Debug)]
pub struct Process<T> {
    exit: oneshot::Receiver<Exit<T>>,
    name: String,
}

impl<T: Send + 'static> Process<T> {
    /// Starts `role` under `name`. It should end when `stop` becomes true.
    pub fn start<F, Fut>(
        name: &str,
        settings: &Settings,
        stop: watch::Receiver<bool>,
        role: F,
    ) -> Result<Process<T>>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>>,
    {
        let (death, mut killed) = mpsc::channel(1);
        let context = Context { name: name.to_owned(), settings: settings.clone(), stop, death };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (ended, exit) = oneshot::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let exit = runtime.block_on(async {
                tokio::select! {
                    Some((fault, what)) = killed.recv() => Exit::Killed(fault, what),
                    result = role(context) => Exit::Done(result),
                }
            });
            drop(runtime);
            let _ = ended.send(exit);
        })?;
        Ok(Process { exit, name: name.to_owned() })
    }

    /// Waits for the end. Cancel safe.
    pub async fn ended(&mut self) -> Exit<T> {
        match (&mut self.exit).await {
            Ok(exit) => exit,
            Err(_) => Exit::Done(Err(Error::Panicked(self.name.clone()))),
        }
    }
}

/// Runs `role` in the calling process until it is done or Ctrl-C asks it to end.
pub async fn run_here<T, F, Fut>(name: &str, settings: Settings, role: F) -> Result<T>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let (stop, stopped) = watch::channel(false);
    let (death, _never) = mpsc::channel(1);
    let context = Context { name: name.to_owned(), settings, stop: stopped, death };
    let role = role(context.clone());
    tokio::pin!(role);
    tokio::select! {
        result = &mut role => return result,
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    context.say("asked to end; once more to end at once");
    let _ = stop.send(true);
    tokio::select! {
        result = &mut role => result,
        error = interrupted() => Err(error),
    }
}

/// Resolves when somebody presses Ctrl-C, with the error that a role ends with then.
pub async fn interrupted() -> Error {
    let pressed = tokio::signal::ctrl_c().await;
    pressed.err().unwrap_or_else(|| std::io::ErrorKind::Interrupted.into()).into()
}
