# SPDX-License-Identifier: BSD-2-Clause
"""The far end is gone, and no packet told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import ip
from lab import PORT
from troubles import hanging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("peer-vanished")
def keepalive(lab: Lab) -> Iterator[Trouble | None]:
    """Idle connections whose keepalive finds nobody; some have found out already."""
    client, line, server = lab.apart()
    server.listen()
    held = [
        client.start("hold", to=server.address, port=PORT, count=2, wait=True, keepalive=seconds)
        for seconds in (1, 4, 5)
    ]
    for each in held:
        each.wait_for("ok", count=2)
    yield None
    line.lose(1)
    yield Trouble(
        "ETIMEDOUT of recv()",
        lambda: held[0].count("ETIMEDOUT") > 0,
        (client,),
        (server.address,),
        PORT,
    )


@fault("peer-vanished")
def in_a_request(lab: Lab) -> Iterator[Trouble | None]:
    """Requests are sent again and again; TCP_USER_TIMEOUT ends some."""
    client, line, server = lab.apart()
    server.listen()
    limits = (3000, 60000)
    keeps = [
        client.start("keep", to=server.address, port=PORT, again=False, user_timeout=each)
        for each in limits
    ]
    for each in keeps:
        each.wait_for("ok", count=4)
    yield None
    line.lose(1)
    yield Trouble(
        "ETIMEDOUT, or requests that hang",
        lambda: keeps[0].count("ETIMEDOUT") > 0,
        (client,),
        (server.address,),
        PORT,
    )


@fault("peer-vanished")
def link_is_down(lab: Lab) -> Iterator[Trouble | None]:
    """The server's device is down: the router drops each segment before it."""
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    ip("-n", server.place.netns, "link", "set", "w0", "down")
    yield hanging(lab, keeps, client, server)
