# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life``: every way in which a connection ends, made on purpose, and one row for each end."""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner
from delay_line import LEFT, RIGHT, delay_line
from harness import HIERARCHY, Workload, in_netns, need, tracing, wait_until
from kernel_maps import rewrite
from owner_lab import Server, Stage
from raw_peer import PEER, peer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delay_line import Line
    from harness import Row, Tracer
    from owner_lab import Player

DELAY_S = 0.01
TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT = 4, 5, 6, 18
LINGER = "TCP_STATE"  # what the kernel calls a reset of tcp_disconnect()


class End(NamedTuple):
    """How a row tells an end."""

    closed_by: str
    close_cause: str
    tcp_state: str
    rst_reason: str | None = None


class Pair:
    """Both ends of a connection."""

    def __init__(self, line: Line, client: Player, server: Server, family: int) -> None:
        self.line, self.client, self.server = line, client, server.player
        self.family, self.listening = family, server.port
        self.near = client.do("connect", "", RIGHT[family], server.port)
        self.far = server.player.do("accept", server.fd)
        self.port = client.do("local_port", self.near)
        self.ports = self.port, self.listening

    def kill(self) -> None:
        """As an administrator does."""
        where = ["sport", "=", f":{self.port}"]
        assert in_netns(self.line.left, need("ss"), "-KHtn", *where).strip()


def fin_first(pair: Pair) -> None:
    pair.client.do("close", pair.near)
    assert pair.server.do("receive", pair.far, 1) == 0
    pair.server.do("close", pair.far)


def both_at_once(pair: Pair) -> None:
    pair.client.begin("close", pair.near)
    pair.server.begin("close", pair.far)
    pair.client.finish()
    pair.server.finish()


def half_closed(pair: Pair) -> None:
    pair.client.do("shut_down", pair.near, socket.SHUT_WR)
    assert pair.server.do("receive", pair.far, 1) == 0
    pair.server.do("send", pair.far, 3)
    pair.server.do("close", pair.far)
    assert pair.client.do("receive", pair.near, 4) == 3
    pair.client.do("close", pair.near)


def linger_of_0(pair: Pair) -> None:
    pair.client.do("close", pair.near, "reset")


def unread_data(pair: Pair) -> None:
    pair.server.do("send", pair.far, 3)
    pair.client.do("await_data", pair.near, 3)
    pair.client.do("close", pair.near)


def disconnected(pair: Pair) -> None:
    pair.client.do("disconnect", pair.near)
    pair.client.do("close", pair.near)


def reset_after_fin(pair: Pair) -> None:
    pair.client.do("shut_down", pair.near, socket.SHUT_WR)
    assert pair.server.do("receive", pair.far, 1) == 0
    pair.server.do("send", pair.far)
    assert pair.client.do("receive", pair.near, 1) == 1  # and with it the FIN's ACK
    pair.client.do("close", pair.near, "reset")


def late_data(pair: Pair) -> None:
    """What is on its way when the application closes."""
    pair.server.do("send", pair.far, 1)
    pair.client.do("close", pair.near)


def late_data_while_open(pair: Pair) -> None:
    """Likewise; the application keeps the socket."""
    pair.server.do("send", pair.far, 1)
    pair.client.do("shut_down", pair.near, socket.SHUT_RDWR)


def killed(pair: Pair) -> None:
    pair.kill()


def killed_after_fin(pair: Pair) -> None:
    pair.server.do("close", pair.far)
    assert pair.client.do("receive", pair.near, 1) == 0
    pair.kill()


