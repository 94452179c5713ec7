# SPDX-License-Identifier: BSD-2-Clause
"""A packet's path through the kernel: its stages in order of time, and its end.

Counterpart of trace/in_flight.bpf.h.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import (
    CGNET_EVICTED,
    CGNET_IN_FLIGHT,
    CGNET_RECENT,
    HOLDER,
    IN_FLIGHT_PACKET,
    OWNER,
    PACKET_TRACE,
    STAGE,
    TRACE_EVENT,
    Head,
    OwnerSource,
    PacketTrace,
    Stage,
    StageAt,
    TraceEnd,
    Verdict,
    number_in,
    u32,
    u64,
)
from cgnet.records.fields import AnyGroup, Group
from cgnet.records.packet import STAGES, flags_text
from cgnet.records.schema import FLOW_GROUPS, HEAD_PART, OWNER_PART, ROLES
from cgnet.text import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.kernel.symbols import Symbols
    from cgnet.loader import Map, Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.netns_owners import NetnsNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import TraceConfig
    from cgnet.run.command import Options

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
END_AT = TRACE_EVENT.slice("trace.end").start
PACKET_PART = TRACE_EVENT.slice("trace.packet")
COUNT_AT = TRACE_EVENT.slice("trace.stages").start
RETRANSMITTED_AT = TRACE_EVENT.slice("trace.retransmitted").start
FLAGS_AT = TRACE_EVENT.slice("trace.tcp_flags").start
ROLE_AT = TRACE_EVENT.slice("trace.role").start
GIVE_UP_NS = 2_000_000_000  # after the last stage
GIVE_UP_WAITING_NS = 60_000_000_000
GIVE_UP_SYN_NS = 5_000_000_000  # a neighbour that doesn't answer may delay it for three seconds

# Options that select by owner: if one includes, packets without owners aren't shown.
OF_OWNERS = ("cgroup", "container", "pod", "pod_namespace", "unit", "pid", "comm", "uid")
MAX_RECENT_OF_ALL = 2048  # of unknown order: a quarter of the smaller limit


class Left(NamedTuple):
    """A map of packets, and the time after which they expire."""

    name: str
    key_size: int
    patience_ns: int
    tracked: int | None  # enum tracked_kind of trace/eviction.bpf.h


ASIDE = "aside"
LEFT = (
    Left("packets_in_flight", 8, GIVE_UP_NS, 0),
    Left(ASIDE, 16, GIVE_UP_NS, None),
    Left("waiting", 16, GIVE_UP_WAITING_NS, 1),
)


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


def trace_group(symbols: Symbols, namespaces: NetnsNames) -> Group:
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

    return Group(FIELDS, TRACE_PART, values, repeats=False)


def groups(
    symbols: Symbols, names: CgroupNames, runtimes: Runtimes, namespaces: NetnsNames
) -> list[AnyGroup]:
    """Return the groups of a record's fields, in order."""
    return [owner_group(names, runtimes), *FLOW_GROUPS, trace_group(symbols, namespaces)]


# -- packets that expire


def _entries(packets: Map, key_size: int) -> Iterator[tuple[bytes, bytes]]:
    for key in list(packets.keys(key_size)):
        try:
            yield key, packets.lookup(key, IN_FLIGHT_PACKET.size)
        except LibbpfError:  # it ended meanwhile
            continue


class Side(NamedTuple):
    """The owner and role that a packet is shown with."""

    owner: bytes  # struct owner
    role: int


def _side(in_flight: bytes, *, includes: bool) -> Side | None:
    """Return the owner to show, as shown_as() of trace/finish.bpf.h. None: none is wanted."""
    receiver = in_flight[IN_FLIGHT_PACKET.slice("receiver")]
    wanted_sender = any(in_flight[IN_FLIGHT_PACKET.slice("wanted_sender")])
    wanted = any(receiver[HOLDER.slice("wanted")])
    owner = in_flight[OWNER_PART]
    source, undecided = (OWNER.slice(name).start for name in ("source", "undecided"))
    trace = PacketTrace.unpack(in_flight, TRACE_PART.start)
    unknown = OwnerSource.OWNER_UNKNOWN
    received = receiver[source] != unknown
    surer = received and wanted and not receiver[undecided] and owner[undecided]
    if trace.sent and wanted_sender and not surer and (not received or owner[source] != unknown):
        return Side(owner, trace.role)
    if not received:
        return None if trace.sent or includes else Side(owner, trace.role)
    other = sum(ROLES) - trace.role if trace.sent and trace.role else trace.role
    return Side(receiver[: OWNER.size], other) if wanted else None


