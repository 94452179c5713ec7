# SPDX-License-Identifier: BSD-2-Clause
"""A receive buffer too small for the path: the reader is fast, the sender waits for windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("receive-buffer-small")
def so_rcvbuf(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart(0.02)
    server.listen("sink", rcvbuf=8192)
    yield None
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield Trouble(
        "some 200 kB/s, where a window of the default size gives megabytes",
        lambda: sends.count("sent") > 2 and sends.reports[-1]["bytes"] < 1_000_000,
        (server,),
        (server.address,),
        PORT,
    )


@fault("receive-buffer-small")
def tcp_rmem(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart(0.02)
    server.place.sysctl("net.ipv4.tcp_rmem", "4096 8192 8192")
    server.listen("sink")
    yield None
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield Trouble(
        "some 200 kB/s, where a window of the default size gives megabytes",
        lambda: sends.count("sent") > 2 and sends.reports[-1]["bytes"] < 1_000_000,
        (server,),
        (server.address,),
        PORT,
    )
