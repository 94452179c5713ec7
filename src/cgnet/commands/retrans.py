# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet retrans``: each segment, SYN and SYN-ACK that TCP sent again: whose, and why."""

from __future__ import annotations

import errno
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.sockets.before import KnowsOpenEnds
from cgnet.counting.keys import OF_RESENDS
from cgnet.filters.values import as_bits
from cgnet.findings.class_rule import number_of, reason_classes, rule_of_class
from cgnet.kernel.btf import KERNEL_BTF, tracepoint_arguments
from cgnet.kernel.symbols import Symbols
from cgnet.kernel.ticks import ticks_a_second
from cgnet.kernel.variants import SOCKETS
from cgnet.options import completion
from cgnet.options.groups import DEFAULT_BY_OF_RESENDS, select
from cgnet.options.shared import collect, common, counted, counting_resends, far_end, role
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import (
    CGNET_ERRNOS,
    CGNET_NO_FLIGHT,
    DROP_KNOWLEDGE,
    FLOW,
    RETRANS,
    RETRANS_EVENT,
    DropKnowledge,
    DroppedHere,
    DropUnknown,
    RetransConfig,
    SessionSignal,
    number_in,
    u32,
)
from cgnet.records.conn_id import conn_id_field
from cgnet.records.fields import FieldGroup, NumberField
from cgnet.records.schema import (
    CAUSES,
    DROPPED_HERE,
    FLOW_GROUPS,
    NSEC_PER_SEC,
    ROLES,
    tcp_state_name,
)
from cgnet.run.command import remarks_on_roles
from cgnet.run.session import Session

if TYPE_CHECKING:
    from cgnet.kernel.variants import Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField
    from cgnet.run.command import Options

NUMBERS = {name: value for value, name in CAUSES.items()}


DROP_PROGRAMS = frozenset({"drop", "syn_arrived"})
DROPPED_PACKETS: dict[int, str] = {
    DroppedHere.DROPPED_SEGMENT: "segment",
    DroppedHere.DROPPED_ANSWER: "answer",
}
UNKNOWN: dict[int, str] = {
    each: each.name.removeprefix("UNKNOWN_").lower()
    for each in DropUnknown
    if each != DropUnknown.DROP_UNKNOWN_COUNT
}


def _marks(marks: bytes) -> tuple[Any, ...]:
    cause, state, side = marks
    return ROLES.get(side), tcp_state_name(state), CAUSES.get(cause)


def _number(field: str, null: int | None = None) -> NumberField:
    return NumberField(field, RETRANS_EVENT.slice(f"retrans.{field}"), null=null)


def _drop(symbols: Symbols, part: bytes) -> tuple[Any, ...]:
    location, reason, dropped = struct.unpack("=QIB", part)
    told = DROPPED_HERE.get(dropped)
    if not told:
        return told, None, None, None
    return told, DROPPED_PACKETS[dropped], symbols.code(location), symbols.drop_reason(reason)


def drop_group(symbols: Symbols) -> FieldGroup:
    """Return the group of the drop that a resend made up for."""
    return FieldGroup(
        ("dropped_here", "dropped_packet", "dropped_at", "drop_reason"),
        RETRANS_EVENT.slice("retrans.drop_location", "drop_reason"),
        partial(_drop, symbols),
        repeats=True,
        more=(RETRANS_EVENT.slice("retrans.dropped"),),
    )


RESEND: tuple[AnyField, ...] = (
    FieldGroup(
        ("role", "tcp_state", "cause"),
        RETRANS_EVENT.slice("retrans.cause", "role"),
        _marks,
        repeats=True,
    ),
    *(_number(field) for field in ("seq", "len", "segs", "attempt")),
    *(_number(field, null=0) for field in ("rto_us", "srtt_us", "cwnd", "ssthresh")),
    _number("in_flight", null=CGNET_NO_FLIGHT),
)


