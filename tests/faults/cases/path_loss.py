# SPDX-License-Identifier: BSD-2-Clause
"""Packets are lost on the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delay_line import Line
    from lab import End, Lab


def _lossy(line: Line, client: End, server: End, least: int) -> Trouble:
    lost = line.lose(0)
    before = tcp_counters(client.place.netns)["TcpRetransSegs"]
    return Trouble(
        "slow; retransmissions",
        lambda: (
            line.set() > lost + least
            and tcp_counters(client.place.netns)["TcpRetransSegs"] > before + least
        ),
        (client,),
        (server.address,),
        PORT,
    )


@fault("path-loss")
def bulk(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT)
    sends.wait_for("sent")
    yield None
    trouble = _lossy(line, client, server, 10)
    line.lose(0.05)
    yield trouble


@fault("path-loss")
def requests(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT, workers=4, size=5000)
    keeps.wait_for("ok", count=8)
    yield None
    trouble = _lossy(line, client, server, 5)
    line.lose(0.15)
    yield trouble


@fault("path-loss")
def handshakes(lab: Lab) -> Iterator[Trouble | None]:
    """A connection a request: some take a second longer."""
    client, line, server = lab.apart()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT, workers=6, limit=None)
    calls.wait_for("ok", count=8)
    yield None
    line.lose(0.15)
    begin = time.monotonic()
    lab.wait("a call that takes a second", lambda: calls.slowest(begin) > 0.9)
    yield Trouble(
        "some calls take a second, or more",
        lambda: calls.slowest(begin) > 0.9 and calls.count("ok", since=begin) > 4,
        (client,),
        (server.address,),
        PORT,
    )
