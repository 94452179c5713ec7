# SPDX-License-Identifier: BSD-2-Clause
"""The kernel cost of one attempt, by bpf_stats, net of the call and of the measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import tracer
from measure import HOOKS, RING_BYTES, beside_empty

from cgnet.commands.connect.command import Connect
from cgnet.filters.selection import Filters
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cgnet.counting.counts import Counting

SECONDS = 5.0
PROMISED_NS = 600
RUNS = 5
COMMAND = Connect(sync_errors="off")
EMPTY = "{}"  # of empty.bpf.c, on inet_sock_set_state


class Cost(NamedTuple):
    """The cost of one attempt: ns net of empty runs, runs, and ns of an empty run."""

    ns: float
    runs: float
    empty_ns: float


def cost(
    hook: str,
    filters: Filters | None = None,
    counting: Counting | None = None,
    cgroup: Path | None = None,
    seconds: float = SECONDS,
) -> Cost:
    """Measure under one loop, with a ring of the usual size that is read as cgnet reads it."""
    filters = filters or Filters()
    launch = Launch(COMMAND, filters, RING_BYTES, counting=counting)
    found = beside_empty(launch, hook, EMPTY, lambda: tracer.load(seconds, 1, cgroup).connections)
    return Cost(found.net() / found.done, found.runs() / found.done, found.empty.each)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in HOOKS:
        results = sorted(cost(hook) for _ in range(RUNS))
        middle = results[len(results) // 2]
        promised = hook == "tp_btf"
        add(
            f"kernel cost of one attempt, {hook}",
            f"{middle.ns:.0f} ns net, in {middle.runs:.1f} runs (empty: {middle.empty_ns:.0f} ns)",
            f"<= {PROMISED_NS} ns" if promised else "beside it",
            reached=middle.ns <= PROMISED_NS if promised else None,
        )
