# SPDX-License-Identifier: BSD-2-Clause
"""Packets whose end no program sees: user space removes them after a while, and reports or counts them.

Counterpart of trace/finish.bpf.h.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from cgnet.commands.trace.record import COUNT_AT, STAGES_AT, TRACE_PART, sorted_stages
from cgnet.counting.keys import count_config, kernel_key
from cgnet.errors import LibbpfError
from cgnet.records._layouts import (
    CGNET_EVICTED,
    HOLDER,
    IN_FLIGHT_PACKET,
    OWNER,
    STAGE,
    TRACE_EVENT,
    CountBy,
    Flow,
    Head,
    Owner,
    OwnerSource,
    PacketTrace,
    StageAt,
    TraceEnd,
    number_in,
    u32,
    u64,
)
from cgnet.records.packet import flags_text
from cgnet.records.schema import FLOW_PART, HEAD_PART, OWNER_PART, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.counting.counts import Counting
    from cgnet.loader import Map, Object
    from cgnet.records._layouts import TraceConfig
    from cgnet.run.command import Options

END_AT = TRACE_EVENT.slice("trace.end").start
PACKET_PART = TRACE_EVENT.slice("trace.packet")
RETRANSMITTED_AT = TRACE_EVENT.slice("trace.retransmitted").start
FLAGS_AT = TRACE_EVENT.slice("trace.tcp_flags").start
ROLE_AT = TRACE_EVENT.slice("trace.role").start
RECEIVER_PART = IN_FLIGHT_PACKET.slice("receiver")

GIVE_UP_NS = 2_000_000_000  # after the last stage
GIVE_UP_WAITING_NS = 60_000_000_000
GIVE_UP_SYN_NS = 5_000_000_000  # a neighbour that doesn't answer may delay it for three seconds

# Options that select by owner: if one includes, packets without owners aren't shown.
OF_OWNERS = ("cgroup", "container", "pod", "pod_namespace", "unit", "pid", "comm", "uid")
# Keys whose values the two ends of a packet may not share.
OF_SIDES = (
    CountBy.BY_CGROUP | CountBy.BY_SELECTED | CountBy.BY_PID | CountBy.BY_COMM | CountBy.BY_UID
    | CountBy.BY_ROLE
)  # fmt: skip


class Left(NamedTuple):
    """A map of packets, and the time after which they expire."""

    name: str
    key_size: int
    patience_ns: int
    tracked: int | None  # enum tracked_kind of trace/eviction.bpf.h


LEFT = (
    Left("packets_in_flight", 8, GIVE_UP_NS, 0),
    Left("aside", 16, GIVE_UP_NS, None),
    Left("waiting", 16, GIVE_UP_WAITING_NS, 1),
)


class Side(NamedTuple):
    """An owner and role that a packet is shown with."""

    owner: bytes  # struct owner
    role: int


class Expired(NamedTuple):
    """An expired packet: struct trace_event as it is shown, and both ends' owners if both are known."""

    record: bytes
    sender: Side | None = None
    receiver: Side | None = None


def _entries(packets: Map, key_size: int) -> Iterator[tuple[bytes, bytes]]:
    for key in list(packets.keys(key_size)):
        try:
            yield key, packets.lookup(key, IN_FLIGHT_PACKET.size)
        except LibbpfError:  # it ended meanwhile
            continue


def _role_of_receiver(trace: PacketTrace) -> int:
    return sum(ROLES) - trace.role if trace.sent and trace.role else trace.role


def _side(in_flight: bytes, *, includes: bool) -> Side | None:
    """Return the owner to show, as shown_as() of trace/finish.bpf.h. None: none is wanted."""
    receiver = in_flight[RECEIVER_PART]
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
    return Side(receiver[: OWNER.size], _role_of_receiver(trace)) if wanted else None


def _both_sides(in_flight: bytes, shown: Side) -> tuple[Side, Side] | None:
    """Return both ends' owners, as has_two_sides() of trace/finish.bpf.h. None: not both are certain."""
    trace = PacketTrace.unpack(in_flight, TRACE_PART.start)
    ends = (Owner.unpack(in_flight[part]) for part in (OWNER_PART, RECEIVER_PART))
    if not trace.sent or Owner.unpack(shown.owner).undecided:
        return None
    sender, receiver = (owner._replace(undecided=0) for owner in ends)
    if OwnerSource.OWNER_UNKNOWN in (sender.source, receiver.source):
        return None
    return Side(sender.pack(), trace.role), Side(receiver.pack(), _role_of_receiver(trace))


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


def take_expired(
    obj: Object, options: Options, config: TraceConfig, *, ended: bool
) -> Iterator[Expired]:
    """Remove packets without new stages for long, or all packets if ``ended``; yield those to show."""
    now = time.monotonic_ns()
    owners = [getattr(options.selection, name) for name in OF_OWNERS]
    includes = any(not value.startswith("!") for values in owners for value in values)
    for left in LEFT:
        for key, in_flight in _entries(obj.map(left.name), left.key_size):
            if not _has_left(left, in_flight, now, ended=ended):
                continue
            if not _take_out(obj, left, key, in_flight):
                continue
            side = _side(in_flight, includes=includes)
            if side is None:
                continue
            record = _record(in_flight, side, now, waits=left.name == "waiting")
            if _passes(record, config):
                yield Expired(record, *(_both_sides(in_flight, side) or ()))


def stage_values(expired: Expired, counting: Counting) -> Iterator[tuple[bytes, int]]:
    """Yield struct count_key and nanoseconds of each stage, as summarize() of trace/finish.bpf.h."""
    config = count_config(counting.keys)
    record = expired.record
    flow, trace = Flow.unpack(record[FLOW_PART]), PacketTrace.unpack(record, TRACE_PART.start)
    shown = Side(record[OWNER_PART], trace.role)
    if not config.by & OF_SIDES or not expired.sender or not expired.receiver:
        sender = receiver = shown
    else:
        sender, receiver = expired.sender, expired.receiver

    def key(side: Side, stage: int) -> bytes:
        return kernel_key(config, Owner.unpack(side.owner), flow, side.role, stage)

    if trace.retrans_ns:
        yield key(sender, StageAt.STAGE_RETRANSMIT), trace.retrans_ns
    if trace.answer_ns:
        yield key(sender, StageAt.STAGE_ANSWER), trace.answer_ns
    for before, stage in pairwise(sorted_stages(record)):
        received = StageAt.STAGE_TCP_RCV <= stage.at <= StageAt.STAGE_APP_READ
        yield key(receiver if received else sender, stage.at), stage.ts_ns - before.ts_ns
