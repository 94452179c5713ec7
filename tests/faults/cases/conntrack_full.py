# SPDX-License-Identifier: BSD-2-Clause
"""The table of connection tracking is full at a router: new connections are dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from case import BEFORE, Trouble, fault
from conntrack_table import dropped, fill
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab
    from two_containers import Place

MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
ROOM = 1000  # what is free before the trouble


def _set_up(lab: Lab) -> tuple[End, Place, End, App]:
    """Have a client call through a router whose table is nearly full."""
    client, router, server = lab.routed()
    server.listen()
    lab.enter(router.firewall("forward", "ct state new counter"))
    fill(router.path, 0, int(MAX.read_text()) - ROOM)
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    return client, router, server, calls


def _fill(router: Place) -> None:
    most = int(MAX.read_text())
    fill(router.path, most - ROOM, most + ROOM)


def _timed_out(calls: App, client: End, router: Place, server: End) -> Trouble:
    return Trouble(
        "connect() times out; the table's drops grow",
        lambda: calls.count("timeout") > 0 and dropped(router.netns) > 0,
        (client,),
        (server.address,),
        PORT,
    )


@fault("conntrack-full")
def full_now(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server, calls = _set_up(lab)
    yield None
    _fill(router)
    yield _timed_out(calls, client, router, server)


@fault("conntrack-full", families=(4,), modes=(BEFORE,))
def full_a_while_ago(lab: Lab) -> Iterator[Trouble | None]:
    """The table has room again when `why` ends."""
    client, router, server, calls = _set_up(lab)
    yield None
    _fill(router)
    calls.wait_for("timeout", count=2)
    trouble = _timed_out(calls, client, router, server)
    assert trouble.seen()
    router.run("conntrack", "-F")
    yield trouble
