# SPDX-License-Identifier: BSD-2-Clause
"""Some of the faults that ``make faults`` scores, and healthy traffic: those that are seen soon."""

from __future__ import annotations

import json

import pytest
from score import RIGHT, line
from trial import load_cases, run_trial

DURATION_S = 5.0
QUICK = [
    ("no-listener/nobody-listens", 4, "before"),
    ("wrong-bind-address/loopback-alone", 6, "before"),
    ("firewall-drop/nft-forward", 4, "after"),
    ("firewall-reject/reset-at-input", 6, "before"),
    ("connect-denied/cgroup-program", 4, "after"),
    ("accept-queue-full/does-not-accept", 4, "after"),
    ("ports-exhausted/held", 4, "after"),
    ("reset-by-peer/server-resets", 6, "before"),
    ("slow-reader/stops-to-read", 4, "after"),
    ("slow-server/think-time", 4, "before"),
    ("healthy/keep-alive", 4, "after"),
    ("healthy/closed-by-reset", 4, "after"),
]


@pytest.mark.parametrize(("name", "family", "mode"), QUICK)
def test_finds_fault(name: str, family: int, mode: str) -> None:
    case = next(each for each in load_cases() if each.name == name)
    result = run_trial(case, family, mode, DURATION_S)
    assert result.verdict == RIGHT, f"{line(result)}\n{json.dumps(result.as_json(), indent=1)}"
