# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet retrans``: each segment, SYN and SYN-ACK that TCP sent again: whose, and why."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.counting.keys import OF_RESENDS
from cgnet.filters.values import as_bits
from cgnet.kernel.btf import KERNEL_BTF, tracepoint_arguments
from cgnet.kernel.ticks import ticks_a_second
from cgnet.kernel.variants import SOCKETS
from cgnet.options import completion
from cgnet.options.groups import DEFAULT_BY_OF_RESENDS, select
from cgnet.options.shared import collect, common, counted, counting_resends, role
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import (
    CGNET_ERRNOS,
    CGNET_NO_FLIGHT,
    FLOW,
    RETRANS,
    RETRANS_EVENT,
    RetransConfig,
    number_in,
    u32,
)
from cgnet.records.fields import Group, Number
from cgnet.records.schema import CAUSES, FLOW_GROUPS, NSEC_PER_SEC, ROLES, tcp_state_name
from cgnet.run.command import Command, remarks_on_roles
from cgnet.run.session import Session

if TYPE_CHECKING:
    from cgnet.kernel.variants import Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyGroup
    from cgnet.run.command import Options

NUMBERS = {name: value for value, name in CAUSES.items()}


def _marks(marks: bytes) -> tuple[Any, ...]:
    cause, state, side = marks
    return ROLES.get(side), tcp_state_name(state), CAUSES.get(cause)


def _number(field: str, null: int | None = None) -> Number:
    return Number(field, RETRANS_EVENT.slice(f"retrans.{field}"), null=null)


RESEND: tuple[AnyGroup, ...] = (
    Group(
        ("role", "tcp_state", "cause"),
        RETRANS_EVENT.slice("retrans.cause", "role"),
        _marks,
        repeats=True,
    ),
    *(_number(field) for field in ("seq", "len", "segs", "attempt")),
    *(_number(field, null=0) for field in ("rto_us", "srtt_us", "cwnd", "ssthresh")),
    _number("in_flight", null=CGNET_NO_FLIGHT),
)


class Retrans(Command):
    """Segments that were sent again, or counts of them."""

    name = object = "retrans"
    jobs = SOCKETS
    layouts = (RETRANS_EVENT, FLOW, RETRANS)
    table = (
        "time", "owner", "pid", "comm", "role", "saddr", "sport", "daddr", "dport", "cause", "seq",
        "len", "attempt", "rto_us",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "cause", "seq", "len", "segs", "attempt", "rto_us", "srtt_us", "cwnd", "ssthresh", "in_flight",
        "tcp_state", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "daddr", "dport", "cause", "len", "attempt")
    then = ("time", "rto_us", "role", "sport", "comm", "seq", "pid", "saddr")

    def __init__(self, options: Options | None = None, *, causes: tuple[str, ...] = ()) -> None:
        """Show resends of these causes. Raises UsageError."""
        self._options = options
        self._config = RetransConfig(
            by_cause=as_bits("--cause", causes, NUMBERS),
            tick_ns=NSEC_PER_SEC // ticks_a_second(),
            arguments=tracepoint_arguments(
                "tcp_retransmit_skb", (options and options.btf) or KERNEL_BTF
            ),
        )

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
        """Return the groups of a record's fields, in order."""
        return [owner_group(names, runtimes), *FLOW_GROUPS, *RESEND]

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select resends."""
        return [self._config]

    def remarks(self) -> list[str]:
        """Return a remark if one role is excluded."""
        return remarks_on_roles(self._options)

    def summary(self, obj: Object) -> dict[str, dict[str, int]]:
        """Return the number of resends that failed, by errno."""
        failed = obj.map("failed_resends")
        counts = {
            number: number_in(failed.lookup(u32(number), 8)) for number in range(CGNET_ERRNOS)
        }
        return {
            "failed": {
                errno.errorcode.get(number, str(number) if number else "congestion"): count
                for number, count in counts.items()
                if count
            }
        }


COMMAND = Retrans()


EPILOG = """\b
Examples:
  cgnet retrans                              each segment that is sent again
  cgnet retrans --container web              a container's
  cgnet retrans -i 5 --by container,cause    counts, every five seconds
  cgnet retrans --cause syn,synack           connections that don't come about
  cgnet retrans --cause timeout -o wide      what waited for the timer, with its length
  cgnet retrans -c --by daddr/24,cause --duration 60

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
CAUSE: timeout (nothing came back until the timer ended), fast (later segments were acknowledged),
slow_start (the rest, after a timeout), tail_loss_probe (a guess, when the last segments aren't
acknowledged), syn and synack. TRY is 1 for the first time that a segment is sent again.
"""


@click.command(name="retrans", help=COMMANDS["retrans"].help, epilog=EPILOG)
@select(
    "cause", "CAUSE", f"Sent again for this cause: {', '.join(NUMBERS)}.",
    completion.listed(list(NUMBERS)),
)  # fmt: skip
@counting_resends
@role
@common
def command(*, cause: tuple[str, ...], **values: Any) -> int:
    """Run the command."""
    options = collect(values, counted(values, DEFAULT_BY_OF_RESENDS, OF_RESENDS), both_roles=True)
    return Session(Retrans(options, causes=cause), options).run()
