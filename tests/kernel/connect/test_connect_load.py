# SPDX-License-Identifier: BSD-2-Clause
"""Thousands of attempts under way at once, on a host that is busy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness import Row, Workload, in_netns, run, tracing
from kernel_maps import entries
from raw_peer import PEER, peer

if TYPE_CHECKING:
    from hidden_events import Witness


def ends(rows: list[Row]) -> Counter[tuple[int, int, str]]:
    """Count attempts by who made them and how they ended: a port may come again."""
    return Counter((row["pid"], row["sport"], row["result"]) for row in rows)


def ends_of(made: list[Row], shown: list[Row]) -> Counter[tuple[int, int, str]]:
    """Return the ends that are shown for the processes of what was made."""
    pids = {row["pid"] for row in made}
    return ends([row for row in shown if row["pid"] in pids])


def test_thousands_of_attempts_under_way_at_once(hook: str) -> None:
    """More than the table of slots takes: the rest is kept in the hash, and nothing is mixed up."""
    with peer("silence") as (netns, _), tracing("--hook", hook, "--sync-errors", "off") as tracer:
        made = run("many_pending", PEER, 80, 7000, netns=netns)
        tracer.wait_for(7000)
        for name in ["attempts"] + ["attempt_slots"] * (hook == "tp_btf"):
            assert entries(tracer.process.pid, name) == 0
        shown = tracer.stop()
    assert len(made) == 7000
    assert ends_of(made, shown) == ends(made)


def test_time_outs_that_interrupt_other_attempts(hook: str, port: int, witness: Witness) -> None:
    """Time-outs come in an interrupt, and may come while a program runs for a process."""
    with peer("silence") as (netns, _), tracing("--hook", hook, "--buffer", "64M") as tracer:
        in_netns(netns, "sh", "-c", "sysctl -qw net.ipv4.tcp_syn_linear_timeouts=0 || :")
        others = [Workload("connect", "127.0.0.1", port, 20000) for _ in range(2)]
        for each in others:
            each.begin()
        made = run("many_pending", PEER, 80, 4000, "ETIMEDOUT", netns=netns)
        made += [row for each in others for row in each.finish()]
        assert len(made) == 44000
        unseen = [change.sport for change in witness.changes() if change.decides()]
        tracer.wait_for(44000 - len(unseen))
        shown = tracer.stop()
    assert tracer.rows("summary")[0]["lost"] == 0
    assert ends_of(made, shown) - ends(made) == Counter()
    print("UNSEEN", len(unseen))
    missing = ends(made) - ends_of(made, shown)
    assert {sport for _, sport, _ in missing} <= set(unseen)
