# SPDX-License-Identifier: BSD-2-Clause
"""Packets overtake each other on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("path-reordering")
def bulk(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart(0.01)
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT)
    sends.wait_for("sent")
    yield None
    line.set(late=0.02, late_s=0.03)

    def reordered() -> int:
        counters = tcp_counters(client.place.netns)
        return counters["TcpExtTCPSACKReorder"] + counters["TcpExtTCPTSReorder"]

    before = reordered()
    yield Trouble(
        "slow; TCPSACKReorder grows",
        lambda: reordered() > before + 5,
        (client,),
        (server.address,),
        PORT,
    )
