"""Writes nodes of all kinds, or prints a whole tree, through kazoo. Usage: tree.py HOST:PORT load NAME | dump"""

import base64
import json
import os
import sys

from kazoo.client import KazooClient
from kazoo.security import ACL, Id, make_digest_acl, make_acl

ALL = make_acl("world", "anyone", all=True)


def connect(hosts):
    client = KazooClient(hosts, timeout=120, auth_data=[("digest", "super:test"), ("digest", "bob:secret")])
    client.start(15)
    return client


def load(client, name):
    root = f"/{name}"
    client.create(root, b"root")
    client.create(f"{root}/empty", b"")
    client.create(f"{root}/binary", bytes(range(256)))
    client.create(f"{root}/größe-\u00e9\u4e2d", "größe".encode())
    for i in range(20):
        client.create(f"{root}/seq-", b"%d" % i, sequence=True)
    client.create(f"{root}/changed", b"one")
    for i in range(5):
        client.set(f"{root}/changed", b"x" * (i * 100))
    client.create(f"{root}/big", b"y" * 200_000)
    client.create(f"{root}/deep/a/b/c/d", b"deep", makepath=True)
    client.create(f"{root}/private", b"p", acl=[make_digest_acl("bob", "secret", all=True)])
    client.create(f"{root}/mixed", b"m", acl=[ACL(1, Id("world", "anyone")), ACL(31, Id("ip", "127.0.0.0/8")), ACL(31, Id("auth", ""))])
    client.create(f"{root}/acl-set", b"a")
    client.set_acls(f"{root}/acl-set", [ACL(5, Id("world", "anyone"))])
    client.set_acls(f"{root}/acl-set", [ALL])
    client.create(f"{root}/gone", b"")
    client.delete(f"{root}/gone")
    good = client.transaction()
    good.create(f"{root}/tx", b"t")
    good.create(f"{root}/tx/child", b"c")
    good.set_data(f"{root}/tx", b"t2")
    good.check(f"{root}/tx", 1)
    good.delete(f"{root}/tx/child")
    print(len(good.commit()), "results", file=sys.stderr)
    bad = client.transaction()
    bad.create(f"{root}/never", b"")
    bad.delete(f"{root}/missing")
    bad.commit()
    client.create(f"{root}/eph", b"e", ephemeral=True)
    client.create(f"{root}/eph-", b"e", ephemeral=True, sequence=True)
    other = connect(sys.argv[1])
    other.create(f"{root}/short-lived", b"", ephemeral=True)
    other.stop()


def dump(client):
    tree = {}
    todo = ["/"]
    while todo:
        path = todo.pop()
        data, stat = client.get(path)
        acls, _ = client.get_acls(path)
        tree[path] = {
            "data": None if data is None else base64.b64encode(data).decode(),
            "acl": sorted([a.perms, a.id.scheme, a.id.id] for a in acls),
            "stat": list(stat),
        }
        todo += [path.rstrip("/") + "/" + child for child in client.get_children(path)]
    json.dump(tree, sys.stdout, indent=1, sort_keys=True, ensure_ascii=False)


client = connect(sys.argv[1])
if sys.argv[2] == "load":
    load(client, sys.argv[3])
else:
    dump(client)
# The session stays open, and its ephemerals with it.
sys.stdout.flush()
os._exit(0)
