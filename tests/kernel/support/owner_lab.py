# SPDX-License-Identifier: BSD-2-Clause
"""The stage of owner_lab_process.py: a network namespace, cgroups, and processes to control.

Every player has an address of its own, so that the local address of an event identifies its owner.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from harness import HIERARCHIES, PATIENCE_S, PYTHON, V1, V2, in_netns, new_cgroup, new_netns

if TYPE_CHECKING:
    from collections.abc import Iterable

ACTORS = Path(__file__).with_name("owner_lab_process.py")
MESSAGE = 1 << 16
LOOPBACK = 0x7F000000  # 127.0.0.0/8, of which each run of the tests uses a part of its own
ADDRESSES = 4096
FIRST = LOOPBACK + ADDRESSES * (1 + os.getpid() % (ADDRESSES - 2)) + 1

UNKNOWN = (0, 0, "unknown")


class Group(NamedTuple):
    """A cgroup of each hierarchy that may name owners."""

    paths: tuple[Path, ...]

    def id(self, hierarchy: str) -> int:
        """Return the cgroup's id, which is its directory's inode."""
        top = V2 if hierarchy == "v2" else V1
        return next(path.stat().st_ino for path in self.paths if path.is_relative_to(top))


class Claim(NamedTuple):
    """An owner that a ledger may report, and the possible sources."""

    group: Group
    pids: frozenset[int]
    sources: frozenset[str]


class Player:
    """The test's side of a process that runs its commands."""

    def __init__(self, stage: Stage, pid: int, control: socket.socket, group: Group) -> None:
        self.stage, self.pid, self.control, self.group = stage, pid, control, group
        self.address = stage.new_address()
        control.settimeout(PATIENCE_S)
        if group.paths:
            self.do("move", *map(str, group.paths))

    def begin(self, name: str, *arguments: Any, given: Iterable[int] = ()) -> None:
        """Send a command."""
        message = json.dumps([name, *arguments]).encode()
        socket.send_fds(self.control, [message], list(given))

    def finish(self) -> Any:
        """Return the answer to a command."""
        answer = json.loads(self.control.recv(MESSAGE))
        assert "error" not in answer, answer
        return answer["is"]

    def do(self, name: str, *arguments: Any, given: Iterable[int] = ()) -> Any:
        """Send a command, and return the answer."""
        self.begin(name, *arguments, given=given)
        return self.finish()

    def fork(self, group: Group | None = None) -> Player:
        """Return a child process, in a cgroup."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stage.stack.enter_context(ours)
        with theirs:
            pid = self.do("fork", given=[theirs.fileno()])
        return Player(self.stage, pid, ours, group or self.group)

    def leave(self) -> None:
        """End the process; return when its files are closed."""
        self.control.shutdown(socket.SHUT_WR)
        assert not self.control.recv(MESSAGE)

    def channel(self, other: Player) -> tuple[int, int]:
        """Create a pair of unix sockets, one for each player, for put() and take()."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with here, there:
            ours = self.do("keep", given=[here.fileno()])
            return ours, other.do("keep", given=[there.fileno()])

    def hand(self, fd: int, other: Player) -> int:
        """Pass a socket to another process, and close it here; return the other's descriptor."""
        here, there = self.channel(other)
        self.do("put", here, fd)
        return int(other.do("take", there))

    def connect(self, server: Server, *how: str) -> int:
        target = (server.player.address, server.port)
        return int(self.do("connect", self.address, *target, *how))

    def is_told(self, hierarchy: str, source: str) -> tuple[int, int, str]:
        """Return the owner that a ledger should report: cgroup, PID, source."""
        return self.group.id(hierarchy), self.pid, source

    def owns(self, *sources: str) -> Claim:
        return Claim(self.group, frozenset({self.pid}), frozenset(sources))


class Stage:
    """A namespace, cgroups and players, which end when it closes.

    Connections without a process may go on for some time: no address is used twice.
    """

    addresses: ClassVar = iter(range(FIRST, FIRST + ADDRESSES))

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.players: list[Player] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.stack = stack
            self._set()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _set(self) -> None:
        self.netns = self.stack.enter_context(new_netns())
        in_netns(self.netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
        self.a, self.b, self.c = (self.group() for _ in range(3))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stack.enter_context(ours)
        with theirs:
            process = subprocess.Popen(
                [PYTHON, str(ACTORS), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)  # ends its children, too
        self.first = Player(self, process.pid, ours, Group(()))
        self.first.do("enter", self.netns)

    def group(self) -> Group:
        """Return a new cgroup in all hierarchies."""
        return Group(tuple(self.stack.enter_context(new_cgroup(top)) for top in HIERARCHIES))

    def new_address(self) -> str:
        return socket.inet_ntoa(next(self.addresses).to_bytes(4, "big"))

    def player(self, group: Group) -> Player:
        """Return a new process."""
        self.players.append(self.first.fork(group))
        return self.players[-1]


class Server:
    """A player that listens; its clients are in another cgroup."""

    def __init__(self, player: Player, *how: str, address: str = "", port: int = 0) -> None:
        self.player = player
        self.fd, self.port = player.do("listen", address or player.address, port, *how)

    def accept(self) -> int:
        return int(self.player.do("accept", self.fd))

    def talk(self, client: Player, count: int, rounds: int, end: str = "client") -> None:
        """Make ``count`` connections, of ``rounds`` bursts and answers each."""
        self.player.begin("serve", self.fd, count)
        target = (self.player.address, self.port)
        client.do("talk", client.address, target, count, rounds, end)
        self.player.finish()


class Claims:
    """The expected owners of addresses, as scenarios go on."""

    def __init__(self) -> None:
        self.of: dict[str, list[Claim]] = {}

    def add(self, player: Player, *claims: Claim) -> None:
        self.of.setdefault(player.address, []).extend(claims)

    def server(self, server: Server, first: str) -> None:
        """``first`` is the source for the listener."""
        self.add(server.player, server.player.owns(first, "inherited", "learned"))

    def client(self, player: Player) -> None:
        self.add(player, player.owns("learned"))


def nobody_seen(player: Player, hierarchy: str) -> tuple[int, int, str]:
    """Return the owner that the kernel knows of a player's socket."""
    return (player.group.id("v2"), 0, "sk_cgrp") if hierarchy == "v2" else UNKNOWN
