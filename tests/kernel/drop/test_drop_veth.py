# SPDX-License-Identifier: BSD-2-Clause
"""Packets on their way through a router belong to whose veth they use, whatever addresses they have."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner
from drops import dropping, owned
from harness import HIERARCHY, ip, new_lxc, new_netns
from podman import Podman
from remote_python import RemotePython
from router_chain import chain
from segments import send, tcp_packet
from two_containers import Place, container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9
RULE = f"tcp dport {PORT} drop"


def neighbour(place: Place, family: int, host: str = "77") -> str:
    """Return another address of the network of a place's first device."""
    address = place.address(family)
    return address.rpartition("." if family == 4 else ":")[0] + (".:"[family == 6]) + host


def length(family: int) -> str:
    return "/32" if family == 4 else "/128"


@FAMILIES
def test_address_that_is_new(containers: TwoContainers, family: int, hook: str) -> None:
    """A second one, that the container was given after cgnet looked for addresses."""
    client, server, router = containers.client, containers.server, containers.router
    new = neighbour(client, family)
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        router.firewall("forward", RULE),
    ):
        packet = tcp_packet((new, 4000), (server.address(family), PORT))
        send(remote, containers, packet)
        row = drops.one("nf_hook_slow", netns=router.inode, saddr=new)
    assert row == row | owned(client, "device") | {"direction": "forward", "dev": "to_client"}


@FAMILIES
@pytest.mark.parametrize("at", ["forward", "postrouting"])
def test_forged_address(containers: TwoContainers, family: int, hook: str, at: str) -> None:
    """A container sends with another's address: it is the sender's packet."""
    client, server, router = containers.client, containers.server, containers.router
    forged = server.address(family)
    target = neighbour(server, family)
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        router.firewall(at, RULE),
    ):
        send(remote, containers, tcp_packet((forged, 4001), (target, PORT)))
        row = drops.one("nf_hook_slow", netns=router.inode, saddr=forged, sport=4001)
    assert row == row | owned(client, "device") | {"direction": "forward"}


@FAMILIES
def test_address_of_two(containers: TwoContainers, family: int, hook: str) -> None:
    """Which an address can't tell apart."""
    client, server, router = containers.client, containers.server, containers.router
    shared = {4: "10.255.255.77", 6: "fd77::7777"}[family]
    with ExitStack() as cleanup:
        for place in (client, server):
            address = (f"{shared}{length(family)}", "dev", place.devices[0])
            nodad = ("nodad",) if family == 6 else ()
            ip("-n", place.netns, "addr", "add", *address, *nodad)
            cleanup.callback(ip, "-n", place.netns, "addr", "del", *address)
        drops = cleanup.enter_context(dropping("--hook", hook))
        remote = cleanup.enter_context(client.remote())
        cleanup.enter_context(router.firewall("forward", RULE))
        remote.connect(server.address(family), PORT, source=shared)
        row = drops.one("nf_hook_slow", netns=router.inode, saddr=shared)
    assert row == row | owned(client, "device") | {"direction": "forward"}


@FAMILIES
def test_packet_for_a_container(containers: TwoContainers, family: int, hook: str) -> None:
    """It comes from nobody, to an address that isn't known: the veth that it leaves by tells."""
    server, router = containers.server, containers.router
    source = {4: "10.255.1.2", 6: "fd78::2"}[family]
    target = neighbour(server, family)
    with (
        new_netns() as outside,
        dropping("--hook", hook) as drops,
        router.firewall("forward", RULE),
    ):
        join_outside(router, outside, family)
        with RemotePython(f"/run/netns/{outside}") as remote:
            remote.connect(target, PORT)
            row = drops.one("nf_hook_slow", netns=router.inode, saddr=source)
    assert row == row | owned(server, "device") | {
        "direction": "forward", "dev": "from_outside", "daddr": target,
    }  # fmt: skip


def join_outside(router: Place, outside: str, family: int) -> None:
    """Connect a namespace that is nobody's; the veth goes with it."""
    peer = ("peer", "name", "from_outside", "netns", router.netns)
    ip("link", "add", "o0", "netns", outside, "type", "veth", *peer)
    top = {4: "10.255.1.", 6: "fd78::"}[family]
    size = "/24" if family == 4 else "/64"
    nodad = ("nodad",) if family == 6 else ()
    for netns, device, host in ((outside, "o0", "2"), (router.netns, "from_outside", "1")):
        ip("-n", netns, "addr", "add", f"{top}{host}{size}", "dev", device, *nodad)
        ip("-n", netns, "link", "set", device, "up")
    inet6 = ("-6",) if family == 6 else ()
    ip("-n", outside, *inet6, "route", "add", "default", "via", f"{top}1")


# -- a bridge of podman's


class Bridge(NamedTuple):
    """Two containers at a bridge, in a host's namespace that has somewhere to route to."""

    host: Place
    client: Place
    server: Place
    device: str

    def port_of(self, place: Place) -> str:
        """Return the host's end of a container's veth."""
        found = json.loads(ip("-j", "-n", place.netns, "link", "show", "dev", "eth0"))
        number = found[0]["link_index"]
        links = json.loads(ip("-j", "-n", self.host.netns, "link", "show"))
        return next(str(each["ifname"]) for each in links if each["ifindex"] == number)


