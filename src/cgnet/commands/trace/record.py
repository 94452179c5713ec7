# SPDX-License-Identifier: BSD-2-Clause
"""A packet's path through the kernel: its stages in order of time, and its end.

Counterpart of trace/in_flight.bpf.h.
"""

from __future__ import annotations

import os
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import (
    CGNET_IN_FLIGHT,
    CGNET_RECENT,
    PACKET_TRACE,
    STAGE,
    TRACE_EVENT,
    Stage,
    StageAt,
    TraceEnd,
    Verdict,
)
from cgnet.records.fields import AnyField, FieldGroup
from cgnet.records.packet import STAGES, flags_text
from cgnet.records.schema import FLOW_GROUPS, ROLES
from cgnet.text import decode

if TYPE_CHECKING:
    from cgnet.kernel.symbols import Symbols
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.netns_owners import NetnsNames
    from cgnet.owners.runtimes import Runtimes

FIELDS = (
    "role", "packet", "tcp_flags", "seq", "ack", "len", "payload", "segs", "direction", "stages",
    "total_ns", "end", "reason", "location", "retransmitted", "retrans_of", "retrans_after_ns",
    "out_of_order", "answer_after_ns",
)  # fmt: skip
VERDICTS: dict[int, str] = {
    each: each.name.removeprefix("VERDICT_").lower()
    for each in Verdict
    if each != Verdict.VERDICT_NONE
}
ENDS = {
    TraceEnd.TRACE_GOES_ON: "timeout",
    TraceEnd.TRACE_DELIVERED: "delivered",
    TraceEnd.TRACE_CONSUMED: "consumed",
    TraceEnd.TRACE_DROPPED: "dropped",
}
TRACE_PART = slice(TRACE_EVENT.slice("trace").start, None)
STAGES_AT = TRACE_EVENT.slice("stages").start
LEAST = STAGES_AT
COUNT_AT = TRACE_EVENT.slice("trace.stages").start
MAX_RECENT_OF_ALL = 2048  # of unknown order: a quarter of the smaller limit


def recent(in_flight: int, cpus: int | None = None) -> int:
    """Return the number of packets that a CPU keeps unqueued, with this limit of ``--in-flight``.

    If ``in_flight`` is below the maximum, no packet is recent: the oldest one is found exactly.
    """
    if in_flight != CGNET_IN_FLIGHT:
        return 0
    each = min(CGNET_RECENT, MAX_RECENT_OF_ALL // (cpus or os.cpu_count() or 1))
    return 1 << each.bit_length() >> 1  # a power of two


def sorted_stages(raw: bytes) -> list[Stage]:
    """Return the stages of a struct trace_event as struct stage, earliest first."""
    places = range(STAGES_AT, STAGES_AT + raw[COUNT_AT] * STAGE.size, STAGE.size)
    return sorted((Stage.unpack(raw, at) for at in places), key=attrgetter("ts_ns"))


def _direction(at: list[int], *, sent: bool) -> str:
    """Return "tx" for packets of this host's sockets, "forward" for forwarded ones, or "rx"."""
    if sent:
        return "tx"
    received = next((i for i, each in enumerate(at) if each == StageAt.STAGE_NETIF_RECEIVE), None)
    sent_on = received is not None and StageAt.STAGE_DEV_QUEUE in at[received:]
    return "forward" if sent_on else "rx"


def trace_group(symbols: Symbols, namespaces: NetnsNames) -> FieldGroup:
    """Return the group of a packet's own fields."""

    def values(part: bytes) -> tuple[Any, ...]:
        (
            packet, retrans_of, location, reason, seq, ack, length, payload, segs, flags, end, _, side,
            sent, retransmitted, out_of_order, _, retrans_ns, answer_ns,
        ) = PACKET_TRACE.packed.unpack(part[: PACKET_TRACE.size])  # fmt: skip
        stages = sorted_stages(bytes(TRACE_PART.start) + part)
        shown, before = [], stages[0].ts_ns if stages else 0
        for ts_ns, netns, cpu, at, verdict, dev in stages:
            shown.append({
                "at": STAGES.get(at, str(at)),
                "delta_ns": ts_ns - before,
                "cpu": cpu,
                "dev": decode(dev.partition(b"\0")[0]) or None,
                "netns": netns or None,
                "container": namespaces.name(netns),
                "verdict": VERDICTS.get(verdict),
            })  # fmt: skip
            before = ts_ns
        dropped = end == TraceEnd.TRACE_DROPPED
        return (
            ROLES.get(side), packet, flags_text(flags), seq, ack, length, payload, segs or 1,
            _direction([stage.at for stage in stages], sent=bool(sent)), shown,
            sum(stage["delta_ns"] for stage in shown), ENDS.get(end, str(end)),
            symbols.drop_reason(reason) if dropped else None,
            symbols.code(location) if dropped else None, bool(retransmitted), retrans_of or None,
            retrans_ns or None, bool(out_of_order), answer_ns or None,
        )  # fmt: skip

    return FieldGroup(FIELDS, TRACE_PART, values, repeats=False)


def groups(
    symbols: Symbols, names: CgroupNames, runtimes: Runtimes, namespaces: NetnsNames
) -> list[AnyField]:
    """Return the groups of a record's fields, in order."""
    return [owner_group(names, runtimes), *FLOW_GROUPS, trace_group(symbols, namespaces)]
