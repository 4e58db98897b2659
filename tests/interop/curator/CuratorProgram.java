import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.api.transaction.TransactionOp;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCacheEvent;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * Curator's recipes at work on the server at args[0], below /curator.
 * Prints "restart the server" and waits for a line, then goes on; "all right" is its last word.
 */
public final class CuratorProgram {
    private static final String ROOT = "/curator";
    private static String hosts;

    public static void main(String[] args) throws Exception {
        hosts = args[0];
        try (CuratorFramework client = connect()) {
            if (client.checkExists().forPath(ROOT) != null) {
                client.delete().deletingChildrenIfNeeded().forPath(ROOT);
            }
            run("TransactionOp", () -> transactions(client));
            run("create modes", () -> createModes(client));
            run("InterProcessMutex", () -> mutex(client));
            run("InterProcessSemaphoreV2", () -> semaphore(client));
            run("DistributedAtomicLong", () -> atomicLong(client));
            run("PathChildrenCache", () -> pathChildrenCache(client));
            run("CuratorCache", () -> curatorCache(client));
            run("LeaderLatch", CuratorProgram::leaderLatch);
            run("a lost session", CuratorProgram::lostSession);
            run("a restart", CuratorProgram::restart);
        } catch (Throwable e) {
            e.printStackTrace(System.out);
            System.out.flush();
            Runtime.getRuntime().halt(1);
        }
        System.out.println("all right");
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    private static void transactions(CuratorFramework client) throws Exception {
        String path = ROOT + "/tx";
        client.create().creatingParentsIfNeeded().forPath(path, bytes("0"));
        TransactionOp op = client.transactionOp();
        List<CuratorTransactionResult> results = client.transaction().forOperations(
                op.create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(path + "/n-", bytes("1")),
                op.create().withMode(CreateMode.EPHEMERAL).forPath(path + "/e", bytes("2")),
                op.check().withVersion(0).forPath(path),
                op.setData().withVersion(0).forPath(path, bytes("3")),
                op.delete().forPath(path + "/e"));
        equal(5, results.size());
        equal(path + "/n-0000000000", results.get(0).getResultPath());
        equal(1, results.get(3).getResultStat().getVersion());
        try {
            client.transaction().forOperations(
                    op.create().forPath(path + "/never"),
                    op.check().withVersion(0).forPath(path),
                    op.delete().forPath(path));
            throw new AssertionError("a failing transaction passes");
        } catch (KeeperException.BadVersionException e) {
            List<KeeperException.Code> codes = new ArrayList<>();
            e.getResults().forEach(result ->
                    codes.add(KeeperException.Code.get(((org.apache.zookeeper.OpResult.ErrorResult) result).getErr())));
            equal(List.of(KeeperException.Code.OK, KeeperException.Code.BADVERSION,
                    KeeperException.Code.RUNTIMEINCONSISTENCY), codes);
        }
        equal(null, client.checkExists().forPath(path + "/never"));
        CountDownLatch done = new CountDownLatch(1);
        client.transaction().inBackground((c, event) -> done.countDown())
                .forOperations(op.create().forPath(path + "/background"));
        check(done.await(10, TimeUnit.SECONDS), "the background transaction");
        check(client.checkExists().forPath(path + "/background") != null, "its node");
    }

    private static void createModes(CuratorFramework client) throws Exception {
        String path = ROOT + "/modes";
        client.create().creatingParentContainersIfNeeded().forPath(path + "/container/child");
        Stat stat = new Stat();
        String prot = client.create().storingStatIn(stat).withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
                .forPath(path + "/p-", bytes("p"));
        check(prot.matches(path + "/_c_[-0-9a-f]{36}-p-\\d{10}"), prot);
        equal(client.getZookeeperClient().getZooKeeper().getSessionId(), stat.getEphemeralOwner());
        client.create().withTtl(60_000).withMode(CreateMode.PERSISTENT_WITH_TTL).forPath(path + "/ttl");
        client.create().orSetData().forPath(path + "/ttl", bytes("again"));
        equal("again", new String(client.getData().forPath(path + "/ttl")));
        equal(3, client.getChildren().forPath(path).size());
        client.create().compressed().forPath(path + "/gz", bytes("gz"));
        equal("gz", new String(client.getData().decompressed().forPath(path + "/gz")));
        check(client.getData().forPath(path + "/gz").length > 10, "compressed data");
        client.delete().guaranteed().deletingChildrenIfNeeded().forPath(path);
    }

    /** Two clients and four threads count up a node that only the lock protects. */
    private static void mutex(CuratorFramework first) throws Exception {
        String counter = ROOT + "/count";
        first.create().forPath(counter, bytes("0"));
        try (CuratorFramework second = connect()) {
            List<Thread> threads = new ArrayList<>();
            List<Throwable> failures = new CopyOnWriteArrayList<>();
            AtomicInteger inside = new AtomicInteger();
            for (int i = 0; i < 4; i++) {
                CuratorFramework client = i % 2 == 0 ? first : second;
                Thread thread = new Thread(() -> {
                    try {
                        InterProcessMutex lock = new InterProcessMutex(client, ROOT + "/mutex");
                        for (int n = 0; n < 10; n++) {
                            lock.acquire();
                            equal(1, inside.incrementAndGet());
                            int value = Integer.parseInt(new String(client.getData().forPath(counter)));
                            client.setData().forPath(counter, bytes(String.valueOf(value + 1)));
                            inside.decrementAndGet();
                            lock.release();
                        }
                    } catch (Throwable e) {
                        failures.add(e);
                    }
                });
                threads.add(thread);
                thread.start();
            }
            for (Thread thread : threads) {
                thread.join(60_000);
                check(!thread.isAlive(), "a thread waits for the lock for ever");
            }
            equal(List.of(), failures);
            equal("40", new String(first.getData().forPath(counter)));

            InterProcessMutex mine = new InterProcessMutex(first, ROOT + "/mutex");
            InterProcessMutex theirs = new InterProcessMutex(second, ROOT + "/mutex");
            mine.acquire();
            mine.acquire();
            mine.release();
            check(mine.isAcquiredInThisProcess(), "taken twice, given back once");
            check(!theirs.acquire(300, TimeUnit.MILLISECONDS), "taken by two");
            equal(1, mine.getParticipantNodes().size());
            mine.release();
            check(theirs.acquire(10, TimeUnit.SECONDS), "free again");
            theirs.release();
        }
    }

    private static void semaphore(CuratorFramework client) throws Exception {
        InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(client, ROOT + "/semaphore", 2);
        Lease one = semaphore.acquire();
        Lease two = semaphore.acquire();
        equal(null, semaphore.acquire(300, TimeUnit.MILLISECONDS));
        one.close();
        Lease three = semaphore.acquire(10, TimeUnit.SECONDS);
        check(three != null, "a lease that was given back");
        semaphore.returnAll(List.of(two, three));
    }

    private static void atomicLong(CuratorFramework client) throws Exception {
        DistributedAtomicLong value = new DistributedAtomicLong(client, ROOT + "/long", new RetryOneTime(1));
        check(value.initialize(40L), "initialize");
        check(value.increment().succeeded() && value.add(1L).succeeded(), "add");
        equal(42L, value.get().postValue());
        check(!value.compareAndSet(1L, 2L).succeeded(), "compareAndSet of another value");
    }

    @SuppressWarnings("deprecation")
    private static void pathChildrenCache(CuratorFramework client) throws Exception {
        String path = ROOT + "/children";
        client.create().forPath(path);
        client.create().forPath(path + "/a", bytes("1"));
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        try (PathChildrenCache cache = new PathChildrenCache(client, path, true)) {
            cache.getListenable().addListener((c, event) -> events.add(event.getType()
                    + (event.getData() == null ? "" : " " + event.getData().getPath() + "="
                            + new String(event.getData().getData()))));
            cache.start(PathChildrenCache.StartMode.POST_INITIALIZED_EVENT);
            next(events, PathChildrenCacheEvent.Type.CHILD_ADDED + " " + path + "/a=1");
            next(events, PathChildrenCacheEvent.Type.INITIALIZED.toString());
            client.create().forPath(path + "/b", bytes("2"));
            next(events, PathChildrenCacheEvent.Type.CHILD_ADDED + " " + path + "/b=2");
            client.setData().forPath(path + "/a", bytes("3"));
            next(events, PathChildrenCacheEvent.Type.CHILD_UPDATED + " " + path + "/a=3");
            client.delete().forPath(path + "/b");
            next(events, PathChildrenCacheEvent.Type.CHILD_REMOVED + " " + path + "/b=2");
            equal(1, cache.getCurrentData().size());
        }
    }

    /** Stands on a persistent recursive watch. */
    private static void curatorCache(CuratorFramework client) throws Exception {
        String path = ROOT + "/tree";
        client.create().creatingParentsIfNeeded().forPath(path + "/a/b", bytes("1"));
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        CountDownLatch initialized = new CountDownLatch(1);
        try (CuratorCache cache = CuratorCache.build(client, path)) {
            cache.listenable().addListener(CuratorCacheListener.builder()
                    .forInitialized(initialized::countDown).build());
            cache.start();
            check(initialized.await(10, TimeUnit.SECONDS), "the cache is initialized");
            equal(3, cache.size());
            cache.listenable().addListener((type, old, data) ->
                    events.add(type + " " + (data == null ? old : data).getPath()));
            client.create().creatingParentsIfNeeded().forPath(path + "/c/d/e", bytes("2"));
            Set<String> created = new TreeSet<>();
            for (int i = 0; i < 3; i++) {
                created.add(take(events));
            }
            equal(Set.of("NODE_CREATED " + path + "/c", "NODE_CREATED " + path + "/c/d",
                    "NODE_CREATED " + path + "/c/d/e"), created);
            client.setData().forPath(path + "/a/b", bytes("3"));
            next(events, "NODE_CHANGED " + path + "/a/b");
            client.delete().forPath(path + "/a/b");
            next(events, "NODE_DELETED " + path + "/a/b");
            equal(5, cache.size());
        }
    }

    private static void leaderLatch() throws Exception {
        try (CuratorFramework one = connect(); CuratorFramework two = connect();
                LeaderLatch second = new LeaderLatch(two, ROOT + "/latch", "second")) {
            LeaderLatch first = new LeaderLatch(one, ROOT + "/latch", "first");
            first.start();
            check(first.await(10, TimeUnit.SECONDS), "the first leads");
            second.start();
            until("two participants", () -> first.getParticipants().size() == 2);
            equal("first", second.getLeader().getId());
            check(!second.hasLeadership(), "two leaders");
            first.close();
            check(second.await(10, TimeUnit.SECONDS), "the second leads");
            equal("second", second.getLeader().getId());
        }
    }

    /** Someone else closes our session, as expiry would. */
    private static void lostSession() throws Exception {
        try (CuratorFramework client = connect(); CuratorFramework other = connect();
                PersistentNode node = new PersistentNode(client, CreateMode.EPHEMERAL, false, ROOT + "/mine", bytes("m"));
                LeaderLatch latch = new LeaderLatch(client, ROOT + "/lost-latch", "first")) {
            BlockingQueue<String> led = new LinkedBlockingQueue<>();
            List<ConnectionState> states = states(client);
            latch.addListener(new LeaderLatchListener() {
                @Override
                public void isLeader() {
                    led.add("leader");
                }

                @Override
                public void notLeader() {
                    led.add("not leader");
                }
            });
            node.start();
            latch.start();
            check(node.waitForInitialCreate(10, TimeUnit.SECONDS), "the node");
            next(led, "leader");
            InterProcessMutex lock = new InterProcessMutex(client, ROOT + "/lost-mutex");
            lock.acquire();
            InterProcessMutex waiting = new InterProcessMutex(other, ROOT + "/lost-mutex");
            check(!waiting.acquire(300, TimeUnit.MILLISECONDS), "taken by two");

            ZooKeeper ours = client.getZookeeperClient().getZooKeeper();
            long before = ours.getSessionId();
            CountDownLatch connected = new CountDownLatch(1);
            try (ZooKeeper again = new ZooKeeper(hosts, 8000, event -> connected.countDown(), before,
                    ours.getSessionPasswd())) {
                check(connected.await(10, TimeUnit.SECONDS), "the session's second connection");
            }
            next(led, "not leader");
            next(led, "leader");
            check(waiting.acquire(10, TimeUnit.SECONDS), "the lock of a lost session is free");
            waiting.release();
            until("LOST, then RECONNECTED", () -> states.contains(ConnectionState.LOST)
                    && states.get(states.size() - 1) == ConnectionState.RECONNECTED);
            long after = client.getZookeeperClient().getZooKeeper().getSessionId();
            check(before != after, "a new session");
            until("the node is there again", () -> {
                Stat stat = other.checkExists().forPath(ROOT + "/mine");
                return stat != null && stat.getEphemeralOwner() == after;
            });
        }
    }

    private static void restart() throws Exception {
        try (CuratorFramework client = connect(); CuratorFramework other = connect();
                CuratorCache cache = CuratorCache.build(client, ROOT + "/restart");
                LeaderLatch latch = new LeaderLatch(client, ROOT + "/restart-latch", "first")) {
            List<ConnectionState> states = states(client);
            client.create().forPath(ROOT + "/restart");
            client.create().withMode(CreateMode.EPHEMERAL).forPath(ROOT + "/restart/mine");
            cache.start();
            latch.start();
            check(latch.await(10, TimeUnit.SECONDS), "leader");
            until("the cache is filled", () -> cache.size() == 2);
            InterProcessMutex lock = new InterProcessMutex(client, ROOT + "/restart-mutex");
            lock.acquire();
            long session = client.getZookeeperClient().getZooKeeper().getSessionId();

            System.out.println("restart the server");
            System.out.flush();
            System.in.read();
            until("connected again", () -> states.contains(ConnectionState.SUSPENDED)
                    && states.get(states.size() - 1) == ConnectionState.RECONNECTED);
            check(!states.contains(ConnectionState.LOST), "the session went on: " + states);
            equal(session, client.getZookeeperClient().getZooKeeper().getSessionId());
            equal(session, other.checkExists().forPath(ROOT + "/restart/mine").getEphemeralOwner());
            other.create().forPath(ROOT + "/restart/new", bytes("n"));
            until("the cache goes on", () -> cache.get(ROOT + "/restart/new").isPresent());
            check(latch.await(20, TimeUnit.SECONDS), "leader again");
            lock.release();
            InterProcessMutex theirs = new InterProcessMutex(other, ROOT + "/restart-mutex");
            check(theirs.acquire(10, TimeUnit.SECONDS), "the lock is free");
            theirs.release();
        }
    }

    private static CuratorFramework connect() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(hosts, 8_000, 10_000,
                new ExponentialBackoffRetry(50, 8));
        client.start();
        check(client.blockUntilConnected(15, TimeUnit.SECONDS), "no connection");
        return client;
    }

    private static List<ConnectionState> states(CuratorFramework client) {
        List<ConnectionState> states = new CopyOnWriteArrayList<>();
        client.getConnectionStateListenable().addListener((c, state) -> states.add(state));
        return states;
    }

    private interface Step {
        void run() throws Exception;
    }

    private static void run(String name, Step step) throws Exception {
        long begin = System.nanoTime();
        step.run();
        System.out.printf("%s: ok, %d ms%n", name, (System.nanoTime() - begin) / 1_000_000);
    }

    private static byte[] bytes(String text) {
        return text.getBytes();
    }

    private static String take(BlockingQueue<String> events) throws InterruptedException {
        String event = events.poll(15, TimeUnit.SECONDS);
        check(event != null, "no event within 15 s");
        return event;
    }

    private static void next(BlockingQueue<String> events, String expected) throws InterruptedException {
        equal(expected, take(events));
    }

    private static void until(String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (!condition.call()) {
            check(System.nanoTime() < end, "not within 20 s: " + what);
            Thread.sleep(20);
        }
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static void equal(Object expected, Object found) {
        if (expected == null ? found != null : !expected.equals(found)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
