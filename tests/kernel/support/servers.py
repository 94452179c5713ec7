# SPDX-License-Identifier: BSD-2-Clause
"""Servers in processes of their own, moved into cgroups before they listen.

Run as ``python servers.py ADDRESS PORT dual|v6only|shared|mptcp|adrift …``; lines are commands.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 60.0
IPPROTO_MPTCP = 262


def listen(address: str, port: int, *how: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if "mptcp" in how else 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "shared" in how:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "v6only" in how)
    if "fastopen" in how:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 100)
    sock.bind((address, port))
    sock.listen(4096)
    return sock


def set_adrift(listener: socket.socket) -> None:
    """Leave the listener in flight in a unix socket, so that no process has it open."""
    sender, _receiver = socket.socketpair(socket.AF_UNIX)
    socket.send_fds(sender, [b"x"], [listener.fileno()])
    listener.close()
    sys.stdin.readline()


def main() -> None:
    """Listen after the first line; after each other line, print the ports of accepted clients."""
    address, port, *how = sys.argv[1:]
    sys.stdin.readline()
    listener = listen(address, int(port), *how)
    print(listener.getsockname()[1], flush=True)
    if "adrift" in how:
        set_adrift(listener)
        return
    accepted = []
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if listener in ready:
            sock, peer = listener.accept()
            if "fastopen" in how and sock.recv(1):
                sock.send(b"x")
            accepted.append(peer[1])
        elif os.read(0, 1):
            print(json.dumps(accepted), flush=True)
        else:
            return


class Server:
    """The test's side of a server, which listens at ``port``."""

    def __init__(self, command: list[str], cgroups: tuple[Path, ...]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        self.port = 0
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(self.pid))

    def ask(self) -> str:
        """Send a line; return the answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0]
        return self.process.stdout.readline()

    def accepted(self) -> list[int]:
        """Return the ports of the clients accepted so far."""
        found: list[int] = json.loads(self.ask())
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


@contextmanager
def serving(
    address: str = "127.0.0.1",
    *how: str,
    port: int = 0,
    cgroups: tuple[Path, ...] = (),
    netns: str = "",
) -> Iterator[Server]:
    """Run a server in these cgroups; ``how``: dual, v6only, shared, fastopen, mptcp, adrift."""
    command = [sys.executable, str(Path(__file__)), address, str(port), *how]
    if netns:
        command = ["ip", "netns", "exec", netns, *command]
    server = Server(command, cgroups)
    try:
        server.port = int(server.ask())
        yield server
    finally:
        server.end()


if __name__ == "__main__":
    main()
