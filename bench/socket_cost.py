# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet rtt`` costs for a packet, and ``cgnet life`` for a socket; rates beside them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

import tracer
from kernel_cost import RING_BYTES, reading
from trace_cost import bulk

from cgnet._layouts import SyncErrors
from cgnet.commands import life, rtt
from cgnet.counts import Counting
from cgnet.filters import Filters
from cgnet.histograms import LOG2
from cgnet.keys import read_by
from cgnet.launch import CGROUP_PROGRAMS, Extra, Launch
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.command import Command

RUNS, SECONDS, PAIRS, RATE_SECONDS = 5, 3.0, 9, 4.0
BY_CONTAINER = Counting(read_by(["container"]), LOG2)
SOCKETS = 2  # of a connection over loopback
MOST_RTT_NS, MOST_LIFE_NS, LEAST_RATE, LEAST_THROUGHPUT = 150, 800, 0.95, 0.97


class Spent(NamedTuple):
    """Nanoseconds and runs of a program."""

    ns: int
    runs: int

    @property
    def each(self) -> float:
        """Nanoseconds of a run."""
        return self.ns / max(self.runs, 1)


def spent(
    command: Command, counting: Counting | None, hook: str, empty: tuple[str, str], *, keep: bool
) -> tuple[dict[str, Spent], Spent, int]:
    """Return what the programs took under one loop, the empty one after them, and the loop's count.

    ``empty`` has the names of the empty programs before and after; ``keep`` is the loop's.
    """
    none = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)
    launch = Launch(command.object, command.layouts, Filters(), RING_BYTES, counting=counting)
    with Object(tracer.BUILD / "empty.bpf.o") as idle:
        idle.keep(set(empty), set())
        idle.load()
        first, last = ({each.name: each for each in idle.programs}[name] for name in empty)
        idle.attach(first)
        obj, _ = launch.start([none], None, hook)
        with obj, reading(obj.ring("ring")), tracer.bpf_stats():
            idle.attach(last)
            ours = [each for each in obj.attached() if each.name not in CGROUP_PROGRAMS]
            before = [each.stats() for each in (*ours, last)]
            done = tracer.load(SECONDS, 1, keep=keep)
            after = [each.stats() for each in (*ours, last)]
    found = [
        Spent(end.run_time_ns - begin.run_time_ns, end.run_count - begin.run_count)
        for begin, end in zip(before, after, strict=True)
    ]
    names = [each.name for each in ours]
    return dict(zip(names, found[:-1], strict=True)), found[-1], done.connections


def rtt_cost(hook: str) -> float:
    """Return ns for each packet, net of an empty program."""
    kind = "typed" if hook == "tp_btf" else "raw"
    empty = (f"probe_first_{kind}", f"probe_empty_{kind}")
    ours, idle, _ = spent(rtt.COMMAND, BY_CONTAINER, hook, empty, keep=True)
    return ours[f"probe_{kind}"].each - idle.each


def life_cost(hook: str) -> float:
    """Return ns for each socket, of all programs, net likewise."""
    kind = "typed" if hook == "tp_btf" else "raw"
    ours, idle, connections = spent(
        life.COMMAND, None, hook, (f"first_{kind}", f"empty_{kind}"), keep=False
    )
    net = sum(each.ns - each.runs * idle.each for each in ours.values())
    return net / connections / SOCKETS


def _ratio(command: str, work: Callable[[], float]) -> float:
    found = []
    for _ in range(PAIRS):
        without = work()
        with tracer.cgnet(command=command):
            found.append(work() / without)
    return statistics.median(found)


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks, and what is left of rates."""
    for name, cost, most in (
        ("rtt by container, each packet", rtt_cost, MOST_RTT_NS),
        ("life, each socket", life_cost, MOST_LIFE_NS),
    ):
        for hook in ("tp_btf", "raw_tp"):
            ns = statistics.median(cost(hook) for _ in range(RUNS))
            promised = hook == "tp_btf"
            add(
                f"{name}, {hook}",
                f"{ns:.0f} ns net",
                f"<= {most} ns" if promised else "beside it",
                reached=ns <= most if promised else None,
            )
    kept = _ratio("life", lambda: tracer.load(RATE_SECONDS, 1).rate)
    add(
        "connection rate with life / without, 1 loop",
        f"{kept:.3f}",
        f">= {LEAST_RATE}",
        reached=kept >= LEAST_RATE,
    )
    kept = _ratio("rtt", bulk)
    add(
        "throughput with rtt / without",
        f"{kept:.3f}",
        f">= {LEAST_THROUGHPUT}",
        reached=kept >= LEAST_THROUGHPUT,
    )
