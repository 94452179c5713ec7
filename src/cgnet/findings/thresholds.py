# SPDX-License-Identifier: BSD-2-Clause
"""The absolute thresholds of the rules: all others are shares, multiples or counts of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable


class Thresholds(NamedTuple):
    """Numbers that ``--threshold NAME=NUMBER`` sets."""

    rtt_ms: float = 100.0  # a round trip that is told as long
    stuck_s: float = 1.0  # data without an acknowledgement
    syn_s: float = 0.9  # an attempt without an answer
    resent: float = 4  # segments, fewer of which are no loss
    ttfb_ms: float = 100.0  # that a server takes to answer, on average, as it is seen from its end
    unread: float = 16_384  # bytes that their owner leaves unread


def read(given: Iterable[str]) -> Thresholds:
    """Return the thresholds with those that are given as NAME=NUMBER. Raises UsageError."""
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in Thresholds._fields:
            known = ", ".join(Thresholds._fields)
            near = did_you_mean(name, Thresholds._fields)
            raise UsageError(f"--threshold {text!r}: no such threshold{near}; one of: {known}")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] < float("inf"):
            raise UsageError(f"--threshold {text!r}: takes a number above 0, as in {name}=5")
    return Thresholds(**found)
