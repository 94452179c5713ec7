# SPDX-License-Identifier: BSD-2-Clause
"""Clients and servers whose rows name each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from background import background
from compare import inner
from harness import HIERARCHY
from nat_lab import CLIENT

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from background import Background
    from harness import Row

# Accept until the end, answer what comes; the first line has the port.
SERVER = """
import socket, threading
from contextlib import suppress
server = socket.create_server(({address!r}, {port}), family=socket.{family}, backlog=4096, **{how!r})
print(server.getsockname()[1], flush=True)
def serve(sock):
    with sock, suppress(ConnectionError):
        while data := sock.recv(64):
            sock.send(data)
def accept():
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
input()
"""
TALKS = f"""
import os, socket
exec({CLIENT!r})
print("begun", flush=True)
input()
talk(*{{args!r}}, **{{how!r}})
print("talked", flush=True)
input()
"""


class Ends:
    """A client and a server, in cgroups of their own."""

    def __init__(self, client: Background, server: Background, groups: tuple[Path, Path]) -> None:
        self.pids = {"client": client.pid, "server": server.pid}
        self.client = client
        paths = [inner(group, HIERARCHY) for group in groups]
        self.cgroups = dict(zip(("client", "server"), paths, strict=True))

    def other(self, role: str) -> tuple[Any, ...]:
        """Return what a row of ``role`` tells of the other end."""
        there = "server" if role == "client" else "client"
        return self.cgroups[there], self.pids[there], "socket"


def told(row: Row) -> tuple[Any, ...]:
    return row["peer_cgroup"], row["peer_pid"], row["peer_source"]


def serving(
    stack: ExitStack, netns: str, address: str, group: Path, port: int = 0, **how: Any
) -> tuple[Background, int]:
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = SERVER.format(address=address, port=port, family=family, how=how)
    server = stack.enter_context(background(netns, code, (group,)))
    return server, int(server.wait(""))


def talking(stack: ExitStack, netns: str, group: Path, *args: Any, **how: Any) -> Background:
    code = TALKS.format(args=args, how=how)
    client = stack.enter_context(background(netns, code, (group,)))
    client.wait("begun")
    return client


# Connect ``count`` times to each of ``to``, and answer or wait as the test says; tell the ports of each.
HOLDS = """
import json, socket, threading, time
from contextlib import suppress
kept = [[socket.create_connection(tuple(to)) for _ in range({count})] for to in {to!r}]
print(json.dumps([[sock.getsockname()[1] for sock in each] for each in kept]), flush=True)
def talk(sock):
    with suppress(OSError):
        while True:
            sock.sendall(b"question")
            sock.recv(64)
            time.sleep(0.01)
if {busy!r}:
    for each in kept:
        for sock in each:
            threading.Thread(target=talk, args=(sock,), daemon=True).start()
input()
"""


def holding(
    stack: ExitStack, netns: str, group: Path, to: list[tuple[str, int]], count: int, *, busy: bool
) -> tuple[Background, list[list[int]]]:
    """Return a client that keeps ``count`` connections open to each address, and its ports."""
    client = stack.enter_context(
        background(netns, HOLDS.format(to=to, count=count, busy=busy), (group,))
    )
    return client, json.loads(client.wait("["))


# A connection's numbers, and sockets that claim them: linux/tcp.h has TCP_REPAIR and what follows.
TELLS = """
import socket
sock = socket.create_connection(("127.0.0.1", {port}))
sock.setsockopt(6, 19, 1)
found = []
for queue in (2, 1):
    sock.setsockopt(6, 20, queue)
    found.append(sock.getsockopt(6, 21) & 0xffffffff)
sock.setsockopt(6, 19, -1)
print(tuple(found), flush=True)
input()
sock.close()
input()
"""
CLAIMS = """
import socket, struct
kept = []
for sent, received in ({numbers}, {numbers}[::-1]):
    sock = socket.socket()
    sock.setsockopt(6, 19, 1)
    for queue, number in ((2, sent), (1, received)):
        sock.setsockopt(6, 20, queue)
        sock.setsockopt(6, 21, struct.pack("I", number))
    sock.bind(("127.0.0.1", 0))
    sock.connect(("127.0.0.1", 9))
    sock.setsockopt(6, 19, -1)
    kept.append(sock)
    if {close}:
        sock.close()
print("claimed", flush=True)
input()
"""
