# SPDX-License-Identifier: BSD-2-Clause
"""SYNs leave this host, and nothing comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT
from troubles import unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("syn-unanswered")
def nothing_comes(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    line.lose(1)
    yield unanswered(calls, client, server.address)


@fault("syn-unanswered")
def kernel_gives_up(lab: Lab) -> Iterator[Trouble | None]:
    """The client waits as long as the kernel tries."""
    client, line, server = lab.apart()
    client.place.sysctl("net.ipv4.tcp_syn_retries", 1)
    line.lose(1)
    yield None
    calls = client.start("call", to=server.address, port=PORT, limit=None, workers=3)
    yield Trouble(
        "ETIMEDOUT of connect()",
        lambda: calls.count("ETIMEDOUT") > 0,
        (client,),
        (server.address,),
        PORT,
    )


@fault("syn-unanswered")
def other_signature(lab: Lab) -> Iterator[Trouble | None]:
    """Both sides sign (TCP MD5), with keys that differ."""
    client, _, server = lab.routed()
    how = {"address": server.address, "port": PORT}
    server.start("signed", **how, peer=client.address, key="one").wait_for("listening")
    yield None
    how = {"address": client.address, "port": PORT}
    calls = client.start("signed", **how, peer=server.address, key="two", calls=True)
    yield unanswered(calls, client, server.address)
