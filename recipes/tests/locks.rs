//! Locks and latches on a real server: an embedded one, or the one that `ZK_TEST_CONNECT` names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zk_client::Client;
use zk_recipes::{
    DistributedLock, Held, Layout, LeaderLatch, Leadership, LossReason, RecipeError, Sequencer,
};

mod scene;
use scene::{connect, expire, fresh_path};

const SOON: Duration = Duration::from_secs(20);

async fn children(zk: &Client, path: &str) -> Vec<String> {
    zk.children(path).await.map(|(children, _)| children).unwrap_or_default()
}

/// Deletions of dropped guards run in the background.
async fn until_empty(zk: &Client, path: &str) {
    let empty = async {
        while !children(zk, path).await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, empty).await.expect("nodes remain");
}

#[tokio::test]
async fn one_holder_at_a_time_first_come_first_served_with_growing_tokens() {
    let path = fresh_path("mutex");
    let holders = Arc::new(AtomicU32::new(0));
    let last_token = Arc::new(parking::Last::default());
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let zk = connect().await;
        for _ in 0..5 {
            let (zk, path, holders, last_token) =
                (zk.clone(), path.clone(), holders.clone(), last_token.clone());
            tasks.push(tokio::spawn(async move {
                let lock = DistributedLock::new(&zk, &path);
                let guard = lock.acquire().await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                assert!(guard.is_held());
                last_token.grow(guard.token().0);
                guard.fenced().set(&path, "x", None).await.unwrap();
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                guard.release().await.unwrap();
            }));
        }
    }
    for task in tasks {
        timeout(SOON, task).await.unwrap().unwrap();
    }
    until_empty(&connect().await, &path).await;
}

mod parking {
    use std::sync::Mutex;

    #[derive(Default)]
    pub struct Last(Mutex<u64>);

    impl Last {
        pub fn grow(&self, to: u64) {
            let mut last = self.0.lock().unwrap();
            assert!(to > *last, "token {to} after {last}");
            *last = to;
        }
    }
}

#[tokio::test]
async fn a_dropped_acquire_leaves_nothing_and_keeps_others_in_line() {
    let (zk, path) = (connect().await, fresh_path("cancel"));
    let lock = DistributedLock::new(&zk, &path);
    let holder = lock.acquire().await.unwrap();
    for micros in (0..8000).step_by(200) {
        let cancelled = timeout(Duration::from_micros(micros), lock.acquire()).await;
        assert!(cancelled.is_err(), "acquired while held");
    }
    assert!(lock.acquire_timeout(Duration::from_millis(5)).await.unwrap().is_none());
    assert!(lock.try_acquire().await.unwrap().is_none());
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap().token() }
    });
    while lock.contenders().await.unwrap().len() != 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let token = holder.token();
    drop(holder);
    assert!(timeout(SOON, waiter).await.unwrap().unwrap() > token);
    until_empty(&zk, &path).await;
    drop(lock.try_acquire().await.unwrap().expect("free"));
    until_empty(&zk, &path).await;
}

