# SPDX-License-Identifier: BSD-2-Clause
"""Ways of packets through namespaces: each stage, in order, with the time that it took."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from harness import HIERARCHY, in_netns, ip, netns_inode, new_cgroup, new_netns, unique
from packet_traces import (
    SENT,
    SENT_ON,
    TAKEN,
    check_times,
    delay,
    devices,
    hand_over,
    joined,
    names,
    slowest,
    tracing_packets,
    wait_for_bytes,
)
from remote_python import RemotePython
from segments import send, tcp_packet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PAUSE_S = 0.05
PAUSE_NS = 50_000_000
SIZE = 321
PORT = 9


def remote_in(stack: ExitStack, netns: str) -> RemotePython:
    return stack.enter_context(RemotePython(f"/run/netns/{netns}"))


@FAMILIES
def test_loopback(netns: str, family: int, hook: str) -> None:
    """One packet from its sender's first stage to its receiver's last; who reads late is told."""
    with ExitStack() as stack:
        client, server = remote_in(stack, netns), remote_in(stack, netns)
        traces = stack.enter_context(tracing_packets("--hook", hook, "--netns", netns))
        port = joined(client, server, "127.0.0.1" if family == 4 else "::1")
        hand_over(client, server, SIZE, PAUSE_S)
        row = traces.one(payload=SIZE, dport=port)
        syn = traces.one(tcp_flags="S", dport=port)
        answer = traces.one(tcp_flags="SA", sport=port)
    assert names(row) == [*SENT, *TAKEN]
    assert row == row | {
        "pid": client.pid, "role": "client", "direction": "tx", "end": "delivered", "segs": 1,
        "family": family, "seq": (syn["seq"] + 1) % 2**32, "ack": (answer["seq"] + 1) % 2**32,
        "tcp_flags": "PA", "reason": None, "retrans_of": None,
        "len": SIZE + (52 if family == 4 else 72),
    }  # fmt: skip
    assert (slowest(row), syn["end"]) == ("app_read", "consumed")
    assert (answer["pid"], answer["role"]) == (server.pid, "server")
    assert delay(row, "app_read") >= PAUSE_NS
    assert len({each["packet"] for each in (row, syn, answer)}) == 3


def test_a_syn_ack_is_the_listeners(netns: str, hook: str) -> None:
    """Of one that listened before, too; with its cgroup, and with none of the client's."""
    with new_cgroup(HIERARCHY, unique()) as mine, new_cgroup(HIERARCHY, unique()) as other:
        places = ((mine,), (other,))
        client, server = (RemotePython(f"/run/netns/{netns}", each) for each in places)
        arguments = ("--hook", hook, "--netns", netns, "--cgroup", str(other))
        with client, server:
            port = server.listen("127.0.0.1")
            with tracing_packets(*arguments) as traces:
                assert client.connect("127.0.0.1", port, timeout=30) == "ok"
                row = traces.one(tcp_flags="SA", sport=port)
    assert (row["pid"], row["role"], row["direction"]) == (server.pid, "server", "tx")
    assert row["cgroup"].endswith(other.name)


@FAMILIES
def test_routed_between_containers(containers: TwoContainers, family: int, hook: str) -> None:
    client, router, server = containers.client, containers.router, containers.server
    with (
        tracing_packets("--hook", hook, "--container", client.container) as traces,
        client.remote() as sender,
        server.remote() as reader,
    ):
        port = joined(sender, reader, server.address(family))
        hand_over(sender, reader, SIZE, PAUSE_S)
        row = traces.one(payload=SIZE, dport=port)
    assert names(row) == [*SENT, *SENT_ON, *TAKEN]
    assert row["container"] == client.container
    assert (row["pid"], row["role"], row["end"]) == (sender.pid, "client", "delivered")
    assert [devices(row, each) for each in (client, router, server)] == [
        ["c0"],
        ["to_client", "to_server"],
        ["s0"],
    ]
    places = list(dict.fromkeys(each["container"] for each in row["stages"]))
    assert places == [client.container, None, server.container]
    assert delay(row, "app_read") >= PAUSE_NS


def test_two_owners(containers: TwoContainers, hook: str) -> None:
    """A packet within the host is its receiver's as well as its sender's."""
    client, server = containers.client, containers.server
    with (
        tracing_packets("--hook", hook, "--container", server.container) as traces,
        client.remote() as sender,
        server.remote() as reader,
    ):
        port = joined(sender, reader, server.address(4))
        hand_over(sender, reader, SIZE)
        row = traces.one(payload=SIZE, dport=port)
        answer = traces.one(tcp_flags="SA", sport=port)
    assert (row["container"], row["pid"], row["role"]) == (server.container, reader.pid, "server")
    assert (row["direction"], row["end"]) == ("tx", "delivered")
    assert answer["container"] == server.container


def test_forwarded_from_elsewhere(containers: TwoContainers, hook: str) -> None:
    """What no socket of TCP sent begins where it is first seen."""
    client, server = containers.client, containers.server
    packet = tcp_packet((client.address(4), 4000), (server.address(4), PORT), seq=7)
    with tracing_packets("--hook", hook, "--dport", str(PORT)) as traces, client.remote() as remote:
        send(remote, containers, packet)
        row = traces.one(dport=PORT, seq=7)
    assert names(row)[:5] == ["dev_queue", "dev_xmit", "netif_rx", "netif_receive", "dev_queue"]
    assert row["direction"] == "forward"
    assert row["end"] in ("dropped", "consumed")  # nobody listens: answered, and thrown away