def address(place: Place, family: int) -> str:
    lines = json.loads(ip("-j", "-n", place.netns, f"-{family}", "addr", "show", "dev", "eth0"))
    return next(str(each["local"]) for each in lines[0]["addr_info"] if each["scope"] == "global")


ELSEWHERE = {4: "10.254.1.9", 6: "fd79::9"}


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with ExitStack() as cleanup:
        host = Place(cleanup.enter_context(new_netns()))
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            host.sysctl(f"net.{name}", 1)
        ip("-n", host.netns, "link", "add", "away", "type", "veth", "peer", "name", "far")
        ip("-n", host.netns, "link", "set", "far", "up")
        host.add_device("away", "254.1.1")
        ip("-n", host.netns, "addr", "add", "fd79::1/64", "dev", "away", "nodad")
        podman = Podman(tmp_path_factory.mktemp("podman") / "containers.conf", host.netns)
        cleanup.callback(podman.close)
        network = podman.network("10.253.1.0/24", "fd7a::/64")
        client, server = (container(podman, cleanup, f"--network={network}") for _ in range(2))
        device = podman("network", "inspect", "--format", "{{.NetworkInterface}}", network)
        yield Bridge(host, client, server, device)


@FAMILIES
def test_forward_from_a_bridge(bridge: Bridge, family: int, hook: str) -> None:
    """Above the bridge the packet's veth isn't known any more; its address is."""
    client, host = bridge.client, bridge.host
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        host.firewall("forward", RULE),
    ):
        remote.connect(ELSEWHERE[family], PORT)
        row = drops.one("nf_hook_slow", netns=host.inode, daddr=ELSEWHERE[family])
    assert row == row | owned(client, "address") | {
        "direction": "forward", "dev": bridge.device, "saddr": address(client, family),
    }  # fmt: skip


@FAMILIES
def test_input_to_a_bridges_host(bridge: Bridge, family: int, hook: str) -> None:
    client, host = bridge.client, bridge.host
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        host.firewall("input", RULE),
    ):
        gateway = {4: "10.253.1.1", 6: "fd7a::1"}[family]
        remote.connect(gateway, PORT)
        row = drops.one("nf_hook_slow", netns=host.inode, daddr=gateway)
    assert row == row | owned(client, "address") | {"direction": "rx"}


@FAMILIES
def test_at_the_bridge_itself(bridge: Bridge, family: int, hook: str) -> None:
    """Between two of its ports a packet still has its sender's socket."""
    client, server, host = bridge.client, bridge.server, bridge.host
    port = bridge.port_of(client)
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        host.firewall(f'ingress device "{port}"', RULE, "netdev"),
    ):
        remote.connect(address(server, family), PORT)
        row = drops.one("__netif_receive_skb_core", netns=host.inode, dport=PORT)
    assert row == row | owned(client, "learned") | {"dev": port, "pid": remote.pid}


@FAMILIES
@pytest.mark.parametrize("peer", [True, False])
def test_first_syn_of_a_new_container(family: int, hook: str, peer: bool) -> None:
    """Nothing is known of its namespace yet. It isn't its destination's, a container that is known."""
    with ExitStack() as stack:
        client, router, server = stack.enter_context(chain(1))
        held = (stack.enter_context(new_lxc()),) if peer else ()
        stack.enter_context(RemotePython(server.path, cgroups=held))
        stack.enter_context(router.firewall("forward", RULE))
        drops = stack.enter_context(dropping("--hook", hook))
        cgroup = stack.enter_context(new_lxc())
        sender = stack.enter_context(RemotePython(client.path, cgroups=(cgroup,)))
        assert sender.connect(server.address(family), PORT, timeout=0.2) != "ok"
        row = drops.one("nf_hook_slow", netns=router.inode, dport=PORT)
    assert row == row | {"cgroup": inner(cgroup, HIERARCHY), "pid": sender.pid, "role": "client"}
    assert row["owner_source"] == "learned"


@FAMILIES
def test_addresses_of_two_senders(family: int, hook: str) -> None:
    """Two containers send from the same address and port to the same place: it isn't known whose."""
    with ExitStack() as stack:
        client, router, server = stack.enter_context(chain(1))
        other = Place(stack.enter_context(new_netns()))
        source, target = client.address(family), server.address(family)
        ip("-n", other.netns, "link", "add", "d0", "type", "veth", "peer", "name", "d1")
        for device in ("d0", "d1"):
            ip("-n", other.netns, "link", "set", device, "up")
        nodad = ("nodad",) if family == 6 else ()
        ip("-n", other.netns, "addr", "add", f"{source}{length(family)}", "dev", "d0", *nodad)
        ip("-n", other.netns, f"-{family}", "route", "add", "default", "dev", "d0")
        stack.enter_context(router.firewall("forward", RULE))
        drops = stack.enter_context(dropping("--hook", hook))
        for place in (other, client):
            cgroup = stack.enter_context(new_lxc())
            sender = stack.enter_context(RemotePython(place.path, cgroups=(cgroup,)))
            sender.do(f"client = socket.socket(socket.AF_INET{6 if family == 6 else ''})")
            sender.do(f"client.bind(({source!r}, 4000)); client.setblocking(False)")
            sender.do(f"client.connect_ex(({target!r}, {PORT}))")
        row = drops.one("nf_hook_slow", netns=router.inode, dport=PORT)
    assert (row["pid"], row["owner_source"]) == (None, "unknown")
