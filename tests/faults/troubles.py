# SPDX-License-Identifier: BSD-2-Clause
"""Troubles that several faults give, as their users see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from case import Trouble
from counters import tcp_counters
from lab import PORT

if TYPE_CHECKING:
    from lab import App, End, Lab


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
