# SPDX-License-Identifier: BSD-2-Clause
"""Other tools under the same load: measured where they are installed, else as they were once."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

# Debian's names for the libbpf tools that need no kprobes.
TOOLS = ("tcplife", "tcpstates")
# (tool, connection rate with it / without, ns × runs a connection), Linux 6.18, 2 cores, 10,000
# connections: figures of another day, to compare in order of magnitude only.
KNOWN = (
    ("libbpf-tools tcplife 0.37", "0.74–0.83", "2,793 × 10"),
    ("libbpf-tools tcpstates 0.37", "0.38–0.55", "11,171 × 10"),
    ("libbpf-tools tcppktlat 0.37", "0.62–0.79", "13,010 × 2 + 467 × 5 + 225 × 2"),
    ("bpftrace 0.23 tcpdrop.bt", "0.68", "30,518 × 1"),
)


class RivalError(Exception):
    """A rival that ends by itself."""


Beside = Callable[[], AbstractContextManager[None]]


def installed() -> list[tuple[str, Beside]]:
    """Return the rivals on this host, and how to run each beside the load."""
    paths = [(tool, shutil.which(tool)) for tool in TOOLS]
    return [(tool, partial(_beside, path)) for tool, path in paths if path]


@contextmanager
def _beside(path: str) -> Iterator[None]:
    process = subprocess.Popen([path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)  # they say nothing when they are ready
        if process.poll() is not None:
            raise RivalError(f"{path} doesn't run on this host")
        yield
    finally:
        process.terminate()
        process.wait()


def print_known(console: Console) -> None:
    """Print the figures of rivals that were measured elsewhere."""
    console.print("Rivals, measured once on Linux 6.18 (not in this run):")
    for tool, ratio, cost in KNOWN:
        console.print(f"  {tool}: rate {ratio}, kernel {cost} ns", highlight=False)
