# SPDX-License-Identifier: BSD-2-Clause
"""A queueing discipline of this host limits the rate, and drops what is more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import in_netns
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab
    from two_containers import Place


def _dropped(place: Place) -> bool:
    text = in_netns(place.netns, "tc", "-s", "qdisc", "show", "dev", "e0")
    return "dropped 0," not in text


@fault("qdisc-limit")
def tbf_at_the_client(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield None
    lab.enter(client.place.shaper(rate="2mbit", burst="5000", limit="10000"))
    lab.wait("drops of the queue", lambda: _dropped(client.place))
    yield Trouble(
        "2 Mbit/s; tc -s shows drops",
        lambda: _dropped(client.place),
        (client,),
        (server.address,),
        PORT,
    )


@fault("qdisc-limit")
def tbf_at_the_router(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield None
    number = router.devices.index("e0")
    lab.enter(router.shaper(number, rate="2mbit", burst="5000", limit="10000"))
    lab.wait("drops of the queue", lambda: _dropped(router))
    yield Trouble(
        "2 Mbit/s; tc -s shows drops at the router",
        lambda: _dropped(router),
        (client,),
        (server.address,),
        PORT,
    )
