"""A running ensemble of Apache's becomes one of ours, server by server on the same directories, goes back, and comes again.

Usage: migrate.py VERSION"""

import sys
import time

from clients import Load
from servers import Ensemble, Failed, run, say


def replace(ensemble, kind):
    """As docs/migration.md says: the leader last, each only when the one before has caught up."""
    leader = ensemble.settle()
    for server in [server for server in ensemble.servers if server is not leader] + [leader]:
        say(f"  {server} becomes {kind}")
        server.stop()
        server.kind = kind
        server.start()
        new = ensemble.settle()
        if new.monitor("zk_synced_followers") != "2":
            time.sleep(1)
            if new.monitor("zk_synced_followers") != "2":
                raise Failed(f"{new} has {new.monitor('zk_synced_followers')} synced followers")
        time.sleep(1)


def main():
    version = sys.argv[1]
    ensemble = Ensemble("migrate", [version] * 3, sys.argv[2:])
    try:
        ensemble.start()
        load = Load(ensemble)
        time.sleep(1)
        for kind in ("ours", version, "ours"):
            replace(ensemble, kind)
            # The history is everybody's own now: whoever leads.
            ensemble.settle().kill()
            time.sleep(1)
            [server.start() for server in ensemble.servers if not server.process]
            ensemble.settle()
            time.sleep(1)
        load.end()
        say(f"{version} to ours, back, and to ours again under load: no session and no acknowledged write lost, all trees equal")
    finally:
        ensemble.kill()


if __name__ == "__main__":
    run(main)
