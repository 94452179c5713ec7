# SPDX-License-Identifier: BSD-2-Clause
"""What one attempt costs in the kernel, by bpf_stats, net of being called and of the measuring."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

import tracer

from cgnet._layouts import SyncErrors
from cgnet.commands.connect import COMMAND
from cgnet.filters import Filters
from cgnet.launch import Extra, Launch
from cgnet.loader import Object
from cgnet.pipeline import TICK_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgnet.loader import Ring

SECONDS = 5.0
PROMISED_NS = 600
RUNS = 5
RING_BYTES = 4 << 20
# What is attached to a hook, in this order: an empty program, cgnet's, another empty one.
PROGRAMS = {
    "tp_btf": ("first_typed", "set_state_typed", "empty_typed"),
    "raw_tp": ("first_raw", "set_state_raw", "empty_raw"),
}


@contextmanager
def reading(ring: Ring) -> Iterator[None]:
    """Empty the ring once a tick while the body runs."""
    end = Event()

    def read() -> None:
        while not end.wait(TICK_MS / 1000):
            ring.consume()

    reader = Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        end.set()
        reader.join()


class Cost(NamedTuple):
    """Of one attempt: ns net of empty runs, how many runs, and what an empty one reads."""

    ns: float
    runs: float
    empty_ns: float


def cost(hook: str) -> Cost:
    """Measure under one loop, with a ring of the usual size that is read as cgnet reads it."""
    first, ours, empty = PROGRAMS[hook]
    none = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)
    launch = Launch(COMMAND.object, COMMAND.layouts, Filters(), RING_BYTES)
    with Object(tracer.BUILD / "empty.bpf.o") as idle:
        idle.keep({first, empty}, set())
        idle.load()
        programs = {program.name: program for program in idle.programs}
        idle.attach(programs[first])
        obj, _ = launch.start([none], None, hook)
        with obj, reading(obj.ring("ring")), tracer.bpf_stats():
            idle.attach(programs[empty])
            programs |= {program.name: program for program in obj.programs}
            before = {name: programs[name].stats() for name in (ours, empty)}
            done = tracer.load(SECONDS, 1)
            after = {name: programs[name].stats() for name in (ours, empty)}
    spent = {name: after[name].run_time_ns - before[name].run_time_ns for name in after}
    runs = {name: after[name].run_count - before[name].run_count for name in after}
    empty_ns = spent[empty] / runs[empty]
    net = spent[ours] - runs[ours] * empty_ns
    return Cost(net / done.connections, runs[ours] / done.connections, empty_ns)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in PROGRAMS:
        results = sorted(cost(hook) for _ in range(RUNS))
        middle = results[len(results) // 2]
        promised = hook == "tp_btf"
        add(
            f"kernel cost of one attempt, {hook}",
            f"{middle.ns:.0f} ns net, in {middle.runs:.1f} runs (empty: {middle.empty_ns:.0f} ns)",
            f"<= {PROMISED_NS} ns" if promised else "beside it",
            reached=middle.ns <= PROMISED_NS if promised else None,
        )
