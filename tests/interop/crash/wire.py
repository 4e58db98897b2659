"""As much of ZooKeeper's client protocol as a fast writer needs, from its specification: requests may be pipelined."""

import socket
import struct

CREATE, DELETE, EXISTS, GET, SET, CHILDREN, MULTI = 1, 2, 3, 4, 5, 12, 14


def text(value):
    value = value.encode()
    return struct.pack(">i", len(value)) + value


OPEN_ACL = struct.pack(">ii", 1, 31) + text("world") + text("anyone")


def create(path, data="", ephemeral=False):
    return CREATE, text(path) + text(data) + OPEN_ACL + struct.pack(">i", ephemeral)


def delete(path):
    return DELETE, text(path) + struct.pack(">i", -1)


def set_data(path, data):
    return SET, text(path) + text(data) + struct.pack(">i", -1)


def get(path):
    return GET, text(path) + b"\0"


def children(path):
    return CHILDREN, text(path) + b"\0"


def multi(*ops):
    body = b"".join(struct.pack(">i?i", kind, False, -1) + op for kind, op in ops)
    return MULTI, body + struct.pack(">i?i", -1, True, -1)


def split_get(body):
    """Data and Stat (bytes) of a get's reply."""
    (length,) = struct.unpack_from(">i", body)
    length = max(length, 0)
    return body[4 : 4 + length].decode(), body[4 + length :]


def split_children(body, width):
    """Names, all of `width` bytes, and Stat of a getChildren2's reply."""
    (count,) = struct.unpack_from(">i", body)
    end = 4 + count * (4 + width)
    return {body[at + 4 : at + 4 + width] for at in range(4, end, 4 + width)}, body[end:]


def data_version(stat):
    return struct.unpack_from(">i", stat, 32)[0]


class Gone(Exception):
    """The server closed the connection, or died."""


class Session:
    """One connection. A session id and a password that are given re-attach it to its session."""

    def __init__(self, port, timeout_ms, session=0, password=bytes(16)):
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), 10)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.received = b""
            hello = struct.pack(">iqiqi", 0, 0, timeout_ms, session, 16) + password + b"\0"
            self.socket.sendall(struct.pack(">i", len(hello)) + hello)
            reply = self.frame()
        except OSError as e:
            raise Gone from e
        _, self.timeout_ms, self.id, _ = struct.unpack_from(">iiqi", reply)
        self.password = reply[20:36]
        self.next = 0

    def send(self, ops):
        out = []
        for kind, body in ops:
            self.next += 1
            out.append(struct.pack(">iii", len(body) + 8, self.next, kind) + body)
        try:
            self.socket.sendall(b"".join(out))
        except OSError:
            pass  # What was answered before is still to be read.

    def frame(self):
        while True:
            if len(self.received) >= 4:
                end = 4 + struct.unpack_from(">i", self.received)[0]
                if len(self.received) >= end:
                    frame, self.received = self.received[4:end], self.received[end:]
                    return frame
            try:
                chunk = self.socket.recv(1 << 18)
            except OSError as e:
                raise Gone from e
            if not chunk:
                raise Gone
            self.received += chunk

    def reply(self):
        """(xid, zxid, error, body) of the next reply."""
        frame = self.frame()
        return (*struct.unpack_from(">iqi", frame), frame[16:])

    def call(self, ops):
        """Sends all, and gives back error and body of each reply in turn."""
        ops = list(ops)
        replies = []
        for start in range(0, len(ops), 256):
            part = ops[start : start + 256]
            self.send(part)
            replies += [self.reply()[2:] for _ in part]
        return replies
