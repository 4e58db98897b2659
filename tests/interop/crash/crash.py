"""Kills a server under write load, again and again, and looks after each restart for every write it acknowledged.

Usage: crash.py run ROUNDS PORT STATE COMMAND...   (COMMAND starts the server)
       crash.py verify PORT STATE                  (what `run` left, on a server that is up)

Four writers keep a window of requests in flight on a connection each. What a writer does is a sequence of steps
that the server must apply in order, so that after a restart its nodes must be those after some number of steps:
at least as many as were acknowledged, at most as many as were sent. That number is then settled, and every later
restart must show the same nodes with the same Stat.
"""

import pickle
import random
import subprocess
import sys
import threading
import time

import wire

WINDOW = 16
LONG = 300_000  # ms: no session ends within a run


def name(number):
    return "%07d" % number


def names(numbers):
    return {b"%07d" % n for n in numbers}


class Creates:
    """Step n creates a node."""

    def step(self, home, n):
        return wire.create(f"{home}/{name(n)}", name(n))

    def nodes(self, steps):
        return names(range(steps))


class Sets(Creates):
    """Step n sets the parent's data to n: its version counts the steps."""

    def step(self, home, n):
        return wire.set_data(home, name(n))

    def nodes(self, steps):
        return set()


class Churn(Creates):
    """Odd steps create a node, even ones delete the one before: a lost delete shows as well as a lost create."""

    def step(self, home, n):
        return wire.create(f"{home}/{name(n)}", name(n)) if n % 2 == 0 else wire.delete(f"{home}/{name(n - 1)}")

    def nodes(self, steps):
        return names([steps - 1] if steps % 2 else [])


class Multis(Creates):
    """Step n creates a node and sets the parent's data to n, both or neither."""

    def step(self, home, n):
        return wire.multi(wire.create(f"{home}/{name(n)}", name(n)), wire.set_data(home, name(n)))


WRITERS = {"creates": Creates(), "sets": Sets(), "churn": Churn(), "multis": Multis()}


class Load:
    """One writer's work of one round."""

    def __init__(self, kind, round_number):
        self.kind = kind
        self.home = f"/{kind}/{name(round_number)}"
        self.sent = 0
        self.acknowledged = 0
        self.stat = None  # once settled: the parent's Stat

    def run(self, port):
        writer = WRITERS[self.kind]
        zxid = 0
        try:
            session = wire.Session(port, LONG)
            while True:
                more = range(self.sent, self.acknowledged + WINDOW)
                self.sent += len(more)
                session.send(writer.step(self.home, n) for n in more)
                xid, at, error, _ = session.reply()
                self.acknowledged += 1
                if (xid, error) != (self.acknowledged, 0) or at <= zxid:
                    fail(f"{self.home}: reply {xid}, error {error}, zxid {at} after {zxid}")
                zxid = at
        except wire.Gone:
            pass

    def settle(self, found, data, stat):
        """How many steps the server has applied, from what it shows."""
        if self.kind in ("sets", "multis"):
            steps = wire.data_version(stat)
            if data != (name(steps - 1) if steps else ""):
                fail(f"{self.home}: version {steps}, data {data!r}")
        elif self.kind == "churn":
            # The steps are told by cversion: it counts creates and deletes.
            steps = int.from_bytes(stat[36:40], "big")
        else:
            steps = len(found)
        if not self.acknowledged <= steps <= self.sent:
            fail(f"{self.home}: {steps} applied, {self.acknowledged} acknowledged, {self.sent} sent")
        self.steps, self.stat = steps, stat


failures = []


def fail(why):
    failures.append(why)
    if len(failures) <= 10:
        print("FAILED:", why, file=sys.stderr, flush=True)


def verify(session, loads, data_too=False):
    """Every load's nodes, and the Stat of those that were settled."""
    answers = session.call(op for load in loads for op in (wire.get(load.home), wire.children(load.home)))
    for load, (error, got), (error2, listed) in zip(loads, answers[::2], answers[1::2]):
        if error or error2:
            fail(f"{load.home}: error {error}, {error2}")
            continue
        data, stat = wire.split_get(got)
        found, _ = wire.split_children(listed, 7)
        if load.stat is None:
            load.settle(found, data, stat)
        elif load.stat != stat:
            fail(f"{load.home}: Stat was {load.stat.hex()}, is {stat.hex()}")
        expected = WRITERS[load.kind].nodes(load.steps)
        if found != expected:
            fail(f"{load.home}: lacks {sorted(expected - found)[:9]}, has {sorted(found - expected)[:9]} too")
        elif data_too:
            found = sorted(n.decode() for n in found)
            for n, (error, got) in zip(found, session.call(wire.get(f"{load.home}/{n}") for n in found)):
                if error or wire.split_get(got)[0] != n:
                    fail(f"{load.home}/{n}: error {error}, data {got[:20]}")


def connect(port, server, *session):
    for _ in range(3000):
        try:
            return wire.Session(port, LONG, *session)
        except wire.Gone:
            if server.poll() is not None:
                sys.exit(f"the server ended with status {server.returncode}")
            time.sleep(0.003)
    sys.exit("the server does not serve")


def run(rounds, port, state, command):
    loads, owner, early = [], None, 0
    for number in range(rounds):
        # Now and then it dies while it starts, which is when it recovers.
        while number and random.random() < 0.15:
            server = subprocess.Popen(command)
            time.sleep(random.uniform(0.001, 0.06))
            server.kill()
            server.wait()
            early += 1
        server = subprocess.Popen(command)
        try:
            session = connect(port, server, *owner or ())
            if owner is None:
                owner = session.id, session.password
                session.call([wire.create("/owned", "", ephemeral=True), *(wire.create(f"/{kind}") for kind in WRITERS)])
            elif session.id != owner[0]:
                fail(f"round {number}: the session of round 0 is gone")
            if session.call([wire.get("/owned")])[0][0]:
                fail(f"round {number}: the ephemeral of round 0 is gone")
            verify(session, loads)
            if failures:
                sys.exit(1)
            fresh = [Load(kind, number) for kind in WRITERS]
            for error, _ in session.call(wire.create(load.home) for load in fresh):
                if error:
                    fail(f"round {number}: error {error}")
            loads += fresh
            threads = [threading.Thread(target=load.run, args=(port,)) for load in fresh]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.01, 0.3))
        finally:
            server.kill()
            server.wait()
        for thread in threads:
            thread.join()
    # The last round's loads are settled by `verify`.
    with open(state, "wb") as file:
        pickle.dump(loads, file)
    print(f"{rounds} kills under load, {early} during start, {sum(l.acknowledged for l in loads)} writes acknowledged")


def main():
    if sys.argv[1] == "run":
        seed = random.randrange(1 << 32)
        print("seed", seed, flush=True)
        random.seed(seed)
        run(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:])
    else:
        with open(sys.argv[3], "rb") as file:
            loads = pickle.load(file)
        verify(wire.Session(int(sys.argv[2]), LONG), loads, data_too=True)
        with open(sys.argv[3], "wb") as file:
            pickle.dump(loads, file)
        print(f"{sum(len(WRITERS[l.kind].nodes(l.steps)) for l in loads)} nodes as they should be")
    sys.exit(bool(failures))


main()
