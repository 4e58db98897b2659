"""How long no write succeeds after the leader was killed: ours beside Apache's.

Usage: failover.py VERSION [TIMES]"""

import sys
import threading
import time

from clients import LOST, connect
from servers import Ensemble, run, say, until


class Writer(threading.Thread):
    """Writes through one server all the time."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.client = connect(f"127.0.0.1:{server.port}", retry_seconds=0.02)
        self.ended = False
        self.began = 0.0  # when the last write that succeeded had begun
        self.at = 0.0

    def run(self):
        while not self.ended:
            began = time.monotonic()
            try:
                self.client.set("/failover", b"x" * 100)
                self.at = time.monotonic()
                self.began = began
            except LOST:
                pass
            time.sleep(0.005)


def measure(kind, tick, times):
    ensemble = Ensemble(f"failover-{kind}-{tick}", [kind] * 3, tick=tick)
    gaps = []
    try:
        ensemble.start()
        setup = connect(ensemble.hosts())
        setup.create("/failover", b"")
        writers = [Writer(server) for server in ensemble.servers]
        for writer in writers:
            writer.start()
        for _ in range(times):
            leader = ensemble.settle()
            time.sleep(2)
            killed = time.monotonic()
            leader.kill()
            first = until(60, "a write succeeds again",
                          lambda: min((w.at for w in writers if w.began > killed), default=None))
            gaps.append(first - killed)
            leader.start()
        for writer in writers:
            writer.ended = True
    finally:
        ensemble.kill()
    return sorted(gaps)


def main():
    version = sys.argv[1]
    times = int((sys.argv[2:] or [3])[0])
    told = []
    for tick in (2000, 200):
        for kind in (version, "ours"):
            gaps = measure(kind, tick, times)
            told.append(f"tick {tick} {kind} " + "/".join(f"{gap:.2f}" for gap in gaps) + " s")
            say("  " + told[-1])
    say("no write after kill -9 of the leader for: " + ", ".join(told))


if __name__ == "__main__":
    run(main)
