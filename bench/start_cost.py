# SPDX-License-Identifier: BSD-2-Clause
"""The start of each command: its time, what the verifier takes of it, and resident memory."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import tracer
from measure import HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = ("connect", "rtt", "life", "drop", "trace")
STARTS = 9
# Multiples of the start of a bare Python, a measure of the host.
PROMISED = dict.fromkeys(("connect", "rtt", "life", "drop"), 30)
MAX_RESIDENT_MB = 60


class Verified(NamedTuple):
    """What the verifier spent on the programs of a start."""

    ms: float
    instructions: int


class Start(NamedTuple):
    """Seconds from exec to tracing, and resident memory in MB by then."""

    seconds: float
    resident_mb: float


def bare() -> float:
    """Return the seconds that Python takes to do nothing."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - begin


def started(command: str, hook: str) -> Start:
    """Start a command, and end it once it traces."""
    with tracer.cgnet("--hook", hook, command=command) as running:
        return Start(running.start_s, running.resident_mb())


def verified(command: str, hook: str) -> Verified:
    """Return what the verifier spent, by its own log."""
    script = tracer.ROOT / "bench/verified.py"
    arguments = (command, "--hook", hook, "-o", "json", "--duration", "0.1")
    done = subprocess.run(
        [sys.executable, script, *arguments], check=True, capture_output=True, text=True
    )
    return Verified(**json.loads(done.stderr.splitlines()[-1]))


def measure(add: Callable[..., None]) -> None:
    """Measure both variants of each command, in turn with a bare Python."""
    cases = [(command, hook) for command in COMMANDS for hook in HOOKS]
    starts: dict[tuple[str, str], list[Start]] = {case: [] for case in cases}
    bares = []
    for _ in range(STARTS):
        for case in cases:
            bares.append(bare())
            starts[case].append(started(*case))
    unit = statistics.median(bares)
    add("a bare python -c pass", f"{unit * 1000:.0f} ms", "the unit of starts")
    for command, hook in cases:
        runs = starts[command, hook]
        seconds = statistics.median(each.seconds for each in runs)
        resident = max(each.resident_mb for each in runs)
        cost = verified(command, hook)
        most = PROMISED.get(command) if hook == "tp_btf" else None
        add(
            f"{command}, {hook}, exec to tracing",
            f"{seconds / unit:.1f} bare starts, {seconds * 1000:.0f} ms (verifier: {cost.ms:.0f} "
            f"ms for {cost.instructions:,} instructions), {resident:.0f} MB",
            f"<= {most}, {MAX_RESIDENT_MB} MB" if most else "beside it",
            reached=seconds / unit <= most and resident <= MAX_RESIDENT_MB if most else None,
        )
