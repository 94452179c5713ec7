# SPDX-License-Identifier: BSD-2-Clause
"""Packets that the stack makes one of, and packets of a connection above TCP's: GRO and MPTCP."""

from __future__ import annotations

from contextlib import ExitStack

from chain import chain, set_offload
from puppets import Puppet
from servers import IPPROTO_MPTCP
from trips import SENT, TAKEN, hand_over, joined, names, tripping, wait_for_bytes

SIZE = 321
BYTES = 60_000
PAUSE_S = 0.05


def test_made_one_by_gro(hook: str) -> None:
    """The first of several grows, and is followed to its reader; the others end in it."""
    with chain(0) as (client, server), ExitStack() as stack:
        set_offload(client, "e0", tso=False, gso=False)
        set_offload(server, "w0", gro=True)
        sender, reader = (stack.enter_context(each.puppet()) for each in (client, server))
        trips = stack.enter_context(tripping("--hook", hook))
        port = joined(sender, reader, server.address(4))
        hand_over(sender, reader, BYTES)
        read = wait_for_bytes(trips, port, BYTES)
        rows = [row for row in trips.tracer.stop() if row["dport"] == port and row["payload"]]
    assert sum(row["payload"] for row in read) == BYTES
    for row in read:
        assert names(row)[:3] == [*SENT[:2], "dev_xmit"]
        assert names(row)[-4:] == ["gro", "netif_receive", *TAKEN]
        assert (row["pid"], row["direction"]) == (sender.pid, "tx")
    merged = [row for row in rows if row not in read]
    assert all(names(row)[-1] == "gro" for row in merged), [names(row) for row in merged]
    sent = {(row["seq"] + i) % 2**32 for row in read for i in (0, row["payload"])}
    assert all(row["seq"] not in sent for row in merged)


def test_mptcp(netns: str, hook: str) -> None:
    """Data is the subflow's until the connection above takes it, in the kernel."""
    with ExitStack() as stack:
        client, server = (stack.enter_context(Puppet(f"/run/netns/{netns}")) for _ in range(2))
        for puppet in (client, server):
            puppet.do("plain = socket.socket")
            puppet.do(
                "socket.socket = lambda family, *how, **more: plain("
                f"family, *(how or (socket.SOCK_STREAM, {IPPROTO_MPTCP})), **more)"
            )
        trips = stack.enter_context(tripping("--hook", hook, "--netns", netns))
        port = joined(client, server, "127.0.0.1")
        hand_over(client, server, SIZE, PAUSE_S)
        row = trips.one(payload=SIZE, dport=port)
    assert names(row)[: len(SENT) + 1] == [*SENT, "tcp_receive"]
    assert (row["pid"], row["direction"]) == (client.pid, "tx")
    assert row["len"] > SIZE + 52  # MPTCP's options
    assert row["end"] == "delivered"
    assert row["total_ns"] < PAUSE_S * 1e9  # the reader's pause isn't in it
