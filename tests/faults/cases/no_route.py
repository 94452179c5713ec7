# SPDX-License-Identifier: BSD-2-Clause
"""No route leads there, or none back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import AFTER, Trouble, fault
from harness import ip
from lab import PORT
from troubles import calling, failing, stalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import End, Lab

NOWHERE = {4: "203.0.113.9", 6: "2001:db8:9::9"}
BITS = {4: 32, 6: 128}
UNREACHABLE = ("ENETUNREACH", "EHOSTUNREACH")


def _route(lab: Lab, end: End, *arguments: str) -> None:
    ip("-n", end.place.netns, f"-{lab.family}", "route", *arguments)


def _unreachable(client: End, to: str) -> Trouble:
    calls = client.start("call", to=to, port=PORT)
    calls.wait_for(*UNREACHABLE)
    return Trouble(
        " or ".join(UNREACHABLE), lambda: calls.count(*UNREACHABLE) > 2, (client,), (to,), PORT
    )


@fault("no-route")
def none_here(lab: Lab) -> Iterator[Trouble | None]:
    client, _, _ = lab.routed()
    yield None
    yield _unreachable(client, NOWHERE[lab.family])


@fault("no-route")
def unreachable_here(lab: Lab) -> Iterator[Trouble | None]:
    """As Kubernetes and Calico put it for blocks of addresses without a pod."""
    client, _, _ = lab.routed()
    to = NOWHERE[lab.family]
    _route(lab, client, "add", "unreachable", f"{to}/{BITS[lab.family]}")
    yield None
    yield _unreachable(client, to)


@fault("no-route")
def none_at_the_router(lab: Lab) -> Iterator[Trouble | None]:
    client, router, _ = lab.routed()
    gate = [each for each in router.addresses_of("w0") if (":" in each) == (lab.family == 6)]
    _route(lab, client, "add", "default", "via", next(x for x in gate if not x.startswith("fe80")))
    yield None
    to = NOWHERE[lab.family]
    calls = client.start("call", to=to, port=PORT)
    calls.wait_for(*UNREACHABLE, "timeout")
    yield Trouble(
        "ENETUNREACH, EHOSTUNREACH, or a time-out",
        lambda: calls.count(*UNREACHABLE, "timeout") > 1,
        (client,),
        (to,),
        PORT,
    )


@fault("no-route")
def none_back(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    high, low = client.address.split("." if lab.family == 4 else ":")[1:3]
    net = f"10.{high}.{low}.0/24" if lab.family == 4 else f"fd77:{high}:{low}::/64"
    _route(lab, server, "del", net)
    calls.wait_for("timeout")
    yield Trouble(
        "connect() times out",
        lambda: calls.count("timeout") > 1,
        (client, server),
        (server.address, client.address),
        None,
    )


@fault("no-route")
def rule_prohibits(lab: Lab) -> Iterator[Trouble | None]:
    """A rule of policy routing refuses: connect() takes EACCES from it."""
    client, _, server, calls = calling(lab)
    yield None
    rule = ("rule", "add", "pref", "10", "to", server.address, "prohibit")
    ip("-n", client.place.netns, f"-{lab.family}", *rule)
    yield failing(calls, client, server.address, "EACCES")


@fault("no-route")
def blackhole_here(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server, calls = calling(lab)
    yield None
    _route(lab, client, "add", "blackhole", f"{server.address}/{BITS[lab.family]}")
    yield failing(calls, client, server.address, "EINVAL")


@fault("no-route", modes=(AFTER,))
def blackhole_at_the_router(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server, calls = calling(lab)
    yield None
    to = f"{server.address}/{BITS[lab.family]}"
    ip("-n", router.netns, f"-{lab.family}", "route", "add", "blackhole", to)
    yield failing(calls, client, server.address, *UNREACHABLE, "EINVAL", "timeout")


@fault("no-route")
def link_is_down(lab: Lab) -> Iterator[Trouble | None]:
    """The server's device is down: the router has nobody to send to."""
    client, _, server, calls = calling(lab)
    yield None
    ip("-n", server.place.netns, "link", "set", "w0", "down")
    yield failing(calls, client, server.address, *UNREACHABLE, "timeout")


@fault("no-route")
def goes_while_connected(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    _route(lab, client, "add", "unreachable", f"{server.address}/{BITS[lab.family]}")
    yield stalled(lab, keeps, client, server.address)


@fault("no-route", families=(4,))
def own_device_is_down(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    ip("-n", client.place.netns, "link", "set", "e0", "down")
    yield stalled(lab, keeps, client, server.address)
