//! The client: adds tasks, waits for their results, and puts these together.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, stream};
use zk_client::Client;

use super::corpus::Piece;
use super::error::{Result, try_again};
use super::faults::Moment;
use super::nodes::{self, Command, Status};
use super::process::Context;

/// Results that are waited for at a time.
const WAITING_MAX: usize = 100;
/// Requests of a kind that are under way at a time.
const FLIGHT_MAX: usize = 100;

/// What a client has got for its tasks.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The tasks' names.
    pub tasks: Vec<String>,
    /// Each word and how often it occurs.
    pub counts: BTreeMap<String, u64>,
    /// Worker to tasks done and words counted.
    pub workers: BTreeMap<String, (u64, u64)>,
    /// Tasks that could not be done, and why.
    pub failed: Vec<(String, String)>,
}

/// Has the words of all `pieces` counted: one task each.
///
/// Started again under the same name, it finds the tasks of its former life instead of adding them again.
pub async fn run(context: Context, pieces: Vec<Piece>, clear_up: bool) -> Result<Answer> {
    let zk = context.connect().await?;
    let commands: Vec<_> = pieces
        .into_iter()
        .enumerate()
        .map(|(n, count)| Command { id: format!("{}/{n}", context.name), count })
        .collect();
    let tasks = submit(&context, &zk, &commands).await?;
    let answer = collect(&context, &zk, tasks).await?;
    if clear_up {
        for task in &answer.tasks {
            while let Err(error) = withdraw(&zk, task).await {
                try_again(&zk, error).await?;
            }
        }
    }
    // All is here; if no server answers any more, the session ends by itself.
    let _ = zk.close().await;
    Ok(answer)
}

/// Deletes a task with its status. One after the other will do: a task with a status is of no interest to
/// masters and workers, and neither is one that is gone.
async fn withdraw(zk: &Client, task: &str) -> zk_client::Result<()> {
    zk.delete(&nodes::task(task)).recursive().if_exists().await
}

/// Adds the tasks, each once.
///
/// The server chooses a task's number, so when an answer is lost, neither the number nor whether the task was
/// added is known. Adding it again could do it twice. Therefore every command carries an id: look which are
/// there, add the missing ones, and look again if anything went wrong.
async fn submit(context: &Context, zk: &Client, commands: &[Command]) -> Result<Vec<String>> {
    zk.ensure_path(nodes::TASKS).await?;
    let prefix = nodes::task(nodes::TASK_PREFIX);
    loop {
        let mut tasks = match find(zk, commands).await {
            Ok(tasks) => tasks,
            Err(error) => {
                try_again(zk, error).await?;
                continue;
            }
        };
        match tasks.len() {
            0 => context.say(format!("submits {} tasks", commands.len())),
            found => context.say(format!("finds {found} of its {} tasks", commands.len())),
        }
        let missing: Vec<_> = commands.iter().filter(|command| !tasks.contains_key(&command.id)).collect();
        let mut lost = None;
        for flight in missing.chunks(FLIGHT_MAX) {
            let mut creates = Vec::new();
            for command in flight {
                creates.push(zk.create(&prefix, nodes::encode(command)).sequential().send());
                context.moment(Moment::SubmitSent, &command.id).await;
            }
            for (create, command) in creates.into_iter().zip(flight) {
                match create.await {
                    Ok(created) => {
                        let task = created.path.rsplit('/').next().unwrap_or_default().to_owned();
                        tasks.insert(command.id.clone(), task);
                    }
                    Err(error) => lost = Some(error),
                }
            }
        }
        match lost {
            None => return Ok(commands.iter().filter_map(|command| tasks.remove(&command.id)).collect()),
            Some(error) => try_again(zk, error).await?,
        }
    }
}

/// Which of the commands are there: id to name of the task.
///
/// Behind a sync: the server we are connected to now may not know what another one has accepted.
async fn find(zk: &Client, commands: &[Command]) -> zk_client::Result<HashMap<String, String>> {
    let ours: HashSet<_> = commands.iter().map(|command| &command.id).collect();
    zk.sync(nodes::TASKS).await?;
    let (names, _) = zk.children(nodes::TASKS).await?;
    let mut found = HashMap::new();
    for flight in names.chunks(FLIGHT_MAX) {
        let paths: Vec<_> = flight.iter().map(|name| nodes::task(name)).collect();
        let reads: Vec<_> = paths.iter().map(|path| zk.get(path).send()).collect();
        for (read, name) in reads.into_iter().zip(flight) {
            match read.await {
                Ok((data, _)) => {
                    // Other clients' tasks, of whatever form, are none of our business.
                    if let Ok(command) = nodes::decode::<Command>(&data)
                        && ours.contains(&command.id)
                    {
                        found.insert(command.id, name.clone());
                    }
                }
                Err(error) if error.is_no_node() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Waits for all results.
async fn collect(context: &Context, zk: &Client, tasks: Vec<String>) -> Result<Answer> {
    let mut answer = Answer { tasks, ..Answer::default() };
    let all = answer.tasks.len();
    let waits = stream::iter(answer.tasks.clone()).map(|task| async move {
        let status = wait(zk, &task).await;
        status.map(|status| (task, status))
    });
    let mut results = waits.buffer_unordered(WAITING_MAX).enumerate();
    while let Some((n, result)) = results.next().await {
        let (task, status) = result?;
        match nodes::decode(&status) {
            Ok(Status::Done { worker, counts }) => {
                let (done, words) = answer.workers.entry(worker).or_default();
                *done += 1;
                for (word, n) in counts {
                    *words += n;
                    *answer.counts.entry(word).or_default() += n;
                }
            }
            Ok(Status::Failed { worker, reason }) => {
                context.say(format!("{task} failed at {worker}: {reason}"));
                answer.failed.push((task, reason));
            }
            Err(reason) => answer.failed.push((task, reason)),
        }
        let quarters = |n: usize| 4 * n / all;
        if quarters(n + 1) > quarters(n) {
            context.say(format!("has {} of {all} results", n + 1));
        }
    }
    drop(results);
    Ok(answer)
}

/// Waits for a task's status: asks whether it exists, which leaves a watch if it does not.
async fn wait(zk: &Client, task: &str) -> zk_client::Result<Vec<u8>> {
    let path = nodes::status(task);
    loop {
        zk.exists(&path).until_created().await?;
        match zk.get(&path).await {
            // Copied out of the receive buffer, which is much larger.
            Ok((data, _)) => return Ok(data.to_vec()),
            Err(error) => try_again(zk, error).await?,
        }
    }
}
