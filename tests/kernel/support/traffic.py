# SPDX-License-Identifier: BSD-2-Clause
"""More scenarios of workload.py: traffic for filters to select, and much of it."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

from workload import AF_UNSPEC_ADDRESS, Row, attempt, connect, libc, make, pending

ANY_LOOPBACK = 0x7F000001
ADDRESSES = 250  # of 127.0.0.0/8, used in turn
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: no TIME_WAIT that holds a port


def flows(*specs: str) -> list[Row]:
    """Connect by ``source|port|destination|port`` each; for an empty source the kernel chooses."""
    rows = []
    for spec in specs:
        source, sport, address, dport = spec.split("|")
        with make(address) as sock:
            if source or sport:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((source or ("::" if ":" in address else ""), int(sport or 0)))
            rows.append(attempt(sock, address, int(dport)))
            if source:
                rows[-1]["saddr"] = source.removeprefix("::ffff:")
            if sport:
                rows[-1]["sport"] = int(sport)
    return rows


def as_user(uid: str, address: str, port: str) -> list[Row]:
    os.setuid(int(uid))
    return [row | {"uid": int(uid)} for row in connect(address, port)]


def as_comm(name: str, address: str, port: str) -> list[Row]:
    libc.prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
    return [row | {"comm": name[:15]} for row in connect(address, port)]


def held(address: str, port: str) -> list[Row]:
    """Keep an attempt pending until another line comes."""
    sock, row = pending(address, port)
    sys.stdin.readline()
    sock.close()
    return [row]


def by_thread(address: str, port: str) -> list[Row]:
    """Connect in one thread, and add its id to the rows."""
    from threading import Thread, get_native_id

    rows: list[Row] = []

    def work() -> None:
        rows.extend(row | {"thread": get_native_id()} for row in connect(address, port))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    return rows


def short_lived(parents: str, count: str, port: str) -> list[Row]:
    """In each parent, in turn: create a cgroup, connect once in it, remove it."""
    rows = []
    tops = [Path(each) for each in parents.split("|")]
    for number in range(int(count)):
        group = tops[number % len(tops)] / f"g{number}"
        group.mkdir()
        child = os.fork()
        if child == 0:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os._exit(connect("127.0.0.1", port)[0]["result"] != "ok")
        assert os.waitpid(child, 0)[1] == 0
        group.rmdir()
        rows.append({"pid": child, "name": group.name, "parent": str(group.parent)})
    return rows


def listeners(port: str, count: str) -> list[Row]:
    """Open and close listeners, one after the other."""
    for number in range(int(count)):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", int(port) and int(port) + number))
            listener.listen()
    return []


def _round(count: int) -> int:
    """Connect ``count`` times to an own listener, at addresses in turn; return the number."""
    number = 0
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        targets = [
            (socket.inet_ntoa(struct.pack("!I", ANY_LOOPBACK + each)), port)
            for each in range(ADDRESSES)
        ]
        for number in range(1, count + 1):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.connect(targets[number % ADDRESSES])
            accepted = listener.accept()[0]
            sock.close()
            accepted.close()
    return number


def load(count: str, processes: str) -> list[Row]:
    """Make ``count`` connections in several processes; return a row for each process."""
    share = int(count) // int(processes)
    children = []
    for _ in range(int(processes)):
        child = os.fork()
        if child == 0:
            os._exit(_round(share) != share)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    return [{"pid": child, "count": share} for child in children]


def _fin(first: socket.socket, second: socket.socket) -> None:
    first.close()
    assert not second.recv(1)
    second.close()


def _reset(first: socket.socket, second: socket.socket) -> None:
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    first.close()
    second.close()


def _unread(first: socket.socket, second: socket.socket) -> None:
    second.send(b"x")
    assert first.recv(1, socket.MSG_PEEK)
    first.close()
    second.close()


def _disconnected(first: socket.socket, second: socket.socket) -> None:
    assert libc.connect(first.fileno(), AF_UNSPEC_ADDRESS, 16) == 0
    first.close()
    second.close()


def _half(first: socket.socket, second: socket.socket) -> None:
    first.shutdown(socket.SHUT_WR)
    assert not second.recv(1)
    second.send(b"x")
    second.close()
    assert first.recv(2) == b"x"
    first.close()


def _answer_too_late(first: socket.socket, second: socket.socket) -> None:
    first.close()
    assert not second.recv(1)
    second.send(b"x")  # the socket is closed
    second.close()


ENDINGS = (_fin, _reset, _unread, _disconnected, _half, _answer_too_late)


def _exchange(client: socket.socket, accepted: socket.socket, sent: int, answered: int) -> None:
    client.sendall(bytes(sent))
    while sent:
        sent -= len(accepted.recv(sent))
    accepted.sendall(bytes(answered))
    while answered:
        answered -= len(client.recv(answered))


def endings(count: str) -> list[Row]:
    """Make ``count`` connections that end in all ways in turn; both ends are this process's."""
    rows = []
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        for number in range(int(count)):
            address = socket.inet_ntoa(struct.pack("!I", ANY_LOOPBACK + number % ADDRESSES))
            client = socket.create_connection((address, port))
            accepted = listener.accept()[0]
            sport, (sent, answered) = client.getsockname()[1], (number % 1000, number % 777)
            _exchange(client, accepted, sent, answered)
            end = ENDINGS[number // 2 % len(ENDINGS)]
            end(*((client, accepted) if number % 2 else (accepted, client)))
            first = "client" if number % 2 else "server"
            rows.append(
                {"sport": sport, "daddr": address, "dport": port, "sent": sent,
                 "answered": answered, "end": end.__name__, "first": first}
            )  # fmt: skip
    return rows
