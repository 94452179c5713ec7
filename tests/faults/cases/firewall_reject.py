# SPDX-License-Identifier: BSD-2-Clause
"""A firewall answers with a reset or by ICMP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


def _rejected(lab: Lab, at: str, hook: str, rule: str, *errors: str) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    place = {"router": router, "server": server.place, "client": client.place}[at]
    lab.enter(place.firewall(hook, f"tcp dport {PORT} {rule}"))
    calls.wait_for(*errors)
    yield Trouble(
        " or ".join(errors),
        lambda: calls.count(*errors) > 2,
        (client,),
        (server.address,),
        PORT,
    )


@fault("firewall-reject")
def reset_at_input(lab: Lab) -> Iterator[Trouble | None]:
    return _rejected(lab, "server", "input", "reject with tcp reset", "ECONNREFUSED")


@fault("firewall-reject")
def reset_at_forward(lab: Lab) -> Iterator[Trouble | None]:
    return _rejected(lab, "router", "forward", "reject with tcp reset", "ECONNREFUSED")


@fault("firewall-reject")
def icmp_at_input(lab: Lab) -> Iterator[Trouble | None]:
    return _rejected(lab, "server", "input", "reject with icmpx port-unreachable", "ECONNREFUSED")


@fault("firewall-reject")
def icmp_at_forward(lab: Lab) -> Iterator[Trouble | None]:
    return _rejected(
        lab, "router", "forward", "reject with icmpx admin-prohibited", "EHOSTUNREACH", "EACCES"
    )


@fault("firewall-reject")
def icmp_at_output(lab: Lab) -> Iterator[Trouble | None]:
    return _rejected(
        lab, "client", "output", "reject with icmpx port-unreachable", "ECONNREFUSED", "timeout"
    )


@fault("firewall-reject")
def established_is_reset(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.enter(router.firewall("forward", f"tcp dport {PORT} reject with tcp reset"))
    keeps.wait_for("ECONNRESET")
    yield Trouble(
        "ECONNRESET, then ECONNREFUSED",
        lambda: keeps.count("ECONNRESET") > 0 and keeps.count("ECONNREFUSED") > 2,
        (client,),
        (server.address,),
        PORT,
    )
