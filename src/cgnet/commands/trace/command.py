# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace``: each packet's path through the stack, with the delay of every stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.sockets.before import KnowsOpenEnds
from cgnet.commands.trace.expired import stage_values, take_expired
from cgnet.commands.trace.record import LEAST, groups, recent
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import NANOSECONDS
from cgnet.counting.keys import OF_SOCKETS, Key
from cgnet.errors import UnsupportedError, UsageError, did_you_mean
from cgnet.findings.class_rule import rule_of_class
from cgnet.findings.slow_part import SlowParts
from cgnet.kernel import function_hooks
from cgnet.kernel.btf import KERNEL_BTF
from cgnet.kernel.function_hooks import WAYS
from cgnet.kernel.symbols import Symbols
from cgnet.kernel.variants import SOCKETS, choose
from cgnet.options import completion
from cgnet.options.shared import collect, common_of_packets, far_end, keys_of, need, summary
from cgnet.options.types import OneOf, Span
from cgnet.owners.netns_owners import NetnsNames
from cgnet.records._layouts import (
    CGNET_IN_FLIGHT,
    FLOW,
    IN_FLIGHT_PACKET,
    PACKET_TRACE,
    STAGE,
    SUMS_HEAD,
    TRACE_EVENT,
    TraceConfig,
    TraceEnd,
)
from cgnet.records.conn_id import conn_id_field
from cgnet.records.packet import IN_SUMS_ONLY, NETFILTER, STAGES
from cgnet.run.launch import functions_path
from cgnet.run.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.kernel.variants import Job, Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField
    from cgnet.records.schema import CountSchema, Schema
    from cgnet.run.command import Options

SLOW_STAGE = re.compile(r"(\w+)>(.+)")

EPILOG = """\b
Examples:
  cgnet trace --container web --port 443       a block for each packet
  cgnet trace --port 5432 --slower 1ms         packets that took long
  cgnet trace --stage 'qdisc_dequeue>200us'    packets that waited in a queueing discipline
  cgnet trace --summary --by container -i 10   where the time goes, stage by stage
  cgnet trace --drops                          packets that end in a drop
  cgnet trace --retrans                        packets that were sent again
  cgnet trace -o json --limit 100

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
A stage's delay is the time since the stage before it. That of app_read is how long the data waited
for the application. A packet ends as "timeout" if it isn't seen for two seconds, or waits for the
application for a minute.
"""


# The program that finishes packets of data that was read also learns the reader.
LEFT_OUT = frozenset({"ledger_read"})
NO_FUNCTIONS = "none"
SYMBOLS = Symbols()
ALL = TraceConfig(in_flight=CGNET_IN_FLIGHT, recent=recent(CGNET_IN_FLIGHT))


def _slow_stage(text: str | None) -> tuple[int, int]:
    """Parse ``NAME>TIME`` as stage and nanoseconds. Raises UsageError."""
    if text is None:
        return 0, 0
    found = SLOW_STAGE.fullmatch(text.replace(" ", ""))
    numbers = {name: number for number, name in STAGES.items() if name not in IN_SUMS_ONLY}
    if not found or found[1] not in numbers:
        near = did_you_mean(found[1], numbers) if found else ""
        raise UsageError(
            f"--stage {text!r}: give NAME>TIME, as in 'dev_xmit>200us'{near}; one of: "
            f"{', '.join(numbers)}"
        )
    try:
        least = Span().convert(found[2], None, None)
    except click.BadParameter as error:
        raise UsageError(f"--stage {text!r}: {error.message}") from None
    return numbers[found[1]], least


def _counting(values: dict[str, Any], *, summarize: bool) -> Counting | None:
    if summarize:
        keys = keys_of(values, "", OF_SOCKETS)
        return Counting([*keys, Key("stage")], NANOSECONDS, stages=STAGES)
    need("--summary", values, ("by", "interval"))
    return None


