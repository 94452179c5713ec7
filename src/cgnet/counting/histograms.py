# SPDX-License-Identifier: BSD-2-Clause
"""Histograms of the kernel side: the bounds of their buckets, and their statistics.

Counterpart of histogram.bpf.h. The kernel side knows a bucket by its least integer; ``edges`` are the
exact bounds. Geometric edges are 2^(k/8) seconds, upper edge included: those of an exponential
histogram of scale 3 in Prometheus and OpenTelemetry, so that histograms of other times and hosts can be
added without loss.
"""

from __future__ import annotations

import math
from bisect import bisect
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, Self

from cgnet.errors import UsageError
from cgnet.records._layouts import CGNET_BUCKETS, HISTOGRAM, CountConfig
from cgnet.text import number

EDGES = CGNET_BUCKETS - 1  # the last bucket has no upper edge
PER_POWER = 8  # buckets for each power of two
# Of a linear scale: the first bucket is for lower values, the last for higher.
STEPS = EDGES - 1
UNBOUNDED = 2**63 - 1
DIGITS = 3  # of an edge after the point
PERCENTILES = (50, 90, 99)
FIELDS = (
    "count", "total_us", "min_us", "avg_us", "p50_us", "p50_error_us", "p90_us", "p90_error_us",
    "p99_us", "p99_error_us", "max_us", "buckets",
)  # fmt: skip
LARGEST = 2**31 - 1


class Scale(NamedTuple):
    """The assignment of integers to buckets.

    ``edges``: upper edges, ascending, in the unit of the values. A value on an edge belongs to the
    bucket below it in a geometric scale, to the one above it in a linear scale.
    """

    edges: tuple[float, ...]
    is_geometric: bool = True

    @property
    def starts(self) -> tuple[int, ...]:
        """The least integer of each bucket but the first."""
        return _starts(self)

    def config(self, counting: CountConfig) -> CountConfig:
        """Return the constants of counting with those of the scale."""
        return counting._replace(histogram=1, bucket_starts=self.starts)


@lru_cache
def _starts(scale: Scale) -> tuple[int, ...]:
    starts = (math.floor(edge) + scale.is_geometric for edge in scale.edges)
    return (*starts, *[UNBOUNDED] * (CGNET_BUCKETS - len(scale.edges)))


def geometric(per_second: int, first: int) -> Scale:
    """Return a scale whose first edge is 2^``first`` seconds, for values of 1/``per_second`` s."""
    return Scale(tuple(per_second * 2 ** (first + number / PER_POWER) for number in range(EDGES)))


MICROSECONDS = geometric(10**6, -20)  # 1 µs to 57 minutes
NANOSECONDS = geometric(10**9, -27)  # 7 ns to 27 s


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
    return Scale(tuple(range(low, low + steps * step + 1, step)), is_geometric=False)


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

    @classmethod
    def of(cls, value: int, scale: Scale) -> Self:
        """Return the histogram of one value."""
        place = bisect(scale.starts, value)
        return cls(1, value, value, value, tuple(map(place.__eq__, range(CGNET_BUCKETS))))

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
        """Return a percentile and its maximum error.

        It is the mean of its bucket's least and greatest value: the geometric mean, which is wrong by
        4.4 % at most, or in a linear scale the arithmetic mean.
        """
        rank = -(-self.count * percent // 100)
        seen = start = 0
        for following, count in zip(scale.starts, self.buckets, strict=True):
            seen += count
            if seen >= rank:
                low, high = max(start, self.least), min(following - 1, self.greatest)
                mean = math.isqrt(low * high) if scale.is_geometric else (low + high) // 2
                return mean, max(mean - low, high - mean)
            start = following
        return self.greatest, 0

    def shown(self, scale: Scale) -> list[list[float]]:
        """Return [low, high, count], from the first bucket that has values to the last."""
        last = scale.edges[-1]
        highest = self.greatest if scale.is_geometric else self.greatest + 1
        edges = [0, *(round(edge, DIGITS) for edge in scale.edges), max(highest, last + 1)]
        rows = [
            [low, high, count]
            for (low, high), count in zip(pairwise(edges), self.buckets, strict=False)
        ]
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
