# SPDX-License-Identifier: BSD-2-Clause
"""Packets that nftables drops, at each of its hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from drops import dropping, owned

if TYPE_CHECKING:
    from street import Street

FAMILIES = pytest.mark.parametrize("family", [4, 6])
PORT = 9
RULE = f"tcp dport {PORT} drop"
FIREWALL = {"reason": "NETFILTER_DROP", "reason_class": "firewall", "dport": PORT}


@FAMILIES
def test_input(street: Street, family: int, hook: str) -> None:
    client, server = street.client, street.server
    with (
        dropping("--hook", hook) as drops,
        client.puppet() as puppet,
        server.firewall("input", RULE),
    ):
        assert puppet.connect(server.address(family), PORT) == "EINPROGRESS"
        row = drops.one("nf_hook_slow", netns=server.inode)
    assert row == row | FIREWALL | owned(server) | {"direction": "rx", "dev": "s0"}


@FAMILIES
def test_output(street: Street, family: int, hook: str) -> None:
    client, server = street.client, street.server
    with (
        dropping("--hook", hook) as drops,
        client.puppet() as puppet,
        client.firewall("output", RULE),
    ):
        puppet.connect(server.address(family), PORT)
        row = drops.one("nf_hook_slow", netns=client.inode)
    assert row == row | FIREWALL | owned(client, "learned") | {
        "direction": "tx",
        "pid": puppet.pid,
        "tcp_state": "SYN_SENT",
        "role": "client",
    }


@FAMILIES
def test_forward(street: Street, family: int, hook: str) -> None:
    client, server, router = street.client, street.server, street.router
    with (
        dropping("--hook", hook) as drops,
        client.puppet() as puppet,
        router.firewall("forward", RULE),
    ):
        puppet.connect(server.address(family), PORT)
        row = drops.one("nf_hook_slow", netns=router.inode)
    assert row == row | FIREWALL | owned(client, "device") | {"direction": "forward"}


@FAMILIES
@pytest.mark.parametrize("at", ["client", "router"])
def test_postrouting(street: Street, family: int, hook: str, at: str) -> None:
    client, server = street.client, street.server
    place = getattr(street, at)
    with (
        dropping("--hook", hook) as drops,
        client.puppet() as puppet,
        place.firewall("postrouting", RULE),
    ):
        puppet.connect(server.address(family), PORT)
        row = drops.one("nf_hook_slow", netns=place.inode)
    source, direction = ("learned", "tx") if at == "client" else ("device", "forward")
    assert row == row | FIREWALL | owned(client, source) | {"direction": direction}


@FAMILIES
def test_reject(street: Street, family: int, hook: str) -> None:
    client, server = street.client, street.server
    with (
        dropping("--hook", hook) as drops,
        client.puppet() as puppet,
        server.firewall("input", f"tcp dport {PORT} reject with tcp reset"),
    ):
        assert puppet.connect(server.address(family), PORT, timeout=5) == "ECONNREFUSED"
        row = drops.one("nf_hook_slow", netns=server.inode)
    assert row == row | FIREWALL | owned(server) | {"direction": "rx"}