class Trace(KnowsOpenEnds):
    """Packets on their path, or sums of all stages' delays."""

    name = object = "trace"
    jobs = SOCKETS
    layouts = (TRACE_EVENT, FLOW, PACKET_TRACE, STAGE, IN_FLIGHT_PACKET, SUMS_HEAD)
    packet_end = TRACE_EVENT.slice("end")
    role = TRACE_EVENT.slice("trace.role")
    min_record_size = LEAST
    draws_blocks = True
    table = wide = (
        "time", "owner", "saddr", "sport", "daddr", "dport", "tcp_flags", "payload", "end",
    )  # fmt: skip

    def __init__(
        self, symbols: Symbols = SYMBOLS, options: Options | None = None,
        config: TraceConfig = ALL, functions: str | None = None,
    ) -> None:  # fmt: skip
        """``config`` selects packets; ``functions`` is the one of WAYS to use."""
        self._symbols, self._config, self._functions = symbols, config, functions
        self._rule = rule_of_class(symbols, options.btf or KERNEL_BTF) if options else []
        counting = options.counting if options else None
        self._slow_parts = SlowParts(counting) if counting else None

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        conn_id = conn_id_field(self.packet_end, self.conn_key)
        return [
            *groups(self._symbols, names, runtimes, NetnsNames(runtimes, names.naming)),
            conn_id,
        ]

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select packets, and the rule of classes."""
        return [self._config, *self._rule]

    def left_out(self) -> frozenset[str]:
        """Return the program that another one stands for."""
        return LEFT_OUT

    def stages(self) -> list[Job]:
        """Return the stages that are functions, with the ways to see them. Raises UnsupportedError.

        A requested stage that no program reports isn't supported.
        """
        ways = WAYS if self._functions is None else {self._functions} - {NO_FUNCTIONS}
        found = function_hooks.read(functions_path("trace"), ways)
        if name := STAGES.get(self._config.slow_stage):
            unseen = function_hooks.unseen(choose(found).values())
            if why := unseen.get("netfilter" if name in NETFILTER else name):
                raise UnsupportedError(
                    f"--stage {name}: nothing tells of it on this kernel ({why})"
                )
        return found

    def on_started(self, obj: Object) -> None:
        """Find the stages that the attached programs report."""
        if self._slow_parts:
            self._slow_parts.begin(obj)

    def on_rows(self, _schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Remember the sums that are printed."""
        if self._slow_parts:
            self._slow_parts.see(rows)

    def expired(self, obj: Object, options: Options, *, ended: bool) -> list[bytes]:
        """Remove expired packets, and return their records."""
        return [each.record for each in take_expired(obj, options, self._config, ended=ended)]

    def expired_values(
        self, obj: Object, options: Options, *, ended: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Remove expired packets, and yield their stages' delays."""
        if options.counting:
            for each in take_expired(obj, options, self._config, ended=ended):
                yield from stage_values(each, options.counting)

    def notices(self) -> list[dict[str, Any]]:
        """Return the slow part of each group that was printed since the last call."""
        return self._slow_parts.records() if self._slow_parts else []

    def notice_text(self, row: dict[str, Any]) -> str:
        """Return a slow part as text for people."""
        return self._slow_parts.text(row) if self._slow_parts else ""


COMMAND = Trace()


@click.command(name="trace", help=COMMANDS["trace"].help, epilog=EPILOG)
@click.option("--slower", type=Span(), help="Only packets that took longer in all, as in 1ms.")
@click.option(
    "--stage", metavar="NAME>TIME", help="Only packets for which this stage took longer.",
    shell_complete=completion.stages,
)  # fmt: skip
@click.option("--drops", is_flag=True, help="Only packets that end in a drop.")
@click.option("--retrans", is_flag=True, help="Only packets that were sent again.")
@click.option(
    "--summary", "summarize", is_flag=True, help="Percentiles for each stage; no packets."
)
@click.option(
    "--functions",
    type=OneOf([*WAYS, NO_FUNCTIONS]),
    help="Attach to the kernel functions that are stages only this way, or to none. Default: the "
    "best way for each.",
)
@click.option(
    "--in-flight", type=click.IntRange(1, CGNET_IN_FLIGHT), default=CGNET_IN_FLIGHT, show_default=True,
    metavar="N", help="Follow at most N packets at once; one more evicts the oldest.",
)  # fmt: skip
@summary
@far_end
@common_of_packets
def command(
    *,
    slower: int | None,
    stage: str | None,
    drops: bool,
    retrans: bool,
    summarize: bool,
    functions: str | None,
    in_flight: int,
    **values: Any,
) -> int:
    """Run the command."""
    symbols = Symbols(values["btf"] and Path(values["btf"]))
    slow_stage, slow_stage_ns = _slow_stage(stage)
    counting = _counting(values, summarize=summarize)
    config = TraceConfig(
        min_ns=slower or 0,
        slow_stage_ns=slow_stage_ns,
        slow_stage=slow_stage,
        by_end=1 << TraceEnd.TRACE_DROPPED if drops else 0,
        retransmitted=int(retrans),
        in_flight=in_flight,
        recent=recent(in_flight),
    )
    options = collect(values, counting, both_roles=True)
    return Session(Trace(symbols, options, config, functions), options).run()
