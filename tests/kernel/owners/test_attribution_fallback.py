# SPDX-License-Identifier: BSD-2-Clause
"""Sockets that nobody is seen to use: what the kernel tells of them, and nothing else.

They are in flight, sent through a unix socket and not received yet, when the programs start.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from attribution import probing
from harness import V1, wait_until
from owner_lab import UNKNOWN, Server, nobody_seen

from cgnet.filters.selection import Selection
from cgnet.owners import netns
from cgnet.records._layouts import NETNS_OWNER

if TYPE_CHECKING:
    from pathlib import Path

    from attribution import Owner, Probe
    from owner_lab import Group, Stage

TCP_LIMIT = "memory.kmem.tcp.limit_in_bytes"


class InFlight:
    """A connection that cgroup a opened and sent to one of b, who hasn't received it."""

    def __init__(self, stage: Stage, group: Group | None = None) -> None:
        self.opener, self.receiver = stage.player(group or stage.a), stage.player(stage.b)
        self.peer = Server(stage.player(stage.c))
        fd = self.opener.connect(self.peer)
        self.theirs = self.peer.accept()
        here, self.channel = self.opener.channel(self.receiver)
        self.opener.do("put", here, fd)

    def told(self, probe: Probe) -> Owner:
        """Let something come; return whose it is."""
        probe.forget()
        self.peer.player.do("send", self.theirs, 3)
        address = self.opener.address
        owners: set[Owner] = wait_until(f"an event of {address}", lambda: probe.owners(address))
        (owner,) = owners
        return owner

    def wanted(self, probe: Probe) -> bool:
        self.told(probe)
        (wanted,) = {row.wanted for row in probe.of(self.opener.address)}
        return wanted

    def is_read(self) -> None:
        fd = self.receiver.do("take", self.channel)
        self.receiver.do("receive", fd, 1)


def test_what_the_kernel_tells(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    flight = InFlight(stage)
    with probing(built, hook, hierarchy) as probe:
        assert flight.told(probe) == nobody_seen(flight.opener, hierarchy)
        assert flight.told(probe) == nobody_seen(flight.opener, hierarchy)
        flight.is_read()
        assert flight.told(probe) == flight.receiver.is_told(hierarchy, "learned")


def test_cgroup_that_its_memory_is_charged_to(built: Path, stage: Stage, hook: str) -> None:
    if not (V1 / TCP_LIMIT).exists():
        pytest.skip("this kernel charges no memory of TCP to cgroups of v1")
    group = stage.group()
    for path in group.paths:
        if path.is_relative_to(V1):
            (path / TCP_LIMIT).write_text(str(1 << 30))
    flight = InFlight(stage, group)
    with probing(built, hook, "memory") as probe:
        assert flight.told(probe) == (group.id("memory"), 0, "memcg")


def test_owner_of_the_network_namespace(built: Path, stage: Stage, hook: str) -> None:
    """It is told by the namespace's inode, and by its cookie, where that is given."""
    if not V1.is_dir():
        pytest.skip("this host has no v1 hierarchy: the kernel tells of all sockets")
    here = netns.find(f"/run/netns/{stage.netns}")
    owner = stage.c.id("memory")
    known = (owner, 0, "netns")
    flights = [(InFlight(stage), cookie) for cookie in (here.cookie + 1, here.cookie, 0)]
    with probing(built, hook, "memory") as probe:
        owners = probe.obj.map("netns_owners")
        for flight, cookie in flights:
            key = here.inode.to_bytes(4, sys.byteorder)
            owners.update(key, NETNS_OWNER.packed.pack(cookie, owner))
            assert flight.told(probe) == (known if cookie in (here.cookie, 0) else UNKNOWN)


def test_filters_of_what_is_unknown(built: Path, stage: Stage, hook: str) -> None:
    """It is none that was asked for, and none that was excluded."""
    if not V1.is_dir():
        pytest.skip("this host has no v1 hierarchy: the kernel tells of all sockets")
    flight = InFlight(stage)
    path = next(str(path) for path in flight.opener.group.paths if path.is_relative_to(V1))
    for wanted, mark in ((False, ""), (True, "!")):
        selections = (
            Selection(cgroup=(f"{mark}{path}",)),
            Selection(pid=(f"{mark}{flight.opener.pid}",)),
            Selection(uid=(f"{mark}0",)),
            Selection(comm=(f"{mark}python",)),
        )
        for selection in selections:
            with probing(built, hook, "memory", selection) as probe:
                assert flight.wanted(probe) == wanted, selection


def test_filters_of_what_has_a_cgroup_only(built: Path, stage: Stage, hook: str) -> None:
    """Of other things nothing is known."""
    flight = InFlight(stage)
    ours, theirs = (str(group.paths[0]) for group in (stage.a, stage.b))
    selections = (
        (Selection(cgroup=(ours,)), True),
        (Selection(cgroup=(theirs,)), False),
        (Selection(cgroup=(f"!{ours}",)), False),
        (Selection(cgroup=(ours,), pid=(str(flight.opener.pid),)), False),
    )
    for selection, wanted in selections:
        with probing(built, hook, "v2", selection) as probe:
            assert flight.wanted(probe) == wanted, selection


def test_kernel_thread_owns_nothing(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """One closes a socket that is in a unix socket that nobody can reach any more."""
    opener, peer = stage.player(stage.a), Server(stage.player(stage.c))
    pair = opener.do("loop", opener.connect(peer))
    peer.accept()
    with probing(built, hook, hierarchy) as probe:
        for unix in pair:
            opener.do("close", unix)
        probe.wait_for(opener.address, "state")
        assert probe.owners(opener.address) == {nobody_seen(opener, hierarchy)}
