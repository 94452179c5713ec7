# SPDX-License-Identifier: BSD-2-Clause
"""Large packets vanish on the way, and no ICMP tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import ip
from lab import PORT
from router_chain import chain, set_offload
from troubles import hanging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("mtu-blackhole")
def beyond_this_host(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart()
    server.listen()
    small = client.start("keep", to=server.address, port=PORT, workers=1)
    small.wait_for("ok", count=4)
    yield None
    line.set(max_size=1400)
    large = client.start("keep", to=server.address, port=PORT, size=20000)
    yield hanging(lab, large, client, server)


@fault("mtu-blackhole")
def stuck_upload(lab: Lab) -> Iterator[Trouble | None]:
    """An upload alone; nothing else talks."""
    client, line, server = lab.apart()
    server.listen("sink")
    yield None
    line.set(max_size=1400)
    large = client.start("upload", to=server.address, port=PORT, workers=2)
    yield hanging(lab, large, client, server)


@fault("mtu-blackhole")
def router_without_icmp(lab: Lab) -> Iterator[Trouble | None]:
    """A router of this host has a smaller MTU, and a firewall that drops all ICMP."""
    client, router, server = lab.routed()
    server.listen()
    kind = "icmp" if lab.family == 4 else "icmpv6 type packet-too-big"
    rule = f"meta l4proto {kind} drop" if lab.family == 4 else f"{kind} drop"
    lab.enter(router.firewall("output", rule))
    small = client.start("keep", to=server.address, port=PORT, workers=1)
    small.wait_for("ok", count=4)
    yield None
    ip("-n", router.netns, "link", "set", "e0", "mtu", "1400")
    large = client.start("keep", to=server.address, port=PORT, size=20000)
    yield hanging(lab, large, client, server)


@fault("mtu-blackhole")
def smaller_at_the_other_end(lab: Lab) -> Iterator[Trouble | None]:
    """The two ends of a link between routers differ: the smaller one drops, and tells nobody."""
    places = lab.enter(chain(2))
    lab.places += places
    client = lab.end("client", places[0], places[0].address(lab.family))
    server = lab.end("server", places[-1], places[-1].address(lab.family))
    set_offload(client.place, "e0", tso=False, gso=False)  # the device takes all of GSO
    server.listen()
    small = client.start("keep", to=server.address, port=PORT, workers=1)
    small.wait_for("ok", count=4)
    yield None
    ip("-n", places[2].netns, "link", "set", "w0", "mtu", "1300")
    large = client.start("keep", to=server.address, port=PORT, size=20000)
    yield hanging(lab, large, client, server)
