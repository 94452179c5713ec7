# SPDX-License-Identifier: BSD-2-Clause
"""Strict reverse path filtering: packets come by another device than answers would go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import ip
from lab import PORT
from troubles import unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


def _asymmetric(lab: Lab, mode: int) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    ip("-n", server.place.netns, "link", "add", "other", "type", "bridge")
    ip("-n", server.place.netns, "link", "set", "other", "up")
    high, low = client.address.split(".")[1:3]
    net = f"10.{high}.{low}.0/24"
    ip("-n", server.place.netns, "route", "replace", net, "dev", "other")
    for name in ("all", "w0"):
        server.place.sysctl(f"net.ipv4.conf.{name}.rp_filter", mode)
    calls.wait_for("timeout")
    yield unanswered(calls, client, server.address, server)


@fault("rp-filter", families=(4,))
def at_the_server(lab: Lab) -> Iterator[Trouble | None]:
    return _asymmetric(lab, 1)


@fault("rp-filter", families=(4,))
def at_the_router(lab: Lab) -> Iterator[Trouble | None]:
    """The client sends from an address whose route at the router leads elsewhere."""
    client, router, server = lab.routed()
    server.listen()
    ip("-n", client.place.netns, "addr", "add", "198.51.100.7/32", "dev", "e0")
    ip("-n", router.netns, "route", "add", "198.51.100.7/32", "dev", "w0")
    high, low = router.addresses_of("e0")[0].split(".")[1:3]
    gate = f"10.{high}.{low}.2"
    ip("-n", server.place.netns, "route", "add", "198.51.100.7/32", "via", gate)
    calls = client.start("call", to=server.address, port=PORT, source="198.51.100.7")
    calls.wait_for("ok")
    yield None
    ip("-n", router.netns, "route", "replace", "198.51.100.7/32", "dev", "e0")
    for name in ("all", "w0"):
        router.sysctl(f"net.ipv4.conf.{name}.rp_filter", 1)
    calls.wait_for("timeout")
    yield unanswered(calls, client, server.address)
