# SPDX-License-Identifier: BSD-2-Clause
"""Segments for what was closed before, or is half made: which are a fault, which are healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drops import dropping, of
from harness import wait_until
from segments import ACK, send, tcp_packet
from test_drop_explain import explained
from test_drop_sockets import FAMILIES, receiver, scene

if TYPE_CHECKING:
    from remote_python import RemotePython
    from two_containers import TwoContainers

TCP_DEFER_ACCEPT = 9
PSH = 8


def is_in_time_wait(remote: RemotePython, family: int, peers_port: int) -> bool:
    """Return whether a connection is in TIME_WAIT, or waits for its peer's end alone."""
    text = remote.get(f"open('/proc/thread-self/net/tcp{'6' * (family == 6)}').read()")
    lines = [line.split() for line in text.splitlines()[1:]]
    peer = f":{peers_port:04X}"
    return any(line[2].endswith(peer) and line[5].startswith("03:") for line in lines)


def close_in_time_wait(remote: RemotePython, serving: RemotePython, family: int) -> None:
    """Close the server's side; the client takes note, and has its own side open."""
    port = int(remote.get("client.getsockname()[1]"))
    serving.do("taken.close()")
    assert remote.get("client.recv(9).decode()") == ""
    wait_until("the kernel's stand-in", lambda: is_in_time_wait(serving, family, port))


@FAMILIES
def test_data_for_what_the_server_has_closed(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """The client uses a connection again that the server's keep-alive time-out has closed."""
    server = containers.server
    with scene(containers, "--hook", hook, "--explain", *of(server)) as found:
        drops, remote, serving = found
        port = found.connect(containers, family)
        close_in_time_wait(remote, serving, family)
        remote.do("client.send(b'request')")
        row = drops.one(receiver(family), netns=server.inode, dport=port)
        assert row == row | {
            "container": server.container,
            "owner_source": "inherited",
            "pid": serving.pid,
            "role": "server",
            "tcp_state": "TIME_WAIT",
            "tcp_flags": "PA",
            "payload": 7,
            "reason_class": "application",
        }
        with pytest.raises(OSError, match=r"EPIPE|ECONNRESET"):
            remote.do("client.send(b'more')")
        advice = explained(drops, server, reason=row["reason"])
    assert "data for a connection that this side had closed" in advice["text"]
    assert advice["evidence"]["TcpOutRsts"] >= 1
    assert len(drops.tracer.rows()) == 1


@FAMILIES
def test_data_for_a_listener(containers: TwoContainers, family: int, hook: str) -> None:
    """Of a connection that its server had before it was restarted."""
    client, server = containers.client, containers.server
    with scene(containers, "--hook", hook, "--explain", *of(server)) as (drops, remote, serving):
        port = serving.listen(server.address(family))
        packet = tcp_packet(
            (client.address(family), 4000),
            (server.address(family), port),
            flags=ACK | PSH,
            payload=b"request",
        )
        send(remote, containers, packet)
        row = drops.one(receiver(family), netns=server.inode, dport=port)
        assert row == row | {
            "container": server.container,
            "pid": serving.pid,
            "tcp_state": "LISTEN",
            "reason_class": "application",
        }
        advice = explained(drops, server, reason=row["reason"])
    assert "before the server was restarted" in advice["text"]


@FAMILIES
def test_connection_that_time_wait_refuses(
    containers: TwoContainers, family: int, hook: str
) -> None:
    """From the same port, with a sequence number that isn't newer."""
    client, server = containers.client, containers.server
    with scene(containers, "--hook", hook, "--explain", "--all", *of(server)) as found:
        drops, remote, serving = found
        port = found.connect(containers, family)
        source = (client.address(family), remote.get("client.getsockname()[1]"))
        close_in_time_wait(remote, serving, family)
        remote.do("client.close()")
        end = drops.one(receiver(family), netns=server.inode, tcp_flags="FA")
        assert end["reason_class"] == "benign"
        packet = tcp_packet(source, (server.address(family), port), seq=end["seq"] - 1000)
        with client.firewall("input", f"tcp sport {port} drop"):
            send(remote, containers, packet)
            row = drops.one(receiver(family), netns=server.inode, tcp_flags="S")
        assert row == row | {"tcp_state": "TIME_WAIT", "reason_class": "peer"}
        advice = explained(drops, server, reason=row["reason"], reason_class="peer")
    assert "is in TIME_WAIT here" in advice["text"]


def health_check(containers: TwoContainers, family: int, remote: RemotePython, port: int) -> None:
    """A SYN without a socket: the client's kernel answers with a reset."""
    target = (containers.server.address(family), port)
    send(remote, containers, tcp_packet((containers.client.address(family), 4000), target))


def same_syn_again(containers: TwoContainers, family: int, remote: RemotePython, port: int) -> None:
    target = (containers.server.address(family), port)
    with containers.client.firewall("input", f"tcp sport {port} drop"):
        send(remote, containers, tcp_packet((containers.client.address(family), 4000), target), 2)


def deferred(containers: TwoContainers, family: int, remote: RemotePython, port: int) -> None:
    """The listener takes what brings data alone."""
    assert remote.connect(containers.server.address(family), port, timeout=5) == "ok"


@FAMILIES
@pytest.mark.parametrize(
    ("make", "flags"), [(health_check, "R"), (same_syn_again, "S"), (deferred, "A")]
)
def test_half_of_a_handshake_is_silent(
    containers: TwoContainers, family: int, hook: str, make: object, flags: str
) -> None:
    server = containers.server
    with (
        scene(containers, "--hook", hook, "--all", *of(server)) as (drops, remote, serving),
        dropping("--hook", hook, *of(server)) as silent,
    ):
        port = serving.listen(server.address(family))
        if make is deferred:
            serving.do(f"server.setsockopt(6, {TCP_DEFER_ACCEPT}, 30)")
        make(containers, family, remote, port)  # type: ignore[operator]
        row = drops.one(receiver(family), netns=server.inode, tcp_flags=flags)
        silent.tracer.stop()
        assert row["reason_class"] == "benign"
        assert not silent.tracer.rows()


@pytest.mark.parametrize("chosen", ["configuration", "!configuration"])
def test_a_class_that_the_function_tells(containers: TwoContainers, hook: str, chosen: str) -> None:
    """The filter and the column agree: a blackhole has no reason of its own."""
    client, router = containers.client, containers.router
    where = "198.18.0.0/15"
    with (
        dropping("--hook", hook, *of(router)) as drops,
        dropping("--hook", hook, "--reason-class", chosen, *of(router)) as filtered,
        client.remote() as remote,
    ):
        router.run("ip", "route", "add", "blackhole", where)
        try:
            remote.connect("198.18.0.9", 80)
            row = drops.one("ip_error", netns=router.inode, dport=80)
            assert row["reason_class"] == "configuration"
            filtered.tracer.stop()
        finally:
            router.run("ip", "route", "del", "blackhole", where)
    assert bool(filtered.tracer.rows()) is (chosen == "configuration")
