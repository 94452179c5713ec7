# SPDX-License-Identifier: BSD-2-Clause
"""Troubles that several faults give, as their users see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from case import Trouble
from counters import tcp_counters
from harness import ip
from lab import PORT

if TYPE_CHECKING:
    from lab import App, End, Lab
    from two_containers import Place

SECOND = {4: ("10.{}.{}.77", 24), 6: ("fd77:{}:{}::77", 64)}


def second_address(lab: Lab, end: End) -> str:
    """Give a container another address of its network."""
    text, bits = SECOND[lab.family]
    high, low = end.address.split("." if lab.family == 4 else ":")[1:3]
    address = text.format(high, low)
    where = ("dev", "e0", *(("nodad",) if lab.family == 6 else ()))
    ip("-n", end.place.netns, "addr", "add", f"{address}/{bits}", *where)
    return address


def calling(lab: Lab) -> tuple[End, Place, End, App]:
    """Make a client, a router and a server, and have the client call: all is well."""
    client, router, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    return client, router, server, calls


def refused(calls: App, client: End, to: str) -> Trouble:
    return failing(calls, client, to, "ECONNREFUSED")


def failing(calls: App, client: End, to: str, *errors: str) -> Trouble:
    """Wait until the client has one of these errors; it has to have more."""
    calls.wait_for(*errors)
    told = " or ".join(errors)
    return Trouble(told, lambda: calls.count(*errors) > 2, (client,), (to,), PORT)


def unanswered(calls: App, client: End, to: str, *others: End) -> Trouble:
    """The client gives up; no fault but a blocked way lets it."""
    return Trouble(
        "connect() times out",
        lambda: calls.count("timeout") > 0,
        (client, *others),
        (to,),
        PORT,
    )


def hanging(lab: Lab, app: App, client: End, server: End) -> Trouble:
    """Wait until retransmissions have begun; nothing may be answered from then on."""
    begin = time.monotonic() + 0.3

    def resent() -> int:
        ends = (client.place.netns, server.place.netns)
        return sum(tcp_counters(each)["TcpRetransSegs"] for each in ends)

    before = resent()
    lab.wait(f"retransmissions: {app}", lambda: resent() > before + 2)
    return Trouble(
        "connections hang",
        lambda: app.count("ok", "sent", since=begin) == 0,
        (client,),
        (server.address,),
        PORT,
    )


def stalled(lab: Lab, app: App, client: End, to: str) -> Trouble:
    """Wait until nothing has been answered for a second; nothing may be from then on."""
    lab.wait(
        f"a second without an answer: {app}", lambda: app.reports[-1]["at"] < time.monotonic() - 1
    )
    begin = time.monotonic()
    return Trouble(
        "connections hang", lambda: app.count("ok", since=begin) == 0, (client,), (to,), PORT
    )
