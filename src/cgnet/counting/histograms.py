# SPDX-License-Identifier: BSD-2-Clause
"""Histograms of the kernel side: the bounds of their buckets, and their statistics.

Counterpart of histogram.bpf.h.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, Self

from cgnet.errors import UsageError
from cgnet.records._layouts import CGNET_BUCKETS, HISTOGRAM, CountConfig, HistogramKind
from cgnet.text import number

QUARTERS = 4  # buckets for each power of two
# Of a linear scale: the first bucket is for lower values, the last for higher.
STEPS = CGNET_BUCKETS - 2
PERCENTILES = (50, 90, 99)
FIELDS = (
    "count", "total_us", "min_us", "avg_us", "p50_us", "p50_error_us", "p90_us", "p90_error_us",
    "p99_us", "p99_error_us", "max_us", "buckets",
)  # fmt: skip
LARGEST = 2**31 - 1


def _log2_bound(bucket: int) -> int:
    """Return the lower bound of a bucket, as log2_bucket() of histogram.bpf.h."""
    power, quarter = divmod(bucket, QUARTERS)
    return bucket if power == 0 else (QUARTERS + quarter) << (power - 1)


class Scale(NamedTuple):
    """The assignment of values to buckets. All numbers are microseconds."""

    kind: HistogramKind = HistogramKind.HISTOGRAM_LOG2
    low: int = 0
    step: int = 1
    steps: int = 0

    def config(self, counting: CountConfig) -> CountConfig:
        """Return the constants of counting with those of the scale."""
        return counting._replace(
            histogram=self.kind,
            histogram_low=self.low,
            histogram_step=self.step,
            histogram_steps=self.steps,
        )

    def bounds(self) -> list[int]:
        """Return the lower bound of each bucket; the last bucket has no upper bound."""
        if self.kind == HistogramKind.HISTOGRAM_LINEAR:
            return [0, *(self.low + step * self.step for step in range(self.steps + 1))]
        return [_log2_bound(bucket) for bucket in range(CGNET_BUCKETS)]

    def shown(self) -> int:
        """Return the number of buckets that are shown as one."""
        return 1 if self.kind == HistogramKind.HISTOGRAM_LINEAR else QUARTERS


LOG2 = Scale()


def linear(text: str) -> Scale:
    """Parse ``LOW,HIGH,STEP``, in microseconds. Raises UsageError."""
    read = [number(part, LARGEST) for part in text.split(",")]
    numbers = [each for each in read if each is not None]
    if len(read) != 3 or len(numbers) != 3:
        raise UsageError(f"--linear {text!r}: give LOW,HIGH,STEP in microseconds, as in 0,1000,50")
    low, high, step = numbers
    if low >= high or step == 0:
        raise UsageError(f"--linear {text!r}: HIGH must be above LOW, and STEP above 0")
    steps = -(-(high - low) // step)
    if steps > STEPS:
        raise UsageError(f"--linear {text!r}: {steps} steps; at most {STEPS} are possible")
    return Scale(HistogramKind.HISTOGRAM_LINEAR, low, step, steps)


class Histogram:
    """A histogram of values in microseconds."""

    __slots__ = ("buckets", "count", "greatest", "least", "total")

    def __init__(
        self, count: int, total: int, least: int, greatest: int, buckets: tuple[int, ...]
    ) -> None:
        """Take the members of struct histogram."""
        self.count = count
        self.total = total
        self.least = least
        self.greatest = greatest
        self.buckets = buckets

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Parse struct histogram. Raises struct.error."""
        count, total, least, greatest, *buckets = HISTOGRAM.packed.unpack(raw)
        return cls(count, total, least, greatest, tuple(buckets))

    def __add__(self, other: Histogram) -> Histogram:
        """Return the sum of both."""
        return Histogram(
            self.count + other.count,
            self.total + other.total,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
            tuple(map(sum, zip(self.buckets, other.buckets, strict=True))),
        )

    def percentile(self, percent: int, scale: Scale) -> tuple[int, int]:
        """Return a percentile and its maximum error: half the width of its bucket."""
        rank = -(-self.count * percent // 100)
        seen = 0
        for low, high, count in self._filled(scale):
            seen += count
            if seen >= rank:
                first, last = max(low, self.least), min(high - 1, self.greatest)
                return (first + last) // 2, (last - first + 1) // 2
        return self.greatest, 0

    def _filled(self, scale: Scale) -> list[tuple[int, int, int]]:
        """Return (low, high, count) of each bucket."""
        bounds = scale.bounds()
        edges = [*bounds, max(self.greatest, bounds[-1]) + 1]
        return [
            (low, high, count)
            for (low, high), count in zip(pairwise(edges), self.buckets, strict=False)
        ]

    def shown(self, scale: Scale) -> list[list[int]]:
        """Return [low, high, count], from the first bucket that has values to the last."""
        filled = self._filled(scale)
        groups = [filled[i : i + scale.shown()] for i in range(0, len(filled), scale.shown())]
        if scale.kind == HistogramKind.HISTOGRAM_LOG2:  # below 4 a bucket is one value
            groups[0:1] = [filled[0:1], filled[1:2], filled[2:4]]
        rows = [[group[0][0], group[-1][1], sum(each[2] for each in group)] for group in groups]
        with_values = [i for i, row in enumerate(rows) if row[2]]
        return rows[with_values[0] : with_values[-1] + 1] if with_values else []

    def values(self, scale: Scale) -> tuple[Any, ...]:
        """Return the values of FIELDS."""
        percentiles = [
            value for percent in PERCENTILES for value in self.percentile(percent, scale)
        ]
        average = round(self.total / self.count) if self.count else 0
        return (
            self.count, self.total, self.least, average, *percentiles, self.greatest, self.shown(scale),
        )  # fmt: skip
