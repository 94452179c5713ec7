# SPDX-License-Identifier: BSD-2-Clause
"""The reader comes last while little waits, and takes its own place when much does."""

from __future__ import annotations

import os

import pytest

from cgnet import pipeline
from cgnet.features import CAP_SYS_NICE

OWN = 3


@pytest.fixture
def priorities(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The priorities that were set, from OWN on; nothing is really changed."""
    chosen = [OWN]
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: chosen[-1])
    monkeypatch.setattr(os, "setpriority", lambda _which, _who, value: chosen.append(value))
    return chosen


def with_capabilities(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> pipeline.Politeness:
    monkeypatch.setattr(pipeline, "effective_capabilities", lambda: frozenset(numbers))
    return pipeline.Politeness()


def test_it_comes_last_until_much_waits(
    monkeypatch: pytest.MonkeyPatch, priorities: list[int]
) -> None:
    politeness = with_capabilities(monkeypatch, CAP_SYS_NICE)
    for waiting in (
        0,
        0,
        pipeline.MANY_RECORDS - 1,
        pipeline.MANY_RECORDS,
        2 * pipeline.MANY_RECORDS,
        1,
    ):
        politeness.choose(waiting)
    assert priorities == [OWN, pipeline.LAST_PRIORITY, OWN, pipeline.LAST_PRIORITY]


def test_without_a_way_back_it_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch, priorities: list[int]
) -> None:
    politeness = with_capabilities(monkeypatch)
    for waiting in (0, pipeline.MANY_RECORDS, 0):
        politeness.choose(waiting)
    assert priorities == [OWN]
