# SPDX-License-Identifier: BSD-2-Clause
"""A socket is whose who first reads from it, else whose who opened it; some nobody is seen to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attribution import probing
from harness import HIERARCHY_NAME, in_netns, ip, wait_until
from owner_lab import Server, nobody_seen

if TYPE_CHECKING:
    from pathlib import Path

    from attribution import Owner, Probe
    from owner_lab import Player, Stage


def told(probe: Probe, address: str) -> Owner:
    """Return who owns what happened at an address since the last time."""
    owners: set[Owner] = wait_until(f"an event of {address}", lambda: probe.owners(address))
    (owner,) = owners
    probe.forget()
    return owner


class End:
    """One end of a connection, whose other end does nothing of its own."""

    def __init__(self, stage: Stage, opener: Player, *how: str, peer: Server | None = None) -> None:
        self.opener, self.user, self.unread = opener, opener, 0
        self.peer = peer or Server(stage.player(stage.c), *how)
        self.fd = opener.connect(self.peer, *how)
        self.theirs = self.peer.accept()

    def told(self, probe: Probe) -> Owner:
        """Let something come, which isn't read yet; return whose it is."""
        probe.forget()
        self.peer.player.do("send", self.theirs, 3)
        self.unread += 3
        return told(probe, self.opener.address)

    def read(self) -> None:
        assert self.user.do("receive", self.fd, self.unread) == self.unread
        self.unread = 0

    def send_to(self, other: Player) -> None:
        """Through a unix socket."""
        self.fd, self.user = self.user.hand(self.fd, other), other

    def give_to_child(self, other: Player) -> None:
        """It has it since fork()."""
        self.user.do("close", self.fd)
        self.user = other


def opened(stage: Stage, way: str) -> tuple[End, Player]:
    """Return a connection of cgroup a, and a process of b that it can be given to."""
    opener = stage.player(stage.a)
    end = End(stage, opener)
    return end, opener.fork(stage.b) if way == "give_to_child" else stage.player(stage.b)


WAYS = ("send_to", "give_to_child")


