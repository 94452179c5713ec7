# SPDX-License-Identifier: BSD-2-Clause
"""The cost of all signals over one ledger, beside ``cgnet life`` alone and commands side by side.

By the kernel's statistics: ns for each connection of one loop, net of empty programs; and the rate that
the loop keeps.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import tracer
from kept import ratio
from measure import RING_BYTES, Counted, empty_programs, reading, watch

from cgnet.commands import life, rtt
from cgnet.commands.connect.command import Connect
from cgnet.commands.drop.command import Drop
from cgnet.commands.drop.config import DropOptions
from cgnet.commands.life import Life
from cgnet.commands.retrans import Retrans
from cgnet.commands.rtt import Rtt
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import MICROSECONDS
from cgnet.counting.keys import read_by
from cgnet.filters.selection import Filters, Selection
from cgnet.kernel.symbols import Symbols
from cgnet.records._layouts import Role
from cgnet.run.command import Options
from cgnet.run.launch import CGROUP_PROGRAMS, Launch
from cgnet.run.shared_ledger import RING_NAMES, Part, SharedLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgnet.loader import Object
    from cgnet.run.command import Command

    Start = Callable[[ExitStack], list[Object]]

RUNS, SECONDS, PAIRS, RATE_SECONDS = 5, 3.0, 40, 1.0
TYPED = "tp_btf"
MAX_OF_LIFE, MIN_KEPT = 1.6, 0.88
EVERYBODY = Selection(roles=frozenset({Role.ROLE_CLIENT, Role.ROLE_SERVER}))
BY_CONTAINER = Counting(read_by(["container"]), MICROSECONDS)
OPTIONS = Options(
    EVERYBODY, counting=None, interval=None, output="json", fields=None, no_header=False,
    duration=None, limit=None, buffer=RING_BYTES, max_rate=None, strict=False, btf=None, hook=None,
    transport=None,
)  # fmt: skip


def of_session(end: ExitStack, *, rows: bool) -> list[Object]:
    """Load all signals over one ledger, as rows or as sums."""
    drop = Drop(Symbols(), DropOptions())
    commands = [Connect(EVERYBODY, "off"), Life(), Retrans(), drop, Rtt()]
    parts = [Part(each, rows=rows, sums=not rows) for each in commands]
    session = SharedLedger(parts, Filters(EVERYBODY), OPTIONS)
    session.load(end, lambda: False)
    return [session.obj]


def side_by_side(end: ExitStack, *commands: tuple[Command, Counting | None]) -> list[Object]:
    """Load commands, each with a ledger of its own."""
    return [
        end.enter_context(
            Launch(command, Filters(EVERYBODY), RING_BYTES, counting=counting).start(None, TYPED)
        )
        for command, counting in commands
    ]


def of_life(end: ExitStack) -> list[Object]:
    """Load ``cgnet life``."""
    return side_by_side(end, (life.COMMAND, None))


def of_four(end: ExitStack) -> list[Object]:
    """Load connect, rtt, life and drop side by side."""
    drop = Drop(Symbols(), DropOptions())
    attempts = Connect(EVERYBODY, "off")
    return side_by_side(
        end, (attempts, None), (rtt.COMMAND, BY_CONTAINER), (life.COMMAND, None), (drop, None)
    )


@contextmanager
def running(start: Start) -> Iterator[list[Object]]:
    """Run programs whose rings are read as cgnet reads them."""
    with ExitStack() as end:
        found = start(end)
        for obj in found:
            for name in RING_NAMES.values():
                if obj.has_map(name):
                    end.enter_context(reading(obj.ring(name)))
        yield found


def cost(start: Start) -> float:
    """Return ns for each connection, net of empty runs."""
    with empty_programs("first_typed", "empty_typed") as (first, last):
        first()
        with running(start) as objects:
            empty = last()
            ours = [
                each
                for obj in objects
                for each in obj.attached()
                if each.name not in CGROUP_PROGRAMS
            ]
            watched = [Numbered(number, each) for number, each in enumerate([*ours, empty])]
            found, done = watch(watched, lambda: tracer.load(SECONDS, 1).connections)
            idle = found[watched[-1].name]
            spent = [each.ns - each.runs * idle.each for each in list(found.values())[:-1]]
    return sum(spent) / done


class Numbered:
    """A program, by a name that no other object's has."""

    def __init__(self, number: int, program: Counted) -> None:
        self.name, self.stats = f"{number}", program.stats


def loop_rate() -> float:
    """Return the connections per second of one loop."""
    return tracer.load(RATE_SECONDS, 1).rate


def measure(add: Callable[..., None]) -> None:
    """Measure the programs' time, and the rate of connections that is kept."""
    ways: dict[str, Start] = {
        "life alone": of_life,
        "all signals as sums": lambda end: of_session(end, rows=False),
        "all signals as rows": lambda end: of_session(end, rows=True),
        "connect, rtt, life and drop side by side": of_four,
    }
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, start in ways.items():
            costs[name].append(cost(start))
    middle = {name: statistics.median(each) for name, each in costs.items()}
    for name, ns in middle.items():
        times = ns / middle["life alone"]
        promised = name == "all signals as sums"
        add(
            f"kernel cost of a connection, {name}",
            f"{ns:.0f} ns net, {times:.2f} of life's",
            f"<= {MAX_OF_LIFE} of life's" if promised else "beside it",
            reached=times <= MAX_OF_LIFE if promised else None,
        )
    for name, start in ways.items():
        kept = ratio(partial(running, start), loop_rate, PAIRS)
        promised = name == "all signals as sums"
        add(
            f"connection rate with {name} / without, 1 loop",
            str(kept),
            f">= {MIN_KEPT}" if promised else "beside it",
            reached=kept.median >= MIN_KEPT if promised else None,
        )
