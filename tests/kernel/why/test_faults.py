# SPDX-License-Identifier: BSD-2-Clause
"""Some of the faults that ``make faults`` scores, and healthy traffic: those that are seen soon."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest
from harness import PATIENCE_S, tracing
from lab import Lab
from score import RIGHT, line, owner_of
from trial import begin_trouble, load_cases, run_trial, wait_seen

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
    ("slow-server/in-lockstep", 4, "after"),
    ("slow-server/stands-still", 4, "after"),
    ("no-route/rule-prohibits", 6, "before"),
    ("healthy/keep-alive", 4, "after"),
    ("healthy/closed-by-reset", 4, "after"),
    ("healthy/other-family-is-refused", 4, "after"),
]


@pytest.mark.parametrize(("name", "family", "mode"), QUICK)
def test_finds_fault(name: str, family: int, mode: str) -> None:
    case = next(each for each in load_cases() if each.name == name)
    result = run_trial(case, family, mode, DURATION_S)
    assert result.verdict == RIGHT, f"{line(result)}\n{json.dumps(result.as_json(), indent=1)}"


SEVERAL = [
    "slow-server/think-time",
    "firewall-drop/nft-forward",
    "accept-queue-full/does-not-accept",
]


def test_finds_several_at_once_and_ranks_them_by_harm() -> None:
    found = {}
    with ExitStack() as stack:
        for case in (each for each in load_cases() if each.name in SEVERAL):
            steps = case.steps(stack.enter_context(Lab(4)))
            next(steps)
            trouble = begin_trouble(steps)
            wait_seen(trouble)
            found[case.id] = {each.name for each in trouble.owners}
        with tracing("--duration", str(DURATION_S), command="why") as tracer:
            tracer.process.wait(DURATION_S + PATIENCE_S)
            tracer.stop()
            rows = tracer.rows("finding")
    ranks = {
        (row["id"], owner): row["rank"]
        for row in rows
        for owner in (owner_of(row), owner_of(row, "peer_"))
    }
    ours = {
        ident: min((ranks[ident, owner] for owner in owners if (ident, owner) in ranks), default=0)
        for ident, owners in found.items()
    }
    assert all(ours.values()), (ours, rows)
    assert ours["slow-server"] > max(ours["firewall-drop"], ours["accept-queue-full"])