def _passes(raw: bytes, config: TraceConfig) -> bool:
    """Return whether a packet is shown, as in_flight_passes() of trace/finish.bpf.h."""
    if config.by_end and not config.by_end >> raw[END_AT] & 1:
        return False
    if config.retransmitted and not raw[RETRANSMITTED_AT]:
        return False
    stages = sorted_stages(raw)
    if not stages or stages[-1].ts_ns - stages[0].ts_ns < config.min_ns:
        return False
    slow = [
        stage
        for before, stage in pairwise(stages)
        if stage.at == config.slow_stage and stage.ts_ns - before.ts_ns > config.slow_stage_ns
    ]
    return bool(slow) or not config.slow_stage


def _is_syn(in_flight: bytes) -> bool:
    """Return whether a packet begins a connection: it never counts as consumed."""
    return "S" in flags_text(in_flight[FLAGS_AT])


def _record(in_flight: bytes, side: Side, now: int, *, waits: bool) -> bytes:
    """Return struct trace_event. A packet without data counts as consumed at its last stage."""
    size = STAGES_AT + in_flight[COUNT_AT] * STAGE.size
    raw = bytearray(in_flight[:size])
    raw[OWNER_PART] = side.owner
    raw[ROLE_AT] = side.role
    raw[HEAD_PART] = Head.unpack(in_flight)._replace(ts_ns=now).pack()
    goes_on = waits or PacketTrace.unpack(in_flight, TRACE_PART.start).payload or _is_syn(in_flight)
    raw[END_AT] = TraceEnd.TRACE_GOES_ON if goes_on else TraceEnd.TRACE_CONSUMED
    return bytes(raw)


def _has_left(left: Left, in_flight: bytes, now: int, *, ended: bool) -> bool:
    """Return whether a packet has expired, and isn't evicted yet."""
    stages = sorted_stages(in_flight)
    given_up = number_in(in_flight[IN_FLIGHT_PACKET.slice("waits")]) & CGNET_EVICTED
    patience_ns = max(left.patience_ns, GIVE_UP_SYN_NS if _is_syn(in_flight) else 0)
    return bool(stages) and not given_up and (ended or now - stages[-1].ts_ns >= patience_ns)


def _take_out(obj: Object, left: Left, key: bytes, in_flight: bytes) -> bool:
    """Remove a packet; return whether it was still there.

    The kernel side may have ended it meanwhile, and even have begun another one at its address.
    """
    packets = obj.map(left.name)
    try:
        if packets.lookup(key, IN_FLIGHT_PACKET.size)[PACKET_PART] != in_flight[PACKET_PART]:
            return False
    except LibbpfError:
        return False
    if not packets.discard(key):
        return False
    if left.tracked is not None:
        _count_removed(obj, left.tracked)
    return True


def _count_removed(obj: Object, tracked: int) -> None:
    key = u32(tracked)
    removed_by_user = obj.map("removed_by_user")
    removed_by_user.update(key, u64(number_in(removed_by_user.lookup(key, 8)) + 1))


def leftovers(obj: Object, options: Options, config: TraceConfig, *, ended: bool) -> list[bytes]:
    """Expire packets without new stages for long; all packets if ``ended``. Return their records.

    A summary has no such records, but packets that TCP merged are removed all the same: no program
    evicts them.
    """
    now = time.monotonic_ns()
    found = []
    owners = [getattr(options.selection, name) for name in OF_OWNERS]
    includes = any(not value.startswith("!") for values in owners for value in values)
    for left in LEFT:
        if options.counting and left.name != ASIDE:
            continue
        for key, in_flight in _entries(obj.map(left.name), left.key_size):
            if not _has_left(left, in_flight, now, ended=ended):
                continue
            if not _take_out(obj, left, key, in_flight) or options.counting:
                continue
            side = _side(in_flight, includes=includes)
            if side is None:
                continue
            record = _record(in_flight, side, now, waits=left.name == "waiting")
            if _passes(record, config):
                found.append(record)
    return found
