# SPDX-License-Identifier: BSD-2-Clause
"""Connection attempts of every kind, each made in a process of its own.

Run as ``python workload.py SCENARIO [ARGUMENT …]``. It waits for a line on stdin, so that the
process can be moved into a cgroup first, makes the attempts, and prints a JSON list: one object an
attempt, with the fields that cgnet must show for it.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

AF_UNSPEC_ADDRESS = struct.pack("H14x", socket.AF_UNSPEC)
IPPROTO_MPTCP = 262
TCP_FASTOPEN, TCP_FASTOPEN_CONNECT = 23, 30
Row = dict[str, Any]

libc = ctypes.CDLL(None, use_errno=True)


def plain(address: str) -> str:
    return address.removeprefix("::ffff:")


def facts(sock: socket.socket, address: str, port: int, result: str) -> Row:
    mapped = address.startswith("::ffff:")
    try:
        local = sock.getsockname()
    except OSError:
        local = ("", 0)
    return {
        "family": 6 if ":" in address and not mapped else 4,
        "mapped": mapped,
        "daddr": plain(address),
        "dport": port,
        "sport": local[1],
        "result": result,
    }


def make(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)


def attempt(sock: socket.socket, address: str, port: int) -> Row:
    """Connect, blocking, and return a row with the result."""
    try:
        sock.connect((address, port))
    except OSError as error:
        return facts(sock, address, port, errno.errorcode[error.errno or 0])
    return facts(sock, address, port, "ok")


def connect(address: str, port: str, count: str = "1") -> list[Row]:
    rows = []
    for _ in range(int(count)):
        with make(address) as sock:
            rows.append(attempt(sock, address, int(port)))
    return rows


def nonblocking(address: str, port: str) -> list[Row]:
    with make(address) as sock:
        sock.setblocking(False)
        if sock.connect_ex((address, int(port))) == errno.EINPROGRESS:
            select.select([], [sock], [])
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        result = errno.errorcode[number] if number else "ok"
        # A second query returns the same error, or EISCONN, and is no attempt.
        if not number:
            assert sock.connect_ex((address, int(port))) in (0, errno.EISCONN)
        return [facts(sock, address, int(port), result)]


def own_timeout(address: str, port: str) -> list[Row]:
    """Close after the application's own timeout, here after two SYNs."""
    with make(address) as sock:
        sock.settimeout(1.5)
        with suppress(TimeoutError):
            sock.connect((address, int(port)))
        return [facts(sock, address, int(port), "aborted")]


def asking(address: str, port: str) -> list[Row]:
    """Query the error at once, and close: no second SYN is sent."""
    with make(address) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((address, int(port))) == errno.EINPROGRESS
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return [facts(sock, address, int(port), errno.errorcode[number] if number else "aborted")]


def twice(refusing: str, listening: str) -> list[Row]:
    """Connect, refused; connect again on the same socket; disconnect, and connect again."""
    with make("127.0.0.1") as sock:
        first = attempt(sock, "127.0.0.1", int(refusing))
        second = attempt(sock, "127.0.0.1", int(listening))
        assert libc.connect(sock.fileno(), AF_UNSPEC_ADDRESS, 16) == 0
        third = attempt(sock, "127.0.0.1", int(listening))
    # The refused attempt's port is lost: the socket was rebound for the second.
    first["sport"] = None
    return [first, second, third]


def pending(address: str, port: str) -> tuple[socket.socket, Row]:
    sock = make(address)
    sock.setblocking(False)
    assert sock.connect_ex((address, int(port))) == errno.EINPROGRESS
    return sock, facts(sock, address, int(port), "aborted")


def closed(address: str, port: str) -> list[Row]:
    sock, row = pending(address, port)
    sock.close()
    return [row]


def many_pending(address: str, port: str, count: str, ending: str = "aborted") -> list[Row]:
    """Have all attempts pending at once, in processes below a common limit of files.

    Then close all, or wait until each has timed out.
    """
    share = 500  # their ports are one atomic write to a pipe
    processes = int(count) // share
    hold, release = os.pipe()
    results, result = os.pipe()
    for _ in range(processes):
        if os.fork() == 0:
            os.close(release)
            pairs = [pending(address, port) for _ in range(share)]
            ports = ",".join(str(row["sport"]) for _, row in pairs)
            os.write(result, f"{os.getpid()} {ports}\n".encode())
            os.read(hold, 1)  # ends when all have their sockets
            if ending == "ETIMEDOUT":
                for sock, _ in pairs:
                    select.select([], [sock], [])
            os._exit(0)  # which closes them
    os.close(result)
    rows = []
    with open(results) as lines:  # noqa: PTH123 - a descriptor
        for _ in range(processes):
            pid, ports = lines.readline().split()
            rows += [
                {"pid": int(pid), "daddr": address, "sport": int(sport), "result": ending}
                for sport in ports.split(",")
            ]
    os.close(release)
    for _ in range(processes):
        os.wait()
    return rows


