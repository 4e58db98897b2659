"""Servers of an ensemble on loopback: ours and Apache's, each with a directory that outlives it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback

WORK = os.environ["ZK_INTEROP_WORK"]
# What starts a server of a kind, but for its configuration: set by `check`.
COMMANDS = json.loads(os.environ["ZK_INTEROP_COMMANDS"])
WRONG = re.compile(r"mismatch|not matching|panicked|StackOverflow|OutOfMemory|is not the one that it prepared for", re.I)


def say(*words):
    print(f"{time.monotonic() - BEGIN:6.1f}", *words, flush=True)


BEGIN = time.monotonic()


class Failed(Exception):
    """What the check is there to find."""


def until(seconds, what, condition):
    """Waits for a condition, and returns what it gave."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def run(main):
    """Runs a check. However it ends, no server survives it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    status = 1
    try:
        main()
        status = 0
    except Failed as failed:
        say(failed)
    except SystemExit:
        say("ended from outside")
    except BaseException:  # noqa: BLE001: told
        traceback.print_exc()
    # Threads of clients may be waiting for what never comes.
    sys.stdout.flush()
    os._exit(status)


class Server:
    def __init__(self, sid, kind, observer=False):
        self.sid, self.kind, self.observer = sid, kind, observer
        self.process, self.paused, self.starts = None, False, 0

    def __str__(self):
        return f"{self.sid}={self.kind}{' observer' if self.observer else ''}"

    def configure(self, directory, port, lines):
        self.directory, self.port = directory, port
        os.makedirs(f"{directory}/data", exist_ok=True)
        with open(f"{directory}/data/myid", "w") as file:
            file.write(str(self.sid))
        with open(f"{directory}/zoo.cfg", "w") as file:
            file.write("\n".join(lines) + "\n")

    def log_path(self):
        return f"{self.directory}/log-{self.starts}-{self.kind}"

    def start(self):
        assert self.process is None
        self.starts += 1
        log = open(self.log_path(), "wb")
        self.process = subprocess.Popen(COMMANDS[self.kind] + [f"{self.directory}/zoo.cfg"], stdout=log, stderr=log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process, self.paused = None, False

    def stop(self):
        """As an operator would."""
        self.process.terminate()
        self.process.wait(20)
        self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True
        # On a busy machine its threads go on for a while.
        until(10, f"{self} pauses", self.stopped)

    def stopped(self):
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{thread}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in "Tt":
                    return False
        return True

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def word(self, word):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as conn:
                conn.settimeout(2)
                conn.sendall(word.encode())
                out = b""
                while chunk := conn.recv(65536):
                    out += chunk
                return out.decode(errors="replace")
        except OSError:
            return ""

    def mode(self):
        """leader, follower, observer or None."""
        if self.process is None or self.paused:
            return None
        if not self.alive():
            raise Failed(f"server {self} has ended with {self.process.returncode}: {self.log_path()}")
        found = re.search(r"^Mode: (\w+)", self.word("srvr"), re.M)
        return found and found[1]

    def monitor(self, key):
        found = re.search(rf"^{key}\t(\S+)", self.word("mntr"), re.M)
        return found and found[1]

    def log(self):
        """Everything that it has logged since its last start."""
        with open(self.log_path(), errors="replace") as file:
            return file.read()


class Ensemble:
    """KINDS by sid from 1 on; "observer" behind a kind makes one. LINES: further configuration."""

    def __init__(self, name, kinds, lines=(), tick=500):
        self.name = name
        self.directory = f"{WORK}/{name}"
        self.tick = tick / 1000
        first = free_ports(3 * len(kinds))
        self.servers = []
        members = []
        for sid, kind in enumerate(kinds, 1):
            kind, _, role = kind.partition(" ")
            server = Server(sid, kind, role == "observer")
            self.servers.append(server)
            members.append(f"server.{sid}=127.0.0.1:{first + 3 * sid - 2}:{first + 3 * sid - 1}"
                           + (":observer" if server.observer else ""))
        for server in self.servers:
            port = first + 3 * (server.sid - 1)
            directory = f"{self.directory}/{server.sid}"
            own = ["peerType=observer"] if server.observer else []
            server.configure(directory, port, [
                f"tickTime={tick}", "initLimit=20", "syncLimit=6", f"dataDir={directory}/data", f"clientPort={port}",
                "maxClientCnxns=0", "admin.enableServer=false", "4lw.commands.whitelist=*", "maxSessionTimeout=120000",
                "minSessionTimeout=1000", "extendedTypesEnabled=true",
                "DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
                *members, *own, *lines])

    def __getitem__(self, sid):
        return self.servers[sid - 1]

    def start(self):
        say(f"{self.name}: start", ", ".join(map(str, self.servers)))
        for server in self.servers:
            server.start()
        self.settle()

    def settle(self, seconds=40, servers=None):
        """Until all that run serve, one of them as the leader, which is returned."""

        def settled():
            modes = [(server, server.mode()) for server in servers or self.servers if server.process]
            leaders = [server for server, mode in modes if mode == "leader"]
            if len(leaders) == 1 and all(mode for _, mode in modes):
                return leaders[0]

        leader = until(seconds, "all servers serve, one of them leads", settled)
        say(f"  {leader} leads")
        return leader

    def leader(self):
        return self.settle()

    def hosts(self):
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def kill(self):
        for server in self.servers:
            server.kill()

    def check_logs(self):
        """Nothing in any log says that trees differ, or that the program is wrong."""
        for server in self.servers:
            for start in range(1, server.starts + 1):
                for kind in COMMANDS:
                    path = f"{server.directory}/log-{start}-{kind}"
                    if not os.path.exists(path):
                        continue
                    with open(path, errors="replace") as file:
                        for line in file:
                            if WRONG.search(line) and "mismatches_count" not in line:
                                raise Failed(f"{path}: {line.strip()}")
            count = server.monitor("zk_digest_mismatches_count")
            if count not in ("0", None):
                raise Failed(f"server {server}: {count} digest mismatches")


def free_ports(count):
    """The first of so many free ports in a row."""
    import contextlib
    import random

    while True:
        first = random.randrange(12000, 32000 - count)
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
