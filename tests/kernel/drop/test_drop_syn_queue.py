# SPDX-License-Identifier: BSD-2-Clause
"""SYNs that a full queue of half-open connections swallows: each is shown, and none that is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drops import dropping, of
from harness import wait_until
from segments import send, tcp_packet
from test_drop_explain import explained
from test_drop_sockets import FAMILIES

if TYPE_CHECKING:
    from two_containers import Place, TwoContainers

SYNS = 20
REASON = "TCP_SYN_QUEUE_FULL"


def listen_drops(place: Place) -> int:
    """Return how many SYNs the listeners of a namespace have dropped."""
    lines = place.run("cat", "/proc/net/netstat").splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(dict(zip(names, numbers, strict=True))["ListenDrops"])


@FAMILIES
@pytest.mark.parametrize(
    ("most", "backlog"), [(8, 128), (4096, 5)], ids=["tcp_max_syn_backlog", "backlog"]
)
def test_each_is_shown(
    containers: TwoContainers, family: int, hook: str, most: int, backlog: int
) -> None:
    client, server = containers.client, containers.server
    with (
        server.set("net.ipv4.tcp_syncookies", 0),
        server.set("net.ipv4.tcp_max_syn_backlog", most),
        dropping("--hook", hook, "--syn-drops", "--explain", *of(server)) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        # A peer that TCP has metrics of is let in beyond tcp_max_syn_backlog.
        server.run("ip", "tcp_metrics", "flush")
        port = serving.listen(server.address(family), backlog=backlog)
        before = listen_drops(server)
        target = (server.address(family), port)
        with client.firewall("input", f"tcp sport {port} drop"):
            for source in range(4000, 4000 + SYNS):
                send(remote, containers, tcp_packet((client.address(family), source), target))
            dropped = listen_drops(server) - before
            assert 0 < dropped < SYNS
            rows = wait_until("all of them", lambda: drops.of(reason=REASON)[dropped - 1 :])
        assert {rows[0][key] for key in ("container", "pid")} == {server.container, serving.pid}
        assert rows[0]["reason_class"] == "resource"
        advice = explained(drops, server, reason=REASON)
    assert len(drops.of(reason=REASON)) == dropped
    assert advice["evidence"]["TcpExtListenDrops"] == dropped
    assert advice["evidence"]["net.ipv4.tcp_max_syn_backlog"] == most
    assert advice["evidence"]["net.ipv4.tcp_syncookies"] == 0


def test_with_cookies_none_is_dropped(containers: TwoContainers, hook: str) -> None:
    """The queue is full all the same."""
    client, server = containers.client, containers.server
    with (
        server.set("net.ipv4.tcp_syncookies", 1),
        dropping("--hook", hook, "--syn-drops", *of(server)) as drops,
        client.remote() as remote,
        server.remote() as serving,
    ):
        port = serving.listen(server.address(4), backlog=5)
        target = (server.address(4), port)
        with client.firewall("input", f"tcp sport {port} drop"):
            for source in range(4000, 4000 + SYNS):
                send(remote, containers, tcp_packet((client.address(4), source), target))
        assert remote.connect(server.address(4), port, timeout=5) == "ok"
        remote.connect(server.address(4), 9, timeout=5)  # the mark that all has been seen
        drops.one("tcp_v4_rcv", reason="NO_SOCKET")
    assert not drops.of(reason=REASON)
