"""See check. Configuration files are compared between our servers and Apache's."""

import os
import re
import socket
import subprocess
import sys
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NewConfigNoQuorumError, ReconfigInProcessError

WORK = os.environ["ZK_INTEROP_WORK"]
SUPER = os.environ["ZK_INTEROP_SUPER"]
CLASSPATH = os.environ["ZK_INTEROP_CLASSPATH"]
COMMENT = "# kept where the operator wrote it"


def until(seconds, what, condition):
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Server:
    def __init__(self, name, sid, kind):
        self.sid, self.kind, self.process = sid, kind, None
        self.directory = f"{WORK}/{name}/{sid}"
        self.ports = free_ports(3)
        self.port = self.ports[2]

    def line(self, role="participant"):
        return f"server.{self.sid}=127.0.0.1:{self.ports[0]}:{self.ports[1]}:{role};127.0.0.1:{self.port}"

    def start(self, members):
        os.makedirs(f"{self.directory}/data")
        with open(f"{self.directory}/data/myid", "w") as file:
            file.write(str(self.sid))
        with open(f"{self.directory}/zoo.cfg", "w") as file:
            file.write("\n".join([
                COMMENT, "tickTime=500", "initLimit=20", "syncLimit=6", f"dataDir={self.directory}/data",
                "admin.enableServer=false", "4lw.commands.whitelist=*", "reconfigEnabled=true",
                f"DigestAuthenticationProvider.superDigest={SUPER}", *[member.line() for member in members]]) + "\n")
        self.restart()

    def restart(self):
        command = [os.environ["ZK_INTEROP_OURS"]]
        if self.kind == "apache":
            command = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", CLASSPATH,
                       f"-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER}",
                       "org.apache.zookeeper.server.quorum.QuorumPeerMain"]
        log = open(f"{self.directory}/log", "ab")
        self.process = subprocess.Popen(command + [f"{self.directory}/zoo.cfg"], stdout=log, stderr=log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def mode(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as conn:
                conn.settimeout(2)
                conn.sendall(b"srvr")
                out = b""
                while chunk := conn.recv(65536):
                    out += chunk
        except OSError:
            return None
        found = re.search(rb"^Mode: (\w+)", out, re.M)
        return found and found[1].decode()

    def file(self, suffix):
        try:
            with open(f"{self.directory}/zoo.cfg{suffix}") as file:
                return file.read()
        except FileNotFoundError:
            return None


class Ensemble:
    def __init__(self, name, kinds, first=()):
        """FIRST elect a leader before the others come."""
        self.name = name
        self.members = [Server(name, sid, kind) for sid, kind in enumerate(kinds, 1)]
        self.servers = list(self.members)
        self.written = 0
        for early in (True, False):
            for server in self.members:
                if (server.sid in first) == early:
                    server.start(self.members)
            self.serving()
        print(name, ", ".join(f"{s.sid}={s.kind} {s.mode()}" for s in self.servers), flush=True)

    def __getitem__(self, sid):
        return next(server for server in self.servers if server.sid == sid)

    def serving(self):
        until(60, f"{self.name}: all serve", lambda: all(s.mode() for s in self.servers if s.process))

    def leader(self):
        return next((s for s in self.servers if s.process and s.mode() == "leader"), None)

    def client(self, server):
        zk = KazooClient(f"127.0.0.1:{server.port}", timeout=10)
        zk.start(30)
        zk.add_auth("digest", "super:test")
        return zk

    def join(self, sid, kind):
        """Starts a server with a list of its own."""
        server = Server(self.name, sid, kind)
        self.servers.append(server)
        server.start([s for s in self.servers if s.process or s is server])
        self.serving()

    def change(self, what, over, **change):
        """Asks `over` for a change; returns when it is in force everywhere."""
        change = {"joining": None, "leaving": None, "new_members": None, **change}
        before = self.version()
        end = time.monotonic() + 60
        while self.version() == before:
            zk = None
            try:
                zk = self.client(over)
                zk.reconfig(**change)
            except (NewConfigNoQuorumError, ReconfigInProcessError):
                pass
            except KazooException as error:
                # With the leader the answer may be lost.
                print(f"  {what}: {error!r}", flush=True)
            finally:
                if zk:
                    zk.stop()
                    zk.close()
            if time.monotonic() > end:
                sys.exit(f"{self.name}: {what}: never done")
            time.sleep(0.3)
        self.agree(what)

    def config(self, server):
        zk = self.client(server)
        try:
            zk.sync("/")
            data, stat = zk.get("/zookeeper/config")
            return data.decode(), stat.mzxid, stat.version
        finally:
            zk.stop()
            zk.close()

    def version(self):
        for server in self.servers:
            if server.process and server.mode():
                try:
                    return re.search(r"version=(\w+)", self.config(server)[0])[1]
                except Exception:
                    pass
        return None

    def agree(self, what):
        """All servers show the same configuration, have it in the same files, and writes go through."""
        self.serving()

        def same():
            try:
                return len({self.config(s) for s in self.servers if s.process}) == 1
            except Exception:
                return False
        until(60, f"{self.name}: {what}: one configuration", same)
        text, mzxid, version = self.config(self.servers[0] if self.servers[0].process else self.leader())
        shown = re.search(r"version=(\w+)", text)[1]
        assert mzxid == int(shown, 16) and version == -1, (text, mzxid, version)
        lines = sorted(line for line in text.split("\n") if not line.startswith("version="))
        for server in self.servers:
            if not server.process:
                continue
            name = f".dynamic.{shown}"
            until(20, f"{self.name}: {what}: {name} of {server.sid}", lambda: server.file(name) == "\n".join(lines))
            until(20, f"{self.name}: {what}: no proposal is left", lambda: server.file(".dynamic.next") is None)
            main = server.file("")
            pointer = f"dynamicConfigFile={os.path.realpath(server.directory)}/zoo.cfg{name}\n"
            assert pointer in main and "server." not in main, main
            if server.kind == "ours":
                assert main.startswith(COMMENT + "\ntickTime=500\n"), main
            assert COMMENT in server.file(".bak") and server.line() in server.file(".bak")
        self.written += 1
        path = f"/{self.written}"
        zk = self.client(self.leader() or until(30, "a leader", self.leader))
        zk.create(path, what.encode())
        zk.stop()
        zk.close()
        for server in self.servers:
            if server.process:
                zk = self.client(server)
                zk.sync("/")
                assert zk.get(path)[0] == what.encode()
                zk.stop()
                zk.close()
        modes = ", ".join(f"{s.sid}={s.kind} {s.mode()}" for s in self.servers if s.process)
        print(f"  {what}: version {shown}; {modes}", flush=True)

    def stop(self):
        for server in self.servers:
            server.kill()


def by_zkcli(ensemble):
    """Apache's own client asks for the changes."""
    leader = ensemble.leader()
    over = next(s for s in ensemble.members if s.process and s is not leader)
    commands = ["addauth digest super:test", "config -c", f"reconfig -remove {over.sid}", "config",
                f"reconfig -add {over.line()}", "config -s", "reconfig -add server.9=nonsense", "quit"]
    zkcli = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", CLASSPATH, "-Dlog4j2.level=OFF",
         "org.apache.zookeeper.ZooKeeperMain",
         "-waitforconnection", "-server", f"127.0.0.1:{leader.port}"],
        input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=60)
    answers = zkcli.stdout.split("Committed new configuration:")
    if len(answers) != 3 or over.line() in answers[1] or over.line() not in answers[2]:
        sys.exit(f"zkCli: {zkcli.stdout}\n{zkcli.stderr}")
    ensemble.agree("zkCli removes and adds")


