# SPDX-License-Identifier: BSD-2-Clause
"""The reader comes last while little waits, and takes its own place when much does."""

from __future__ import annotations

import os

import pytest

from cgnet.kernel.variants import CAP_SYS_NICE
from cgnet.run import reader

OWN = 3


@pytest.fixture
def priorities(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The priorities that were set, from OWN on; nothing is really changed."""
    chosen = [OWN]
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: chosen[-1])
    monkeypatch.setattr(os, "setpriority", lambda _which, _who, value: chosen.append(value))
    return chosen


def with_capabilities(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> reader.ReaderPriority:
    monkeypatch.setattr(reader, "effective_capabilities", lambda: frozenset(numbers))
    return reader.ReaderPriority()


def test_it_comes_last_until_much_waits(
    monkeypatch: pytest.MonkeyPatch, priorities: list[int]
) -> None:
    reader_priority = with_capabilities(monkeypatch, CAP_SYS_NICE)
    for filled in (0.0, 0.0, reader.MUCH - 0.01, reader.MUCH, 1.0, 0.01):
        reader_priority.choose(filled)
    assert priorities == [OWN, reader.LAST_PRIORITY, OWN, reader.LAST_PRIORITY]


def test_without_a_way_back_it_stays_where_it_is(
    monkeypatch: pytest.MonkeyPatch, priorities: list[int]
) -> None:
    reader_priority = with_capabilities(monkeypatch)
    for filled in (0.0, 1.0, 0.0):
        reader_priority.choose(filled)
    assert priorities == [OWN]


class Filling:
    """A buffer that is fuller with each look, and then stops the run."""

    filled = 0.0

    def __init__(self, stop: reader.Stop) -> None:
        self._stop = stop

    def consume(self) -> list[bytes]:
        self.filled += 0.15
        self._stop.requested = self.filled > 0.5
        return []

    def close(self) -> None:
        """Nothing to close."""


def test_batches_go_by_how_full_the_buffer_was(
    monkeypatch: pytest.MonkeyPatch, priorities: list[int]
) -> None:
    monkeypatch.setattr(reader, "effective_capabilities", lambda: frozenset({CAP_SYS_NICE}))
    stop = reader.Stop(None)
    signals, end = os.pipe()
    seen = [
        priorities[-1] for _ in reader.batches(Filling(stop), stop, signals, end)
    ]  # after a share of 0.15, 0.30, 0.45, 0.60
    os.close(signals)
    os.close(end)
    assert seen == [reader.LAST_PRIORITY, OWN, OWN, OWN]
