# SPDX-License-Identifier: BSD-2-Clause
"""What ``cgnet drop`` costs in the kernel: a drop, and traffic that loses nothing."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import tracer
from kernel_cost import RING_BYTES, reading

from cgnet._layouts import DROP, DROP_EVENT, FLOW
from cgnet.drop_options import programs, settings
from cgnet.filters import Filters
from cgnet.launch import Launch
from cgnet.loader import Object
from cgnet.symbols import Symbols

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.loader import Program

SECONDS = 3.0
RUNS = 3
# What is attached to a hook before and after cgnet's programs, and how these are called.
EMPTY = {
    "tp_btf": ("drop_first_typed", "drop_empty_typed"),
    "raw_tp": ("drop_first_raw", "drop_empty_raw"),
}
ON_DROP, ON_CONSUME = ("drop_typed", "drop_raw"), ("syn_drop_typed", "syn_drop_raw")


class Cost(NamedTuple):
    """Of one of what a load does: ns net of empty runs."""

    drops_ns: float  # of the program that drops run
    drops: float  # how many there are
    ledger_ns: float  # of those that know sockets' owners
    consumed_ns: float  # of --syn-drops


def refused() -> int:
    """Knock at a closed port of the loopback, where each knock is a drop; return how often."""
    end, count = time.monotonic() + SECONDS, 0
    with socket.socket() as held:  # a port that is bound, and that nobody listens at
        held.bind(("127.0.0.1", 0))
        where = held.getsockname()
        while time.monotonic() < end:
            with socket.socket() as sock:
                sock.connect_ex(where)
            count += 1
    return count


def ordinary() -> int:
    """Make ordinary connections; return how many."""
    return tracer.load(SECONDS, 1).connections


def _options(**given: Any) -> dict[str, Any]:
    absent = {
        "reason": (), "dev": (), "reason_class": (), "state": (), "every": False, "btf": None,
        "stacks": "each", "syn_drops": False,
    }  # fmt: skip
    return absent | given


def cost(hook: str, work: Callable[[], int], **options: Any) -> Cost:
    """Measure with a ring that is read as cgnet reads it."""
    given = _options(**options)
    measures, contents = settings(Symbols(), given)
    extra = programs(given)
    launch = Launch(
        "drop", (DROP_EVENT, FLOW, DROP), Filters(), RING_BYTES, measures=measures, contents=contents
    )  # fmt: skip
    first, last = EMPTY[hook]
    with Object(tracer.BUILD / "empty.bpf.o") as idle:
        idle.keep({first, last}, set())
        idle.load()
        empty = {program.name: program for program in idle.programs}
        idle.attach(empty[first])
        obj, _ = launch.start([extra], None, hook)
        with obj, reading(obj.ring("ring")), tracer.bpf_stats():
            idle.attach(empty[last])
            ours = [*obj.attached(), empty[last]]
            before = {each.name: each.stats() for each in ours}
            done = work()
            after = {each.name: each.stats() for each in ours}

    def spent(program: Program) -> tuple[int, int]:
        begin, end = before[program.name], after[program.name]
        return end.run_time_ns - begin.run_time_ns, end.run_count - begin.run_count

    empty_time, empty_runs = spent(empty[last])
    empty_ns = empty_time / empty_runs

    def net(names: tuple[str, ...]) -> float:
        both = [spent(each) for each in ours[:-1] if each.name in names]
        return sum(ns - runs * empty_ns for ns, runs in both) / done

    others = {each.name for each in ours[:-1]} - {*ON_DROP, *ON_CONSUME}
    return Cost(net(ON_DROP), empty_runs / done, net(tuple(others)), net(ON_CONSUME))


def _middle(hook: str, work: Callable[[], int], **options: Any) -> Cost:
    results = sorted(cost(hook, work, **options) for _ in range(RUNS))
    return results[len(results) // 2]


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in EMPTY:
        told = []
        for stacks in ("each", "none"):
            found = _middle(hook, refused, stacks=stacks)
            told.append(f"{found.drops_ns:.0f} ns with stacks {stacks!r}")
        add(f"drop: a packet to a closed port, {hook}", f"{', '.join(told)}, net", "reported")
        found = _middle(hook, ordinary, syn_drops=True)
        add(
            f"drop: an ordinary connection, {hook}",
            f"{found.drops_ns:.0f} ns net for {found.drops:.1f} packets that are benign drops, "
            f"{found.ledger_ns:.0f} ns for its owners; --syn-drops {found.consumed_ns:.0f} ns more",
            "reported",
        )
