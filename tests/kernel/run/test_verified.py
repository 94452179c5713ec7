# SPDX-License-Identifier: BSD-2-Clause
"""The verifier's work at a start: what options add to it."""

from __future__ import annotations

import logging
import re

import pytest

from cgnet.commands.trace.command import NO_FUNCTIONS, Trace
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import NANOSECONDS
from cgnet.counting.keys import Key
from cgnet.filters.selection import Filters, Selection
from cgnet.loader import Object
from cgnet.records.packet import STAGES
from cgnet.run.launch import Launch

WALKED = re.compile(r"processed (\d+) insns")
RING_BYTES = 1 << 20


@pytest.fixture
def _logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each object log what its programs cost the verifier."""
    load = Object.load

    def logged(obj: Object) -> None:
        obj.log_briefly()
        load(obj)

    monkeypatch.setattr(Object, "load", logged)


def walked(caplog: pytest.LogCaptureFixture, by: list[Key] | None) -> int:
    """Start ``trace``, or its summary by keys; return how many instructions the verifier walks."""
    counting = Counting(by, NANOSECONDS, stages=STAGES) if by else None
    launch = Launch(
        Trace(functions=NO_FUNCTIONS), Filters(Selection()), RING_BYTES, counting=counting
    )
    caplog.clear()
    with (
        caplog.at_level(logging.DEBUG, logger="cgnet.libbpf"),
        launch.start(None, "tp_btf"),
    ):
        pass
    return sum(int(found) for found in WALKED.findall(caplog.text))


@pytest.mark.usefixtures("_logged")
def test_sums_of_both_sides_are_walked_once(caplog: pytest.LogCaptureFixture) -> None:
    """Not in each program for each stage: five million instructions, and a start of 14 s."""
    records = walked(caplog, None)
    by_side = walked(caplog, [Key("stage"), Key("role")])
    assert 0 < records < by_side < 2 * records
