//! The master: stands in line for the leadership, and while it leads, keeps every living worker supplied.
//!
//! It never trusts what it remembers. Each write says on what it depends (*I lead*, *that worker lives*, *this
//! task was never assigned*), so that a decision made on old knowledge fails as a whole; then, as after a lost
//! connection, the master reads the tree again. That also is all that a newly elected master has to do.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use zk_client::{Client, Error as ZkError, Event, EventKind, Mode, Multi, ServerCode, Watch};
use zk_recipes::{Held, LeaderLatch, LeaderTerm};

use super::board::{Board, Step};
use super::error::{Result, try_again};
use super::faults::Moment;
use super::nodes;
use super::process::Context;

/// Tasks that a worker has at a time: the one it is at, and some to go on with.
pub const WINDOW: usize = 4;
/// After a surprise. Keeps a master that cannot be helped from asking as fast as it can.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Takes part in the election until told to stop, and leads whenever elected.
pub async fn run(context: Context) -> Result<()> {
    let zk = context.connect().await?;
    let latch = LeaderLatch::start(&zk, nodes::ELECTION, &context.address()).await?;
    if let Ok(candidates) = latch.participants().await
        && let Some(first) = candidates.first()
        && first.id != context.address()
    {
        context.say(format!("stands by, behind {}", first.id));
    }
    loop {
        let term = tokio::select! {
            term = latch.await_leadership() => term?,
            () = context.stopped() => break,
        };
        context.say(format!("leads with token {}", term.token()));
        let reason = tokio::select! {
            reason = term.lost() => reason,
            // Ends early when a write shows that the term is over; the latch knows soon, too.
            ended = lead(&context, &term) => {
                ended?;
                term.lost().await
            }
            () = context.stopped() => break,
        };
        context.say(format!("leads no longer: {reason}"));
    }
    latch.close().await?;
    // If no server answers any more, the session ends by itself.
    let _ = zk.close().await;
    context.say("left");
    Ok(())
}

/// How a look at the tree ends.
enum End {
    /// Something was not as it seemed.
    Surprise,
    /// Somebody else leads.
    Deposed,
}

