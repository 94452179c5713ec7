# SPDX-License-Identifier: BSD-2-Clause
"""The cost of ``cgnet rtt`` for a packet and ``cgnet life`` for a socket; rates beside them."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING

import tracer
from bulk import bulk_ratio
from kept import ratio
from measure import HOOKS, RING_BYTES, Watched, beside_empty

from cgnet.commands import life, rtt
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import MICROSECONDS
from cgnet.counting.keys import read_by
from cgnet.filters.selection import Filters
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.run.command import Command

RUNS, SECONDS, PAIRS, RATE_SECONDS = 5, 3.0, 15, 2.0
BY_CONTAINER = Counting(read_by(["container"]), MICROSECONDS)
SOCKETS = 2  # of a connection over loopback
MAX_RTT_NS, MAX_LIFE_NS, MIN_RATE, MIN_THROUGHPUT = 150, 800, 0.95, 0.97


def watched(
    command: Command, counting: Counting | None, hook: str, empty: str, *, keep: bool
) -> Watched[int]:
    """Measure a command under one loop; ``keep`` is the loop's."""
    launch = Launch(command, Filters(), RING_BYTES, counting=counting)
    return beside_empty(launch, hook, empty, lambda: tracer.load(SECONDS, 1, keep=keep).connections)


def rtt_cost(hook: str) -> float:
    """Return ns for each packet, net of an empty program."""
    found = watched(rtt.COMMAND, BY_CONTAINER, hook, "probe_{}", keep=True)
    return found.programs["probe"].each - found.empty.each


def ttfb_cost(hook: str) -> float:
    """Return ns for each packet of what ``life --ttfb`` adds, net of an empty program."""
    found = watched(life.Life(ttfb=True), None, hook, "probe_{}", keep=True)
    return found.programs["turns"].each - found.empty.each


def life_cost(hook: str) -> float:
    """Return ns for each socket, of all programs, net of empty runs."""
    found = watched(life.COMMAND, None, hook, "{}", keep=False)
    return found.net() / found.done / SOCKETS


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks, and rates with a tracer."""
    for name, cost, most in (
        ("rtt by container, each packet", rtt_cost, MAX_RTT_NS),
        ("life --ttfb, each packet", ttfb_cost, MAX_RTT_NS),
        ("life, each socket", life_cost, MAX_LIFE_NS),
    ):
        for hook in HOOKS:
            ns = statistics.median(cost(hook) for _ in range(RUNS))
            promised = hook == "tp_btf"
            add(
                f"{name}, {hook}",
                f"{ns:.0f} ns net",
                f"<= {most} ns" if promised else "beside it",
                reached=ns <= most if promised else None,
            )
    beside = partial(tracer.cgnet, command="life")
    kept = ratio(beside, lambda: tracer.load(RATE_SECONDS, 1).rate, PAIRS)
    add(
        "connection rate with life / without, 1 loop",
        str(kept),
        f">= {MIN_RATE}",
        reached=kept.median >= MIN_RATE,
    )
    kept = bulk_ratio(partial(tracer.cgnet, command="rtt"))
    add(
        "throughput with rtt / without",
        str(kept),
        f">= {MIN_THROUGHPUT}",
        reached=kept.median >= MIN_THROUGHPUT,
    )
