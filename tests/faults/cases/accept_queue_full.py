# SPDX-License-Identifier: BSD-2-Clause
"""The queue of connections that wait for accept() is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from lab import PORT
from troubles import second_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab


def _overflows(calls: App, server: End) -> Trouble:
    before = tcp_counters(server.place.netns)["TcpExtListenOverflows"]
    return Trouble(
        "connect() takes seconds or times out; ListenOverflows grows",
        lambda: (
            tcp_counters(server.place.netns)["TcpExtListenOverflows"] > before
            and calls.count("timeout") > 0
        ),
        (server,),
        (server.address,),
        PORT,
    )


@fault("accept-queue-full")
def does_not_accept(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("mute", backlog=4)
    yield None
    calls = client.start("call", to=server.address, port=PORT, workers=8)
    yield _overflows(calls, server)


@fault("accept-queue-full")
def listen_1(lab: Lab) -> Iterator[Trouble | None]:
    """The application accepts, and slowly."""
    client, _, server = lab.routed()
    server.listen(backlog=1, every=0.5)
    yield None
    calls = client.start("call", to=server.address, port=PORT, workers=12)
    yield _overflows(calls, server)


@fault("accept-queue-full")
def small_somaxconn(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.place.sysctl("net.core.somaxconn", 2)
    server.listen(backlog=4096, every=0.4)
    yield None
    calls = client.start("call", to=server.address, port=PORT, workers=12)
    yield _overflows(calls, server)


@fault("accept-queue-full")
def one_of_a_group(lab: Lab) -> Iterator[Trouble | None]:
    """Two listeners share the port by SO_REUSEPORT, and one of them doesn't accept."""
    client, _, server = lab.routed()
    server.listen(reuseport=True)
    server.listen("mute", reuseport=True, backlog=4)
    yield None
    calls = client.start("call", to=server.address, port=PORT, workers=8)
    yield _overflows(calls, server)


@fault("accept-queue-full")
def half_open(lab: Lab) -> Iterator[Trouble | None]:
    """Handshakes that never end fill the queue of SYNs, and there are no SYN cookies."""
    client, _, server = lab.routed()
    server.place.sysctl("net.ipv4.tcp_syncookies", 0)
    server.listen(backlog=16)
    other = lab.end("other", client.place)
    source = second_address(lab, client)
    calls = client.start("call", to=server.address, port=PORT, source=client.address)
    calls.wait_for("ok")
    yield None
    kind = "ip6" if lab.family == 6 else "ip"
    lab.enter(client.place.firewall("prerouting", f"{kind} daddr {source} drop"))
    other.start("half_open", to=server.address, port=PORT, count=100, source=source)
    calls.wait_for("timeout")
    yield Trouble(
        "connect() times out; TCPReqQFullDrop grows",
        lambda: tcp_counters(server.place.netns)["TcpExtTCPReqQFullDrop"] > 0,
        (server,),
        (server.address,),
        PORT,
    )
