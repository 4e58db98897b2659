"""Sessions taken over, frozen, refused and carried over a restart. Usage: sessions.py HOST:PORT

Prints "restart the server" and waits for a line, then goes on; "all right" is its last word.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import NoAuthError
from kazoo.protocol.serialization import Close, Connect, int_struct
from kazoo.security import make_digest_acl

hosts = sys.argv[1]
ROOT = "/sessions"


def client(timeout=8, **options):
    made = KazooClient(hosts, timeout=timeout, **options)
    made.states = []
    made.add_listener(made.states.append)
    made.start(15)
    return made


def until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def frame(body):
    return int_struct.pack(len(body)) + bytes(body)


def victim():
    """A process that holds a session and an ephemeral node, and is about to be frozen."""
    me = client(timeout=1.5)
    first = me.client_id[0]
    me.create(f"{ROOT}/frozen", str(os.getpid()).encode(), ephemeral=True)
    until("the loss is told", lambda: KazooState.LOST in me.states, 60)
    until("a new session", lambda: me.connected and me.client_id[0] != first)
    assert me.states[-3:] == [KazooState.SUSPENDED, KazooState.LOST, KazooState.CONNECTED], me.states
    os._exit(0)


def a_second_connection_closes_the_session(watcher):
    me = client()
    me.create(f"{ROOT}/taken", ephemeral=True)
    session, password = me.client_id
    assert me.exists(f"{ROOT}/taken").ephemeralOwner == session
    with socket.create_connection(hosts.split(":")) as other:
        connect = Connect(0, 0, 8000, session, password, False).serialize()
        close = int_struct.pack(1) + int_struct.pack(Close.type)
        other.sendall(frame(connect) + frame(close))
        until("the first connection hears of it", lambda: KazooState.LOST in me.states)
    until("a new session", lambda: me.connected and me.client_id[0] != session)
    assert watcher.exists(f"{ROOT}/taken") is None
    me.create(f"{ROOT}/taken", ephemeral=True)
    me.stop()
    assert watcher.exists(f"{ROOT}/taken") is None
    me.close()


def a_wrong_password_opens_nothing(watcher):
    owner = client()
    owner.create(f"{ROOT}/kept", ephemeral=True)
    session, _ = owner.client_id
    thief = client(client_id=(session, b"0123456789abcdef"))
    assert thief.client_id[0] != session
    thief.stop()
    assert watcher.exists(f"{ROOT}/kept").ephemeralOwner == session
    # Apache closes the owner's connection before it looks at the password; the session must live on all the same.
    until("the owner is connected", lambda: owner.connected)
    assert owner.client_id[0] == session and KazooState.LOST not in owner.states
    owner.stop()


def a_frozen_process_loses_its_session(watcher):
    process = subprocess.Popen([sys.executable, __file__, hosts, "victim"])
    until("the victim's node", lambda: watcher.exists(f"{ROOT}/frozen"))
    gone = threading.Event()
    watcher.get(f"{ROOT}/frozen", watch=lambda event: gone.set() if event.type == "DELETED" else None)
    process.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert gone.wait(10), "the session of a frozen process goes on"
    assert time.monotonic() - begin > 0.5, "expired before its time"
    process.send_signal(signal.SIGCONT)
    assert process.wait(30) == 0


def sessions_survive_a_restart(watcher):
    me = client(auth_data=[("digest", "bob:secret")])
    other = client()
    session = me.client_id
    me.create(f"{ROOT}/eph", ephemeral=True)
    me.create(f"{ROOT}/private", b"p", acl=[make_digest_acl("bob", "secret", all=True)])
    me.create(f"{ROOT}/data", b"1")
    # kazoo ends plain watches with the connection; its recipes arm theirs again.
    data, later, children, ended = [], [], [], []
    me.DataWatch(f"{ROOT}/data", lambda value, stat: data.append(value))
    me.DataWatch(f"{ROOT}/later", lambda value, stat: later.append(value))
    me.ChildrenWatch(ROOT, lambda names: children.append(sorted(names)))
    me.exists(f"{ROOT}/eph", watch=lambda event: ended.append(event.type))
    print("restart the server", flush=True)
    sys.stdin.readline()
    until("everybody is back", lambda: all(c.states[-2:] == [KazooState.SUSPENDED, KazooState.CONNECTED] for c in (me, other)))
    assert me.client_id == session
    assert me.exists(f"{ROOT}/eph").ephemeralOwner == session[0]
    assert me.get(f"{ROOT}/private")[0] == b"p"
    try:
        other.get(f"{ROOT}/private")
        sys.exit("a stranger reads what is private")
    except NoAuthError:
        pass
    other.set(f"{ROOT}/data", b"2")
    other.create(f"{ROOT}/later", b"")
    until("the watches tell", lambda: data[-1] == b"2" and later[-1] == b"" and "later" in children[-1])
    assert data[0] == b"1"
    assert (later[0], children[0], ended) == (None, ["data", "eph", "private"], ["NONE"])
    me.stop()
    until("the ephemeral goes", lambda: other.exists(f"{ROOT}/eph") is None)
    other.stop()


if len(sys.argv) > 2:
    victim()
watcher = client()
watcher.ensure_path(ROOT)
for check in (
    a_second_connection_closes_the_session,
    a_wrong_password_opens_nothing,
    a_frozen_process_loses_its_session,
    sessions_survive_a_restart,
):
    check(watcher)
watcher.stop()
print("all right", flush=True)
