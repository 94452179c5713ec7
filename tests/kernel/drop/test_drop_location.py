# SPDX-License-Identifier: BSD-2-Clause
"""Where a packet was dropped, where gcc has split kfree_skb(): the tracepoint names that for all.

Here it is whole. So a function that calls it, and its caller, too, are taken for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from drops import dropping
from harness import run, tracing, unused_port, wait_until

if TYPE_CHECKING:
    from harness import Row

SPLIT = """
import sys
from cgnet.kernel import symbols
symbols.FREEING = ("tcp_v4_rcv", "kfree_skb", "ip_protocol_deliver_rcu", "kfree_skb_list")
symbols.ARGUMENTS_WHERE_WHOLE = 9
from cgnet.cli import main
sys.exit(main())
"""
PROGRAM = (sys.executable, "-c", SPLIT)


def behind(row: Row, function: str) -> str:
    """Return the caller of a function in a row's stack."""
    names = [frame.partition("+")[0] for frame in row["stack"]]
    return str(row["stack"][names.index(function) + 1])


def test_drop_is_told_at_the_caller(hook: str, netns: str) -> None:
    port = unused_port()
    with dropping("--hook", hook, "--netns", f"/run/netns/{netns}", program=PROGRAM) as drops:
        run("connect", "127.0.0.1", port, netns=netns)
        row = drops.one("tcp_v4_rcv", dport=port)
    assert row["location"] == behind(row, "ip_protocol_deliver_rcu")


@pytest.mark.parametrize("program", [PROGRAM, None], ids=["split", "whole"])
def test_trace_is_told_at_the_caller(
    hook: str, netns: str, program: tuple[str, ...] | None
) -> None:
    port = unused_port()
    how = ("--hook", hook, "--functions", "none", "--drops", "--netns", f"/run/netns/{netns}")
    with tracing(*how, command="trace", **({"program": program} if program else {})) as tracer:
        run("connect", "127.0.0.1", port, netns=netns)
        wait_until(str(tracer), tracer.rows)
        row = next(each for each in tracer.rows() if each["dport"] == port)
    assert row["location"].startswith("tcp_v4_rcv") is (program is None), row
    assert row["location"] != "?"
