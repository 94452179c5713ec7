# SPDX-License-Identifier: BSD-2-Clause
"""Other tools under the same load: measured if installed, else their figures of another day."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import measure
import tracer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

# Debian's names of the libbpf tools that need no kprobes.
TOOLS = ("tcplife", "tcpstates")
# (tool, connection rate with it / without, ns × runs a connection), Linux 6.18, 2 cores, 10,000
# connections: figures of another day, to compare in order of magnitude only.
KNOWN = (
    ("libbpf-tools tcplife 0.37", "0.74–0.83", "2,793 × 10"),
    ("libbpf-tools tcpstates 0.37", "0.38–0.55", "11,171 × 10"),
    ("libbpf-tools tcppktlat 0.37", "0.62–0.79", "13,010 × 2 + 467 × 5 + 225 × 2"),
    ("bpftrace 0.23 tcpdrop.bt", "0.68", "30,518 × 1"),
)
TCPDROP = "tcpdrop.bt"
# The part of tcpdrop.bt that needs C headers, which a host may not have.
HEADERS = re.compile(r"^#ifndef BPFTRACE_HAVE_BTF$.*?^#endif$", re.MULTILINE | re.DOTALL)
CONSTANTS = "#define AF_INET 2\n#define AF_INET6 10"
# They need tracefs at its mount point: here in a mount namespace that ends with them.
IN_TRACEFS = """
at=/sys/kernel/debug
test -d $at/tracing || mount -t debugfs none $at
test -d $at/tracing/events || mount -t tracefs none $at/tracing
exec "$@"
"""
LOADED_S, ATTACHED_S = 20.0, 1.0


class RivalError(Exception):
    """A rival that isn't installed, or doesn't run."""


class Cost(NamedTuple):
    """The cost of one unit of a load: ns net of empty runs, and runs."""

    ns: float
    runs: float


Beside = Callable[[], AbstractContextManager[object]]


def installed() -> list[tuple[str, Beside]]:
    """Return the rivals on this host, with functions that run each beside the load."""
    paths = [(tool, shutil.which(tool)) for tool in TOOLS]
    return [(tool, partial(_beside, tool, path)) for tool, path in paths if path]


@contextmanager
def _beside(name: str, *command: str) -> Iterator[None]:
    before = len(measure.loaded())
    enter = ("unshare", "--mount", "sh", "-c", IN_TRACEFS, "sh")
    process = subprocess.Popen(
        [*enter, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        latest = time.monotonic() + LOADED_S
        while len(measure.loaded()) == before and process.poll() is None:
            if time.monotonic() > latest:
                raise RivalError(f"{name} loads no programs on this host")
            time.sleep(0.05)
        time.sleep(ATTACHED_S)  # they don't report when they are ready
        if process.poll() is not None:
            raise RivalError(f"{name} doesn't run on this host")
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def tcpdrop() -> Iterator[None]:
    """Run bpftrace's tcpdrop.bt. Raises RivalError."""
    path = shutil.which(TCPDROP) or f"/usr/share/bpftrace/tools/{TCPDROP}"
    if not shutil.which("bpftrace") or not Path(path).exists():
        raise RivalError(f"{TCPDROP} isn't installed")
    script = tracer.BUILD / TCPDROP
    script.write_text(HEADERS.sub(CONSTANTS, Path(path).read_text()))
    with _beside(TCPDROP, "bpftrace", str(script)):
        yield


def cost(beside: Beside, empty: str, work: Callable[[], int]) -> Cost:
    """Measure a rival's programs, net of an empty one on the same hook. Raises RivalError."""
    with measure.empty_programs(empty) as (attach,):
        last = attach()
        before = set(measure.loaded())
        with beside(), measure.foreign(set(measure.loaded()) - before) as programs:
            spent, done = measure.watch([*programs, last], work)
    watched = measure.Watched(spent, spent.pop(last.name), done)
    return Cost(watched.net() / done, watched.runs() / done)


def print_known(console: Console) -> None:
    """Print the figures of rivals that were measured elsewhere."""
    console.print("Rivals, measured once on Linux 6.18 (not in this run):")
    for tool, ratio, ns in KNOWN:
        console.print(f"  {tool}: rate {ratio}, kernel {ns} ns", highlight=False)