@contextmanager
def translation(netns: str, *chains: str) -> Iterator[None]:
    """Rules of nftables that change addresses."""
    text = "; ".join(["add table ip trace_nat", *chains])
    in_netns(netns, "nft", text)
    try:
        yield
    finally:
        in_netns(netns, "nft", "delete table ip trace_nat")


def test_addresses_translated(containers: TwoContainers, hook: str) -> None:
    """DNAT and SNAT rewrite a packet; it stays the same one, shown with the sender's addresses."""
    client, router, server = containers.client, containers.router, containers.server
    gate = router.address(4)  # the client's gateway
    with ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(4))
        stack.enter_context(
            translation(
                router.netns,
                "add chain ip trace_nat pre { type nat hook prerouting priority -100; }",
                f"add rule ip trace_nat pre tcp dport {PORT} dnat to {server.address(4)}:{port}",
                "add chain ip trace_nat post { type nat hook postrouting priority 100; }",
                "add rule ip trace_nat post oifname to_server masquerade",
            )
        )
        traces = stack.enter_context(tracing_packets("--hook", hook, "--dport", str(PORT)))
        assert sender.connect(gate, PORT, timeout=30) == "ok"
        reader.do("served = server.accept()[0]")
        seen_as = reader.get("served.getpeername()[0]")
        hand_over(sender, reader, SIZE)
        row = traces.one(payload=SIZE)
    assert seen_as != client.address(4)
    assert names(row) == [*SENT, *SENT_ON, *TAKEN]
    assert (row["saddr"], row["daddr"], row["dport"]) == (client.address(4), gate, PORT)
    assert row["end"] == "delivered"


@contextmanager
def bridge() -> Iterator[list[str]]:
    """A bridge with an address of its own, and two namespaces at it."""
    with new_netns() as middle, new_netns() as one, new_netns() as other:
        ip("-n", middle, "link", "add", "br0", "type", "bridge")
        ip("-n", middle, "addr", "add", "192.0.2.1/24", "dev", "br0")
        for number, netns in enumerate((one, other), 2):
            peer = ("peer", "name", "eth0", "netns", netns)
            ip("-n", middle, "link", "add", f"port{number}", "type", "veth", *peer)
            ip("-n", middle, "link", "set", f"port{number}", "master", "br0", "up")
            ip("-n", netns, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
            ip("-n", netns, "link", "set", "eth0", "up")
        ip("-n", middle, "link", "set", "br0", "up")
        yield [middle, one, other]


def test_bridged(hook: str) -> None:
    with bridge() as (middle, one, other), ExitStack() as stack:
        sender, reader = remote_in(stack, one), remote_in(stack, other)
        traces = stack.enter_context(tracing_packets("--hook", hook))
        port = joined(sender, reader, "192.0.2.3")
        hand_over(sender, reader, SIZE)
        row = traces.one(payload=SIZE, dport=port)
        inodes = [netns_inode(each) for each in (one, middle, other)]
    assert names(row) == [*SENT, *SENT_ON, *TAKEN]
    assert list(dict.fromkeys(each["netns"] for each in row["stages"])) == inodes
    assert (row["pid"], row["direction"]) == (sender.pid, "tx")


def test_from_the_bridge_itself(hook: str) -> None:
    """Two devices of one namespace queue the same packet, which still has its socket."""
    with bridge() as (middle, one, _), ExitStack() as stack:
        sender, reader = remote_in(stack, middle), remote_in(stack, one)
        traces = stack.enter_context(tracing_packets("--hook", hook))
        port = joined(sender, reader, "192.0.2.2")
        hand_over(sender, reader, SIZE)
        row = traces.one(payload=SIZE, dport=port)
    queued = [each["dev"] for each in row["stages"] if each["at"] == "dev_queue"]
    assert queued == ["br0", "port2"]
    assert (row["end"], row["retrans_of"]) == ("delivered", None)


def test_shaper(containers: TwoContainers, hook: str) -> None:
    """What waits in a queueing discipline waits there, also in pieces of what TCP sent."""
    client, server = containers.client, containers.server
    with (
        tracing_packets("--hook", hook, "--container", client.container) as traces,
        client.remote() as sender,
        server.remote() as reader,
        client.shaper(rate="8mbit", burst="3000", limit="100000"),
    ):
        port = joined(sender, reader, server.address(4))
        hand_over(sender, reader, 20_000)
        rows = wait_for_bytes(traces, port, 20_000)
    for row in rows:
        check_times(row)
        assert "qdisc_dequeue" in names(row), names(row)
        assert names(row)[-2:] == TAKEN
    late = max(rows, key=lambda each: each["total_ns"])
    assert slowest(late) == "qdisc_dequeue"
    assert delay(late, "qdisc_dequeue") > 5_000_000  # 20 kB at 1 kB a millisecond
