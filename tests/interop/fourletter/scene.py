"""Makes the same scene on every server for the four-letter words: nodes, ephemerals and watches of two sessions.

Usage: scene.py HOST:PORT. Prints `ready` and keeps the sessions until its standard input ends.
"""

import sys

from kazoo.client import KazooClient


def connect():
    # No ping within the check: the counts of `cons` stay the same.
    client = KazooClient(sys.argv[1], timeout=120)
    client.start(15)
    return client


first = connect()
second = connect()
first.create("/app", b"root")
first.create("/app/persistent", b"x" * 100)
first.create("/app/one", ephemeral=True)
first.create("/app/two", ephemeral=True)
second.create("/app/three", ephemeral=True)
first.set("/app", b"changed")
for path in ("/app", "/app/persistent"):
    first.get(path, watch=print)
    second.get_children(path, watch=print)
second.exists("/app/missing", watch=print)
first.get("/app/one")
print("ready", flush=True)
sys.stdin.read()
first.stop()
second.stop()
