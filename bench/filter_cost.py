# SPDX-License-Identifier: BSD-2-Clause
"""What filters and counting add to the kernel cost of an attempt, in turn with none."""

from __future__ import annotations

import os
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kernel_cost import cost

from cgnet.cgroups import default_hierarchy, hierarchies
from cgnet.counts import constants, read_by
from cgnet.filters import Filters, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUNS = 5
GROUPS = 10_000
PROMISED_NS = 100
HOOK = "tp_btf"


@contextmanager
def many_cgroups() -> Iterator[Path]:
    """Make a cgroup with GROUPS - 1 below it; yield the last of these."""
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


def cases(group: Path) -> dict[str, tuple[Selection, dict[str, int] | None]]:
    """Return what is compared: the first one is no filter."""
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
        "--count --by container,result": (Selection(), constants(read_by(["container,result"]))),
    }


def measure(add: Callable[..., None]) -> None:
    """Measure each against none."""
    with many_cgroups() as group:
        wanted = cases(group)
        found: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(RUNS):
            for name, (selection, counting) in wanted.items():
                found[name].append(cost(HOOK, Filters(selection), counting, group).ns)
        plain = found.pop("no filter")
        for name, each in found.items():
            more = statistics.median(one - none for one, none in zip(each, plain, strict=True))
            promised = name.startswith("--cgroup")
            add(
                f"kernel cost, {name}",
                f"{more:+.0f} ns (of {statistics.median(plain):.0f})",
                f"<= {PROMISED_NS} ns more" if promised else "reported",
                reached=more <= PROMISED_NS if promised else None,
            )
