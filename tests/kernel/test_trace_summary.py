# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace --summary`` names the slow part: what was made slow."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from chain import chain
from trips import hand_over, joined, tripping

if TYPE_CHECKING:
    from harness import Row
    from trips import Trips

SIZE = 321


def slow_part(trips: Trips) -> Row:
    """End it; return what it names, of all packets together."""
    rows = trips.tracer.stop()
    (record,) = trips.tracer.rows("slow_part")
    assert record["stage"] in {row["stage"] for row in rows}
    assert 0.5 < record["share"] <= 1
    return record


def test_an_application_that_is_late(hook: str) -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.puppet()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--summary", "--dport", str(port))
        trips = stack.enter_context(tripping(*arguments))
        hand_over(sender, reader, SIZE, 0.05)
        record = slow_part(trips)
    assert (record["part"], record["stage"]) == ("application", "app_read")
    assert record["p99_ns"] > 40_000_000


def test_a_shaper(hook: str) -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.puppet()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--summary", "--by", "dport", "--dport", str(port))
        trips = stack.enter_context(tripping(*arguments))
        with client.shaper(rate="8mbit", burst="3000", limit="100000"):
            hand_over(sender, reader, 20_000)
        record = slow_part(trips)
    assert (record["part"], record["dport"]) == ("qdisc", port)


def test_a_packet_that_is_lost(hook: str) -> None:
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.puppet()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        arguments = ("--hook", hook, "--dport", str(port))
        trips = stack.enter_context(tripping(*arguments, "--summary"))
        again = stack.enter_context(tripping(*arguments))
        with router.firewall("forward", f"tcp dport {port} drop"):
            sender.do(f"client.sendall(bytes({SIZE}))")
            again.one(payload=SIZE, end="dropped")
        reader.do(f"served.recv({SIZE})")
        row = again.one(payload=SIZE, end="delivered")
        record = slow_part(trips)
    assert row["retrans_after_ns"] > 100_000_000
    assert (record["part"], record["stage"]) == ("retransmission", "retransmit")
