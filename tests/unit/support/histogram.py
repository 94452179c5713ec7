# SPDX-License-Identifier: BSD-2-Clause
"""histogram.bpf.h in Python: the kernel side's histograms."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from cgnet.counting.histograms import Histogram, Scale
from cgnet.records._layouts import CGNET_BUCKETS, HISTOGRAM

BLANK_MIN = 2**64 - 1
MOST = 2**64 - 1


def bucket_of(value: int, scale: Scale) -> int:
    """Return the bucket of a value: the edges, as the scale defines them."""
    find = bisect_left if scale.is_geometric else bisect_right
    return find(scale.edges, value)


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
