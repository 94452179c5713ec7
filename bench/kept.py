# SPDX-License-Identifier: BSD-2-Clause
"""What is left of a rate beside a tracer."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def ratio(
    beside: Callable[[], AbstractContextManager[Any]], work: Callable[[], float], runs: int
) -> tuple[float, float]:
    """Return the median of (rate with / rate without), and the median rate without.

    Each run with the tracer stands between two without, and is compared with their mean: hosts change
    their mood within seconds.
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
    return statistics.median(ratios), statistics.median(without)