def held(address: str, port: str) -> list[Row]:
    """Keep an attempt pending until another line comes, then close it."""
    sock, row = pending(address, port)
    sys.stdin.readline()
    sock.close()
    return [row]


def shut_down(address: str, port: str) -> list[Row]:
    sock, row = pending(address, port)
    libc.shutdown(sock.fileno(), socket.SHUT_RDWR)
    return [row]


def disconnected(address: str, port: str) -> list[Row]:
    sock, row = pending(address, port)
    assert libc.connect(sock.fileno(), AF_UNSPEC_ADDRESS, 16) == 0
    return [row]


def killed(address: str, port: str) -> list[Row]:
    """Kill a child while it blocks in connect()."""
    child = os.fork()
    if child == 0:
        attempt(make(address), address, int(port))
        os._exit(1)
    while "S" not in (open(f"/proc/{child}/stat").read().rpartition(")")[2].split()[0]):  # noqa: PTH123, SIM115
        os.sched_yield()
    wait_for_syn_sent(int(port))
    os.kill(child, 9)
    os.waitpid(child, 0)
    row = facts(make(address), address, int(port), "aborted")
    return [row | {"pid": child, "sport": None}]


def wait_for_syn_sent(port: int) -> None:
    """Wait until /proc/net/tcp shows a socket to ``port`` in SYN_SENT (02)."""
    wanted = f":{port:04X} 02 "
    while True:
        with open("/proc/net/tcp") as table:  # noqa: PTH123
            if any(wanted in line for line in table):
                return


def many_ports_taken(port: str) -> list[Row]:
    """Connect twice, with one local port in this namespace: none is left for the second."""
    first, second = make("127.0.0.1"), make("127.0.0.1")
    return [attempt(first, "127.0.0.1", int(port)), attempt(second, "127.0.0.1", int(port))]


def self_connect(port: str) -> list[Row]:
    """Connect a socket to its own port: a simultaneous open."""
    with make("127.0.0.1") as sock:
        sock.bind(("127.0.0.1", int(port)))
        return [attempt(sock, "127.0.0.1", int(port))]


def fast_open(port: str) -> list[Row]:
    """Connect twice: the first gets the cookie, the second sends its data with the SYN."""
    rows = []
    for _ in range(2):
        with make("127.0.0.1") as sock:
            sock.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", int(port)))
            sock.recv(1)
            rows.append(facts(sock, "127.0.0.1", int(port), "ok"))
    return rows


def fast_open_deferred(port: str, pause: str) -> list[Row]:
    """connect() returns at once; the SYN goes with the first write, ``pause`` seconds later."""
    rows = fast_open(port)
    with make("127.0.0.1") as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(("127.0.0.1", int(port)))
        time.sleep(float(pause))  # the application's own pause, which is measured
        sock.send(b"x")
        sock.recv(1)
        rows.append(facts(sock, "127.0.0.1", int(port), "ok"))
    return rows


def fast_open_unsent(port: str) -> list[Row]:
    """Disconnect before the first write: no SYN ever left."""
    rows = fast_open(port)
    with make("127.0.0.1") as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(("127.0.0.1", int(port)))
        rows.append(facts(sock, "127.0.0.1", int(port), "aborted"))
        assert libc.connect(sock.fileno(), AF_UNSPEC_ADDRESS, 16) == 0
    return rows


def hostile_comm(port: str) -> list[Row]:
    name = b"=\x1b[31m[/red]\n\xff"
    libc.prctl(15, name, 0, 0, 0)
    return connect("127.0.0.1", port)


def passed_threads(port: str, count: str) -> list[Row]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(connect, "127.0.0.1", port) for _ in range(int(count))]
    return [row for each in work for row in each.result()]


def mptcp(address: str, port: str) -> list[Row]:
    """Connect with MPTCP, as Go's dialers do where possible."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        return [attempt(sock, address, int(port))]


def io_uring(port: str, flags: str = "0") -> list[Row]:
    from uring import connect_by_ring

    with make("127.0.0.1") as sock:
        number = -connect_by_ring(sock.fileno(), "127.0.0.1", int(port), int(flags))
        return [facts(sock, "127.0.0.1", int(port), errno.errorcode[number] if number else "ok")]


def main() -> None:
    name, *arguments = sys.argv[1:]
    scenario = globals().get(name) or getattr(importlib.import_module("traffic"), name)
    sys.stdin.readline()
    rows = scenario(*arguments)
    print(json.dumps([{"pid": os.getpid(), **row} for row in rows]), flush=True)


if __name__ == "__main__":
    main()
