"""A learner that was away comes back: by DIFF from memory, DIFF from the log, TRUNC and SNAP, between ours and Apache.

Usage: syncs.py VERSION [SCENE...]"""

import re
import sys
import time

from kazoo.retry import KazooRetry

from clients import connect, equal_trees
from servers import Ensemble, Failed, run, say

# What servers log: the learner of either kind for TRUNC and SNAP, an Apache on any side for DIFF.
LOGGED = {
    "diff": ("Getting a diff from the leader", "Sending DIFF"),
    "trunc": ("Truncating log to get in sync|truncating the log to the leader's", None),
    "snap": ("Getting a snapshot from leader|receiving the leader's tree", None),
}
AGAIN = KazooRetry(max_tries=50, delay=0.2, backoff=1)


def write(client, name, count):
    """So many transactions of several kinds."""
    # It may have to find another server first.
    AGAIN(client.ensure_path, f"/{name}")
    results = [client.create_async(f"/{name}/n-", b"x" * (i % 50), sequence=True) for i in range(count)]
    results += [client.set_async(f"/{name}", b"%d" % i) for i in range(count // 4)]
    for result in results:
        result.get(20)
    try:
        client.create(f"/{name}/no/parent")
    except Exception:  # noqa: BLE001: an error is a transaction, too
        pass


def check_kind(learner, leader, kind, since):
    """Fails unless it was this kind; SINCE is where the leader's log begins to be of interest."""
    by_learner, by_leader = LOGGED[kind]
    found = re.search(by_learner, learner.log()) or by_leader and re.search(by_leader, leader.log()[since:])
    if not found:
        raise Failed(f"{leader} did not synchronise {learner} by {kind}: {learner.log_path()} {leader.log_path()}")


def check_equal(ensemble, name):
    """All servers take part, show the same, and do so from what is on their disks."""
    for again in (False, True):
        if again:
            ensemble.kill()
            for server in ensemble.servers:
                server.start()
            ensemble.settle()
        for server in ensemble.servers:
            client = connect(f"127.0.0.1:{server.port}")
            client.create(f"/{name}-{server.sid}-{again}", b"here")
            client.stop()
            client.close()
        tree = equal_trees(ensemble)
        ensemble.check_logs()
    return len(tree)


def away(ensemble, learner, name, count, kind):
    """The learner misses COUNT transactions."""
    leader = ensemble.settle()
    if leader is learner:
        raise Failed("the learner leads")
    client = connect(f"127.0.0.1:{leader.port}")
    learner.kill()
    write(client, name, count)
    since = len(leader.log())
    learner.start()
    ensemble.settle()
    check_kind(learner, leader, kind, since)
    client.stop()
    client.close()


def deposed(ensemble, learner, name, kind):
    """The learner comes back from leading, with transactions that nobody else has."""
    second, third = ensemble.servers[1:]
    client = connect(ensemble.hosts())
    # The learner gets what SECOND has not, so that it leads the two.
    second.kill()
    write(client, f"{name}-before", 10)
    third.kill()
    second.start()
    if ensemble.settle() is not learner:
        raise Failed("the learner should lead")
    write(client, f"{name}-led", 10)
    only = connect(f"127.0.0.1:{learner.port}")
    second.pause()
    for i in range(20):
        only.create_async(f"/{name}-alone-{i}", b"nobody else")
    time.sleep(0.5)
    learner.kill()
    second.kill()
    only.stop()
    only.close()
    second.start()
    third.start()
    leader = ensemble.settle()
    if kind == "snap":
        # History went on in another way: an end of the learner's log that Apache's leaders do not find in theirs.
        write(client, f"{name}-after", 10)
    if AGAIN(client.exists, f"/{name}-alone-0"):
        raise Failed("a transaction that one server had came back")
    since = len(leader.log())
    learner.start()
    ensemble.settle()
    check_kind(learner, leader, kind, since)
    if AGAIN(client.exists, f"/{name}-alone-0"):
        raise Failed("a transaction that one server had came back")
    client.stop()
    client.close()


def scene(name, learner_kind, leader_kind):
    lines = {
        "diff": [],
        "log": ["snapshotSizeFactor=1000"],
        "trunc": [],
        "replaced": [],
        "snap": ["snapshotSizeFactor=-1", "snapCount=100"],
        "forced": ["forceSnapshotSync=true"],
    }[name]
    ensemble = Ensemble(f"{name}-{learner_kind}-of-{leader_kind}", [learner_kind, leader_kind, leader_kind], lines)
    learner = ensemble[1]
    try:
        ensemble.start()
        setup = connect(ensemble.hosts())
        write(setup, "before", 30)
        setup.stop()
        setup.close()
        if name in ("trunc", "replaced"):
            deposed(ensemble, learner, name, "trunc" if name == "trunc" else "snap")
        else:
            # More than `commitLogCount`, which cannot be made less than 500.
            count = 700 if name in ("log", "snap") else 100
            away(ensemble, learner, name, count, {"log": "diff", "forced": "snap"}.get(name, name))
        nodes = check_equal(ensemble, name)
        say(f"  {learner_kind} after {leader_kind} by {name}: {nodes} nodes equal, also after a restart of all")
    finally:
        ensemble.kill()


def main():
    version, *names = sys.argv[1:]
    for name in names or ["diff", "log", "trunc", "replaced", "snap", "forced"]:
        scene(name, version, "ours")
        scene(name, "ours", version)
    say(f"DIFF from memory and log, TRUNC and SNAP between {version} and ours, both ways: all trees equal, also from disk")


if __name__ == "__main__":
    run(main)