PEER_RESET = End("peer", "rst", "ESTABLISHED")
ENDS = {
    fin_first: (End("local", "fin", "FIN_WAIT2"), End("peer", "fin", "LAST_ACK")),
    both_at_once: (End("local", "fin", "CLOSING"), End("local", "fin", "CLOSING")),
    half_closed: (End("local", "fin", "FIN_WAIT2"), End("peer", "fin", "LAST_ACK")),
    linger_of_0: (End("local", "rst", "ESTABLISHED", LINGER), PEER_RESET),
    unread_data: (End("local", "rst", "ESTABLISHED", "TCP_ABORT_ON_CLOSE"), PEER_RESET),
    disconnected: (End("local", "rst", "ESTABLISHED", LINGER), PEER_RESET),
    reset_after_fin: (
        End("local", "rst", "FIN_WAIT2", LINGER),
        End("peer", "rst", "CLOSE_WAIT"),
    ),
    late_data: (
        End("local", "rst", "FIN_WAIT1", "TCP_ABORT_ON_DATA"),
        End("peer", "rst", "CLOSE_WAIT"),
    ),
    late_data_while_open: (
        End("local", "rst", "FIN_WAIT1", "TCP_ABORT_ON_DATA"),
        End("peer", "rst", "CLOSE_WAIT"),
    ),
    killed: (End("kernel", "abort", "ESTABLISHED", LINGER), PEER_RESET),
    killed_after_fin: (
        End("kernel", "abort", "CLOSE_WAIT", LINGER),
        End("local", "fin", "FIN_WAIT2"),
    ),
}


class Scene:
    """Two players at the ends of a line, and both hooks that look at them."""

    def __init__(self, stage: Stage, line: Line, tracers: dict[str, Tracer]) -> None:
        self.line, self.tracers = line, tracers
        self.stage = stage
        self.client, self.server = stage.player(stage.a), stage.player(stage.b)
        self.client.do("enter", line.left)
        self.server.do("enter", line.right)

    def listen(self, family: int) -> Server:
        return Server(self.server, address=RIGHT[family])

    def rows(self, tracer: Tracer, client_port: int, server_port: int) -> list[Row]:
        """Return the rows of a connection, the client's first."""
        ports = {client_port, server_port}
        found = [row for row in tracer.rows() if {row["sport"], row["dport"]} == ports]
        return sorted(found, key=lambda row: row["sport"] == server_port)

    def check(self, row: Row, player: Player, end: End, hook: str) -> None:
        reason = end.rst_reason if hook == "tp_btf" else None
        told = tuple(row[name] for name in End._fields)
        assert told == end._replace(rst_reason=reason), (hook, row)
        path = next(path for path in player.group.paths if path.is_relative_to(HIERARCHY))
        assert (row["pid"], row["cgroup"]) == (player.pid, inner(path, HIERARCHY)), row
        assert row["role"] == ("client" if player is self.client else "server")
        assert row["open"] is False
        names = ("tx_bytes", "rx_bytes", "retrans")
        assert [row[f"{name}_delta"] for name in names] == [row[name] for name in names]


@contextmanager
def a_scene(stage: Stage, *options: str) -> Iterator[Scene]:
    with (
        delay_line(DELAY_S) as line,
        tracing("--hook", "tp_btf", *options, command="life") as typed,
        tracing("--hook", "raw_tp", *options, command="life") as raw,
    ):
        yield Scene(stage, line, {"tp_btf": typed, "raw_tp": raw})


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    with a_scene(stage) as scene:
        yield scene


def check_pairs(scene: Scene, pairs: list[tuple[Pair, tuple[End, End]]]) -> None:
    """Two rows for each connection: at its ends, and no more when everything is closed."""
    for hook, tracer in scene.tracers.items():
        for pair, expected in pairs:
            wait_until(
                lambda hook=hook, expected=expected: f"{hook} {expected}",
                lambda tracer=tracer, pair=pair: len(scene.rows(tracer, *pair.ports)) > 1,
            )
            rows = scene.rows(tracer, *pair.ports)
            for row, player, end in zip(rows, (pair.client, pair.server), expected, strict=True):
                scene.check(row, player, end, hook)
                assert row["family"] == pair.family
                assert row["duration_us"] >= 0
                assert DELAY_S * 2e6 <= row["handshake_us"] < 1e6, row
    scene.client.leave()
    scene.server.leave()
    for tracer in scene.tracers.values():
        tracer.stop()
        for pair, _ in pairs:
            assert len(scene.rows(tracer, *pair.ports)) == 2


def test_ends(scene: Scene) -> None:
    pairs = []
    for family in (4, 6):
        server = scene.listen(family)
        for end, expected in ENDS.items():
            pair = Pair(scene.line, scene.client, server, family)
            end(pair)
            pairs.append((pair, expected))
    check_pairs(scene, pairs)


