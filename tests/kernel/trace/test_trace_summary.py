# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace --summary`` names the slow part: what was made slow."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from packet_traces import hand_over, joined, tracing_packets
from router_chain import chain

from cgnet.counting.tables import CGNET_SUMS_EACH

if TYPE_CHECKING:
    from harness import Row
    from packet_traces import PacketTraces

SIZE = 321


def slow_part(traces: PacketTraces) -> Row:
    """End it; return what it names, of all packets together."""
    rows = traces.tracer.stop()
    (record,) = traces.tracer.rows("slow_part")
    assert record["stage"] in {row["stage"] for row in rows}
    assert 0.5 < record["share"] <= 1
    return record


def test_an_application_that_is_late(hook: str) -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--summary", "--dport", str(port))
        traces = stack.enter_context(tracing_packets(*arguments))
        hand_over(sender, reader, SIZE, 0.05)
        record = slow_part(traces)
    assert (record["part"], record["stage"]) == ("application", "app_read")
    assert record["p99_ns"] > 40_000_000


def test_a_shaper(hook: str) -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--summary", "--by", "dport", "--dport", str(port))
        traces = stack.enter_context(tracing_packets(*arguments))
        with client.shaper(rate="8mbit", burst="3000", limit="100000"):
            hand_over(sender, reader, 20_000)
        record = slow_part(traces)
    assert (record["part"], record["dport"]) == ("qdisc", port)


def test_more_keys_than_a_cpu_has_places_for(hook: str) -> None:
    """Each is told whole, also where the tables change places meanwhile."""
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        arguments = ("--hook", hook, "--summary", "--by", "dport", "-i", "0.2")
        netns = ("--netns", str(client.inode))
        traces = stack.enter_context(tracing_packets(*arguments, *netns))
        sends: Counter[int] = Counter()
        for number in range(1, 3 * CGNET_SUMS_EACH):
            port = joined(sender, reader, server.address(4))
            sends[port] += number  # the port of one that is closed may come again
            for _ in range(number):
                hand_over(sender, reader, SIZE)
        traces.tracer.stop()
    found: Counter[int] = Counter()
    for row in traces.tracer.rows("trace"):
        if row["stage"] == "app_read" and row["dport"] in sends:
            found[row["dport"]] += row["count"]
            assert 0 < row["min_ns"] <= row["p50_ns"] <= row["max_ns"] <= row["total_ns"]
    assert found == sends


def test_a_packet_that_is_lost(hook: str) -> None:
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--dport", str(port))
        traces = stack.enter_context(tracing_packets(*arguments, "--summary"))
        again = stack.enter_context(tracing_packets(*arguments))
        with router.firewall("forward", f"tcp dport {port} drop"):
            sender.do(f"client.sendall(bytes({SIZE}))")
            again.one(payload=SIZE, end="dropped")
        reader.do(f"served.recv({SIZE})")
        row = again.one(payload=SIZE, end="delivered")
        record = slow_part(traces)
    assert row["retrans_after_ns"] > 100_000_000
    assert (record["part"], record["stage"]) == ("retransmission", "retransmit")
