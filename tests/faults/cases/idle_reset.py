# SPDX-License-Identifier: BSD-2-Clause
"""A connection is reset when it is used again after idling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import in_netns
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab

LOST = ("ECONNRESET", "EPIPE", "ECONNABORTED")


def _lost(keeps: App, client: End, to: str) -> Trouble:
    keeps.wait_for(*LOST)
    return Trouble(
        "ECONNRESET, or the end of the connection in the place of an answer",
        lambda: keeps.count(*LOST) > 1,
        (client,),
        (to,),
        PORT,
    )


@fault("idle-reset")
def keep_alive_race(lab: Lab) -> Iterator[Trouble | None]:
    """The server closes idle connections earlier than the client thinks."""
    client, _, server = lab.routed()
    server.listen(idle=1)
    yield None
    keeps = client.start("keep", to=server.address, port=PORT, pause=1.3, workers=4)
    yield _lost(keeps, client, server.address)


@fault("idle-reset")
def nat_forgets(lab: Lab) -> Iterator[Trouble | None]:
    """A gateway's entry of an idle connection ends, and the gateway itself resets it."""
    client, router, server = lab.routed()
    server.listen()
    router.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)
    router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", 1)
    gate = next(
        each
        for each in router.addresses_of("w0")
        if (":" in each) == (lab.family == 6) and not each.startswith("fe80")
    )
    kind, to = ("ip6", f"[{server.address}]") if lab.family == 6 else ("ip", server.address)
    in_netns(
        router.netns,
        "nft",
        f"add table {kind} gate; "
        f"add chain {kind} gate in {{ type nat hook prerouting priority -100; }}; "
        f"add rule {kind} gate in tcp dport {PORT} dnat to {to}:{PORT}",
    )
    yield None
    keeps = client.start("keep", to=gate, port=PORT, pause=2.5, workers=4)
    yield _lost(keeps, client, gate)


@fault("idle-reset")
def server_forgets(lab: Lab) -> Iterator[Trouble | None]:
    """The server lost its state without a packet, as by a restart of its host."""
    client, line, server = lab.apart()
    server.listen()

    def forget() -> None:
        line.lose(1)
        server.place.run("ss", "-K", "state", "established", "sport", f":{PORT}")
        line.lose(0)

    yield None
    keeps = client.start("keep", to=server.address, port=PORT, pause=1.5, workers=4)
    keeps.wait_for("ok", count=4)
    lab.repeat(1.2, forget)
    yield _lost(keeps, client, server.address)
