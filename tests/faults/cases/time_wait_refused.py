# SPDX-License-Identifier: BSD-2-Clause
"""A SYN meets the TIME_WAIT of an earlier connection, and isn't taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from harness import in_netns, ip
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab

CLIENTS = 8
GATE_PORT = 5555


@fault("time-wait-refused", families=(4,))
def behind_nat(lab: Lab) -> Iterator[Trouble | None]:
    """A NAT gateway uses one port again for clients whose clocks and sequence numbers differ."""
    client, router, server = lab.routed()
    server.place.sysctl("net.ipv4.tcp_rfc1337", 1)  # the client's reset doesn't end TIME_WAIT
    router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", 1)
    router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_close", 1)
    router.sysctl("net.netfilter.nf_conntrack_tcp_timeout_syn_sent", 1)
    high, low = client.address.split(".")[1:3]
    sources = [f"10.{high}.{low}.{100 + each}" for each in range(CLIENTS)]
    for each in sources:
        ip("-n", client.place.netns, "addr", "add", f"{each}/32", "dev", "e0")
    outer = next(each for each in router.addresses_of("e0") if ":" not in each)
    in_netns(
        router.netns,
        "nft",
        "add table ip gate; "
        "add chain ip gate out { type nat hook postrouting priority 100; }; "
        f"add rule ip gate out tcp dport {PORT} snat to {outer}:{GATE_PORT}",
    )
    server.listen(drain=1e-6)

    def refused() -> int:
        counters = tcp_counters(server.place.netns)
        return counters["TcpExtPAWSTimewait"] + counters["TcpExtPAWSEstab"]  # before v6.15

    yield None
    calls = client.start(
        "call", to=server.address, port=PORT, workers=1, pause=1.1, sources=sources, limit=2
    )
    calls.wait_for("timeout")
    yield Trouble(
        "some connect() time out; TcpExtPAWSTimewait grows",
        lambda: calls.count("timeout") > 0 and refused() > 0,
        (client, server),
        (server.address,),
        PORT,
    )
