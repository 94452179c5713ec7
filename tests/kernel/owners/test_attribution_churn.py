# SPDX-License-Identifier: BSD-2-Clause
"""Sockets, processes and namespaces whose numbers are used again at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribution import Audit, probing
from harness import netns_inode, new_netns, wait_until
from owner_lab import Claim, Claims, Server

if TYPE_CHECKING:
    from pathlib import Path

    from owner_lab import Group, Stage

CONNECTIONS = 400
NAMESPACES, MAX_NAMESPACES = 4, 50


def both_ways(stage: Stage, claims: Claims) -> None:
    """Each of two cgroups has clients of the other's server, at the same time."""
    servers = [Server(stage.player(group)) for group in (stage.a, stage.b)]
    clients = [stage.player(group) for group in (stage.b, stage.a)]
    for server, client in zip(servers, clients, strict=True):
        claims.server(server, "learned")
        claims.client(client)
        server.player.begin("serve", server.fd, CONNECTIONS)
        target = (server.player.address, server.port)
        client.begin("talk", client.address, target, CONNECTIONS, 1, "client-reset")
    for player in (*clients, *(server.player for server in servers)):
        player.finish()


def one_pid(stage: Stage, claims: Claims) -> None:
    """Processes of two cgroups, in turn, that have the same PID."""
    server, parent = Server(stage.player(stage.c)), stage.player(stage.c)
    claims.server(server, "learned")
    casts = {stage.new_address(): stage.a, stage.new_address(): stage.b}
    told = [(address, [*map(str, group.paths)]) for address, group in casts.items()]
    server.player.begin("serve", server.fd, 60)
    target = (server.player.address, server.port)
    pids = parent.do("brief", told, target, 60, "one-pid")
    server.player.finish()
    for address, group in casts.items():
        claims.of[address] = [Claim(group, frozenset(pids[address]), frozenset({"learned"}))]
    one, other = map(set, pids.values())
    assert one & other


def test_sockets_and_processes(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    claims = Claims()
    with probing(built, hook, hierarchy) as probe:
        both_ways(stage, claims)
        one_pid(stage, claims)
        Audit(probe, claims.of).check()
        assert probe.lost() == 0
        if hook == "raw_tp":
            groups = (stage.a, stage.b, stage.c)
            assert probe.entries(*groups)
            for player in stage.players:
                player.leave()
            wait_until("entries to end with sockets", lambda: not probe.entries(*groups))


def test_namespaces(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """The same addresses, in namespaces some of which get the same inode; two cgroups take turns."""
    inodes: set[int] = set()
    made = 0
    groups: list[Group] = [stage.a, stage.b]
    addresses = stage.new_address(), stage.new_address()
    with probing(built, hook, hierarchy) as probe:
        while len(inodes) == made or made < NAMESPACES:
            made += 1
            with new_netns() as name:
                inodes.add(netns_inode(name))
                players = [stage.player(group) for group in groups]
                for player, address in zip(players, addresses, strict=True):
                    player.do("enter", name)
                    player.address = address
                server, claims = Server(players[0], port=80), Claims()
                claims.server(server, "learned")
                claims.client(players[1])
                server.talk(players[1], 10, 1, "server-reset")
                for player in players:
                    player.leave()
            Audit(probe, claims.of).check()
            probe.forget()
            groups.reverse()
            assert made < MAX_NAMESPACES, "their numbers aren't used again"
