# SPDX-License-Identifier: BSD-2-Clause
"""Several sockets that listen at one place: each child is of the one whose queue it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from attribution import SHARED_PORT, Probe, probing
from harness import wait_until
from owner_lab import Group, Player, Server, Stage

if TYPE_CHECKING:
    from pathlib import Path

ANY, ANY_V6 = ("0.0.0.0", ""), ("::", "v6only")  # in a namespace of their own


class Shared:
    """Servers of two cgroups at one address."""

    def __init__(self, stage: Stage) -> None:
        one = Server(stage.player(stage.a), "shared", port=SHARED_PORT)
        address = one.player.address
        other = Server(stage.player(stage.b), "shared", address=address, port=SHARED_PORT)
        self.servers = (one, other)
        self.client = stage.player(stage.c)

    def waiting(self) -> list[Server]:
        return [server for server in self.servers if server.player.do("ready", server.fd)]

    def play(self, probe: Probe) -> Player:
        """Connect once; return who got it."""
        fd = self.client.connect(self.servers[0])
        peer = self.client.do("local_port", fd)
        waiting: list[Server] = wait_until("the connection to come", self.waiting)
        server = waiting[0]
        cgroup, pid = server.player.group.id(probe.hierarchy), server.player.pid
        self.client.do("send", fd, 5)
        theirs = server.accept()
        assert (
            self.told(probe, peer)
            == {
                "tp_btf": (cgroup, pid, "inherited"),
                "raw_tp": (cgroup, 0, "sk_cgrp") if probe.hierarchy == "v2" else (0, 0, "unknown"),
            }[probe.hook]
        )
        server.player.do("receive", theirs, 5)
        probe.forget()
        self.client.do("send", fd, 5)
        server.player.do("receive", theirs, 5)
        assert self.told(probe, peer) == (cgroup, pid, "learned")
        self.client.do("close", fd)
        server.player.do("close", theirs)
        return server.player

    def told(self, probe: Probe, peer: int) -> tuple[int, int, str]:
        (owner,) = probe.owners(self.servers[0].player.address, peer)
        return owner


def test_servers_that_share_a_port(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """By address it isn't known which of them is a child's listener, until it is read."""
    early = Shared(stage)
    with probing(built, hook, hierarchy) as probe:
        for shared in (early, Shared(stage)):
            got = {shared.play(probe) for _ in range(4)}
            while len(got) < len(shared.servers):
                got.add(shared.play(probe))


class Beside:
    """Servers of two cgroups at any address, one of each family: no other lets two listen there."""

    def __init__(self, stage: Stage, early: tuple[str, str]) -> None:
        self.stage, self.client = stage, stage.player(stage.c)
        self.servers: dict[str, Server] = {}
        self.listen(early, stage.a)

    def listen(self, where: tuple[str, str], group: Group) -> None:
        address, how = where
        player = self.stage.player(group)
        self.servers[address] = Server(player, how, address=address, port=SHARED_PORT)

    def check(self, probe: Probe, where: tuple[str, str]) -> None:
        """Connect to one; a child is its, or of an unknown listener where they are kept by place."""
        address = {ANY: self.stage.new_address(), ANY_V6: "::1"}[where]
        server = self.servers[where[0]]
        source = address if where == ANY else "::"
        fd = self.client.do("connect", source, address, SHARED_PORT)
        theirs = server.accept()
        (owner,) = probe.owners(address, self.client.do("local_port", fd))
        own = (server.player.group.id(probe.hierarchy), server.player.pid, "inherited")
        if probe.hook == "tp_btf":
            assert owner == own
        else:
            assert owner == own or owner[1] == 0
        self.client.do("close", fd)
        server.player.do("close", theirs)

    def end(self, where: tuple[str, str]) -> None:
        server = self.servers.pop(where[0])
        server.player.do("close", server.fd)


class Order(NamedTuple):
    """Who listens first and who then, and whether the first one does before the start."""

    early: tuple[str, str]
    late: tuple[str, str]
    seeded: bool


ORDERS = [
    Order(*places, seeded) for places in ((ANY, ANY_V6), (ANY_V6, ANY)) for seeded in (False, True)
]


@pytest.mark.parametrize(
    "order",
    ORDERS,
    ids=lambda order: f"{order.early[0]} first, {'seeded' if order.seeded else 'learned'}",
)
def test_servers_of_two_families(
    built: Path, stage: Stage, hook: str, hierarchy: str, order: Order
) -> None:
    """Both are any address; who came first may go first, and come again."""
    early, late = order.early, order.late
    before = Beside(stage, early) if order.seeded else None
    with probing(built, hook, hierarchy) as probe:
        servers = before or Beside(stage, early)
        servers.check(probe, early)
        servers.listen(late, stage.b)
        servers.check(probe, early)
        servers.check(probe, late)
        servers.end(early)
        servers.check(probe, late)
        servers.listen(early, stage.a)
        servers.check(probe, early)
        servers.check(probe, late)
        servers.end(late)
        servers.check(probe, early)
