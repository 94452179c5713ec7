# SPDX-License-Identifier: BSD-2-Clause
"""A firewall drops packets, without a word."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bpf_programs import dropping_at, refusing_packets
from case import AFTER, Trouble, fault
from counters import tcp_counters
from harness import need
from lab import PORT
from troubles import calling, hanging, stalled, unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("firewall-drop")
def nft_input(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(server.place.firewall("input", f"tcp dport {PORT} drop"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def nft_forward(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(router.firewall("forward", f"tcp dport {PORT} drop"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def nft_output(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(client.place.firewall("output", f"tcp dport {PORT} drop"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def answers_are_dropped(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(router.firewall("forward", f"tcp sport {PORT} drop"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def established_is_dropped(lab: Lab) -> Iterator[Trouble | None]:
    """Connections are open, and hang from then on."""
    client, router, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.enter(router.firewall("forward", f"tcp dport {PORT} drop"))
    yield hanging(lab, keeps, client, server)


@fault("firewall-drop")
def large_packets(lab: Lab) -> Iterator[Trouble | None]:
    """Small requests pass; an upload doesn't."""
    client, router, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT, workers=1)
    keeps.wait_for("ok")
    yield None
    lab.enter(router.firewall("forward", "meta l4proto tcp meta length > 1000 drop"))
    large = client.start("keep", to=server.address, port=PORT, size=20000)
    yield hanging(lab, large, client, server)


@fault("firewall-drop")
def conntrack_invalid(lab: Lab) -> Iterator[Trouble | None]:
    """The connection's entry is gone, and no other is made in the middle of one."""
    client, router, server = lab.routed()
    server.listen()
    router.sysctl("net.netfilter.nf_conntrack_tcp_loose", 0)
    lab.enter(router.firewall("forward", "ct state invalid drop"))
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    router.run(need("conntrack"), "-F")
    yield hanging(lab, keeps, client, server)


@fault("firewall-drop")
def cgroup_program_ingress(lab: Lab) -> Iterator[Trouble | None]:
    """As systemd's IPAddressDeny= does it."""
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(refusing_packets(server.v2, "ingress"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def cgroup_program_egress(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(refusing_packets(client.v2, "egress"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop", families=(4,))
def among_twenty_healthy(lab: Lab) -> Iterator[Trouble | None]:
    """One container's calls are dropped; those of twenty others get on."""
    client, router, server = lab.routed()
    server.listen()
    others = [lab.end(f"quiet{number}", client.place) for number in range(20)]
    for each in others:
        each.start("keep", to=server.address, port=PORT, workers=1, pause=0.3)
    calls = client.start("call", to=server.address, port=PORT + 1)
    server.listen(port=PORT + 1)
    calls.wait_for("ok")
    yield None
    lab.enter(router.firewall("forward", f"tcp dport {PORT + 1} drop"))
    trouble = unanswered(calls, client, server.address)
    trouble.dport, trouble.bystanders = PORT + 1, tuple(others)
    yield trouble


@fault("firewall-drop", families=(4,))
def in_podman(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.in_podman()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(server.place.firewall("input", f"tcp dport {PORT} drop"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop", modes=(AFTER,))
def iptables_legacy(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server, calls = calling(lab)
    yield None
    name = need("iptables-legacy" if lab.family == 4 else "ip6tables-legacy")
    server.place.run(name, "-A", "INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP")
    yield unanswered(calls, client, server.address)


@fault("firewall-drop", modes=(AFTER,))
def netdev_ingress(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server, calls = calling(lab)
    yield None
    server.place.run(
        "nft",
        "add table netdev at; "
        "add chain netdev at c { type filter hook ingress device w0 priority 0; }; "
        f"add rule netdev at c tcp dport {PORT} drop",
    )
    yield unanswered(calls, client, server.address)


@fault("firewall-drop", families=(4,), modes=(AFTER,))
def xdp_program(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server, calls = calling(lab)
    yield None
    lab.enter(dropping_at(server.place, "w0", "xdp"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop", families=(6,), modes=(AFTER,))
def program_of_traffic_control(lab: Lab) -> Iterator[Trouble | None]:
    """It drops what the server answers."""
    client, _, server, calls = calling(lab)
    yield None
    lab.enter(dropping_at(server.place, "w0", "egress"))
    yield unanswered(calls, client, server.address)


@fault("firewall-drop")
def answers_and_acknowledgements(lab: Lab) -> Iterator[Trouble | None]:
    """The server's own rules drop all that it sends; its clients' requests arrive."""
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.enter(server.place.firewall("output", f"tcp sport {PORT} drop"))
    trouble = hanging(lab, keeps, client, server)
    trouble.owners = (client, server)
    yield trouble


@fault("firewall-drop")
def acknowledgements_of_an_upload(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT)
    sends.wait_for("sent")
    yield None
    lab.enter(router.firewall("forward", f"tcp sport {PORT} drop"))
    trouble = hanging(lab, sends, client, server)
    trouble.owners = (client, server)
    yield trouble


@fault("firewall-drop")
def established_at_output(lab: Lab) -> Iterator[Trouble | None]:
    """Requests don't leave their own host."""
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.enter(client.place.firewall("output", f"tcp dport {PORT} drop"))
    yield stalled(lab, keeps, client, server.address)


@fault("firewall-drop", modes=(AFTER,))
def syns_with_ecn(lab: Lab) -> Iterator[Trouble | None]:
    """Each connection takes a second: the second SYN has no ECN."""
    client, router, server, calls = calling(lab)
    yield None
    client.place.sysctl("net.ipv4.tcp_ecn", 1)
    ecn = "syn | ecn | cwr"
    lab.enter(router.firewall("forward", f"tcp dport {PORT} tcp flags & ({ecn}) == {ecn} drop"))
    begin = time.monotonic()
    lab.wait("a connection that takes a second", lambda: calls.slowest(begin) > 0.9)
    yield Trouble(
        "each connect() takes a second",
        lambda: calls.slowest(begin) > 0.9,
        (client,),
        (server.address,),
        PORT,
    )


@fault("firewall-drop", families=(4,), modes=(AFTER,))
def policer(lab: Lab) -> Iterator[Trouble | None]:
    client, router, server = lab.routed()
    server.listen("sink")
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield None
    rule = f"tcp dport {PORT} limit rate over 200 kbytes/second drop"
    lab.enter(router.firewall("forward", rule))
    before = tcp_counters(client.place.netns)["TcpRetransSegs"]
    yield Trouble(
        "slow; retransmissions",
        lambda: tcp_counters(client.place.netns)["TcpRetransSegs"] > before + 10,
        (client,),
        (server.address,),
        PORT,
    )
