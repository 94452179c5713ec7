# SPDX-License-Identifier: BSD-2-Clause
"""The ratio of a rate with a tracer to the rate without."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Kept(NamedTuple):
    """Rate with / rate without: its median and quartiles; the median rate without."""

    median: float
    low: float
    high: float
    without: float

    def __str__(self) -> str:
        return f"{self.median:.3f} (half of the runs {self.low:.2f} to {self.high:.2f})"


def ratio(
    beside: Callable[[], AbstractContextManager[Any]], work: Callable[[], float], runs: int
) -> Kept:
    """Return the ratio of a rate with a tracer to that without. ``runs``: two or more.

    Each run with the tracer stands between two without, and is compared with their mean: a host's
    speed changes within seconds.
    """
    work()  # warm
    without, kept = [work()], []
    for _ in range(runs):
        with beside():
            kept.append(work())
        without.append(work())
    ratios = [
        rate / statistics.mean(around) for rate, around in zip(kept, pairwise(without), strict=True)
    ]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Kept(median, low, high, statistics.median(without))
