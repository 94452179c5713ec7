# SPDX-License-Identifier: BSD-2-Clause
"""histogram.bpf.h in Python: the kernel side's histograms."""

from __future__ import annotations

from typing import NamedTuple

from cgnet.counting.histograms import Histogram, Scale
from cgnet.records._layouts import CGNET_BUCKETS, HISTOGRAM, HistogramKind

BLANK_MIN = 2**64 - 1
MOST = 2**64 - 1


def log2_of(value: int) -> int:
    power, shift = 0, 16
    if value >> 32:
        return 32
    while shift:
        if value >> shift:
            value >>= shift
            power += shift
        shift >>= 1
    return power


def log2_bucket(value: int) -> int:
    power = log2_of(value)
    if value < 4:
        return value
    if value >> 33:
        return CGNET_BUCKETS - 1
    return 4 * (power - 1) + (value >> (power - 2) & 3)


def linear_bucket(value: int, scale: Scale) -> int:
    if value < scale.low:
        return 0
    return 1 + min((value - scale.low) // (scale.step or 1), scale.steps)


def bucket_of(value: int, scale: Scale) -> int:
    linear = scale.kind == HistogramKind.HISTOGRAM_LINEAR
    return min(linear_bucket(value, scale) if linear else log2_bucket(value), CGNET_BUCKETS - 1)


class Made(NamedTuple):
    """Values, and their histogram as the kernel side would fill it."""

    values: list[int]
    scale: Scale

    def raw(self) -> bytes:
        """Return struct histogram."""
        buckets = [0] * CGNET_BUCKETS
        for value in self.values:
            buckets[bucket_of(value, self.scale)] += 1
        least, greatest = min(self.values, default=BLANK_MIN), max(self.values, default=0)
        return HISTOGRAM.packed.pack(len(self.values), sum(self.values), least, greatest, *buckets)

    def read(self) -> Histogram:
        return Histogram.read(self.raw())