/// Leads until deposed.
async fn lead(context: &Context, term: &LeaderTerm) -> Result<()> {
    // Bound to the session of this term: in a later one all its calls fail.
    let zk = term.client();
    loop {
        match lead_by_the_tree(context, term).await {
            Ok(End::Surprise) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            Ok(End::Deposed) | Err(ZkError::SessionExpired(_)) => return Ok(()),
            Err(error) => match try_again(zk, error).await {
                Ok(()) => context.say("connected again, reads everything anew"),
                Err(ZkError::SessionExpired(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// Reads the tree, then follows its changes and acts on them.
async fn lead_by_the_tree(context: &Context, term: &LeaderTerm) -> zk_client::Result<End> {
    let zk = term.client();
    for dir in [nodes::WORKERS, nodes::ASSIGN, nodes::TASKS] {
        zk.ensure_path(dir).await?;
    }
    match announce(context, term).await {
        Err(error) if is_verdict(&error) => return Ok(surprise(error)),
        announced => announced?,
    }
    // First the watches, then the look: nothing falls between them.
    let mut watches = Watches::set(zk).await?;
    let mut board = read_board(zk).await?;
    let (open, assigned) = board.open();
    context.say(format!(
        "finds {} workers, {open} tasks without result, {assigned} of them assigned",
        board.workers().len()
    ));
    // Whether the board was read after the term began and nobody but us has assigned anything since.
    let mut just_read = true;
    loop {
        let steps = board.steps(WINDOW);
        if !steps.is_empty()
            && let Some(end) = carry_out(context, term, steps, just_read, &mut board).await?
        {
            return Ok(end);
        }
        just_read = false;
        for event in watches.next().await {
            match event.kind {
                EventKind::Created | EventKind::Deleted => {}
                EventKind::Resync => return Ok(End::Surprise),
                EventKind::SessionLost | EventKind::Closed => return Ok(End::Deposed),
                _ => continue,
            }
            tell_of_worker(context, &board, &event);
            board.note(&event.path, event.kind == EventKind::Created);
        }
    }
}

/// Shows who leads. Only for people and tools: what counts is the place in line.
async fn announce(context: &Context, term: &LeaderTerm) -> zk_client::Result<()> {
    let address = context.address();
    let create = term.fenced().create(nodes::MASTER, address.clone(), Mode::Ephemeral);
    match create.await {
        // Ours from an earlier look, or the predecessor's who has lost its place but not its session.
        Err(ZkError::Multi { index: 1, code: ServerCode::NODE_EXISTS, .. }) => {
            let replace = term.fenced().delete(nodes::MASTER, None);
            replace.create(nodes::MASTER, address, Mode::Ephemeral).await.map(drop)
        }
        created => created.map(drop),
    }
}

/// Workers that come and go are worth a line.
fn tell_of_worker(context: &Context, board: &Board, event: &Event) {
    let Some(worker) = event.path.strip_prefix(nodes::WORKERS).and_then(|path| path.strip_prefix('/')) else {
        return;
    };
    match (event.kind, board.load(worker)) {
        (EventKind::Created, _) => context.say(format!("sees that {worker} is there")),
        (_, 0) => context.say(format!("sees that {worker} is gone")),
        (_, tasks) => context.say(format!("sees that {worker} is gone: its {tasks} tasks go to others")),
    }
}

/// Everything that the master follows.
struct Watches {
    workers: Watch,
    assign: Watch,
    tasks: Watch,
}

impl Watches {
    /// A persistent, recursive watch reports nodes that come and go, by name. With the notes' one-shot watches
    /// on the children (servers before 3.6) one would list the children again after each event.
    async fn set(zk: &Client) -> zk_client::Result<Watches> {
        Ok(Watches {
            workers: zk.watch(nodes::WORKERS).recursive().await?,
            assign: zk.watch(nodes::ASSIGN).recursive().await?,
            tasks: zk.watch(nodes::TASKS).recursive().await?,
        })
    }

    /// Waits for an event, and returns it with all that are here.
    ///
    /// A report creates a status and deletes an assignment. Tasks come last, so that whoever sees the
    /// assignment gone has seen the status: else the task would look as if nobody had it.
    async fn next(&mut self) -> Vec<Event> {
        let mut events = tokio::select! {
            event = self.workers.next() => Vec::from_iter(event),
            event = self.assign.next() => Vec::from_iter(event),
            event = self.tasks.next() => Vec::from_iter(event),
        };
        for watch in [&mut self.workers, &mut self.assign, &mut self.tasks] {
            while let Some(Some(event)) = watch.next().now_or_never() {
                events.push(event);
            }
        }
        events
    }
}

/// Reads the names of all workers, assignments and tasks, requests of a kind in one flight.
///
/// Behind a sync, since the server may lag behind the predecessor's last writes. Assignments before tasks, for
/// the same reason as in [`Watches::next`].
async fn read_board(zk: &Client) -> zk_client::Result<Board> {
    let mut board = Board::default();
    zk.sync(nodes::ASSIGN).await?;
    for dir in [nodes::WORKERS, nodes::ASSIGN, nodes::TASKS] {
        let (names, _) = zk.children(dir).await?;
        let paths: Vec<_> = names.iter().map(|name| format!("{dir}/{name}")).collect();
        paths.iter().for_each(|path| board.note(path, true));
        if dir == nodes::WORKERS {
            continue;
        }
        let lists: Vec<_> = paths.iter().map(|path| zk.children(path).send()).collect();
        for (path, list) in paths.iter().zip(lists) {
            match list.await {
                Ok((names, _)) => names.iter().for_each(|name| board.note(&format!("{path}/{name}"), true)),
                // Gone meanwhile.
                Err(error) if error.is_no_node() => board.note(path, false),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(board)
}

/// Carries out what can be, in one flight; `Some` if the board is not to be trusted any more.
async fn carry_out(
    context: &Context,
    term: &LeaderTerm,
    steps: Vec<Step>,
    just_read: bool,
    board: &mut Board,
) -> zk_client::Result<Option<End>> {
    let zk = term.client();
    let paths: Vec<_> = steps.iter().map(|step| nodes::task(step.task())).collect();
    let commands: Vec<_> = paths.iter().map(|path| zk.get(path).send()).collect();
    let mut writes = Vec::new();
    for (step, command) in steps.into_iter().zip(commands) {
        let (command, stat) = match command.await {
            Ok(command) => command,
            Err(error) if error.is_no_node() && matches!(step, Step::Forget { .. }) => Default::default(),
            // The client has withdrawn the task; the event is on its way.
            Err(error) if error.is_no_node() => continue,
            Err(error) => return Err(error),
        };
        // Assigned once, and now neither assignment nor status: the board is old. If we have read it just now,
        // an operator has deleted something, and the task is to be assigned again.
        if matches!(step, Step::Assign { .. }) && stat.version != 0 && !just_read {
            return Ok(Some(End::Surprise));
        }
        context.moment(Moment::BeforeAssign, step.task()).await;
        context.detail(&step);
        let write = step.write(term, command, stat.version).send();
        context.moment(Moment::AssignSent, step.task()).await;
        writes.push((step, write));
    }
    let mut end = None;
    for (step, write) in writes {
        match write.await {
            Ok(_) => step.note(board),
            // The worker has died, or a report or a withdrawal was faster; the event is on its way.
            Err(ZkError::Multi { index: 1 | 2, code: ServerCode::NO_NODE, .. }) => {}
            Err(error) if is_verdict(&error) => end = Some(surprise(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(end)
}

/// Whether a server has judged a multi, and nothing of it was applied.
fn is_verdict(error: &ZkError) -> bool {
    matches!(error, ZkError::Multi { code, .. } if *code == ServerCode::NO_NODE
        || *code == ServerCode::NODE_EXISTS || *code == ServerCode::BAD_VERSION)
}

/// What a failed multi says about us: its first operation is the check of our place in line.
fn surprise(error: ZkError) -> End {
    match error {
        ZkError::Multi { index: 0, .. } => End::Deposed,
        _ => End::Surprise,
    }
}

impl Step {
    fn task(&self) -> &str {
        match self {
            Step::Assign { task, .. } | Step::Move { task, .. } | Step::Forget { task, .. } => task,
        }
    }

    /// The write that does it if all is as the board says, and nothing otherwise. Its first operation, put there
    /// by `fenced`, is the check that this term is not over.
    fn write<'a>(&self, term: &'a LeaderTerm, command: Bytes, version: i32) -> Multi<'a> {
        match self {
            // Setting the same data moves the version on: nobody can assign the task for the first time again.
            Step::Assign { task, worker } => term
                .fenced()
                .check(&nodes::worker(worker), None)
                .set(&nodes::task(task), command.clone(), Some(version))
                .create(&nodes::assignment(worker, task), command, Mode::Persistent),
            Step::Move { task, from, worker } => term
                .fenced()
                .check(&nodes::worker(worker), None)
                .delete(&nodes::assignment(from, task), None)
                .create(&nodes::assignment(worker, task), command, Mode::Persistent),
            Step::Forget { task, from } => term.fenced().delete(&nodes::assignment(from, task), None),
        }
    }

    /// Notes what was done.
    fn note(&self, board: &mut Board) {
        match self {
            Step::Assign { task, worker } => board.note(&nodes::assignment(worker, task), true),
            Step::Move { task, from, worker } => {
                board.note(&nodes::assignment(from, task), false);
                board.note(&nodes::assignment(worker, task), true);
            }
            Step::Forget { task, from } => board.note(&nodes::assignment(from, task), false),
        }
    }
}
