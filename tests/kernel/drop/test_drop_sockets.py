# SPDX-License-Identifier: BSD-2-Clause
"""Packets that no socket took, or that a socket refused: whose, and from which function."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner
from drops import Drops, dropping, of, owned
from harness import HIERARCHY, new_cgroup
from remote_python import RemotePython
from segments import ACK, RST, send, tcp_packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9


class Scene(NamedTuple):
    """A client and a server at work while drops are looked for."""

    drops: Drops
    client: RemotePython
    server: RemotePython

    def connect(self, containers: TwoContainers, family: int) -> int:
        """Have the server take a connection as ``taken``; return its port."""
        address = containers.server.address(family)
        port = self.server.listen(address)
        assert self.client.connect(address, port, timeout=5) == "ok"
        self.server.do("taken, _ = server.accept()")
        return port


@contextmanager
def scene(containers: TwoContainers, *arguments: str) -> Iterator[Scene]:
    with (
        dropping(*arguments) as drops,
        containers.client.remote() as client,
        containers.server.remote() as server,
    ):
        yield Scene(drops, client, server)


def receiver(family: int) -> str:
    return f"tcp_v{family}_rcv"


@FAMILIES
def test_closed_port_of_the_container_itself(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """The packet is the socket's that sent it, which waits for an answer in the same namespace."""
    client = containers.client
    with dropping("--hook", hook) as drops, client.remote() as remote:
        assert remote.connect(client.address(family), PORT, timeout=5) == "ECONNREFUSED"
        row = drops.one(receiver(family), netns=client.inode)
    assert row == row | owned(client, "learned") | {
        "pid": remote.pid,
        "role": "client",
        "reason": "NO_SOCKET",
        "reason_class": "application",
        "tcp_flags": "S",
        "dport": PORT,
        "direction": "rx",
        "dev": "lo",
        "family": family,
    }


