# SPDX-License-Identifier: BSD-2-Clause
"""The ledger tells whose socket an event is of, whatever task the kernel runs on top of."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from attribution import Audit, probing
from harness import in_netns
from owner_lab import Claim, Claims, Server

if TYPE_CHECKING:
    from pathlib import Path

    from owner_lab import Stage

ENDS = ("client", "server", "client-reset", "server-reset")
TCP_USER_TIMEOUT = 18
MAX_EVENTS = 100_000


# -- one play after another


def play_endings(stage: Stage, server: Server, claims: Claims) -> None:
    for end in ENDS:
        client = stage.player(stage.b)
        claims.client(client)
        server.talk(client, 5, 3, end)


def play_dual(stage: Stage, claims: Claims) -> None:
    """It listens at any address, of both families; the client's is of IPv4."""
    server = Server(stage.player(stage.a), address="::")
    client = stage.player(stage.b)
    claims.server(server, "learned")
    claims.client(client)
    server.talk(client, 5, 3)


def play_short_lived(stage: Stage, server: Server, claims: Claims) -> None:
    parent = stage.player(stage.c)
    one, other = stage.new_address(), stage.new_address()
    casts = [(one, stage.a), (other, stage.b)]
    server.player.begin("serve", server.fd, 40)
    told = [(address, [str(path) for path in group.paths]) for address, group in casts]
    pids = parent.do("brief", told, (server.player.address, server.port), 40)
    server.player.finish()
    for address, group in casts:
        claims.of[address] = [Claim(group, frozenset(pids[address]), frozenset({"learned"}))]


def play_timeout(stage: Stage, server: Server, claims: Claims) -> None:
    """What it sends is thrown away until it gives up."""
    client = stage.player(stage.b)
    claims.client(client)
    fd = client.connect(server)
    theirs = server.accept()
    rules = (
        "add table ip t",
        "add chain ip t c { type filter hook input priority 0; }",
        f"add rule ip t c ip saddr {client.address} drop",
    )
    in_netns(stage.netns, "nft", "; ".join(rules))
    client.do("set", fd, socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 300)
    client.do("send", fd)
    assert client.do("wait_for_error", fd) == errno.ETIMEDOUT
    server.player.do("close", theirs, "reset")  # whose FIN nobody would answer


class Open:
    """A connection that was open before."""

    def __init__(self, stage: Stage) -> None:
        self.server = Server(stage.player(stage.a))
        self.client = stage.player(stage.b)
        self.ours = self.client.connect(self.server)
        self.theirs = self.server.accept()

    def play(self, claims: Claims) -> None:
        for player in (self.client, self.server.player):
            claims.add(player, player.owns("seeded", "learned"))
        for _ in range(3):
            self.client.do("send", self.ours, 20)
            assert self.server.player.do("receive", self.theirs, 20) == 20
            self.server.player.do("send", self.theirs, 20)
            assert self.client.do("receive", self.ours, 20) == 20
        self.client.do("close", self.ours)
        self.server.player.do("close", self.theirs)


class Prefork:
    """One cgroup's process listens, the other's accepts and reads."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.master = Server(stage.player(stage.a))
        self.worker = self.master.player.fork(stage.b)

    def play(self, claims: Claims, first: str) -> None:
        master, client = self.master.player, self.stage.player(self.stage.c)
        inherited = master.owns(first, "inherited")
        claims.add(master, inherited, self.worker.owns("learned"))
        claims.client(client)
        target = (master.address, self.master.port)
        self.worker.begin("serve", self.master.fd, 10)
        client.do("talk", client.address, target, 10, 10, "client")
        self.worker.finish()


def events(stage: Stage, early: Server, late: Server, claims: Claims, count: int) -> None:
    """As many as that, over connections that live long."""
    clients = [stage.player(stage.b), stage.player(stage.b)]
    rounds = count // 22
    for client, server in zip(clients, (early, late), strict=True):
        claims.client(client)
        server.player.begin("serve", server.fd, 2)
        target = (server.player.address, server.port)
        client.begin("talk", client.address, target, 2, rounds // 2, "client")
    for player in (*clients, early.player, late.player):
        player.finish()


def test_every_event_has_its_owner(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """Servers and clients of two cgroups, and a third one that keeps all CPUs busy."""
    claims = Claims()
    early, open_before = Server(stage.player(stage.a)), Open(stage)
    prefork = Prefork(stage)
    for _ in range(2):
        stage.player(stage.c).begin("spin")
    with probing(built, hook, hierarchy) as probe:
        late, prefork_late = Server(stage.player(stage.a)), Prefork(stage)
        claims.server(early, "seeded")
        claims.server(late, "learned")
        open_before.play(claims)
        prefork.play(claims, "seeded")
        prefork_late.play(claims, "learned")
        for server in (early, late):
            play_endings(stage, server, claims)
        play_dual(stage, claims)
        play_short_lived(stage, late, claims)
        play_timeout(stage, early, claims)
        wanted = MAX_EVENTS if (hook, hierarchy) == ("tp_btf", "memory") else MAX_EVENTS // 10
        events(stage, early, late, claims, wanted)
        audit = Audit(probe, claims.of)
        print(f"{hook}, {hierarchy}")
        assert audit.check() >= wanted
        assert probe.lost() == 0
