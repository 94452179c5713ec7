# SPDX-License-Identifier: BSD-2-Clause
"""The options that commands share, in groups: see options.py for what is made of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cgnet.btf import elsewhere
from cgnet.option_types import FieldList, Size, a_number

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def _verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        logging.getLogger().setLevel(logging.DEBUG)


def select(name: str, metavar: str, text: str) -> Callable[[F], F]:
    """Make an option that selects, and may be repeated."""
    return click.option(f"--{name}", multiple=True, metavar=metavar, help=text)


SELECT = (
    select(
        "cgroup",
        "PATH",
        "Owners in this cgroup or below it, now or later. As mounted (/sys/fs/cgroup/…), or inside the "
        "hierarchy (/kubepods); a pattern (/kubepods/*/pod*) waits for matches.",
    ),
    select("container", "NAME", "Owners in this container: its name, or the beginning of its id."),
    select("pod", "[NS/]NAME", "Owners in this pod."),
    select("pod-namespace", "NS", "Owners in pods of this namespace."),
    select("unit", "UNIT", "Owners in this systemd unit; nginx is nginx.service."),
    select("pid", "PID", "Owners that are this process."),
    select("comm", "NAME", "Owners with this command name."),
    select("uid", "USER", "Owners of this user, a number or a name."),
    select("netns", "NETNS", "This network namespace: a PID, a path, or an inode."),
    select("saddr", "CIDR", "Local addresses, as in 10.0.0.0/8 or fd00::/8."),
    select("daddr", "CIDR", "Remote addresses."),
    select("addr", "CIDR", "Addresses of either side."),
    select("sport", "PORTS", "Local ports, as in 80,443,8000-8999."),
    select("dport", "PORTS", "Remote ports."),
    select("port", "PORTS", "Ports of either side."),
    click.option("-4", "ipv4", is_flag=True, help="IPv4 only."),
    click.option("-6", "ipv6", is_flag=True, help="IPv6 only."),
    click.option(
        "--hierarchy",
        metavar="NAME",
        help="The hierarchy whose paths name owners: v2 or a v1 controller. Default: that of "
        "--cgroup, else v1 memory where it is mounted, else v2.",
    ),
)
CONNECTIONS = (
    select("result", "RESULT", "ok, aborted, or an errno's name such as ECONNREFUSED."),
    select("role", "ROLE", "client: those that connect; server: those that accept."),
    click.option(
        "--inbound", is_flag=True, help="Accepted connections: the same as --role server."
    ),
    click.option("--all", "both", is_flag=True, help="Both roles."),
)
ROLE = (select("role", "ROLE", "client: those that connect; server: those that accept."),)
BY = (
    "What to {} by: container, pod, unit, cgroup, cgroup/DEPTH, selected (each --cgroup given), pid, "
    "comm, uid, netns, saddr, daddr, daddr/BITS, sport, dport, role{}. Default: {}."
)
DEFAULT_BY = "container,result"
DEFAULT_BY_OF_DROPS = "container,reason,location"


def _by(verb: str, more: str, default: str) -> Callable[[F], F]:
    return click.option("--by", multiple=True, metavar="A,B,…", help=BY.format(verb, more, default))


def _interval(text: str) -> Callable[[F], F]:
    return click.option(
        "-i",
        "--interval",
        type=click.FloatRange(min=0.1),
        callback=a_number,
        metavar="S",
        help=text,
    )


DROPS = (
    click.option("-c", "--count", is_flag=True, help="Count in the kernel; no row for each drop."),
    click.option(
        "--by",
        multiple=True,
        metavar="A,B,…",
        help=f"{BY.format('count', ', reason, location, stack', DEFAULT_BY_OF_DROPS)}",
    ),
    _interval("Print the counts every S seconds, each time those since the last."),
)
COUNT = (
    click.option("-c", "--count", is_flag=True, help="Count in the kernel; no row for each event."),
    _by("count", ", result", DEFAULT_BY),
    _interval("Print the counts every S seconds, each time those since the last."),
)
LINEAR = click.option(
    "--linear",
    metavar="LOW,HIGH,STEP",
    help="Buckets of the same width, in microseconds, instead of powers of two.",
)
HIST = (
    click.option(
        "--hist", is_flag=True, help="A histogram, made in the kernel; no row for each event."
    ),
    LINEAR,
    _by("make a histogram for each", ", result", "nothing: one of all"),
    _interval("Print histograms every S seconds, each time of what came since the last."),
)
DISTRIBUTION = (
    LINEAR,
    _by("make a histogram for each", "", "nothing: one of all"),
    _interval("Print histograms every S seconds, each time of what came since the last."),
)
SUMMARY = (
    _by("summarize", "", "nothing: all packets together"),
    _interval("Print the summary every S seconds, each time of what came since the last."),
)
LIVING = (_interval("Also print the connections that are open, every S seconds."),)
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
        callback=a_number,
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
        default=elsewhere,
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
    click.option("--transport", type=click.Choice(["ring", "perf"]), hidden=True),
)
