# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's tick, in which TCP keeps many of its times."""

from __future__ import annotations

import time

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h: its resolution is a tick


def ticks_a_second() -> int:
    """Return CONFIG_HZ of the running kernel."""
    return round(1 / time.clock_getres(CLOCK_MONOTONIC_COARSE))
