# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet rtt``: round-trip times of TCP connections, as the stack measured them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cgnet._layouts import FLOW, RTT_EVENT, RTT_SAMPLE, RecordKind, SyncErrors
from cgnet.attribution import owner_group
from cgnet.command import Command
from cgnet.events import FLOW_GROUPS, ROLES, tcp_state_name
from cgnet.groups import Group, Number, between, part_of
from cgnet.keys import OF_SOCKETS
from cgnet.launch import Extra, of_one_role
from cgnet.option_types import Span
from cgnet.options import collect, common, distributed, distribution, role
from cgnet.session import Session

if TYPE_CHECKING:
    from cgnet.cgroups import CgroupNames
    from cgnet.groups import AnyGroup
    from cgnet.runtimes import Runtimes

TABLE = (
    "time", "owner", "pid", "comm", "role", "saddr", "sport", "daddr", "dport", "rtt_us", "srtt_us",
    "tcp_state",
)  # fmt: skip
WIDE = (
    "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
    "rtt_us", "srtt_us", "handshake", "tcp_state", "netns", "owner_source", "cgroup",
)  # fmt: skip
# On a terminal: what a narrow one keeps, and what comes then; the most important first.
FIRST = ("owner", "daddr", "dport", "rtt_us", "srtt_us", "time")
THEN = ("role", "sport", "comm", "tcp_state", "pid", "saddr")
SAMPLE_PART = part_of(RTT_EVENT, "sample")
MARKS_PART = between(RTT_SAMPLE, "tcp_state", "handshake", SAMPLE_PART.start)


def _circumstances(marks: bytes) -> tuple[Any, ...]:
    state, side, _ = marks
    return ROLES.get(side), tcp_state_name(state)


def _handshake(marks: bytes) -> tuple[Any, ...]:
    return (bool(marks[-1]),)


SAMPLE = (
    Group(("role", "tcp_state"), MARKS_PART, _circumstances, repeats=True),
    Number("rtt_us", part_of(RTT_SAMPLE, "rtt_us", SAMPLE_PART.start)),
    Number("srtt_us", part_of(RTT_SAMPLE, "srtt_us", SAMPLE_PART.start)),
    Group(("handshake",), MARKS_PART, _handshake, repeats=True),
)


def groups(names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
    """Return the groups of a record, in order."""
    return [owner_group(names, runtimes), *FLOW_GROUPS, *SAMPLE]


COMMAND = Command(
    "rtt",
    "rtt",
    (RTT_EVENT, FLOW, RTT_SAMPLE),
    RecordKind.RECORD_RTT,
    {"table": TABLE, "wide": WIDE},
    groups,
    first=FIRST,
    then=THEN,
)
PROGRAMS = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)

HELP = "Round-trip times of TCP connections: histograms, or the slow ones."
EPILOG = """\b
Examples:
  cgnet rtt --duration 10                  the distribution on the host
  cgnet rtt --by container -i 5            for each container, every five seconds
  cgnet rtt --by daddr/24 --dport 5432     to the networks of the databases
  cgnet rtt --container web --slower 20ms  single samples of a container, above 20 ms
  cgnet rtt --by selected --cgroup /online --cgroup /offline

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
A sample is what the stack measured, not one for each packet: the time from a segment to the
acknowledgement that answers it. Who only receives measures nothing. The sample shows with the
socket's next segment, so that single ones may come late.
"""


@click.command(name="rtt", help=HELP, epilog=EPILOG)
@click.option(
    "--slower",
    type=Span(),
    help="Print single samples that took longer, as in 20ms; no histogram.",
)
@click.option("--no-handshake", is_flag=True, help="Leave out the samples of handshakes.")
@click.option(
    "--srtt", is_flag=True, help="The stack's smoothed value at each sample, as older tools show."
)
@click.option("--ms", is_flag=True, help="Draw histograms in milliseconds.")
@distribution
@role
@common
def command(*, slower: int | None, no_handshake: bool, srtt: bool, ms: bool, **values: Any) -> int:
    """Run the command."""
    counting = distributed(
        values, wanted=slower is None, instead="histograms, not with --slower", usable=OF_SOCKETS
    )
    measures = {
        "least_ns": slower or 0,
        "no_handshakes": int(no_handshake),
        "smoothed": int(srtt),
        "count": int(counting is not None),
    }
    options = collect(values | {"both": True}, counting, measures)
    ways = of_one_role([PROGRAMS], options.selection.roles)
    return Session(COMMAND, options, ways, milliseconds=ms).run()
