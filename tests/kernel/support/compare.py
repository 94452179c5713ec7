# SPDX-License-Identifier: BSD-2-Clause
"""Comparisons of a tracer's rows with a test's attempts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from harness import Row, Tracer


def attempts(rows: Iterable[Row]) -> Counter[tuple[object, ...]]:
    """Count attempts by identifying fields."""
    names = ("pid", "daddr", "dport", "sport", "result")
    return Counter(tuple(row[name] for name in names) for row in rows)


def only(tracer: Tracer, wanted: list[Row], others: list[Row]) -> list[Row]:
    """End the tracer; assert that it shows only the wanted attempts, with the same values."""
    pids = {row["pid"] for row in [*wanted, *others]}
    shown = [row for row in tracer.stop() if row["pid"] in pids]
    assert attempts(shown) == attempts(wanted), tracer
    assert not any(row["count"] for row in tracer.rows("lost")), tracer
    return shown


def totals(rows: Iterable[Row], *names: str) -> Counter[tuple[object, ...]]:
    """Sum up counts by these fields."""
    found: Counter[tuple[object, ...]] = Counter()
    for row in rows:
        found[tuple(row[name] for name in names)] += row["count"]
    return found


def inner(path: Path, hierarchy: Path) -> str:
    """Return a path inside the hierarchy."""
    return f"/{path.relative_to(hierarchy)}"
