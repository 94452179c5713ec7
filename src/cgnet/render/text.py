# SPDX-License-Identifier: BSD-2-Clause
"""Values as text for people, escaped: strangers choose names."""

from __future__ import annotations

import time
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = 3  # significant ones of a duration
ROUNDED_UP = 999.5  # above it the number would round to a thousand
# Control, format (bidi overrides among them), surrogate, line and paragraph separator.
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def escape(name: str) -> str:
    """Return a name with characters escaped that could move a cursor or reorder text."""
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSAFE else char
        for char in name
    )


safe = lru_cache(maxsize=8192)(escape)  # for names, which recur


def duration(us: float) -> str:
    """Return microseconds as µs, ms or s, with three significant figures."""
    if us < 1000:
        return f"{us} µs"
    for factor, unit in ((1000, "ms"), (1_000_000, "s")):
        for digits in (2, 1, 0):
            text = f"{us / factor:.{digits}f}"
            if len(text) <= FIGURES + (digits > 0):
                return f"{text} {unit}"
    return f"{us / 1_000_000:.0f} s"


def duration_ns(ns: int) -> str:
    """Return nanoseconds as ns, µs, ms or s, with three significant figures."""
    if ns < 1000:
        return f"{ns} ns"
    if ns >= 100_000:
        return duration(round(ns / 1000))
    digits = 2 if ns < 10_000 else 1
    return f"{ns / 1000:.{digits}f} µs"


def short_number(text: str, width: int) -> str:
    """Return an integer unchanged, or, if too wide, in thousands, millions, …: 12.3M."""
    if len(text) <= width or not text.isdigit():
        return text
    for power, unit in enumerate("kMGTPE", 1):
        amount = int(text) / 1000**power
        if amount < ROUNDED_UP:
            texts = (f"{amount:.{digits}f}{unit}" for digits in (2, 1, 0))
            return next((each for each in texts if len(each) <= width), text)
    return text


def local_time(ts_ns: int, offset_ns: int) -> str:
    """Return a time of the monotonic clock as local time of day, with milliseconds."""
    second, ns = divmod(ts_ns + offset_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(second))}.{ns // 1_000_000:03d}"


@cache
def texts_of(field: str) -> Callable[[Any], str]:
    """Return the function that makes text for a table of a field's values."""
    if field == "share":
        return _or_none("{:.1%}".format)
    if field.endswith("_us"):
        return _or_none(duration)
    if field.endswith("_ns") and field != "ts_ns":
        return _or_none(duration_ns)
    return _text


def _or_none(make: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: "-" if value is None else make(value)


def cell(field: str, value: Any) -> str:
    """Return a field's value as text for a table."""
    return texts_of(field)(value)


def _text(value: Any) -> str:
    kind = type(value)  # faster than isinstance(), and tables have many values
    if kind is str:
        return safe(value) or '""'
    if kind is int:
        return str(value)
    return "-" if value is None else _rare(value)


def _rare(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return safe(",".join(f"{key}={each}" for key, each in value.items())) or "-"
    if isinstance(value, list | tuple):
        return safe(" < ".join(map(str, value))) or "-"
    return safe(str(value)) or '""'
