# SPDX-License-Identifier: BSD-2-Clause
"""No local port is left for another connection to a destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import AFTER, Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab

PORTS = 32


@fault("ports-exhausted")
def held(lab: Lab) -> Iterator[Trouble | None]:
    """Connections that stay open have all ports."""
    client, _, server = lab.routed()
    server.listen()
    client.place.sysctl("net.ipv4.ip_local_port_range", f"40000 {40000 + PORTS - 1}")
    yield None
    client.start("hold", to=server.address, port=PORT, count=PORTS).wait_for("ok", count=PORTS)
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("EADDRNOTAVAIL")
    yield Trouble(
        "EADDRNOTAVAIL",
        lambda: calls.count("EADDRNOTAVAIL") > 2,
        (client,),
        (server.address,),
        PORT,
    )


@fault("ports-exhausted")
def time_wait(lab: Lab) -> Iterator[Trouble | None]:
    """Connections that have ended have all ports for a minute."""
    client, _, server = lab.routed()
    server.listen()
    client.place.sysctl("net.ipv4.ip_local_port_range", f"40000 {40000 + PORTS - 1}")
    client.place.sysctl("net.ipv4.tcp_tw_reuse", 0)
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("EADDRNOTAVAIL")
    yield Trouble(
        "EADDRNOTAVAIL",
        lambda: calls.count("EADDRNOTAVAIL") > 2,
        (client,),
        (server.address,),
        PORT,
    )


@fault("ports-exhausted", modes=(AFTER,))
def bound_without_a_port(lab: Lab) -> Iterator[Trouble | None]:
    """The clients bind to their address, and leave the port to connect()."""
    client, _, server = lab.routed()
    server.listen()
    client.place.sysctl("net.ipv4.ip_local_port_range", f"40000 {40000 + PORTS - 1}")
    how = {"to": server.address, "port": PORT, "source": client.address, "no_port": True}
    yield None
    client.start("hold", **how, count=PORTS).wait_for("ok", count=PORTS)
    calls = client.start("call", **how)
    calls.wait_for("EADDRNOTAVAIL")
    yield Trouble(
        "EADDRNOTAVAIL",
        lambda: calls.count("EADDRNOTAVAIL") > 2,
        (client,),
        (server.address,),
        PORT,
    )
