# SPDX-License-Identifier: BSD-2-Clause
"""Packets that the stack makes one of, and packets of a connection above TCP's: GRO and MPTCP."""

from __future__ import annotations

from contextlib import ExitStack

from packet_traces import SENT, TAKEN, hand_over, joined, names, tracing_packets, wait_for_bytes
from remote_python import RemotePython
from router_chain import chain, set_offload
from servers import IPPROTO_MPTCP

SIZE = 321
BYTES = 60_000


def test_made_one_by_gro(hook: str) -> None:
    """The first of several grows, and is followed to its reader; the others end in it."""
    with chain(0) as (client, server), ExitStack() as stack:
        set_offload(client, "e0", tso=False, gso=False)
        set_offload(server, "w0", gro=True)
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        traces = stack.enter_context(tracing_packets("--hook", hook, "--netns", str(client.path)))
        port = joined(sender, reader, server.address(4))
        hand_over(sender, reader, BYTES)
        read = wait_for_bytes(traces, port, BYTES)
        rows = [row for row in traces.tracer.stop() if row["dport"] == port and row["payload"]]
    assert sum(row["payload"] for row in read) == BYTES
    for row in read:
        assert names(row)[0] == SENT[0]
        assert names(row)[-5:] == ["dev_xmit", "gro", "netif_receive", *TAKEN]
        assert (row["pid"], row["direction"]) == (sender.pid, "tx")
    others = {names(row)[-1] for row in rows if row not in read}
    assert others <= {"gro", "consume"}  # what was cut up ends as consumed


def test_mptcp(netns: str, hook: str) -> None:
    """Data is followed to its subflow; nothing tells when the connection above takes it."""
    with ExitStack() as stack:
        client, server = (
            stack.enter_context(RemotePython(f"/run/netns/{netns}")) for _ in range(2)
        )
        for remote in (client, server):
            remote.do("plain = socket.socket")
            remote.do(
                "socket.socket = lambda family, *how, **more: plain("
                f"family, *(how or (socket.SOCK_STREAM, {IPPROTO_MPTCP})), **more)"
            )
        traces = stack.enter_context(tracing_packets("--hook", hook, "--netns", netns))
        port = joined(client, server, "127.0.0.1")
        hand_over(client, server, SIZE)
        rows = traces.tracer.stop()
    (row,) = [each for each in rows if (each["payload"], each["dport"]) == (SIZE, port)]
    assert names(row) == [*SENT, "tcp_receive"]
    assert (row["pid"], row["direction"]) == (client.pid, "tx")
    assert row["len"] > SIZE + 52  # MPTCP's options
    assert row["end"] == "timeout"
