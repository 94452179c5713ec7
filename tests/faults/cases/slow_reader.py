# SPDX-License-Identifier: BSD-2-Clause
"""The receiver's application doesn't read, or slowly: the window closes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("slow-reader")
def reads_slowly(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("sink", rate=50_000, chunk=4096)
    yield None
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("connected", count=2)
    before = tcp_counters(server.place.netns)["TcpExtTCPToZeroWindowAdv"]
    yield Trouble(
        "sending stalls; zero windows",
        lambda: tcp_counters(server.place.netns)["TcpExtTCPToZeroWindowAdv"] > before,
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-reader")
def stops_to_read(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("sink", stop_after=3_000_000)
    yield None
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    lab.wait(
        "a zero window",
        lambda: tcp_counters(server.place.netns)["TcpExtTCPToZeroWindowAdv"] >= 2,
    )
    begin = time.monotonic() + 1
    yield Trouble(
        "send() blocks for ever",
        lambda: time.monotonic() > begin + 1 and not sends.count("sent", since=begin),
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-reader")
def client_reads_slowly(lab: Lab) -> Iterator[Trouble | None]:
    """A client that doesn't take what it asked for."""
    client, _, server = lab.routed()
    server.listen("source")
    yield None
    client.start("hold", to=server.address, port=PORT, count=2).wait_for("ok", count=2)
    lab.wait(
        "a zero window",
        lambda: tcp_counters(client.place.netns)["TcpExtTCPToZeroWindowAdv"] >= 2,
    )
    yield Trouble(
        "the server's send() blocks for ever",
        lambda: tcp_counters(client.place.netns)["TcpExtTCPToZeroWindowAdv"] >= 2,
        (client,),
        (client.address, server.address),
        None,
    )
