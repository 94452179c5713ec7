# SPDX-License-Identifier: BSD-2-Clause
"""Packets that nftables drops, at each of its hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from drops import dropping, owned

if TYPE_CHECKING:
    from harness import Row
    from two_containers import Place, TwoContainers

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9
RULE = f"tcp dport {PORT} drop"
FIREWALL = {"reason": "NETFILTER_DROP", "reason_class": "firewall", "dport": PORT}


class Blocked(NamedTuple):
    """What was told of a client's packet to the server."""

    row: Row
    pid: int  # of the client
    answer: str  # to its connect()


def block(
    containers: TwoContainers,
    place: Place,
    at: str,
    family: int,
    hook: str,
    *,
    rule: str = RULE,
    **how: float,
) -> Blocked:
    """Have a place's firewall drop what the client sends to the server."""
    with (
        dropping("--hook", hook) as drops,
        containers.client.remote() as remote,
        place.firewall(at, rule),
    ):
        answer = remote.connect(containers.server.address(family), PORT, **how)
        return Blocked(drops.one("nf_hook_slow", netns=place.inode), remote.pid, answer)


@FAMILIES
def test_input(containers: TwoContainers, family: int, hook: str) -> None:
    found = block(containers, containers.server, "input", family, hook)
    assert found.answer == "EINPROGRESS"
    wanted = FIREWALL | owned(containers.server) | {"direction": "rx", "dev": "s0"}
    assert found.row == found.row | wanted


@FAMILIES
def test_output(containers: TwoContainers, family: int, hook: str) -> None:
    found = block(containers, containers.client, "output", family, hook)
    wanted = {"direction": "tx", "pid": found.pid, "tcp_state": "SYN_SENT", "role": "client"}
    assert found.row == found.row | FIREWALL | owned(containers.client, "learned") | wanted


@FAMILIES
def test_a_syn_ack_is_the_listeners(containers: TwoContainers, family: int, hook: str) -> None:
    """What sends it is no full socket."""
    client, server = containers.client, containers.server
    with (
        dropping("--hook", hook) as drops,
        client.remote() as remote,
        server.remote() as listener,
    ):
        port = listener.listen(server.address(family))
        with server.firewall("output", f"tcp sport {port} drop"):
            remote.connect(server.address(family), port)
            row = drops.one("nf_hook_slow", netns=server.inode)
    wanted = {"pid": listener.pid, "role": "server", "tcp_flags": "SA", "direction": "tx"}
    assert row == row | owned(server, "inherited") | wanted


@FAMILIES
def test_forward(containers: TwoContainers, family: int, hook: str) -> None:
    row = block(containers, containers.router, "forward", family, hook).row
    assert row == row | FIREWALL | owned(containers.client, "device") | {"direction": "forward"}


@FAMILIES
@pytest.mark.parametrize("at", ["client", "router"])
def test_postrouting(containers: TwoContainers, family: int, hook: str, at: str) -> None:
    row = block(containers, getattr(containers, at), "postrouting", family, hook).row
    source, direction = ("learned", "tx") if at == "client" else ("device", "forward")
    assert row == row | FIREWALL | owned(containers.client, source) | {"direction": direction}


@FAMILIES
def test_reject(containers: TwoContainers, family: int, hook: str) -> None:
    rule = f"tcp dport {PORT} reject with tcp reset"
    found = block(containers, containers.server, "input", family, hook, rule=rule, timeout=5)
    assert found.answer == "ECONNREFUSED"
    assert found.row == found.row | FIREWALL | owned(containers.server) | {"direction": "rx"}
