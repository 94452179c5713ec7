# SPDX-License-Identifier: BSD-2-Clause
"""The kernel cost that filters and counting add to an attempt, alternating with no filter."""

from __future__ import annotations

import os
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kernel_cost import cost

from cgnet.counting.counts import Counting
from cgnet.counting.keys import read_by
from cgnet.filters.selection import Filters, Selection
from cgnet.owners.cgroups import default_hierarchy, hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNS, SECONDS = 9, 2.0
GROUPS = 10_000
PROMISED_NS = 100
HOOK = "tp_btf"


@contextmanager
def many_cgroups() -> Iterator[Path]:
    """Create a cgroup with GROUPS - 1 below it; yield the last of these."""
    top = default_hierarchy(hierarchies()).mount / f"cgnet-bench-{os.getpid()}"
    below = [top / f"g{number}" for number in range(GROUPS - 1)]
    made = []
    try:
        for path in (top, *below):
            path.mkdir()
            made.append(path)
        yield below[-1]
    finally:
        for path in reversed(made):
            path.rmdir()


def cases(group: Path) -> dict[str, tuple[Selection, Counting | None]]:
    """Return the cases to compare; the first one has no filter."""
    networks = [f"10.{number // 256}.{number % 256}.0/24" for number in range(999)]
    ports = ",".join(str(port) for port in range(1, 2000, 2))
    return {
        "no filter": (Selection(), None),
        f"--cgroup of {GROUPS:,}": (Selection(cgroup=(str(group.parent),)), None),
        "--uid --comm": (Selection(uid=("0",), comm=("loop", "!no")), None),
        "1,000 CIDRs": (Selection(daddr=("127.0.0.0/8", *networks)), None),
        "1,000 ports, -4, --result": (
            Selection(port=(f"!{ports}",), families=frozenset({4}), result=("ok", "ECONNREFUSED")),
            None,
        ),
        "--count --by container,result": (Selection(), Counting(read_by(["container,result"]))),
    }


def measure(add: Callable[..., None]) -> None:
    """Measure each case against no filter."""
    with many_cgroups() as group:
        wanted = cases(group)
        none = wanted.pop("no filter")
        for name, case in wanted.items():
            found = []
            for _ in range(RUNS):  # in turn, because a host's speed changes within minutes
                plain = cost(HOOK, Filters(none[0]), none[1], group, SECONDS).ns
                ours = cost(HOOK, Filters(case[0]), case[1], group, SECONDS).ns
                found.append((ours - plain, plain))
            more, plain = (statistics.median(each) for each in zip(*found, strict=True))
            promised = name.startswith("--cgroup")
            add(
                f"kernel cost, {name}",
                f"{more:+.0f} ns (of {plain:.0f})",
                f"<= {PROMISED_NS} ns more" if promised else "reported",
                reached=more <= PROMISED_NS if promised else None,
            )