def test_who_reads_first(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    with probing(built, hook, hierarchy) as probe:
        for way in WAYS:
            end, other = opened(stage, way)
            opener = end.opener
            assert end.told(probe) == opener.is_told(hierarchy, "learned")
            getattr(end, way)(other)
            other.do("send", end.fd)
            assert end.told(probe) == opener.is_told(hierarchy, "learned")
            end.read()
            assert end.told(probe) == other.is_told(hierarchy, "learned")
            third = stage.player(stage.c)
            end.send_to(third)
            end.read()
            assert end.told(probe) == other.is_told(hierarchy, "learned")


def test_given_away_before_the_start(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    ends = []
    for way in WAYS:
        end, other = opened(stage, way)
        getattr(end, way)(other)
        ends.append(end)
    with probing(built, hook, hierarchy) as probe:
        for end in ends:
            assert end.told(probe) == end.user.is_told(hierarchy, "seeded")
            third = stage.player(stage.c)
            end.send_to(third)
            assert end.told(probe) != third.is_told(hierarchy, "learned")
            end.read()
            assert end.told(probe) == third.is_told(hierarchy, "learned")


class Activation:
    """One process listens, another one gets the listener with its program."""

    def __init__(self, stage: Stage) -> None:
        self.server = Server(stage.player(stage.a))
        self.opener = self.server.player
        self.worker = self.opener.fork(stage.b)
        self.worker.do("execute")
        self.client = stage.player(stage.c)

    def check(self, probe: Probe, listens: Player) -> None:
        ours = self.client.connect(self.server)
        theirs = self.worker.do("accept", self.server.fd)
        owners = (
            listens.is_told(probe.hierarchy, "inherited"),
            self.worker.is_told(probe.hierarchy, "learned"),
        )
        for owner in owners:
            probe.forget()
            self.client.do("send", ours, 3)
            assert told(probe, self.opener.address) == owner
            assert self.worker.do("receive", theirs, 3) == 3


def test_listener_is_handed_on(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """As by systemd. Of those that had it open at the start the one of the lowest PID is taken."""
    early = Activation(stage)
    with probing(built, hook, hierarchy) as probe:
        early.check(probe, min(early.opener, early.worker, key=lambda player: player.pid))
        late = Activation(stage)
        late.check(probe, late.opener)


def test_waits_for_accept_since_before(
    built: Path, stage: Stage, hook: str, hierarchy: str
) -> None:
    server, client = Server(stage.player(stage.a)), stage.player(stage.b)
    ours = client.connect(server)
    wait_until("the connection", lambda: server.player.do("ready", server.fd))
    with probing(built, hook, hierarchy) as probe:
        for source in ("inherited", "learned"):
            client.do("send", ours, 3)
            assert told(probe, server.player.address) == server.player.is_told(hierarchy, source)
            if source == "inherited":
                theirs = server.accept()
                assert server.player.do("receive", theirs, 3) == 3


def test_read_before_it_is_established(built: Path, stage: Stage, hook: str) -> None:
    """Data that came with the SYN are read; only then comes the last packet of the handshake."""
    server, client = Server(stage.player(stage.a), "fastopen"), stage.player(stage.c)
    worker = server.player.fork(stage.b)
    rules = (
        "add table ip t",
        "add chain ip t c { type filter hook input priority 0; }",
        f"add rule ip t c ip saddr {client.address} tcp flags & syn == 0 drop",
    )
    client.do("close", client.connect(server, "fastopen"))  # it has the cookie now
    worker.do("accept", server.fd)
    with probing(built, hook, HIERARCHY_NAME) as probe:
        in_netns(stage.netns, "nft", "; ".join(rules))
        ours = client.connect(server, "fastopen")
        theirs = worker.do("accept", server.fd)
        assert worker.do("receive", theirs, 1) == 1
        assert not probe.of(server.player.address, "established")
        in_netns(stage.netns, "nft", "delete table ip t")
        client.do("send", ours)
        (row,) = probe.wait_for(server.player.address, "established")
        owner = (row.cgroup, row.pid, row.source)
        assert owner == worker.is_told(HIERARCHY_NAME, "learned")


def mptcp_connections(stage: Stage) -> int:
    """Count those that were MPTCP to the end of the handshake."""
    names, values = (
        line.split()
        for line in in_netns(stage.netns, "cat", "/proc/net/netstat").splitlines()
        if line.startswith("MPTcpExt:")
    )
    return int(values[names.index("MPCapableACKRX")])


def test_subflows_of_mptcp(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """A listener that two processes have is known, too. Reading isn't seen: the opener stays."""
    listens = Server(stage.player(stage.b), "mptcp")
    listens.player.fork(stage.c)
    early = End(stage, stage.player(stage.a), "mptcp")
    with probing(built, hook, hierarchy) as probe:
        half = End(stage, stage.player(stage.a), "mptcp", peer=listens)
        late = End(stage, stage.player(stage.a), "mptcp")
        for end in (early, half, late):
            client, server = end.opener, end.peer.player
            assert end.told(probe)[:2] == client.is_told(hierarchy, "")[:2]
            end.read()
            probe.forget()
            client.do("send", end.fd, 3)
            cgroup, pid, source = told(probe, server.address)
            assert (cgroup, pid) == server.is_told(hierarchy, "")[:2]
            # The first event may be one that a user brings.
            assert source in (("seeded", "learned") if end is early else ("inherited",))
    assert mptcp_connections(stage) == 3


def is_joined(end: End) -> End:
    """Data have come both ways: from now on the connection may have more subflows."""
    end.user.do("send", end.fd)
    end.peer.player.do("receive", end.theirs, 1)
    end.peer.player.do("send", end.theirs)
    end.user.do("receive", end.fd, 1)
    return end


def test_subflows_that_others_open(built: Path, stage: Stage, hook: str, hierarchy: str) -> None:
    """The kernel's threads, and who adds an address: here each end gets a subflow from it."""
    ip("-n", stage.netns, "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
    early, address = is_joined(End(stage, stage.player(stage.a), "mptcp")), stage.new_address()
    with probing(built, hook, hierarchy) as probe:
        ip("-n", stage.netns, "mptcp", "endpoint", "add", address, "subflow")
        owners = {
            early.opener.is_told(hierarchy, "seeded"),
            early.peer.player.is_told(hierarchy, "seeded"),
        }
        wait_until("a subflow of each end", lambda: probe.owners(address) >= owners)
        assert probe.owners(address) == owners
        late = is_joined(End(stage, stage.player(stage.b), "mptcp"))
        owners.add(late.opener.is_told(hierarchy, "learned"))
        wait_until("a subflow of the other", lambda: probe.owners(address) >= owners)
        # Of connections that were accepted meanwhile the kernel's word is taken.
        owners.add(nobody_seen(late.peer.player, hierarchy))
        assert probe.owners(address) <= owners
