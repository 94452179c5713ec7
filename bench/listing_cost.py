# SPDX-License-Identifier: BSD-2-Clause
"""How long ``cgnet sockets`` takes on a host with 100,000 sockets in 200 network namespaces."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCENE = Path(__file__).parents[1] / "tests/kernel/support/many_namespaces.py"
NAMESPACES, CONNECTIONS = 200, 250
RUNS = 7
MAX_ALL_S, MAX_ONE_S = 2.0, 0.6
CASES: tuple[tuple[str, tuple[str, ...], float | None], ...] = (
    ("all, as JSON", ("-o", "json"), MAX_ALL_S),
    ("all, as a table", (), MAX_ALL_S),
    ("all, as CSV", ("-o", "csv"), None),
    ("--states", ("--states",), None),
    ("--ports", ("--ports",), None),
    ("of one process", ("--pid", str(os.getpid())), MAX_ONE_S),
)


class Took(NamedTuple):
    """What a listing took, start and all, in seconds."""

    elapsed: float
    cpu: float


@contextmanager
def scene() -> Iterator[None]:
    """Keep the sockets open while the body runs."""
    process = subprocess.Popen(
        [sys.executable, SCENE, str(NAMESPACES), str(CONNECTIONS), "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        ready = 0
        while ready < NAMESPACES:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the sockets can't be opened")
            ready += len(line.split())
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def listing(*options: str) -> Took:
    """List sockets to nowhere."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    subprocess.run(
        [tracer.CGNET, "sockets", *options],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    elapsed = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(elapsed, sum(after[:2]) - sum(before[:2]))


def measure(add: Callable[..., None]) -> None:
    """Measure each case."""
    with scene():
        for name, options, most in CASES:
            found = [listing(*options) for _ in range(RUNS)]
            took = statistics.median(each.elapsed for each in found)
            cpu = statistics.median(each.cpu for each in found)
            add(
                f"sockets, 100,000 in {NAMESPACES} namespaces: {name}",
                f"{took:.2f} s, {cpu:.2f} s of CPU",
                f"<= {most} s" if most else "reported",
                reached=took <= most if most else None,
            )
