# SPDX-License-Identifier: BSD-2-Clause
"""Packets that are lost on their way: at shapers, at routers, for what their headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drops import dropping, owned
from harness import ip
from segments import send, tcp_packet

if TYPE_CHECKING:
    from remote_python import RemotePython
    from two_containers import TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9
MUCH = 200_000  # bytes


def fill(
    containers: TwoContainers, family: int, remote: RemotePython, serving: RemotePython
) -> int:
    """Send more than a shaper takes; return the port."""
    address = containers.server.address(family)
    port = serving.listen(address)
    assert remote.connect(address, port, timeout=5) == "ok"
    remote.do(f"client.setblocking(False); client.send(bytes({MUCH}))")
    return port


@FAMILIES
def test_shaper_of_a_container(containers: TwoContainers, family: int, hook: str) -> None:
    client = containers.client
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        containers.server.remote() as serving,
        client.shaper(),
    ):
        port = fill(containers, family, remote, serving)
        row = drops.one("__dev_queue_xmit", netns=client.inode, dport=port)
    assert row == row | owned(client, "learned") | {
        "pid": remote.pid,
        "reason_class": "resource",
        "direction": "tx",
        "dev": "c0",
        "role": "client",
    }
    assert row["reason"].startswith("QDISC_")


@FAMILIES
def test_shaper_of_a_router(containers: TwoContainers, family: int, hook: str) -> None:
    client, router = containers.client, containers.router
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        containers.server.remote() as serving,
        router.shaper(1),
    ):
        port = fill(containers, family, remote, serving)
        row = drops.one("__dev_queue_xmit", netns=router.inode, dport=port)
    assert row == row | owned(client, "device") | {
        "reason_class": "resource",
        "direction": "forward",
        "dev": "to_server",
    }
    assert row["reason"].startswith("QDISC_")


@FAMILIES
def test_hops_are_used_up(containers: TwoContainers, family: int, hook: str) -> None:
    client, router = containers.client, containers.router
    target = (containers.server.address(family), PORT)
    with dropping("--hook", hook) as drops, client.remote() as remote:
        send(remote, containers, tcp_packet((client.address(family), 4000), target, hops=1))
        function = "ip_forward" if family == 4 else "ip6_forward"
        row = drops.one(function, netns=router.inode, dport=PORT)
    assert row == row | owned(client, "device") | {"direction": "forward", "dev": "to_client"}
    assert row["location"].startswith(function)
    assert row["reason_class"] in ("configuration", "peer")


@FAMILIES
def test_packet_larger_than_the_next_link(
    containers: TwoContainers, family: int, hook: str
) -> None:
    client, router = containers.client, containers.router
    target = (containers.server.address(family), PORT)
    packet = tcp_packet((client.address(family), 4000), target, payload=bytes(1400))
    ip("-n", router.netns, "link", "set", "to_server", "mtu", "1300")
    try:
        with dropping("--hook", hook) as drops, client.remote() as remote:
            send(remote, containers, packet)
            function = "ip_forward" if family == 4 else "ip6_forward"
            row = drops.one(function, netns=router.inode, dport=PORT)
    finally:
        ip("-n", router.netns, "link", "set", "to_server", "mtu", "1500")
    assert row == row | owned(client, "device") | {
        "reason": "PKT_TOO_BIG",
        "reason_class": "configuration",
        "payload": 1400,
        "direction": "forward",
    }


def test_source_that_is_elsewhere(containers: TwoContainers, hook: str) -> None:
    """An address of the server's network comes from the client's: rp_filter, of IPv4 alone."""
    client, router, server = containers.client, containers.router, containers.server
    alien = server.address(4).rpartition(".")[0] + ".99"
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        router.set("net.ipv4.conf.to_client.rp_filter", 1),
    ):
        send(remote, containers, tcp_packet((alien, 4000), (server.address(4), PORT)))
        row = drops.one("ip_rcv_finish_core", netns=router.inode, saddr=alien)
    assert row == row | owned(client, "device") | {
        "reason": "IP_RPFILTER",
        "reason_class": "configuration",
        "dev": "to_client",
        "direction": "rx",
    }


@FAMILIES
def test_source_that_can_not_be(containers: TwoContainers, family: int, hook: str) -> None:
    """A martian: no packet comes from the loopback's address, or from a group's."""
    martian = {4: "127.0.0.9", 6: "ff02::9"}[family]
    client, router, server = containers.client, containers.router, containers.server
    with dropping("--hook", hook) as drops, client.remote() as remote:
        packet = tcp_packet((martian, 4000), (server.address(family), PORT))
        send(remote, containers, packet)
        function = {4: "ip_rcv_finish_core", 6: "ip6_rcv_core"}[family]
        row = drops.one(function, netns=router.inode, saddr=martian)
    assert row == row | owned(client, "device") | {"dev": "to_client", "direction": "rx"}
    assert row["reason_class"] in ("configuration", "peer")


def test_wrong_checksum_of_ip(containers: TwoContainers, hook: str) -> None:
    client, router, server = containers.client, containers.router, containers.server
    with dropping("--hook", hook) as drops, client.remote() as remote:
        packet = tcp_packet((client.address(4), 4000), (server.address(4), PORT), ip_error=1)
        send(remote, containers, packet)
        row = drops.one("ip_rcv_core", netns=router.inode, dport=PORT)
    assert row == row | owned(client, "device") | {"reason": "IP_CSUM", "reason_class": "peer"}
