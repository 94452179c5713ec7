# SPDX-License-Identifier: BSD-2-Clause
"""A packet that the filters refused is looked at again where it may have become another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness import in_netns
from packet_traces import SENT_ON, TAKEN, devices, hand_over, joined, names, tracing_packets
from router_chain import chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import Place

SIZE = 321
PORT = 9
SENDS = 5  # the addresses of skbs are used again
# To AF_UNSPEC: the socket is as it was before.
DISCONNECT = (
    "import ctypes; ctypes.CDLL(None).connect(client.fileno(), ctypes.create_string_buffer(16), 16)"
)
RULES = (
    "add table ip trace_refused; "
    "add chain ip trace_refused pre {{ type nat hook prerouting priority -100; }}; "
    "add rule ip trace_refused pre tcp dport {gate} dnat to {address}:{port}"
)


@pytest.fixture(scope="module")
def places() -> Iterator[list[Place]]:
    """A client, a router, a server."""
    with chain(1) as places:
        yield places


def test_port_that_a_router_gives(places: list[Place], hook: str) -> None:
    """Its sender's stages are not those of the port that was asked for."""
    client, router, server = places
    with client.remote() as sender, server.remote() as reader:
        port = reader.listen(server.address(4))
        rules = RULES.format(gate=PORT, address=server.address(4), port=port)
        in_netns(router.netns, "nft", rules)
        try:
            with tracing_packets("--hook", hook, "--dport", str(port)) as traces:
                assert sender.connect(router.address(4), PORT, timeout=30) == "ok"
                reader.do("served = server.accept()[0]")
                for number in range(SENDS):
                    hand_over(sender, reader, SIZE + number)
                rows = [traces.one(payload=SIZE + number) for number in range(SENDS)]
        finally:
            in_netns(router.netns, "nft", "delete table ip trace_refused")
    for row in rows:
        assert names(row) == [*SENT_ON, *TAKEN], row
        assert (row["daddr"], row["dport"]) == (server.address(4), port)
        assert devices(row, router) == ["e0"]


def test_connections_of_one_socket(places: list[Place], hook: str) -> None:
    """What a socket sends is refused by its connection: the next one's packets are looked at."""
    client, _, server = places
    address = server.address(4)
    with client.remote() as sender, server.remote() as reader:
        other = reader.listen(address)
        reader.do("others = server")
        port = reader.listen(address)
        with tracing_packets("--hook", hook, "--dport", str(port)) as traces:
            sender.do("client = socket.socket()")
            for number, (to, listener) in enumerate([(other, "others"), (port, "server")] * SENDS):
                sender.do(f"client.connect(({address!r}, {to}))")
                reader.do(f"served = {listener}.accept()[0]")
                hand_over(sender, reader, SIZE + number)
                sender.do(DISCONNECT)
            rows = [traces.one(payload=SIZE + 2 * number + 1) for number in range(SENDS)]
            traces.tracer.stop()
    assert {row["dport"] for row in rows} == {port}
    assert traces.of(dport=other) == []


def test_namespace_that_a_packet_comes_to(places: list[Place], hook: str) -> None:
    client, _, server = places
    with (
        tracing_packets("--hook", hook, "--netns", str(server.inode)) as traces,
        client.remote() as sender,
        server.remote() as reader,
    ):
        port = joined(sender, reader, server.address(4))
        for number in range(SENDS):
            hand_over(sender, reader, SIZE + number)
        rows = [traces.one(payload=SIZE + number, dport=port) for number in range(SENDS)]
    for row in rows:
        assert names(row) == ["netif_rx", "netif_receive", *TAKEN], row
        assert (devices(row, server), row["netns"]) == (["w0"], server.inode)