def led_by_ours():
    ensemble = Ensemble("ours", ["ours", "ours", "ours"])
    try:
        assert ensemble.leader().kind == "ours"
        ensemble.join(4, "apache")
        ensemble.change("Apache joins", ensemble[1], joining=ensemble[4].line())
        ensemble.change("and only observes", ensemble[4], joining=ensemble[4].line("observer"))
        ensemble.change("and votes", ensemble[4], joining=ensemble[4].line())
        leader = ensemble.leader()
        ensemble.change("our leader leaves", ensemble[4], leaving=str(leader.sid))
        leader.kill()
        ensemble.change("Apache leaves", ensemble[4], leaving="4")
        ensemble.change("Apache joins again", ensemble[4], joining=ensemble[4].line())
        by_zkcli(ensemble)
        # Everybody finds it again after a restart.
        for server in ensemble.servers:
            server.kill()
        for server in ensemble.servers:
            if server is not leader:
                server.restart()
        ensemble.servers.remove(leader)
        ensemble.agree("all restart")
    finally:
        ensemble.stop()


def led_by_apache():
    ensemble = Ensemble("apache", ["ours", "ours", "apache"], first=(1, 3))
    try:
        assert ensemble.leader().kind == "apache", "the highest id of equals leads"
        ensemble.change("ours observes", ensemble[2], joining=ensemble[1].line("observer"))
        ensemble.change("ours votes", ensemble[1], joining=ensemble[1].line())
        ensemble.join(4, "ours")
        ensemble.change("ours joins", ensemble[3], joining=ensemble[4].line())
        ensemble.change("the Apache leader leaves", ensemble[2], leaving="3")
        assert ensemble.leader().kind == "ours"
        members = ",".join(ensemble[sid].line() for sid in (1, 2, 3))
        ensemble.change("a new list", ensemble[1], new_members=members)
        ensemble.change("ours leaves", ensemble[1], leaving="2")
    finally:
        ensemble.stop()


led_by_ours()
led_by_apache()