def test_listener_closes_before_it_accepts(scene: Scene) -> None:
    made = []
    for family in (4, 6):
        server = scene.listen(family)
        fd = scene.client.do("connect", "", RIGHT[family], server.port)
        made.append((scene.client.do("local_port", fd), server.port))
        scene.server.do("await_event", server.fd)
        scene.server.do("close", server.fd)
        scene.client.do("wait_for_error", fd)
    for hook, tracer in scene.tracers.items():
        for ports in made:
            wait_until("two rows", lambda t=tracer, p=ports: len(scene.rows(t, *p)) == 2)
            mine, theirs = scene.rows(tracer, *ports)
            scene.check(mine, scene.client, PEER_RESET, hook)
            scene.check(theirs, scene.server, End("local", "rst", "ESTABLISHED", LINGER), hook)
            assert theirs["owner_source"] == "inherited"


def test_no_life_was_led(scene: Scene) -> None:
    """Who is refused, or gives up, wasn't connected."""
    ports = [4, 6]
    for family in (4, 6):
        server = scene.listen(family)
        scene.server.do("close", server.fd)
        ports[ports.index(family)] = server.port
        with pytest.raises(AssertionError, match="ConnectionRefused"):
            scene.client.do("connect", "", RIGHT[family], server.port)
    server = scene.listen(4)
    pair = Pair(scene.line, scene.client, server, 4)
    fin_first(pair)
    for tracer in scene.tracers.values():
        wait_until(
            "the row after them",
            lambda t=tracer: len(scene.rows(t, *pair.ports)) == 2,
        )
        assert not [row for row in tracer.stop() if {row["sport"], row["dport"]} & set(ports)]


def test_time_outs(scene: Scene) -> None:
    """The peer falls silent: a time-out of the user's, of keepalive, and of what nobody has open."""
    in_netns(scene.line.left, "sysctl", "-qw", "net.ipv4.tcp_orphan_retries=1")
    client = scene.client
    made = []
    for family in (4, 6):
        server = scene.listen(family)
        user, keepalive, orphan = (Pair(scene.line, client, server, family) for _ in range(3))
        client.do("set", user.near, socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 300)
        for name in (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT):
            client.do("set", keepalive.near, socket.IPPROTO_TCP, name, 1)
        client.do("set", keepalive.near, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made += [
            (user, End("kernel", "timeout", "ESTABLISHED")),
            (keepalive, End("kernel", "timeout", "ESTABLISHED", "TCP_KEEPALIVE_TIMEOUT")),
            (orphan, End("kernel", "timeout", "FIN_WAIT1")),
        ]
    scene.line.lose(1)
    for pair, end in made:
        if end.tcp_state == "FIN_WAIT1":
            client.do("close", pair.near)
        elif end.rst_reason is None:
            client.do("send", pair.near)
    for hook, tracer in scene.tracers.items():
        for pair, end in made:
            (row,) = wait_until(f"{hook} {end}", lambda p=pair, t=tracer: scene.rows(t, *p.ports))
            scene.check(row, client, end, hook)
            assert row["daddr"] == RIGHT[pair.family]
            assert row["saddr"] == LEFT[pair.family]
            assert row["tx_bytes"] == 0


ESTABLISHED_NS = 16 + 8  # in struct ledger_entry: the time that a connection was established
SLOT_HEAD = 16  # of struct ledger_slot, before the entry


def test_end_that_no_program_saw_is_told(hook: str) -> None:
    """As if it had been established: what TCP_SYN_SENT ends with makes no row."""
    with peer("silence") as (netns, _), tracing("--hook", hook, command="life") as tracer:
        workload = Workload("held", PEER, 80, netns=netns)
        workload.begin()
        wait_until("SYN_SENT", lambda: PEER in in_netns(netns, "ss", "-tn", "state", "syn-sent"))
        name, entry = ("ledger_slots", SLOT_HEAD) if hook == "tp_btf" else ("ledger_hash", 0)

        def establish(value: bytearray) -> bool:
            if (
                workload.process.pid.to_bytes(4, sys.byteorder) not in value[entry:]
            ):  # who opened it
                return False
            value[entry + ESTABLISHED_NS] = 1
            return True

        assert rewrite(tracer.process.pid, name, establish) == 1
        workload.begin()
        workload.finish()
        tracer.wait_said("lost 1 (ends)")
        tracer.stop()
        assert sum(row["count"] for row in tracer.rows("lost") if row["where"] == "ends") == 1
