# SPDX-License-Identifier: BSD-2-Clause
"""The types of option values."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from cgnet.errors import did_you_mean

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MIN_BUFFER, GREATEST_BUFFER = 4096, 1 << 30
MAX_NUMBER = 20  # digits
NS = {"us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
MAX_SPAN_NS = 10**18
SPAN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|µs|ms|s|m|h)")
SOME_TIME = re.compile(r"(.*?)(ms|s|m|h)?")


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Bytes, with K, M or G; rounded up to a power of two, as a ring buffer requires."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        number, unit = value[:-1], value[-1:].upper()
        if unit not in UNITS:
            number, unit = value, ""
        if len(number) > MAX_NUMBER or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r} is no size; give bytes, or a number with K, M or G", param, ctx)
        size = 1 << (int(number) * UNITS[unit] - 1).bit_length()
        if not MIN_BUFFER <= size <= GREATEST_BUFFER:
            self.fail(f"{value!r} is out of range; give 4K to 1G", param, ctx)
        return size


class FieldList(click.ParamType):  # type: ignore[type-arg]
    """Names separated by commas."""

    name = "A,B,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """Return the names."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        if not all(names):
            self.fail(f"{value!r} has an empty name; give fields separated by commas", param, ctx)
        return list(names)


class OneOf(click.Choice):  # type: ignore[type-arg]
    """One of several words; the error for another word suggests the nearest one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = did_you_mean(str(value), map(str, self.choices))
            self.fail(error.message.rstrip(".") + near, param, ctx)


class Seconds(click.FloatRange):
    """A time such as 30, 30s, 0.5, 5m or 1h; a number alone is seconds."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, str):
            value = self._seconds(value, param, ctx)
        seconds: float = super().convert(value, param, ctx)
        return seconds

    def _seconds(
        self, text: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = SOME_TIME.fullmatch(text)
        try:
            number = float(found[1]) if found else math.nan
        except ValueError:
            number = math.nan
        if found is None or math.isnan(number):
            self.fail(
                f"{text!r} is no time; give seconds (an integer or a float), or a number with s, m "
                "or h, as in 5m",
                param,
                ctx,
            )
        return number * SECONDS[found[2] or "s"]


class Span(click.ParamType):  # type: ignore[type-arg]
    """A time such as 20ms, 500us, 1.5s or 5m.

    A number alone is invalid, as it could mean ms or s, unless the option ``takes_seconds``.
    """

    name = "TIME"

    def __init__(self, *, takes_seconds: bool = False) -> None:
        """``takes_seconds``: a number alone is seconds."""
        self._unit = "s" if takes_seconds else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds."""
        if isinstance(value, int):
            return value
        found = SPAN.fullmatch(value) or SPAN.fullmatch(value + self._unit)
        if not found:
            self.fail(
                f"{value!r} is no time; give a number with us, ms or s, as in 20ms, or with m or h",
                param,
                ctx,
            )
        ns = round(float(found[1]) * NS[found[2]])
        if ns > MAX_SPAN_NS:
            self.fail(f"{value!r} is too long; give {MAX_SPAN_NS // 10**9}s at most", param, ctx)
        return ns


def a_number(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    """Reject NaN: a callback."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value!r} is not a number; give one such as 2.5")
    return value