class Retrans(KnowsOpenEnds):
    """Segments that were sent again, or counts of them."""

    name = object = "retrans"
    signals = SessionSignal.SIGNAL_RETRANS
    jobs = SOCKETS
    layouts = (RETRANS_EVENT, FLOW, RETRANS, DROP_KNOWLEDGE)
    identity = RETRANS_EVENT.slice("identity")
    role = RETRANS_EVENT.slice("retrans.role")
    table = (
        "time", "owner", "pid", "comm", "role", "saddr", "sport", "daddr", "dport", "cause", "seq",
        "len", "attempt", "rto_us", "dropped_at", "drop_reason",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "cause", "seq", "len", "segs", "attempt", "rto_us", "srtt_us", "cwnd", "ssthresh", "in_flight",
        "tcp_state", "dropped_here", "dropped_packet", "dropped_at", "drop_reason", "netns",
        "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "daddr", "dport", "cause", "len", "attempt")
    then = (
        "time", "drop_reason", "rto_us", "role", "sport", "dropped_at", "comm", "seq", "pid", "saddr",
    )  # fmt: skip

    def __init__(
        self, options: Options | None = None, *, causes: tuple[str, ...] = (),
        symbols: Symbols | None = None,
    ) -> None:  # fmt: skip
        """Show resends of these causes; ``symbols`` name drops. Raises UsageError."""
        btf = (options and options.btf) or KERNEL_BTF
        self._options = options
        self._symbols = symbols or Symbols(btf)
        self._rule = rule_of_class(self._symbols, btf) if options else []
        self._config = RetransConfig(
            by_cause=as_bits("--cause", causes, NUMBERS),
            tick_ns=NSEC_PER_SEC // ticks_a_second(),
            arguments=tracepoint_arguments("tcp_retransmit_skb", btf),
            too_big_reason=number_of("PKT_TOO_BIG", self._symbols.drop_reasons if options else {}),
        )

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        return [
            owner_group(names, runtimes), *FLOW_GROUPS, *RESEND, drop_group(self._symbols),
            conn_id_field(self.identity, self.conn_key),
        ]  # fmt: skip

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select resends, and the rule that tells losses from benign drops."""
        return [self._config, *self._rule]

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return the classes of drops by reason."""
        return {"drop_classes": reason_classes(self._symbols)} if self._options else {}

    def left_out(self) -> frozenset[str]:
        """Return the programs that see drops, beside other signals that don't ask for them."""
        return frozenset() if self._options else DROP_PROGRAMS

    def on_started(self, obj: Object) -> None:
        """Tell the programs that from now on they see all drops."""
        if not self._options:
            return
        known = DropKnowledge(since_ns=time.monotonic_ns())
        obj.map("drop_knowledge").update(u32(0), known.pack())

    def remarks(self) -> list[str]:
        """Return a remark if one role is excluded."""
        return remarks_on_roles(self._options)

    def summary(self, obj: Object) -> dict[str, dict[str, int]]:
        """Return the numbers of failed resends, by errno, and of unknown drops, by reason."""
        unknown = obj.map("unknown_drops")
        failed = obj.map("failed_resends")
        counts = {
            number: number_in(failed.lookup(u32(number), 8)) for number in range(CGNET_ERRNOS)
        }
        return {
            "failed": {
                errno.errorcode.get(number, str(number) if number else "congestion"): count
                for number, count in counts.items()
                if count
            },
            "dropped_unknown": {
                name: count
                for number, name in UNKNOWN.items()
                if (count := number_in(unknown.lookup(u32(number), 8)))
            },
        }


COMMAND = Retrans()


EPILOG = """\b
Examples:
  cgnet retrans                              each segment that is sent again
  cgnet retrans --container web              a container's
  cgnet retrans -i 5 --by container,cause    counts, every five seconds
  cgnet retrans --container web --peers      and to whom it was sent again
  cgnet retrans --cause syn,synack           connections that don't come about
  cgnet retrans --cause timeout -o wide      what waited for the timer, with its length
  cgnet retrans -c --by daddr/24,cause --duration 60
  cgnet retrans -c --by container,dropped_here --duration 60

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
CAUSE: timeout (nothing came back until the timer ended), fast (later segments were acknowledged),
slow_start (the rest, after a timeout), tail_loss_probe (a guess, when the last segments aren't
acknowledged), syn and synack. TRY is 1 for the first time that a segment is sent again.
DROPPED AT and REASON tell where and why this host dropped what is sent again; - if it didn't.
"""


@click.command(name="retrans", help=COMMANDS["retrans"].help, epilog=EPILOG)
@select(
    "cause", "CAUSE", f"Sent again for this cause: {', '.join(NUMBERS)}.",
    completion.listed(list(NUMBERS)),
)  # fmt: skip
@counting_resends
@role
@far_end
@common
def command(*, cause: tuple[str, ...], **values: Any) -> int:
    """Run the command."""
    options = collect(values, counted(values, DEFAULT_BY_OF_RESENDS, OF_RESENDS), both_roles=True)
    return Session(Retrans(options, causes=cause), options).run()
