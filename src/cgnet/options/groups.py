# SPDX-License-Identifier: BSD-2-Clause
"""The options that commands share, in groups; options/shared.py combines them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cgnet.counting.keys import (
    OF_CONNECTIONS,
    OF_DROPS,
    OF_ENDS,
    OF_LISTINGS,
    OF_RESENDS,
    OF_SOCKETS,
    SIZED,
)
from cgnet.kernel.btf import find_kernel_btf
from cgnet.options import completion
from cgnet.options.conn_key import KeyFile
from cgnet.options.types import FieldList, OneOf, Seconds, Size, a_number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cgnet.options.completion import Complete

F = TypeVar("F", bound="Callable[..., Any]")


def _verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        logging.getLogger().setLevel(logging.DEBUG)


def select(
    name: str, metavar: str, text: str, complete: Complete | None = None
) -> Callable[[F], F]:
    """Return a repeatable option that selects, or excludes values with a leading ``!``."""
    return click.option(
        f"--{name}", multiple=True, metavar=f"[!]{metavar}", help=text, shell_complete=complete
    )


def _sides(local: str, remote: str) -> tuple[Callable[[F], F], ...]:
    """Return the options that select by address and port, with names of the sides in their help."""
    return (
        select("saddr", "CIDR", f"{local} addresses, as in 10.0.0.0/8 or fd00::/8."),
        select("daddr", "CIDR", f"{remote} addresses."),
        select("addr", "CIDR", "Addresses of either side."),
        select("sport", "PORTS", f"{local} ports, as in 80,443,8000-8999."),
        select("dport", "PORTS", f"{remote} ports."),
        select("port", "PORTS", "Ports of either side."),
    )


OWNERS = (
    select(
        "cgroup",
        "PATH",
        "Owners in this cgroup or below it, now or later. As mounted (/sys/fs/cgroup/…), or inside "
        "the hierarchy (/kubepods); a pattern (/kubepods/*/pod*) waits for matches.",
        completion.cgroups,
    ),
    select(
        "container", "NAME", "Owners in this container: its name, or the beginning of its id.",
        completion.containers,
    ),
    select("pod", "[NS/]NAME", "Owners in this pod.", completion.pods),
    select("pod-namespace", "NS", "Owners in pods of this namespace.", completion.pod_namespaces),
    select("unit", "UNIT", "Owners in this systemd unit; nginx is nginx.service.", completion.units),
    select("pid", "PID", "Owners that are this process.", completion.pids),
    select("comm", "NAME", "Owners with this command name.", completion.comms),
    select("uid", "USER", "Owners of this user, a number or a name.", completion.users),
    select("netns", "NETNS", "This network namespace: a PID, a path, or an inode.", completion.netns),
)  # fmt: skip
FLOWS = _sides("Local", "Remote")
PACKETS = _sides("The packet's source", "The packet's destination")
OTHERS = (
    click.option("-4", "ipv4", is_flag=True, help="IPv4 only."),
    click.option("-6", "ipv6", is_flag=True, help="IPv6 only."),
    click.option(
        "--hierarchy",
        metavar="NAME",
        shell_complete=completion.hierarchies,
        help="The hierarchy whose paths name owners: v2 or a v1 controller. Default: that of "
        "--cgroup, else v1 memory where it is mounted, else v2.",
    ),
)
CONNECTIONS = (
    select(
        "result", "RESULT", "ok, aborted, or an errno's name such as ECONNREFUSED.",
        completion.results,
    ),
    select("role", "ROLE", "client: those that connect; server: those that accept.", completion.roles),
    click.option(
        "--inbound", is_flag=True, help="Accepted connections: the same as --role server."
    ),
    click.option("--all", "both", is_flag=True, help="Both roles."),
)  # fmt: skip
ROLE = (
    select(
        "role", "ROLE", "client: those that connect; server: those that accept.", completion.roles
    ),
)
BY = "{}: {}. Default: {}."
DEFAULT_BY = "container,result"
DEFAULT_BY_OF_DROPS = "container,reason,location"
DEFAULT_BY_OF_RESENDS = "container,cause"


def _key(name: str) -> str:
    if name == "selected":
        return "selected (each --cgroup given)"
    return f"{name}, {name}/{SIZED[name]}" if name in SIZED else name


def _by(verb: str, default: str, usable: Collection[str]) -> Callable[[F], F]:
    text = BY.format(verb, ", ".join(map(_key, usable)), default)
    return click.option(
        "--by", multiple=True, metavar="A,B,…", help=text,
        shell_complete=completion.listed(usable),
    )  # fmt: skip


def _interval(text: str) -> Callable[[F], F]:
    return click.option(
        "-i",
        "--interval",
        type=Seconds(min=0.1),
        callback=a_number,
        metavar="TIME",
        help=text,
    )


DROPS = (
    click.option("-c", "--count", is_flag=True, help="Count in the kernel; no row for each drop."),
    _by("Count by", DEFAULT_BY_OF_DROPS, (*OF_SOCKETS, *OF_DROPS)),
    _interval("Print the counts since the last print at this interval; implies -c."),
)
RESENDS = (
    click.option(
        "-c", "--count", is_flag=True, help="Count in the kernel, segments; no row for each resend."
    ),
    _by("Count by", DEFAULT_BY_OF_RESENDS, OF_RESENDS),
    _interval("Print the counts since the last print at this interval; implies -c."),
)
COUNT = (
    click.option("-c", "--count", is_flag=True, help="Count in the kernel; no row for each event."),
    _by("Count by", DEFAULT_BY, OF_CONNECTIONS),
    _interval("Print the counts since the last print at this interval; implies -c."),
)
LINEAR = click.option(
    "--linear",
    metavar="LOW,HIGH,STEP",
    help="Buckets of the same width, in microseconds, instead of geometric ones.",
)
HIST = (
    click.option(
        "--hist", is_flag=True, help="A histogram, made in the kernel; no row for each event."
    ),
    LINEAR,
    _by("Make a histogram for each", "one for all", OF_CONNECTIONS),
    _interval(
        "Print a histogram of what came since the last print at this interval; implies --hist."
    ),
)
DISTRIBUTION = (
    LINEAR,
    _by("Make a histogram for each", "one for all", OF_ENDS),
    _interval("Print histograms of what came since the last print at this interval."),
)
SUMMARY = (
    _by("Summarize by", "all packets together", OF_SOCKETS),
    _interval("Print a summary of what came since the last print at this interval."),
)
LIVING = (_interval("Also print the connections that are open, at this interval."),)
SHOW = (
    click.option(
        "-o",
        "--output",
        type=OneOf(["table", "wide", "json", "csv"]),
        default="table",
        show_default=True,
        help="json is one object a line; csv has the same names and units.",
    ),
    click.option(
        "--fields",
        type=FieldList(),
        help="Show these fields, by their JSON names, in this order.",
        shell_complete=completion.fields,
    ),
    click.option("--no-header", is_flag=True, help="Leave out the line of headers."),
)
LISTING = (
    _by("Count by, with --states", "container,state", OF_LISTINGS),
    _interval("List again at this interval, until Ctrl-C."),
)
ENDS = (
    click.option(
        "--duration",
        type=Seconds(min=0, min_open=True),
        callback=a_number,
        metavar="TIME",
        help="End after this time: 30 or 30s, 5m, 1h.",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N rows."),
)
RING = (
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
)
EVERYWHERE = (
    click.option("--strict", is_flag=True, help="Exit with 5 if events were lost."),
    click.option(
        "--btf",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        default=find_kernel_btf,
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
)
FORCED = (
    click.option("--hook", type=OneOf(["tp_btf", "raw_tp"]), hidden=True),
    click.option("--transport", type=OneOf(["ring", "perf"]), hidden=True),
)


def _names(text: str) -> Callable[[F], F]:
    return click.option(
        "--names", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
        help=text,
    )  # fmt: skip


FAR_END = (
    click.option(
        "--peers",
        is_flag=True,
        help="Name the other end of each connection: by its socket if that is on this host, "
        "through any address translation; else the only container that has its address.",
    ),
    select(
        "peer",
        "NAME",
        "Connections whose other end is this container or pod, or has this name of --names; a "
        "pattern, too. Implies --peers.",
        completion.containers,
    ),
    _names(
        "Names of other ends: on each line an address or a CIDR, and its name. Implies --peers."
    ),
    click.option(
        "--conn-key",
        type=KeyFile(),
        metavar="FILE",
        help="The key of conn_id, 32 hexadecimal digits: the same on all hosts whose rows you "
        "join. Default: a public one.",
    ),
)
EITHER_END = (
    select(
        "peer",
        "NAME",
        "Findings on connections of which either end is this container or pod, or has this name of "
        "--names; a pattern, too.",
        completion.containers,
    ),
    _names("Names for --peer: on each line an address or a CIDR, and its name."),
)
RUN = (*ENDS, *RING, *EVERYWHERE, *FORCED)
