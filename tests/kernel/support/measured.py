# SPDX-License-Identifier: BSD-2-Clause
"""A client and a server with measured round trips, and the values of cgnet and the kernel."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from delay_line import RIGHT, delay_line
from harness import V2, tracing, wait_until
from owner_lab import Server
from rtt_callback import measuring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from delay_line import Line
    from harness import Row, Tracer
    from owner_lab import Group, Player, Stage
    from rtt_callback import Callback

DELAY_S, ROUND_TRIP_US = 0.011, 22_000
HOOKS = ("tp_btf", "raw_tp")
TCP_CONGESTION = 13
ALL = ("--slower", "0us")


class Ends(NamedTuple):
    """A client, a server, and the server's address."""

    client: Player
    server: Player
    listener: Server
    address: str
    places: tuple[str, ...]  # their network namespaces
    line: Line | None = None

    def options(self) -> list[str]:
        """Return those that show each sample of these namespaces: other ones have the same ports."""
        return [*ALL, *(part for each in self.places for part in ("--netns", f"/run/netns/{each}"))]

    def connect(self, congestion: str = "", loss: float = 0) -> tuple[int, int, int]:
        """Return a connection's two descriptors and the client's port; then start losses."""
        near = self.client.do("connect", "", self.address, self.listener.port)
        far = self.listener.accept()
        for player, fd in ((self.client, near), (self.server, far)):
            if congestion:
                player.do("set", fd, socket.IPPROTO_TCP, TCP_CONGESTION, congestion)
        if self.line:
            self.line.lose(loss)
        return near, far, self.client.do("local_port", near)

    def ping(self, near: int, far: int, rounds: int) -> None:
        self.server.begin("pong", far, rounds)
        self.client.do("ping", near, rounds)
        self.server.finish()

    def stream(self, near: int, far: int, count: int) -> None:
        self.server.begin("receive", far, count)
        self.client.do("stream", near, count)
        assert self.server.finish() == count

    def close(self, near: int, far: int) -> None:
        self.client.do("close", near)
        assert self.server.do("receive", far, 1) == 0
        self.server.do("close", far)


def on_loopback(stage: Stage) -> Ends:
    client, server = stage.player(stage.a), stage.player(stage.b)
    return Ends(client, server, Server(server), server.address, (stage.netns,))


@contextmanager
def at_distance(stage: Stage) -> Iterator[Ends]:
    """Yield ends with a known delay between them."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    with delay_line(DELAY_S) as line:
        client.do("enter", line.left)
        server.do("enter", line.right)
        listener = Server(server, address=RIGHT[4])
        yield Ends(client, server, listener, RIGHT[4], (line.left, line.right), line)


def path_in(group: Group, hierarchy: Path) -> Path:
    return next(path for path in group.paths if path.is_relative_to(hierarchy))


@contextmanager
def the_kernels_own(path: Path, stage: Stage) -> Iterator[list[Callback]]:
    with ExitStack() as stack:
        groups = (stage.a, stage.b)
        yield [stack.enter_context(measuring(path, path_in(each, V2))) for each in groups]


def measured(callbacks: list[Callback], port: int) -> Counter[tuple[int, int, int]]:
    both = callbacks[0].samples() + callbacks[1].samples()
    return Counter({key: count for key, count in both.items() if port in key[:2]})


def rows_of(tracer: Tracer, port: int) -> list[Row]:
    return [row for row in tracer.rows() if port in (row["sport"], row["dport"])]


def shown(rows: list[Row]) -> Counter[tuple[int, int, int]]:
    return Counter((row["sport"], row["dport"], row["rtt_us"]) for row in rows)


def last_samples(tracer: Tracer, port: int) -> list[Row]:
    """Return the rows of a connection once those of both FINs are there."""
    states = {"FIN_WAIT1", "LAST_ACK"}
    wait_until(
        lambda: f"FINs of {port}: {tracer}",
        lambda: states <= {row["tcp_state"] for row in rows_of(tracer, port)},
    )
    tracer.stop()
    return rows_of(tracer, port)


@contextmanager
def both_hooks(*options: str) -> Iterator[dict[str, Tracer]]:
    with ExitStack() as stack:
        yield {
            hook: stack.enter_context(tracing("--hook", hook, *options, command="rtt"))
            for hook in HOOKS
        }


def check_histogram(row: Row, values: list[int]) -> None:
    """Assert that a row is the histogram of these values."""
    ordered = sorted(values)
    count = len(values)
    assert (row["count"], row["min_us"], row["max_us"]) == (count, ordered[0], ordered[-1])
    assert row["avg_us"] == round(sum(values) / count)
    assert sum(bucket[2] for bucket in row["buckets"]) == count
    for low, high, there in row["buckets"]:
        assert there == sum(low < value <= high for value in values), row
    assert row["buckets"][0][2]
    assert row["buckets"][-1][2]
    for percent in (50, 90, 99):
        true = ordered[-(-count * percent // 100) - 1]
        told, error = row[f"p{percent}_us"], row[f"p{percent}_error_us"]
        assert abs(told - true) <= min(error, true * 0.0443 + 1), (percent, row)
