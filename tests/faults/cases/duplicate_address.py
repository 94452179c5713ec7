# SPDX-License-Identifier: BSD-2-Clause
"""Two hosts have one address: packets go to the one that was heard last."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import ip, new_netns
from lab import PORT
from two_containers import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab


def _set_up(lab: Lab, *, serves: bool) -> tuple[End, End, End]:
    """Make a client and two that have one address at a switch; the second is down, and may serve."""
    number = uuid.uuid4().int % 250 + 1
    switch = lab.enter(new_netns())
    ip("-n", switch, "link", "add", "br0", "type", "bridge")
    ip("-n", switch, "link", "set", "br0", "up")
    ends = []
    for name, host in (("client", 2), ("server", 1), ("double", 1)):
        place = Place(lab.enter(new_netns()))
        port = ("peer", "name", name, "netns", switch)
        ip("link", "add", "e0", "netns", place.netns, "type", "veth", *port)
        ip("-n", switch, "link", "set", name, "master", "br0", "up")
        place.add_device("e0", f"{number}.1.{host}")
        ends.append(lab.end(name, place, place.address(lab.family)))
    client, server, double = ends
    ip("-n", double.place.netns, "link", "set", "e0", "down")
    server.listen()
    if serves:
        double.listen()
    return client, server, double


def _both_announce(client: End, server: End, double: End, calls: App) -> Trouble:
    """The second comes up and announces itself, as the first does."""
    ip("-n", double.place.netns, "link", "set", "e0", "up")
    for end, offset in ((server, 0), (double, 0.7)):
        end.start("announce", device="e0", address=end.address, every=1.4, offset=offset)
    calls.wait_for("ECONNRESET", "ECONNREFUSED")
    return Trouble(
        "ECONNRESET, ECONNREFUSED now and then",
        lambda: calls.count("ECONNRESET", "ECONNREFUSED") > 2,
        (client,),
        (server.address,),
        PORT,
    )


@fault("duplicate-address", families=(4,))
def two_servers(lab: Lab) -> Iterator[Trouble | None]:
    """The second has no such service."""
    client, server, double = _set_up(lab, serves=False)
    calls = client.start("keep", to=server.address, port=PORT, limit=3)
    calls.wait_for("ok")
    yield None
    yield _both_announce(client, server, double, calls)


@fault("duplicate-address", families=(4,))
def both_serve(lab: Lab) -> Iterator[Trouble | None]:
    """Both have the service, and each knows its own connections alone."""
    client, server, double = _set_up(lab, serves=True)
    calls = client.start("keep", to=server.address, port=PORT, limit=3)
    calls.wait_for("ok")
    yield None
    yield _both_announce(client, server, double, calls)
