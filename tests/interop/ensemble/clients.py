"""Clients that work while servers fail: what they were promised must be there at the end."""

import base64
import logging
import random
import socket
import struct
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NoNodeError, NodeExistsError, BadVersionError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.recipe.lock import Lock
from kazoo.retry import KazooRetry
from kazoo.security import make_acl, make_digest_acl

from servers import Failed, say, until

logging.disable(logging.CRITICAL)

LOST = (KazooException, KazooTimeoutError)


def connect(hosts, timeout=60, wait=30, retry_seconds=0.1):
    client = KazooClient(hosts, timeout=timeout, randomize_hosts=False,
                         connection_retry=KazooRetry(max_tries=-1, delay=retry_seconds, backoff=1, max_jitter=0),
                         auth_data=[("digest", "super:test")])
    client.start(wait)
    return client


class Worker(threading.Thread):
    """Writes through one server (or whichever answers), holds an ephemeral node, takes a lock, keeps watches."""

    def __init__(self, name, hosts, timeout=60):
        super().__init__(name=name, daemon=True)
        self.client = connect(hosts, timeout)
        self.session = self.client.client_id
        self.lost = False
        self.client.add_listener(self.state)
        self.created, self.tried = {}, 0
        self.value, self.values_tried = 0, 0
        self.locked, self.failures = 0, 0
        self.wrong = []
        self.longest, self.last_success = 0.0, time.monotonic()
        self.ending = threading.Event()
        base = f"/work/{name}"
        self.base = base
        self.client.ensure_path(base)
        self.client.ensure_path("/ephemeral")
        self.client.create(f"{base}/value", b"0")
        self.client.create(f"/ephemeral/{name}", b"", ephemeral=True)
        self.seen = None
        self.client.ensure_path("/watched")
        self.client.DataWatch("/watched", self.watched)

    def state(self, state):
        if state == KazooState.LOST and not self.ending.is_set():
            self.lost = True

    def watched(self, data, _stat):
        self.seen = data

    def run(self):
        lock = Lock(self.client, "/lock", self.name)
        step = 0
        while not self.ending.is_set():
            step += 1
            try:
                self.step(step, lock)
                now = time.monotonic()
                self.longest = max(self.longest, now - self.last_success)
                self.last_success = now
            except LOST:
                self.failures += 1
                time.sleep(0.05)
            except Exception as error:  # noqa: BLE001: told at the end
                self.wrong.append(repr(error))
                return

    def step(self, step, lock):
        if step % 8 == 0:
            self.guarded(lock)
        elif step % 16 == 3:
            self.transactions()
        elif step % 2:
            self.tried += 1
            path = f"{self.base}/n{self.tried}"
            data = f"{self.name} {self.tried}".encode() * random.randrange(1, 20)
            _, stat = self.client.create(path, data, include_data=True)
            self.created[path] = (data, stat.czxid)
            if self.tried % 5 == 0:
                # What may or may not be gone is of no interest any more.
                gone = f"{self.base}/n{self.tried - 2}"
                self.created.pop(gone, None)
                self.client.delete(gone)
        else:
            self.values_tried += 1
            self.client.set(f"{self.base}/value", b"%d" % self.values_tried)
            self.value = self.values_tried
            read = int(self.client.get(f"{self.base}/value")[0])
            if read < self.value:
                self.wrong.append(f"read {read} after {self.value} was written")

    def transactions(self):
        """One that succeeds, and one whose failure is a transaction for all servers, too."""
        self.tried += 1
        path = f"{self.base}/t{self.tried}"
        good = self.client.transaction()
        good.create(path, b"first")
        good.set_data(path, b"second")
        good.check(path, 1)
        _, stat, _ = results = good.commit()
        if any(isinstance(result, Exception) for result in results):
            self.wrong.append(f"transaction: {results}")
        self.created[path] = (b"second", stat.czxid)
        bad = self.client.transaction()
        bad.create(f"{path}-never")
        bad.delete(f"{path}-missing")
        bad.commit()
        self.client.set_acls(path, [make_acl("world", "anyone", all=True), make_digest_acl("bob", "secret", read=True)])

    def guarded(self, lock):
        """Two holders at a time would meet at the version."""
        try:
            if not lock.acquire(timeout=5):
                return
        except LOST:
            # The node that waits for the lock may be there.
            self.forget(lock)
            raise
        try:
            data, stat = self.client.get("/guarded")
            try:
                self.client.set("/guarded", data[-200:] + b" " + self.name.encode(), stat.version)
                self.locked += 1
            except BadVersionError:
                # A set that was applied although its answer was lost is repeated by nobody: somebody else was in.
                self.wrong.append("two held the lock")
        finally:
            self.forget(lock)

    def forget(self, lock):
        while not self.ending.is_set():
            try:
                lock.cancelled = False
                lock.is_acquired = False
                for child in self.client.get_children("/lock"):
                    try:
                        if self.client.get(f"/lock/{child}")[1].ephemeralOwner == self.session[0]:
                            self.client.delete(f"/lock/{child}")
                    except NoNodeError:
                        pass
                return
            except LOST:
                time.sleep(0.05)


