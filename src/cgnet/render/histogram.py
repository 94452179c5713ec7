# SPDX-License-Identifier: BSD-2-Clause
"""Histograms drawn with characters, for people."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from cgnet.counting.histograms import PER_POWER
from cgnet.records.schema import USEC_PER_SEC
from cgnet.render import Renderer
from cgnet.render.layout import filled, shortened, terminal_width
from cgnet.render.screen import CLEAR, drawn_anew
from cgnet.render.text import cell, duration, local_time

if TYPE_CHECKING:
    from cgnet.records.schema import CountSchema

BAR = 40  # cells, of the bucket with the highest count, if there is room
BOUND = 9  # cells, of a bucket's bound
COUNT = 10  # cells
FULL, PARTS = "█", " ▏▎▍▌▋▊▉"
OF_EVERY = frozenset({"schema", "type", "time", "ts_ns"})
STATISTICS = frozenset({
    "count", "total_us", "min_us", "avg_us", "max_us", "buckets", "p50_us", "p50_error_us", "p90_us",
    "p90_error_us", "p99_us", "p99_error_us",
})  # fmt: skip


def powers_of_two(buckets: list[list[float]]) -> list[list[float]]:
    """Return geometric buckets merged into those of the powers of two of a second."""
    merged: dict[int, list[float]] = {}
    for low, high, count in buckets:
        power = math.ceil(round(PER_POWER * math.log2(high / USEC_PER_SEC)) / PER_POWER)
        upper = USEC_PER_SEC * 2.0**power
        merged.setdefault(power, [low and upper / 2, upper, 0])[2] += count
    return list(merged.values())


def bar(count: float, most: float, longest: int = BAR) -> str:
    """Return a bar in eighths of a cell; a count above zero is always visible."""
    eighths = max(1, round(count * longest * 8 / most)) if count else 0
    return (FULL * (eighths // 8) + PARTS[eighths % 8]).rstrip()


class Drawings(Renderer):
    """The renderer of histograms for ``-o table`` and ``-o wide``."""

    def __init__(
        self,
        schema: CountSchema,
        *,
        geometric: bool,
        milliseconds: bool,
        terminal: bool,
        whole: bool = False,
    ) -> None:
        """``geometric``: draw a line for each power of two, else for each bucket.

        ``milliseconds``: show bounds in ms, else each in a suitable unit. On a terminal no line is
        longer than the terminal's, unless ``whole``.
        """
        self._schema = schema
        self._lines = powers_of_two if geometric else list[list[float]]
        self._ms = milliseconds
        self._fitted = terminal and not whole
        self.redraws = terminal

    def rows(self, batch: list[Any]) -> str:
        """Return a drawing for each row."""
        return "".join(map(self._drawing, batch))

    def _bound(self, us: float) -> str:
        """Return a bound: an integer in full, else three significant figures."""
        if isinstance(us, float):
            us = float(f"{us:.3g}")
            us = int(us) if us.is_integer() else us
        return self._time(us)

    def _time(self, us: float) -> str:
        return f"{us / 1000:.10g} ms" if self._ms else duration(us)

    def _percentile(self, row: dict[str, Any], name: str) -> str:
        error = row[f"{name}_error_us"]
        about = f" ±{self._time(error)}" if error else ""
        return f"{name} {self._time(row[f'{name}_us'])}{about}"

    def _drawing(self, row: dict[str, Any]) -> str:
        keys = [name for name in row if name not in OF_EVERY | STATISTICS]
        named = [f"{name}={cell(name, row[name])}" for name in keys if row[name] is not None]
        when = local_time(row["ts_ns"], self._schema.clock.offset_ns)
        numbers = [
            f"{row['count']:,} samples",
            *(f"{name} {self._time(row[f'{name}_us'])}" for name in ("min", "avg")),
            *(self._percentile(row, name) for name in ("p50", "p90", "p99")),
            f"max {self._time(row['max_us'])}",
        ]
        width = terminal_width() if self._fitted else sys.maxsize
        heads = filled([when, *named], width, "  ")
        heads += filled(
            [f"  {numbers[0]},", *(f"{each}," for each in numbers[1:-1]), numbers[-1]], width, "  "
        )
        return "\n".join([*heads, *self._buckets(self._lines(row["buckets"]), width), "", ""])

    def _buckets(self, buckets: list[list[float]], width: int) -> list[str]:
        """Return a line for each bucket."""
        most = max((count for _, _, count in buckets), default=0)
        spans = [(self._bound(low), self._bound(high), count) for low, high, count in buckets]
        bound = max([BOUND, *(len(text) for low, high, _ in spans for text in (low, high))])
        longest = max(0, min(BAR, width - 2 * bound - COUNT - len(" …   ")))
        lines = (
            f"{low:>{bound}} … {high:<{bound}} {count:>{COUNT},} {bar(count, most, longest)}"
            for low, high, count in spans
        )
        return [shortened(line.rstrip(), width) for line in lines]

    def screen(self, batch: list[Any]) -> str:
        """Return drawings in place of the last ones, as many as the terminal has lines for."""
        return drawn_anew("", self.rows(batch)) if self.redraws else self.rows(batch)

    def clear(self) -> str:
        """Return the sequence that clears a terminal."""
        return CLEAR if self.redraws else ""
