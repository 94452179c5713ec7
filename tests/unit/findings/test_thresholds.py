# SPDX-License-Identifier: BSD-2-Clause
"""The thresholds that ``cgnet why --threshold`` sets."""

from __future__ import annotations

import pytest

from cgnet.errors import UsageError
from cgnet.findings.thresholds import Thresholds, read


def test_those_that_are_given_replace_the_usual_ones() -> None:
    assert read([]) == Thresholds()
    assert read(["rtt_ms=250", "unread=1"]) == Thresholds(rtt_ms=250, unread=1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("rtt_m=5", r"no such threshold \(did you mean rtt_ms\?\)"), ("rtt_ms", "a number above 0"),
        ("rtt_ms=0", "a number above 0"), ("rtt_ms=nan", "a number above 0"),
        ("rtt_ms=inf", "a number above 0"), ("", "no such threshold"),
    ],
)  # fmt: skip
def test_what_is_none_is_a_usage_error(given: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read([given])