#[tokio::test]
async fn a_holder_is_told_that_its_node_was_deleted_and_its_writes_are_refused() {
    let (zk, operator, path) = (connect().await, connect().await, fresh_path("deleted"));
    zk.create("/fenced-data", "").or_set().await.unwrap();
    let guard = DistributedLock::new(&zk, &path).acquire().await.unwrap();
    let sequencer = guard.sequencer();
    assert!(sequencer.to_string().parse::<Sequencer>().unwrap().verify(&operator).await.unwrap());
    let lost = guard.lost();
    operator.delete(guard.path()).await.unwrap();
    assert_eq!(timeout(SOON, lost).await.unwrap(), LossReason::NodeDeleted);
    assert!(!guard.is_held());
    assert!(guard.fenced().set("/fenced-data", "late", None).await.is_err());
    assert!(!sequencer.verify(&operator).await.unwrap());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn an_expired_holder_is_told_and_the_next_one_has_a_larger_token() {
    let (zk, other, path) = (connect().await, connect().await, fresh_path("expired"));
    let lock = DistributedLock::new(&zk, &path);
    let guard = lock.acquire().await.unwrap();
    let next = tokio::spawn({
        let lock = DistributedLock::new(&other, &path);
        async move { lock.acquire().await.unwrap() }
    });
    while lock.contenders().await.unwrap().len() != 2 {
        sleep(Duration::from_millis(5)).await;
    }
    expire(&zk).await;
    let next = timeout(SOON, next).await.unwrap().unwrap();
    assert!(next.token() > guard.token());
    assert_eq!(timeout(SOON, guard.lost()).await.unwrap(), LossReason::SessionExpired);
    // The client has a new session by now; the guard stays bound to the old one.
    zk.connected().await.unwrap();
    assert!(guard.fenced().set(&path, "late", None).await.is_err());
    drop(guard);
    assert!(next.is_held());
    next.fenced().set(&path, "in time", None).await.unwrap();
}

#[tokio::test]
async fn names_are_those_of_curator_and_kazoo() {
    let zk = connect().await;
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let path = fresh_path("curator");
    let _guard = DistributedLock::builder(&zk, &path).id("me").build().acquire().await.unwrap();
    let name = children(&zk, &path).await.remove(0);
    let guid =
        name.strip_prefix("_c_").and_then(|n| n.strip_suffix("-lock-0000000000")).expect("Curator's pattern");
    assert_eq!(guid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert!(guid.split('-').all(hex));
    let kazoo = DistributedLock::builder(&zk, &path).layout(Layout::Kazoo).build();
    assert!(matches!(kazoo.acquire().await, Err(RecipeError::MixedLayout { .. })));

    let path = fresh_path("kazoo");
    let _guard = DistributedLock::builder(&zk, &path).layout(Layout::Kazoo).build().acquire().await.unwrap();
    let name = children(&zk, &path).await.remove(0);
    let guid = name.strip_suffix("__lock__0000000000").expect("kazoo's pattern");
    assert!(guid.len() == 32 && hex(guid));
}

#[tokio::test]
async fn leadership_goes_down_the_line() {
    let (a, b, path) = (connect().await, connect().await, fresh_path("latch"));
    let first = LeaderLatch::start(&a, &path, "a").await.unwrap();
    let second = LeaderLatch::start(&b, &path, "b").await.unwrap();
    let term = timeout(SOON, first.await_leadership()).await.unwrap().unwrap();
    assert!(first.is_leader() && !second.is_leader());
    let ids: Vec<_> = second.participants().await.unwrap().into_iter().map(|p| p.id).collect();
    assert_eq!(ids, ["a", "b"]);
    first.close().await.unwrap();
    assert_eq!(term.lost().await, LossReason::Released);
    let next = timeout(SOON, second.await_leadership()).await.unwrap().unwrap();
    assert!(next.token() > term.token());
    assert!(term.fenced().set(&path, "late", None).await.is_err());
    next.fenced().set(&path, "b", None).await.unwrap();
    drop(second);
    until_empty(&a, &path).await;
}

#[tokio::test]
async fn a_latch_stands_in_line_again_after_a_loss() {
    let (zk, operator, path) = (connect().await, connect().await, fresh_path("regain"));
    let latch = LeaderLatch::start(&zk, &path, "a").await.unwrap();
    let mut tokens = BTreeSet::new();
    for round in 0..3 {
        let term = timeout(SOON, latch.await_leadership()).await.unwrap().unwrap();
        assert!(tokens.insert(term.token()), "a new term in round {round}");
        match round {
            0 => operator.delete(term.path()).await.unwrap(),
            _ => expire(&zk).await,
        }
        timeout(SOON, term.lost()).await.unwrap();
        while latch.leadership() == (Leadership::Leading { token: term.token() }) {
            sleep(Duration::from_millis(5)).await;
        }
    }
    latch.close().await.unwrap();
    until_empty(&operator, &path).await;
}

#[tokio::test]
async fn a_release_wakes_only_the_next_in_line() {
    const WAITERS: usize = 20;
    let (zk, path) = (connect().await, fresh_path("herd"));
    let lock = DistributedLock::new(&zk, &path);
    let holder = lock.acquire().await.unwrap();
    let mut clients = Vec::new();
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let client = connect().await;
        let lock = DistributedLock::new(&client, &path);
        clients.push(client);
        waiters.push(tokio::spawn(async move { lock.acquire().await.unwrap() }));
    }
    while lock.contenders().await.unwrap().len() != WAITERS + 1 {
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(200)).await;
    // A getChildren by everybody who is woken would show as so many reads: count them by the parent's pzxid.
    let before = zk.exists(&path).await.unwrap().unwrap();
    holder.release().await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let after = zk.exists(&path).await.unwrap().unwrap();
    assert_eq!(after.cversion - before.cversion, 1, "only the holder's node went");
    let done = waiters.iter().filter(|waiter| waiter.is_finished()).count();
    assert_eq!(done, 1, "exactly one has the lock");
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
}
