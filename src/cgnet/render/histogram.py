# SPDX-License-Identifier: BSD-2-Clause
"""Histograms as drawings of characters, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.render.table import CLEAR
from cgnet.render.text import cell, duration, local_time

if TYPE_CHECKING:
    from cgnet.events import CountSchema

BAR = 40  # cells, of the bucket with most
BOUND = 9  # cells, of a bucket's bound
FULL, PARTS = "█", " ▏▎▍▌▋▊▉"
OF_EVERY = frozenset({"schema", "type", "time", "ts_ns"})
STATISTICS = frozenset({
    "count", "total_us", "min_us", "avg_us", "max_us", "buckets", "p50_us", "p50_error_us", "p90_us",
    "p90_error_us", "p99_us", "p99_error_us",
})  # fmt: skip


def bar(count: int, most: int) -> str:
    """Return a bar of eighths of a cell; what isn't nothing is seen."""
    eighths = max(1, round(count * BAR * 8 / most)) if count else 0
    return (FULL * (eighths // 8) + PARTS[eighths % 8]).rstrip()


class Drawings:
    """The renderer of histograms for ``-o table`` and ``-o wide``."""

    def __init__(self, schema: CountSchema, *, milliseconds: bool, terminal: bool) -> None:
        """``milliseconds``: bounds are told in them, else each in what fits it."""
        self._schema = schema
        self._ms = milliseconds
        self._terminal = terminal

    def header(self) -> str:
        """Each drawing has its own."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return a drawing for each row."""
        return "".join(map(self._drawing, batch))

    def _time(self, us: int) -> str:
        return f"{us / 1000:g} ms" if self._ms else duration(us)

    def _percentile(self, row: dict[str, Any], name: str) -> str:
        error = row[f"{name}_error_us"]
        about = f" ±{self._time(error)}" if error else ""
        return f"{name} {self._time(row[f'{name}_us'])}{about}"

    def _drawing(self, row: dict[str, Any]) -> str:
        keys = [name for name in row if name not in OF_EVERY | STATISTICS]
        named = " ".join(
            f"{name}={cell(name, row[name])}" for name in keys if row[name] is not None
        )
        when = local_time(row["ts_ns"], self._schema.clock.offset_ns)
        numbers = [
            f"{row['count']:,} samples",
            *(f"{name} {self._time(row[f'{name}_us'])}" for name in ("min", "avg")),
            *(self._percentile(row, name) for name in ("p50", "p90", "p99")),
            f"max {self._time(row['max_us'])}",
        ]
        most = max((count for _, _, count in row["buckets"]), default=0)
        spans = [(self._time(low), self._time(high), count) for low, high, count in row["buckets"]]
        width = max([BOUND, *(len(text) for low, high, _ in spans for text in (low, high))])
        lines = [
            f"{low:>{width}} … {high:<{width}} {count:>10,} {bar(count, most)}".rstrip()
            for low, high, count in spans
        ]
        head = f"{when} {named}".rstrip()
        return "\n".join([head, "  " + ", ".join(numbers), *lines, "", ""])

    def clear(self) -> str:
        """Return the sequence that clears a terminal."""
        return CLEAR if self._terminal else ""

    def notice(self, row: dict[str, Any]) -> str:  # noqa: ARG002
        """Told on stderr instead."""
        return ""
