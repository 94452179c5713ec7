# SPDX-License-Identifier: BSD-2-Clause
"""The kernel cost of ``cgnet drop``: of a drop, and of traffic without losses."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rivals
import tracer
from measure import HOOKS, RING_BYTES, beside_empty

from cgnet.commands.drop.command import Drop
from cgnet.commands.drop.config import DropOptions
from cgnet.filters.selection import Filters
from cgnet.kernel.symbols import Symbols
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 3.0
RUNS = 3
EMPTY = "drop_{}"
ON_DROP, ON_CONSUME = {"drop"}, {"syn_drop"}
BLOCKED = Path(__file__).with_name("blocked.py")


class Cost(NamedTuple):
    """The cost of one unit of a load: ns net of empty runs."""

    drops_ns: float  # of the program that handles drops
    drops: float  # their number
    ledger_ns: float  # of the programs that find sockets' owners
    consumed_ns: float  # of --syn-drops


def refused() -> int:
    """Connect to a closed port of the loopback, a drop each time; return the number of attempts."""
    end, count = time.monotonic() + SECONDS, 0
    with socket.socket() as held:  # a bound port without a listener
        held.bind(("127.0.0.1", 0))
        where = held.getsockname()
        while time.monotonic() < end:
            with socket.socket() as sock:
                sock.connect_ex(where)
            count += 1
    return count


def blocked() -> int:
    """Send packets that a firewall drops, each from its own socket; return their number."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, BLOCKED, str(SECONDS)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


def ordinary() -> int:
    """Make ordinary connections; return their number."""
    return tracer.load(SECONDS, 1).connections


def cost(hook: str, work: Callable[[], int], **options: Any) -> Cost:
    """Measure with a ring that is read as cgnet reads it."""
    command = Drop(Symbols(), DropOptions(**options))
    launch = Launch(
        command.object, command.layouts, Filters(), RING_BYTES,
        config=command.config, maps=command.maps(),
    )  # fmt: skip
    found = beside_empty(launch, hook, EMPTY, work, *command.program_sets())
    others = found.programs.keys() - ON_DROP - ON_CONSUME
    return Cost(
        found.net(ON_DROP) / found.done,
        found.empty.runs / found.done,
        found.net(others) / found.done,
        found.net(ON_CONSUME) / found.done,
    )


def _middle(hook: str, work: Callable[[], int], **options: Any) -> Cost:
    results = sorted(cost(hook, work, **options) for _ in range(RUNS))
    return results[len(results) // 2]


def _tcpdrop(add: Callable[..., None]) -> None:
    """Measure the rival under the load that it reports, too: packets with a socket."""
    what = "the same with tcpdrop.bt"
    try:
        found = [rivals.cost(rivals.tcpdrop, "drop_empty_raw", blocked) for _ in range(RUNS)]
    except rivals.RivalError as error:
        add(what, str(error), "rival")
        return
    add(what, f"{statistics.median(each.ns for each in found):.0f} ns net", "rival")


def measure(add: Callable[..., None]) -> None:
    """Measure both hooks."""
    for hook in HOOKS:
        for name, work in (("to a closed port", refused), ("that a firewall drops", blocked)):
            told = []
            for stacks in ("each", "none"):
                found = _middle(hook, work, stacks=stacks)
                told.append(f"{found.drops_ns:.0f} ns with stacks {stacks!r}")
            add(f"drop: a packet {name}, {hook}", f"{', '.join(told)}, net", "reported")
        found = _middle(hook, ordinary, syn_drops=True)
        add(
            f"drop: an ordinary connection, {hook}",
            f"{found.drops_ns:.0f} ns net for {found.drops:.1f} packets that are benign drops, "
            f"{found.ledger_ns:.0f} ns for its owners; --syn-drops {found.consumed_ns:.0f} ns more",
            "reported",
        )
    _tcpdrop(add)
