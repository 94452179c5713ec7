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
from cgnet.launch import CGROUP_PROGRAMS, Extra, Launch
from cgnet.loader import Object
from cgnet.pipeline import TICK_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cgnet.counts import Counting
    from cgnet.ring import Reader

SECONDS = 5.0
PROMISED_NS = 600
RUNS = 5
RING_BYTES = 4 << 20
# What is attached to a hook before and after cgnet's programs.
EMPTY = {"tp_btf": ("first_typed", "empty_typed"), "raw_tp": ("first_raw", "empty_raw")}


@contextmanager
def reading(ring: Reader) -> Iterator[None]:
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


def cost(
    hook: str,
    filters: Filters | None = None,
    counting: Counting | None = None,
    cgroup: Path | None = None,
    seconds: float = SECONDS,
) -> Cost:
    """Measure under one loop, with a ring of the usual size that is read as cgnet reads it."""
    first, last = EMPTY[hook]
    none = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)
    filters = filters or Filters()
    launch = Launch(COMMAND.object, COMMAND.layouts, filters, RING_BYTES, counting=counting)
    with Object(tracer.BUILD / "empty.bpf.o") as idle:
        idle.keep({first, last}, set())
        idle.load()
        empty = {program.name: program for program in idle.programs}
        idle.attach(empty[first])
        obj, _ = launch.start([none], None, hook)
        with obj, reading(obj.ring("ring")), tracer.bpf_stats():
            idle.attach(empty[last])
            ours = [program for program in obj.attached() if program.hook == hook]
            ours = [program for program in ours if program.name not in CGROUP_PROGRAMS]
            before = [each.stats() for each in (*ours, empty[last])]
            done = tracer.load(seconds, 1, cgroup)
            after = [each.stats() for each in (*ours, empty[last])]
    spent = [end.run_time_ns - begin.run_time_ns for begin, end in zip(before, after, strict=True)]
    runs = [end.run_count - begin.run_count for begin, end in zip(before, after, strict=True)]
    empty_ns = spent[-1] / runs[-1]
    net = sum(spent[:-1]) - sum(runs[:-1]) * empty_ns
    return Cost(net / done.connections, sum(runs[:-1]) / done.connections, empty_ns)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in EMPTY:
        results = sorted(cost(hook) for _ in range(RUNS))
        middle = results[len(results) // 2]
        promised = hook == "tp_btf"
        add(
            f"kernel cost of one attempt, {hook}",
            f"{middle.ns:.0f} ns net, in {middle.runs:.1f} runs (empty: {middle.empty_ns:.0f} ns)",
            f"<= {PROMISED_NS} ns" if promised else "beside it",
            reached=middle.ns <= PROMISED_NS if promised else None,
        )
