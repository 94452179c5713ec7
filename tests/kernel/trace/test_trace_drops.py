# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet trace`` calls dropped is what ``cgnet drop`` shows: no more, and no less."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from packet_traces import hand_over, joined, tracing_packets
from router_chain import chain
from segments import SYN, tcp_packet

SIZE = 77
CLOSES = 5
SEND = (
    "raw = socket.socket({family}, socket.SOCK_RAW, socket.IPPROTO_TCP); "
    "raw.sendto(bytes.fromhex({segment!r}), ({address!r}, 0)); raw.close()"
)


def test_healthy_closes_are_no_drops(hook: str) -> None:
    with chain(1) as (client, _, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        arguments = ("--hook", hook, "--addr", server.address(4))
        traces = stack.enter_context(tracing_packets(*arguments, "--drops"))
        every = stack.enter_context(tracing_packets(*arguments))
        for _ in range(CLOSES):
            joined(sender, reader, server.address(4))
            hand_over(sender, reader, SIZE)
            reader.do("server.close()")
            sender.do("client.close()")
            reader.do("served.recv(1); served.close()")
        every.one(payload=SIZE, end="delivered")
        rows = every.tracer.stop()
        dropped = traces.tracer.stop()
    assert len([row for row in rows if row["payload"] == SIZE]) == CLOSES
    assert [row for row in dropped if row["reason"] != "NO_SOCKET"] == []
    assert {row["end"] for row in rows if "F" in row["tcp_flags"]} <= {"consumed", "delivered"}


@pytest.mark.parametrize("family", [4])
def test_a_syn_that_an_open_connection_drops(family: int, hook: str) -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(family))
        traces = stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port)))
        own = sender.get("client.getsockname()[1]")
        ends = (client.address(family), own), (server.address(family), port)
        segment = tcp_packet(*ends, flags=SYN)[20:]
        sender.do(
            SEND.format(
                family="socket.AF_INET", segment=segment.hex(), address=server.address(family)
            )
        )
        row = traces.one(tcp_flags="S", sport=own)
    assert (row["end"], row["stages"][-1]["at"]) == ("dropped", "drop")
    assert row["reason"].startswith("TCP_")
