# SPDX-License-Identifier: BSD-2-Clause
"""A socket is bound to an address that this host has no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import ip
from lab import PORT
from troubles import SECOND, second_address, stalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import End, Lab


def _remove(lab: Lab, end: End, address: str) -> None:
    ip("-n", end.place.netns, "addr", "del", f"{address}/{SECOND[lab.family][1]}", "dev", "e0")


@fault("source-address-missing")
def bound_address_is_gone(lab: Lab) -> Iterator[Trouble | None]:
    """The socket may bind to it, as by IP_FREEBIND, and can't connect from it."""
    client, _, server = lab.routed()
    server.listen()
    address = second_address(lab, client)
    for name in ("ipv4.ip_nonlocal_bind", "ipv6.ip_nonlocal_bind"):
        client.place.sysctl(f"net.{name}", 1)
    calls = client.start("call", to=server.address, port=PORT, source=address)
    calls.wait_for("ok")
    yield None
    _remove(lab, client, address)
    errors = ("EINVAL", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH", "timeout")
    calls.wait_for(*errors)
    yield Trouble(
        "EINVAL, or a time-out",
        lambda: calls.count(*errors) > 1,
        (client,),
        (server.address,),
        PORT,
    )


@fault("source-address-missing")
def address_of_connections_is_gone(lab: Lab) -> Iterator[Trouble | None]:
    """As after a lease that wasn't renewed: open connections hang."""
    client, _, server = lab.routed()
    server.listen()
    address = second_address(lab, client)
    keeps = client.start("keep", to=server.address, port=PORT, source=address, again=False)
    keeps.wait_for("ok", count=4)
    yield None
    _remove(lab, client, address)
    yield stalled(lab, keeps, client, server.address)
