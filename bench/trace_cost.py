# SPDX-License-Identifier: BSD-2-Clause
"""The cost of ``cgnet trace``: ns for each packet, and bulk throughput beside it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import tracer
from bulk import bulk, bulk_ratio
from measure import HOOKS, RING_BYTES, beside_empty

from cgnet.commands.trace.command import NO_FUNCTIONS, Trace
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import NANOSECONDS
from cgnet.counting.keys import Key
from cgnet.filters.selection import Filters, Selection
from cgnet.records.packet import STAGES
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

EMPTY = "queued"  # on a hook that runs once for each packet on loopback
NOBODY = ("--port", "1")
CASES = (("--summary", ("--summary",), 0.85), ("a filter that matches nothing", NOBODY, 0.97))


class Cost(NamedTuple):
    """The cost of one packet: ns net of empty runs, and runs."""

    ns: float
    runs: float


def cost(hook: str, selection: Selection) -> Cost:
    """Measure a summary under bulk transfer."""
    counting = Counting([Key("stage")], NANOSECONDS, stages=STAGES)
    launch = Launch(
        Trace(functions=NO_FUNCTIONS), Filters(selection), RING_BYTES, counting=counting
    )
    found = beside_empty(launch, hook, EMPTY, bulk)
    packets = found.empty.runs
    return Cost(found.net() / packets, found.runs() / packets)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks, and throughput with a tracer."""
    for hook in HOOKS:
        for name, selection in (("followed", Selection()), ("not wanted", Selection(port=("1",)))):
            each = cost(hook, selection)
            add(
                f"trace, kernel cost of a packet that is {name}, {hook}",
                f"{each.ns:.0f} ns net, in {each.runs:.1f} runs",
                "reported",
            )
    for name, arguments, promised in CASES:
        beside = partial(tracer.cgnet, *arguments, command="trace")
        kept = bulk_ratio(beside)
        add(
            f"trace, throughput with {name} / without",
            f"{kept}, of {kept.without / 1e9:.1f} Gbit/s",
            f">= {promised}",
            reached=kept.median >= promised,
        )
