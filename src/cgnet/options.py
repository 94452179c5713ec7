# SPDX-License-Identifier: BSD-2-Clause
"""The one grammar of options that all commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cgnet.session import Options

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_BUFFER, GREATEST_BUFFER = 4096, 1 << 30
LONGEST_NUMBER = 20  # digits


class Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Bytes, with K, M or G; rounded up to the power of two that a ring buffer must have."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        number, unit = value[:-1], value[-1:].upper()
        if unit not in UNITS:
            number, unit = value, ""
        if len(number) > LONGEST_NUMBER or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r} is no size; give bytes, or a number with K, M or G", param, ctx)
        size = 1 << (int(number) * UNITS[unit] - 1).bit_length()
        if not LEAST_BUFFER <= size <= GREATEST_BUFFER:
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


def _a_number(_ctx: click.Context, _param: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value!r} is not a number; give seconds, as in 2.5")
    return value


SELECT = (
    click.option(
        "--cgroup",
        multiple=True,
        metavar="PATH",
        help="Only this cgroup and what is below it, now or later. As mounted "
        "(/sys/fs/cgroup/…), or inside the hierarchy (/kubepods). Repeats are OR.",
    ),
    click.option(
        "--pid",
        multiple=True,
        type=click.IntRange(min=1),
        metavar="PID",
        help="Only this process. Repeats are OR.",
    ),
    click.option(
        "--hierarchy",
        metavar="NAME",
        help="The hierarchy whose paths name owners: v2 or a v1 controller. Default: that of "
        "--cgroup, else v1 memory where it is mounted, else v2.",
    ),
)
SHOW = (
    click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "json", "csv"]),
        default="table",
        show_default=True,
        help="json is one object a line; csv has the same names and units.",
    ),
    click.option("--fields", type=FieldList(), help="Which fields, by their JSON names, in order."),
    click.option("--no-header", is_flag=True, help="Leave out the line of headers."),
)
RUN = (
    click.option(
        "--duration",
        type=click.FloatRange(min=0, min_open=True),
        callback=_a_number,
        metavar="S",
        help="End after S seconds.",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N rows."),
    click.option(
        "--buffer",
        type=Size(),
        default="4M",
        show_default=True,
        help="Ring buffer between kernel and cgnet; what doesn't fit is counted as lost.",
    ),
    click.option("--strict", is_flag=True, help="Exit with 5 if events were lost."),
    click.option(
        "--btf",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="BTF of this kernel, where it has none itself.",
    ),
    click.option("--hook", type=click.Choice(["tp_btf", "raw_tp"]), hidden=True),
)


def _add(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def common(function: F) -> F:
    """Add the options that every command has; ``collect`` takes their values."""
    return _add((*SELECT, *SHOW, *RUN))(function)


def collect(values: dict[str, Any]) -> Options:
    """Return the common options from a command's parameters."""
    return Options(**{name: values[name] for name in Options._fields})
