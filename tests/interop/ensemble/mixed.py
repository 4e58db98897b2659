"""Ensembles of ours and Apache's under load, while servers are killed and paused.

Usage: mixed.py VERSION"""

import random
import sys
import time

from clients import Load
from servers import Ensemble, run, say

# A paused server is closed by the others after syncLimit * tickTime = 3 s.
LONG, SHORT = 5, 1


def kill(server):
    server.kill()
    time.sleep(1)
    server.start()


def pause(server, seconds):
    server.pause()
    time.sleep(seconds)
    server.resume()


def kill_all(servers):
    for server in servers:
        server.kill()
    for server in servers:
        server.start()


def faults(ensemble):
    """What is done, one after the other, and to whom: told just before."""
    followers = [server for server in ensemble.servers if server is not ensemble.settle()]
    yield "kill the leader", lambda leader: kill(leader)
    for server in followers:
        yield f"kill {server}", lambda _, server=server: kill(server)
    yield "pause the leader for long", lambda leader: pause(leader, LONG)
    yield "pause another for long", lambda leader: pause(
        random.choice([server for server in ensemble.servers if server is not leader]), LONG)
    yield "pause the leader shortly", lambda leader: pause(leader, SHORT)
    yield "kill all", lambda _: kill_all(ensemble.servers)
    yield "kill the leader", lambda leader: kill(leader)


def scene(name, kinds):
    ensemble = Ensemble(name, kinds)
    led = set()
    try:
        ensemble.start()
        load = Load(ensemble)
        for what, act in faults(ensemble):
            time.sleep(1)
            leader = ensemble.settle()
            led.add(leader.kind)
            say(f"  {what}")
            act(leader)
        led.add(ensemble.settle().kind)
        time.sleep(1)
        load.end()
        say(f"  led by {' and '.join(sorted(led))}")
    finally:
        ensemble.kill()


def main():
    version = sys.argv[1]
    scene("one", ["ours", "ours", version])
    scene("two", [version, version, "ours"])
    scene("five", ["ours", version, "ours", f"{version} observer", "ours observer"])
    say(f"{version} and ours in three mixes: killed and paused, nothing lost, all trees equal")


if __name__ == "__main__":
    run(main)
