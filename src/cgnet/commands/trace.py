# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace``: each packet's way through the stack, with the delay of every stage."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgnet import completion, stages
from cgnet._layouts import (
    FLOW,
    JOURNEY,
    STAGE,
    SUMS_HEAD,
    TRIP,
    TRIP_EVENT,
    RecordKind,
    SyncErrors,
    TripEnd,
)
from cgnet.btf import KERNEL_BTF
from cgnet.class_rule import rule_of_class
from cgnet.command import Command
from cgnet.counts import Counting
from cgnet.errors import UnsupportedError, UsageError, did_you_mean
from cgnet.features import HOOKS
from cgnet.histograms import LOG2
from cgnet.keys import OF_SOCKETS, Key
from cgnet.launch import Extra, object_path
from cgnet.netns_owners import NetnsNames
from cgnet.option_types import OneOf, Span
from cgnet.options import collect, common_of_packets, keys_of, need, summary
from cgnet.session import Session
from cgnet.slow_part import SlowParts
from cgnet.stages import WAYS
from cgnet.symbols import Symbols
from cgnet.trips import (
    IN_SUMS_ONLY,
    LEAST,
    MOST_IN_FLIGHT,
    NETFILTER,
    STAGES,
    crowd_constants,
    groups,
    leftovers,
)

if TYPE_CHECKING:
    from cgnet.cgroups import CgroupNames
    from cgnet.groups import AnyGroup
    from cgnet.runtimes import Runtimes

TABLE = ("time", "owner", "saddr", "sport", "daddr", "dport", "tcp_flags", "payload", "end")
SUMMARY = ("stage", "count", "p50_ns", "p90_ns", "p99_ns", "max_ns", "share")
SLOW_STAGE = re.compile(r"(\w+)>(.+)")

HELP = "Each packet's way through the stack, with the delay of every stage."
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
A stage's delay is the time since the one before it. app_read is the time that the data waited for the
application. Packets that nothing more is heard of are given up after two seconds, those that
wait for the application after a minute.
"""


def make_command(symbols: Symbols, companion: SlowParts | None) -> Command:
    """Return what a run is made of; ``symbols`` name its reasons and functions."""

    def make(names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
        return groups(symbols, names, runtimes, NetnsNames(runtimes, names.naming))

    return Command(
        "trace",
        "trace",
        COMMAND_LAYOUTS,
        RecordKind.RECORD_TRACE,
        {"table": TABLE, "wide": TABLE},
        make,
        least=LEAST,
        leftovers=leftovers,
        drawn=True,
        companion=companion,
    )


COMMAND_LAYOUTS = (TRIP_EVENT, FLOW, TRIP, STAGE, JOURNEY, SUMS_HEAD)
# Who reads is noted by the program that ends the trips of what was read.
PROGRAMS = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN, left_out=("ledger_read",))
NO_FUNCTIONS = "none"


def _extras(way: str | None, slow_stage: int) -> list[Extra]:
    """Return with which programs to try it: at functions where this kernel takes them, else without.

    Raises UnsupportedError for a stage that is looked for, and that nothing tells of.
    """
    table = stages.read(object_path("trace", HOOKS[0]))
    ways = WAYS if way is None else () if way == NO_FUNCTIONS else (way,)
    found = stages.choose(table, ways)
    name = STAGES.get(slow_stage, "")
    why = found.unseen.get("netfilter" if name in NETFILTER else name)
    if why:
        raise UnsupportedError(f"--stage {name}: nothing tells of it on this kernel ({why})")
    extra = PROGRAMS._replace(functions=found.programs, unseen=found.unseen)
    every = dict.fromkeys((row.stage for row in table), "the kernel refuses these programs")
    return [extra, *([PROGRAMS._replace(unseen=every)] if found.programs else [])]


def _slow_stage(text: str | None) -> tuple[int, int]:
    """Read ``NAME>TIME``: the stage and nanoseconds. Raises UsageError."""
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
        return Counting([*keys, Key("stage")], LOG2, stages=STAGES)
    need("--summary", values, ("by", "interval"))
    return None


@click.command(name="trace", help=HELP, epilog=EPILOG)
@click.option("--slower", type=Span(), help="Only packets that took longer in all, as in 1ms.")
@click.option(
    "--stage", metavar="NAME>TIME", help="Only where this stage took longer.",
    shell_complete=completion.stages,
)  # fmt: skip
@click.option("--drops", is_flag=True, help="Only packets that end in a drop.")
@click.option("--retrans", is_flag=True, help="Only packets that were sent again.")
@click.option(
    "--summary", "summarize", is_flag=True, help="For each stage its percentiles; no packets."
)
@click.option(
    "--functions",
    type=OneOf([*WAYS, NO_FUNCTIONS]),
    help="Stages that are functions of the kernel: this way alone, or none; else the best for each.",
)
@click.option(
    "--in-flight", type=click.IntRange(1, MOST_IN_FLIGHT), default=MOST_IN_FLIGHT, show_default=True,
    help="So many packets are followed at once; for one more the oldest is given up.",
)  # fmt: skip
@summary
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
    measures = {
        "least_ns": slower or 0,
        "slow_stage": slow_stage,
        "slow_stage_ns": slow_stage_ns,
        "by_end": 1 << TripEnd.TRIP_DROPPED if drops else 0,
        "retransmitted": int(retrans),
        **crowd_constants(in_flight),
        **rule_of_class(symbols, values["btf"] or KERNEL_BTF),
    }
    options = collect(values | {"both": True}, counting, measures)
    companion = SlowParts(counting) if counting else None
    extras = partial(_extras, functions, slow_stage)
    return Session(make_command(symbols, companion), options, extras).run()