@FAMILIES
def test_closed_port_of_a_namespace_that_several_share(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """As in the host's: the namespace tells nobody, the sender's socket does."""
    router = containers.router
    address = "127.0.0.1" if family == 4 else "::1"
    with dropping("--hook", hook, *of(router)) as drops, router.remote() as remote:
        assert remote.connect(address, PORT, timeout=5) == "ECONNREFUSED"
        mine = drops.one(receiver(family), netns=router.inode, pid=remote.pid)
        packet = tcp_packet((address, 4000), (address, PORT))[20 if family == 4 else 40 :]
        kind = "AF_INET" if family == 4 else "AF_INET6"
        remote.do(f"raw = socket.socket(socket.{kind}, socket.SOCK_RAW, socket.IPPROTO_TCP)")
        remote.do(f"raw.sendto(bytes.fromhex({packet.hex()!r}), ({address!r}, 0))")
        nobodys = drops.one(receiver(family), netns=router.inode, sport=4000)
    assert mine == mine | {"owner_source": "learned", "role": "client", "dport": PORT}
    assert nobodys == nobodys | {"owner_source": "unknown", "pid": None}


@FAMILIES
def test_closed_port_of_the_hosts_network(group: Path, family: int, hook: str) -> None:
    """Each cgroup that uses it has its own."""
    address = "127.0.0.1" if family == 4 else "::1"
    with (
        new_cgroup(HIERARCHY) as other,
        dropping("--hook", hook) as drops,
        RemotePython("/proc/self/ns/net", (group,)) as one,
        RemotePython("/proc/self/ns/net", (other,)) as two,
    ):
        for remote in (one, two):
            assert remote.connect(address, PORT, timeout=5) == "ECONNREFUSED"
        rows = [drops.one(receiver(family), pid=remote.pid, dport=PORT) for remote in (one, two)]
    for row, cgroup in zip(rows, (group, other), strict=True):
        assert row == row | {
            "cgroup": inner(cgroup, HIERARCHY),
            "owner_source": "learned",
            "role": "client",
            "daddr": address,
            "reason": "NO_SOCKET",
        }


@FAMILIES
def test_closed_port_of_a_namespace_that_is_nobodys(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """Over veth: it is the packet of the container that has its address."""
    client, router = containers.client, containers.router
    with dropping("--hook", hook) as drops, client.remote() as remote:
        assert remote.connect(router.address(family), PORT, timeout=5) == "ECONNREFUSED"
        row = drops.one(receiver(family), netns=router.inode)
    assert row == row | owned(client, "device") | {"reason": "NO_SOCKET", "dev": "to_client"}


@FAMILIES
def test_closed_port_of_another_container(
    containers: TwoContainers, family: int, hook: str
) -> None:
    client, server = containers.client, containers.server
    with dropping("--hook", hook) as drops, client.remote() as remote:
        assert remote.connect(server.address(family), PORT, timeout=5) == "ECONNREFUSED"
        row = drops.one(receiver(family), netns=server.inode)
    assert row == row | owned(server) | {
        "reason": "NO_SOCKET",
        "dev": "s0",
        "saddr": client.address(family),
        "daddr": server.address(family),
    }


@FAMILIES
def test_third_ack_on_a_full_accept_queue(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """The queue fills up between a SYN and the last ACK of its handshake."""
    client, server = containers.client, containers.server
    with scene(containers, "--hook", hook) as (drops, remote, serving):
        port = serving.listen(server.address(family), backlog=8)
        assert remote.connect(server.address(family), port, "first", timeout=5) == "ok"
        with client.firewall("output", f"tcp dport {port} tcp flags & (syn|ack) == ack drop"):
            remote.connect(server.address(family), port, "second", timeout=5)
        serving.do("server.listen(0)")
        remote.do("second.send(b'x')")
        row = drops.one(receiver(family), reason="TCP_LISTEN_OVERFLOW")
        assert row == row | owned(server, "learned") | {
            "reason_class": "application",
            "pid": serving.pid,
            "dport": port,
        }


@FAMILIES
def test_full_receive_buffer(containers: TwoContainers, family: int, hook: str) -> None:
    """One that becomes smaller than what was promised."""
    server = containers.server
    with scene(containers, "--hook", hook) as found:
        drops, remote, serving = found
        port = found.connect(containers, family)
        serving.do("taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)")
        remote.do("client.settimeout(0); client.send(bytes(60000))")
        row = drops.one("tcp_rcv_established", netns=server.inode, dport=port)
    assert row == row | {
        "container": server.container,
        "pid": serving.pid,
        "tcp_state": "ESTABLISHED",
        "reason_class": "resource",
    }
    assert row["payload"] > 0


@FAMILIES
def test_reset_with_a_wrong_sequence(containers: TwoContainers, family: int, hook: str) -> None:
    client, server = containers.client, containers.server
    with scene(containers, "--hook", hook) as found:
        drops, remote, serving = found
        port = found.connect(containers, family)
        source = (client.address(family), remote.get("client.getsockname()[1]"))
        for seq in (
            4711,
            4711 + 2**31,
        ):  # one is old, which is benign; the other is from the future
            packet = tcp_packet(source, (server.address(family), port), seq=seq, flags=RST)
            send(remote, containers, packet)
        row = drops.one("tcp_validate_incoming", netns=server.inode, dport=port)
    assert row == row | {
        "container": server.container,
        "pid": serving.pid,
        "tcp_state": "ESTABLISHED",
        "tcp_flags": "R",
        "role": "server",
        "reason": "TCP_INVALID_SEQUENCE",
    }
    assert row["seq"] in (4711, 4711 + 2**31)


@FAMILIES
def test_segment_that_belongs_to_nothing(containers: TwoContainers, family: int, hook: str) -> None:
    """It is answered with a reset; nobody listens at its port, or somebody does: that is benign."""
    client, server = containers.client, containers.server
    with scene(containers, "--hook", hook, "--all") as (drops, remote, serving):
        port = serving.listen(server.address(family))
        for target in (PORT, port):
            packet = tcp_packet(
                (client.address(family), 4000), (server.address(family), target), flags=ACK
            )
            send(remote, containers, packet)
        none = drops.one(receiver(family), netns=server.inode, dport=PORT)
        some = drops.one(receiver(family), netns=server.inode, dport=port)
    assert none == none | owned(server) | {"reason": "NO_SOCKET", "tcp_flags": "A"}
    assert some == some | owned(server, "learned") | {
        "tcp_state": "LISTEN",
        "pid": serving.pid,
        "reason_class": "benign",
    }


@FAMILIES
def test_wrong_checksum(containers: TwoContainers, family: int, hook: str) -> None:
    client, server = containers.client, containers.server
    source, target = (client.address(family), 4000), (server.address(family), PORT)
    with dropping("--hook", hook) as drops, client.remote() as remote:
        packet = tcp_packet(source, target, tcp_error=1)
        send(remote, containers, packet)
        row = drops.one(receiver(family), netns=server.inode)
    assert row == row | owned(server) | {"reason": "TCP_CSUM", "reason_class": "peer"}


def test_segment_behind_an_extension_header(containers: TwoContainers, hook: str) -> None:
    client, server = containers.client, containers.server
    packet = tcp_packet((client.address(6), 4000), (server.address(6), PORT))
    options = bytes((packet[6], 0, 1, 4, 0, 0, 0, 0))  # for the destination: they fill eight bytes
    length = (len(packet) - 40 + len(options)).to_bytes(2)
    packet = packet[:4] + length + bytes((60,)) + packet[7:40] + options + packet[40:]
    with dropping("--hook", hook) as drops, client.remote() as remote:
        send(remote, containers, packet)
        row = drops.one("tcp_v6_rcv", netns=server.inode)
    assert row == row | owned(server) | {
        "reason": "NO_SOCKET",
        "saddr": client.address(6),
        "sport": 4000,
        "dport": PORT,
        "tcp_flags": "S",
        "payload": 0,
    }
