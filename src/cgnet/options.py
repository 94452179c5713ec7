# SPDX-License-Identifier: BSD-2-Clause
"""The one grammar of options that all commands share."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cgnet._layouts import Role
from cgnet.command import Options
from cgnet.counts import read_by
from cgnet.errors import UsageError
from cgnet.filters import Selection
from cgnet.values import choose, roles

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.counts import Key

F = TypeVar("F", bound="Callable[..., Any]")

DEFAULT_BY = ("container", "result")
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


def _verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        logging.getLogger().setLevel(logging.DEBUG)


def _select(name: str, metavar: str, text: str) -> Callable[[F], F]:
    return click.option(f"--{name}", multiple=True, metavar=metavar, help=text)


SELECT = (
    _select(
        "cgroup",
        "PATH",
        "Owners in this cgroup or below it, now or later. As mounted (/sys/fs/cgroup/…), or inside the "
        "hierarchy (/kubepods); a pattern (/kubepods/*/pod*) waits for matches.",
    ),
    _select("container", "NAME", "Owners in this container: its name, or the beginning of its id."),
    _select("pod", "[NS/]NAME", "Owners in this pod."),
    _select("pod-namespace", "NS", "Owners in pods of this namespace."),
    _select("unit", "UNIT", "Owners in this systemd unit; nginx is nginx.service."),
    _select("pid", "PID", "Owners that are this process."),
    _select("comm", "NAME", "Owners with this command name."),
    _select("uid", "USER", "Owners of this user, a number or a name."),
    _select("netns", "NETNS", "This network namespace: a PID, a path, or an inode."),
    _select("saddr", "CIDR", "Local addresses, as in 10.0.0.0/8 or fd00::/8."),
    _select("daddr", "CIDR", "Remote addresses."),
    _select("addr", "CIDR", "Addresses of either side."),
    _select("sport", "PORTS", "Local ports, as in 80,443,8000-8999."),
    _select("dport", "PORTS", "Remote ports."),
    _select("port", "PORTS", "Ports of either side."),
    click.option("-4", "families", flag_value=4, type=int, multiple=True, help="IPv4 only."),
    click.option("-6", "families", flag_value=6, type=int, multiple=True, help="IPv6 only."),
    click.option(
        "--hierarchy",
        metavar="NAME",
        help="The hierarchy whose paths name owners: v2 or a v1 controller. Default: that of "
        "--cgroup, else v1 memory where it is mounted, else v2.",
    ),
)
CONNECTIONS = (
    _select("result", "RESULT", "ok, aborted, or an errno's name such as ECONNREFUSED."),
    _select("role", "ROLE", "client: those that connect; server: those that accept."),
    click.option(
        "--inbound", is_flag=True, help="Accepted connections: the same as --role server."
    ),
    click.option("--all", "both", is_flag=True, help="Both roles."),
)
COUNT = (
    click.option("-c", "--count", is_flag=True, help="Count in the kernel; no row for each event."),
    click.option(
        "--by",
        multiple=True,
        metavar="A,B,…",
        help="What to count by: container, pod, unit, cgroup, cgroup/DEPTH, selected (each --cgroup "
        "given), pid, comm, uid, netns, saddr, daddr, daddr/BITS, sport, dport, role, result. "
        f"Default: {','.join(DEFAULT_BY)}.",
    ),
    click.option(
        "-i",
        "--interval",
        type=click.FloatRange(min=0.1),
        callback=_a_number,
        metavar="S",
        help="Print the counts every S seconds, each time those since the last.",
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
    click.option(
        "--max-rate",
        type=click.IntRange(min=1),
        metavar="N",
        help="At most N rows a second; the rest is counted as lost.",
    ),
    click.option("--strict", is_flag=True, help="Exit with 5 if events were lost."),
    click.option(
        "--btf",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="BTF of this kernel, where it has none itself.",
    ),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_verbose,
        help="Say what is loaded, and what the programs cost if the kernel measured it.",
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


def connections(function: F) -> F:
    """Add the options of commands about connections."""
    return _add(CONNECTIONS)(function)


def counting(function: F) -> F:
    """Add the options of commands that count."""
    return _add(COUNT)(function)


def _roles(values: dict[str, Any]) -> frozenset[Role]:
    """Return whose connections are wanted: clients', unless something else is asked for."""
    everybody = {Role.ROLE_CLIENT, Role.ROLE_SERVER}
    chosen = choose("--role", values["role"], roles)
    if values["both"] or chosen.use:
        base = everybody
    else:
        base = {Role.ROLE_SERVER if values["inbound"] else Role.ROLE_CLIENT}
    if values["inbound"] and not values["both"]:
        base = {Role.ROLE_SERVER}
    wanted = base & chosen.chosen(everybody)
    if not wanted:
        raise UsageError("--role: with the other options no connection is left")
    return frozenset(wanted)


def _keys(values: dict[str, Any]) -> list[Key] | None:
    """Return what to count by, or None where nothing is counted."""
    if values["count"]:
        keys = read_by(values["by"] or [",".join(DEFAULT_BY)])
        if any(key.name == "selected" for key in keys) and not values["cgroup"]:
            raise UsageError("--by selected: counts by the --cgroup given, and there is none")
        return keys
    for name in ("by", "interval"):
        if values[name]:
            raise UsageError(f"--{name}: goes with --count")
    return None


def collect(values: dict[str, Any]) -> Options:
    """Return the options of a command from its parameters. Raises UsageError."""
    absent: dict[str, Any] = {
        "role": (),
        "both": False,
        "inbound": False,
        "result": (),
        "count": False,
        "by": (),
        "interval": None,
    }
    values = absent | values
    names = set(Selection._fields) - {"families", "roles"}
    selection = Selection(
        families=frozenset(values["families"]),
        roles=_roles(values),
        **{name: values[name] for name in names},
    )
    names = set(Options._fields) - {"selection", "counts"}
    return Options(
        selection=selection, counts=_keys(values), **{name: values[name] for name in names}
    )
