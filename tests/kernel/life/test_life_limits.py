# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life``: what limited a connection, beside what its socket tells in TCP_INFO."""

from __future__ import annotations

import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from delay_line import RIGHT, delay_line
from harness import tracing, wait_until
from lives import rows_of, the_end, within
from owner_lab import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delay_line import Line
    from harness import Row, Tracer
    from owner_lab import Player, Stage

# Members of struct tcp_info, by the row's fields.
CLOCKS = {"busy_us": 168, "rwnd_limited_us": 176, "sndbuf_limited_us": 184}
SAME = {"reordering": ("I", 88), "dsack_dups": ("I", 216), "delivery_rate": ("Q", 160)}
UNACKED = 24
TICK_US = int(time.clock_getres(6) * 1e6)  # CLOCK_MONOTONIC_COARSE
SO_SNDBUF, SO_RCVBUF = 7, 8
LIMITED_US = 100_000


class Scene(NamedTuple):
    """A connection over a line of 10 ms, with ``life`` running."""

    line: Line
    tracer: Tracer
    client: Player
    near: int
    server: Player
    far: int

    @property
    def port(self) -> int:
        return int(self.client.do("local_port", self.near))

    def told(self, field: str) -> int:
        return clock(bytes.fromhex(self.client.do("tcp_info", self.near)), field)

    def unacked(self) -> int:
        info = bytes.fromhex(self.client.do("tcp_info", self.near))
        return int(struct.unpack_from("I", info, UNACKED)[0])

    def stream(self, count: int) -> None:
        self.server.begin("receive", self.far, count)
        self.client.do("stream", self.near, count)
        assert self.server.finish() == count
        wait_until("acknowledged", lambda: not self.unacked())

    def end(self) -> Row:
        """Reset the connection; return its row, which must tell what TCP_INFO did."""
        port = self.port
        told, seconds = self.client.do("reset_after_tcp_info", self.near)
        row, info = the_end(self.tracer, port), bytes.fromhex(told)
        slack = seconds * 1e6 + 2 * TICK_US
        for field in CLOCKS:
            assert 0 <= row[field] - clock(info, field) <= slack, (field, row)
        same = {name: struct.unpack_from(form, info, at)[0] for name, (form, at) in SAME.items()}
        assert row == row | same | {"delivery_rate": same["delivery_rate"] or None}
        return row


def clock(info: bytes, field: str) -> int:
    return int(struct.unpack_from("Q", info, CLOCKS[field])[0])


@contextmanager
def scene(stage: Stage, hook: str, *options: str, sndbuf: int = 0) -> Iterator[Scene]:
    client, server = stage.player(stage.a), stage.player(stage.b)
    with delay_line(0.005) as line:
        client.do("enter", line.left)
        server.do("enter", line.right)
        listener = Server(server, address=RIGHT[4])
        chosen = ("--hook", hook, "--role", "client", *within(line.left), *options)
        with tracing(*chosen, command="life") as tracer:
            near = client.do("connect", "", RIGHT[4], listener.port)
            if sndbuf:
                client.do("set", near, 1, SO_SNDBUF, sndbuf)
            yield Scene(line, tracer, client, near, server, listener.accept())


def test_a_connection_that_nothing_limits(hook: str, stage: Stage) -> None:
    with scene(stage, hook) as made:
        made.stream(3)
        wait_until("acknowledged", lambda: made.unacked() == 0)
        row = made.end()
    assert (row["rwnd_limited_us"], row["sndbuf_limited_us"], row["dsack_dups"]) == (0, 0, 0)
    assert row["busy_us"] >= 2 * TICK_US
    assert row["delivery_rate"] > 0


def test_a_connection_that_sends_nothing(hook: str, stage: Stage) -> None:
    with scene(stage, hook) as made:
        row = made.end()
    assert (row["busy_us"], row["delivery_rate"]) == (0, None)


def test_a_receiver_that_does_not_read(hook: str, stage: Stage) -> None:
    """Also while it is open."""
    with scene(stage, hook, "-i", "0.2") as made:
        made.server.do("set", made.far, 1, SO_RCVBUF, 4096)

        def is_limited() -> bool:
            made.client.do("fill", made.near)
            return made.told("rwnd_limited_us") >= LIMITED_US

        wait_until("limited by the window", is_limited)
        wait_until(
            lambda: f"an open row: {made.tracer}",
            lambda: any(
                row["rwnd_limited_us"] for row in rows_of(made.tracer, made.port, opened=True)
            ),
        )
        row = made.end()
    assert row["busy_us"] >= row["rwnd_limited_us"] >= LIMITED_US


def test_a_small_send_buffer(hook: str, stage: Stage) -> None:
    with scene(stage, hook, sndbuf=1) as made:  # the least there is
        made.stream(3_000_000)
        row = made.end()
    assert row["busy_us"] >= row["sndbuf_limited_us"] >= LIMITED_US
    assert row["rwnd_limited_us"] < row["sndbuf_limited_us"]


def test_lost_packets(hook: str, stage: Stage) -> None:
    """Data that is sent again because its acknowledgement is lost arrives twice."""
    with scene(stage, hook) as made:
        made.line.lose(0.2)
        for _ in range(40):
            made.stream(3000)
        made.line.lose(0)
        made.stream(1)
        row = made.end()
    assert row["retrans"] > 0
    assert row["dsack_dups"] > 0