def abandon(port, path, timeout_ms):
    """Creates an ephemeral node in a session of which nothing will be heard any more."""

    def text(value):
        return struct.pack(">i", len(value)) + value

    with socket.create_connection(("127.0.0.1", port), 10) as conn:
        conn.sendall(text(struct.pack(">iqiq", 0, 0, timeout_ms, 0) + text(bytes(16)) + b"\0"))
        conn.recv(100)
        acl = struct.pack(">ii", 1, 31) + text(b"world") + text(b"anyone")
        conn.sendall(text(struct.pack(">ii", 1, 1) + text(path.encode()) + text(b"") + acl + struct.pack(">i", 1)))
        if conn.recv(100)[16:20] != bytes(4):
            raise Failed(f"cannot create {path}")


class Load:
    """Workers at every server, and one that goes to any."""

    def __init__(self, ensemble, timeout=60):
        self.ensemble = ensemble
        admin = connect(ensemble.hosts())
        for path in ("/work", "/ephemeral", "/lock", "/watched"):
            admin.ensure_path(path)
        admin.create("/guarded", b"")
        for server in ensemble.servers:
            abandon(server.port, f"/ephemeral/abandoned-{server.sid}", 4000)
        admin.stop()
        admin.close()
        self.workers = [Worker(f"at-{server.sid}", f"127.0.0.1:{server.port}", timeout) for server in ensemble.servers]
        self.workers.append(Worker("anywhere", ensemble.hosts(), timeout))
        for worker in self.workers:
            worker.start()

    def end(self):
        """Ends the load and checks what it was promised, and that all servers agree."""
        for worker in self.workers:
            worker.ending.set()
        for worker in self.workers:
            worker.join(30)
            if worker.is_alive():
                raise Failed(f"{worker.name} hangs")
        ensemble = self.ensemble
        wrong = [f"{worker.name}: {text}" for worker in self.workers for text in worker.wrong]
        wrong += [f"{worker.name}: session lost" for worker in self.workers if worker.lost]
        if wrong:
            raise Failed("; ".join(wrong))
        admin = connect(ensemble.hosts())
        last = b"last %d" % random.randrange(1 << 30)
        admin.set("/watched", last)
        for worker in self.workers:
            until(20, f"the watch of {worker.name} at its server sees the last change", lambda w=worker: w.seen == last)
        until(20, "sessions that nobody uses expire", lambda: not any(
            child.startswith("abandoned") for child in admin.get_children("/ephemeral")))
        tree = equal_trees(ensemble)
        for worker in self.workers:
            for path, (data, czxid) in worker.created.items():
                found = tree.get(path)
                if not found:
                    raise Failed(f"{path} was acknowledged and is gone")
                if base64.b64decode(found["data"]) != data or found["stat"][0] != czxid:
                    raise Failed(f"{path} is not what was acknowledged: {found}")
            value = int(base64.b64decode(tree[f"{worker.base}/value"]["data"]))
            if not worker.value <= value <= worker.values_tried:
                raise Failed(f"{worker.name}: {value} instead of {worker.value} to {worker.values_tried}")
            owner = tree.get(f"/ephemeral/{worker.name}")
            if not owner or owner["stat"][7] != worker.session[0]:
                raise Failed(f"the ephemeral node of {worker.name} is {owner}, session {worker.session[0]:x}")
        for worker in self.workers:
            worker.client.stop()
            worker.client.close()

        def without_ephemerals():
            try:
                return not admin.get_children("/ephemeral")
            except LOST:
                return False

        until(10, "ephemeral nodes go with their sessions", without_ephemerals)
        admin.stop()
        admin.close()
        ensemble.check_logs()
        creates = sum(len(worker.created) for worker in self.workers)
        locks = sum(worker.locked for worker in self.workers)
        longest = max(worker.longest for worker in self.workers)
        say(f"  {creates} nodes of {len(self.workers)} clients kept, {len(tree)} equal on all servers, "
            f"{locks} times locked, {sum(w.failures for w in self.workers)} failures, longest wait {longest:.1f} s")
        return creates


def dump(hosts):
    """The whole tree, as one server shows it."""
    client = connect(hosts)
    client.sync("/")
    tree, todo = {}, ["/"]
    while todo:
        # One round trip per level, not per node.
        asked = [(path, client.get_async(path), client.get_acls_async(path), client.get_children_async(path))
                 for path in todo]
        todo = []
        for path, *answers in asked:
            try:
                (data, stat), (acls, _), children = [answer.get(20) for answer in answers]
            except NoNodeError:
                continue
            tree[path] = {
                "data": None if data is None else base64.b64encode(data).decode(),
                "acl": sorted((a.perms, a.id.scheme, a.id.id) for a in acls),
                "stat": list(stat),
            }
            todo += [path.rstrip("/") + "/" + child for child in children]
    client.stop()
    client.close()
    # Every server writes the time when it learned of the configuration.
    tree["/zookeeper/config"]["stat"] = None
    return tree


def equal_trees(ensemble):
    """Compares data, ACL and Stat of all nodes between all servers."""
    trees = [(server, dump(f"127.0.0.1:{server.port}")) for server in ensemble.servers if server.process]
    first, tree = trees[0]
    for server, other in trees[1:]:
        for path in sorted(tree.keys() | other.keys()):
            if tree.get(path) != other.get(path):
                raise Failed(f"{path} is {tree.get(path)} at {first}, but {other.get(path)} at {server}")
    return tree
