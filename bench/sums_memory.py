# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's memory of sums by owner, by the number of owners that both tables have."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from session_cost import of_session

from cgnet.counting.sums import BLANK, NUMBER_TABLES, OWNER_TABLES
from cgnet.records._layouts import SumKey, SumKind, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.loader import Object

TABLES = ("known_owners", *OWNER_TABLES, *NUMBER_TABLES)
FIRST = 1 << 40  # beyond the numbers of cgroups
NUMBERS = 3  # an owner's failures and drops, by kind
PROMISED_MB = {0: None, 100: 8, 9_000: 200}


def memory(obj: Object) -> int:
    """Return the bytes of the tables, as the kernel counts them: see fdinfo in proc(5)."""
    total = 0
    for name in TABLES:
        text = Path(f"/proc/self/fdinfo/{obj.map(name).fd}").read_text()
        (line,) = (each for each in text.splitlines() if each.startswith("memlock:"))
        total += int(line.split()[1])
    return total


def fill(obj: Object, first: int, last: int) -> None:
    """Add owners to both tables, as if neither was read for a while."""
    for cgroup in range(FIRST + first, FIRST + last):
        obj.map("known_owners").update(u64(cgroup), u32(1))
        for name in OWNER_TABLES:
            obj.map(name).update(u64(cgroup), BLANK)
        for name in NUMBER_TABLES:
            for number in range(NUMBERS):
                key = SumKey(cgroup, SumKind.SUM_DROPS, number).pack()
                obj.map(name).update(key, u64(1))


def measure(add: Callable[..., None]) -> None:
    """Measure the tables as they fill."""
    with ExitStack() as end:
        (obj,) = of_session(end, rows=False)
        filled = 0
        for owners, promised in PROMISED_MB.items():
            fill(obj, filled, owners)
            filled = owners
            megabytes = memory(obj) / 1e6
            add(
                f"memory of sums, {owners} owners",
                f"{megabytes:.1f} MB",
                f"<= {promised} MB" if promised else "",
                reached=megabytes <= promised if promised else None,
            )
