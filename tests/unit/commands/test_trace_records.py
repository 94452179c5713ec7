# SPDX-License-Identifier: BSD-2-Clause
"""Packets' ways: stages in the order of time, and packets that nothing more was heard of."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeObject, u32

from cgnet.commands.trace import expired
from cgnet.commands.trace.expired import (
    GIVE_UP_NS,
    GIVE_UP_WAITING_NS,
    stage_values,
    take_expired,
)
from cgnet.commands.trace.record import MAX_RECENT_OF_ALL, recent, sorted_stages, trace_group
from cgnet.counting.counts import Counting
from cgnet.counting.histograms import NANOSECONDS
from cgnet.counting.keys import read_by
from cgnet.filters.selection import Selection
from cgnet.records._layouts import (
    CGNET_EVICTED,
    CGNET_IN_FLIGHT,
    COUNT_KEY,
    FLOW,
    HEAD,
    HOLDER,
    IN_FLIGHT_PACKET,
    OWNER,
    PACKET_END,
    PACKET_TRACE,
    STAGE,
    TRACE_EVENT,
    OwnerSource,
    RecordKind,
    Role,
    StageAt,
    TraceConfig,
    TraceEnd,
    Undecided,
    Verdict,
)

NOW = 10**12
WAY = (StageAt.STAGE_TCP_TRANSMIT, StageAt.STAGE_DEV_QUEUE, StageAt.STAGE_NETIF_RECEIVE)
KEY, LONG_KEY = bytes(8), bytes(16)


def owner(source: OwnerSource, pid: int = 7, undecided: int = 0) -> bytes:
    return OWNER.packed.pack(42, 0, source, undecided, 0, pid, 0, b"web")


def stage(at: int, ts_ns: int, dev: bytes = b"eth0", netns: int = 9, verdict: int = 0) -> bytes:
    return STAGE.packed.pack(ts_ns, netns, 1, at, verdict, dev)


def event(*stages: bytes, **values: Any) -> bytes:
    """Make struct trace_event, as short as its stages are."""
    fact = {
        "packet": 5, "payload": 100, "sent": 1, "role": 0, "end": 0, "retrans_of": 0,
        "retrans_ns": 0, "retransmitted": 0, "out_of_order": 0, "answer_ns": 0,
    } | values  # fmt: skip
    trace = PACKET_TRACE.packed.pack(
        fact["packet"], fact["retrans_of"], 0, 3, 1000, 2000, 152, fact["payload"], 1, 0x18,
        fact["end"], len(stages), fact["role"], fact["sent"], fact["retransmitted"],
        fact["out_of_order"], bytes(3), fact["retrans_ns"], fact["answer_ns"],
    )  # fmt: skip
    head = HEAD.packed.pack(RecordKind.RECORD_TRACE, 0, NOW)
    who = values.get("owner", owner(OwnerSource.OWNER_LEARNED))
    return head + who + bytes(FLOW.size + PACKET_END.size) + trace + b"".join(stages)


def in_flight(
    last_ns: int, receiver: bytes = b"", *, wanted: bool = True, way: Any = WAY, **values: Any
) -> bytes:
    """Make struct in_flight_packet of a packet that was last seen then."""
    stages = [stage(at, last_ns - 1000 * (len(way) - i - 1)) for i, at in enumerate(way)]
    whole = event(*stages, **values).ljust(TRACE_EVENT.size, b"\0")
    rest = IN_FLIGHT_PACKET.size - TRACE_EVENT.size - HOLDER.size
    tail = bytearray(rest)
    tail[-8:-4] = int(wanted).to_bytes(4, "little")
    return whole + (receiver or bytes(HOLDER.size)) + bytes(tail)


def holder(*, wanted: bool, pid: int = 8) -> bytes:
    return owner(OwnerSource.OWNER_INHERITED, pid) + wanted.to_bytes(2, "little") + bytes(6)


def values_of(raw: bytes) -> dict[str, Any]:
    symbols: Any = SimpleNamespace(drop_reason=lambda _: "NETFILTER_DROP", code=lambda _: "f+0x1")
    namespaces: Any = SimpleNamespace(name={9: "web"}.get)
    group = trace_group(symbols, namespaces)
    return dict(zip(group.fields, group.values(raw[group.part]), strict=True))


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic_ns=lambda: NOW, monotonic=time.monotonic)
    monkeypatch.setattr(expired, "time", clock)


def new_object() -> FakeObject:
    obj = FakeObject()
    for tracked in range(2):
        obj.map("removed_by_user").update(u32(tracked), bytes(8))
    return obj


def taken(obj: FakeObject, *, ended: bool = False, **more: Any) -> list[expired.Expired]:
    selection = Selection(
        **{name: more.pop(name) for name in list(more) if name in Selection._fields}
    )
    options: Any = SimpleNamespace(selection=selection)
    source: Any = obj
    return list(take_expired(source, options, TraceConfig(**more), ended=ended))


def left(obj: FakeObject, **more: Any) -> list[bytes]:
    return [each.record for each in taken(obj, **more)]


def test_stages_are_in_the_order_of_time_and_their_delays_add_up() -> None:
    late, early = stage(WAY[1], 5000, b"veth0"), stage(WAY[0], 2000, b"", netns=0)
    row = values_of(event(late, early, end=TraceEnd.TRACE_DELIVERED))
    assert [(each["at"], each["delta_ns"], each["dev"]) for each in row["stages"]] == [
        ("tcp_transmit", 0, None),
        ("dev_queue", 3000, "veth0"),
    ]
    assert (row["total_ns"], row["end"], row["direction"]) == (3000, "delivered", "tx")
    assert [each["container"] for each in row["stages"]] == [None, "web"]


@pytest.mark.parametrize(
    ("sent", "way", "direction"),
    [
        (1, (StageAt.STAGE_NETIF_RECEIVE, StageAt.STAGE_DEV_QUEUE), "tx"),
        (0, (StageAt.STAGE_NETIF_RECEIVE, StageAt.STAGE_TCP_RECEIVE), "rx"),
        (0, (StageAt.STAGE_NETIF_RECEIVE, StageAt.STAGE_DEV_QUEUE), "forward"),
        (0, (StageAt.STAGE_DEV_QUEUE, StageAt.STAGE_NETIF_RECEIVE), "rx"),
    ],
)
def test_the_direction_is_told_by_the_way(sent: int, way: tuple[int, ...], direction: str) -> None:
    stages = [stage(at, 1000 + i) for i, at in enumerate(way)]
    assert values_of(event(*stages, sent=sent))["direction"] == direction


def test_a_hook_tells_its_verdict_and_a_copy_when_the_first_was_sent() -> None:
    hook = stage(StageAt.STAGE_NF_INPUT, 2, verdict=Verdict.VERDICT_DROP)
    row = values_of(
        event(stage(WAY[0], 1), hook, retrans_of=4, retrans_ns=200_000_000, retransmitted=1)
    )
    assert [(each["at"], each["verdict"]) for each in row["stages"]] == [
        ("tcp_transmit", None),
        ("nf_input", "drop"),
    ]
    assert (row["retransmitted"], row["retrans_of"]) == (True, 4)
    assert row["retrans_after_ns"] == 200_000_000


def test_only_what_was_dropped_has_a_reason() -> None:
    dropped = values_of(event(stage(WAY[0], 1), end=TraceEnd.TRACE_DROPPED))
    consumed = values_of(event(stage(WAY[0], 1), end=TraceEnd.TRACE_CONSUMED))
    assert (dropped["reason"], dropped["location"]) == ("NETFILTER_DROP", "f+0x1")
    assert (consumed["reason"], consumed["location"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "patience"),
    [("packets_in_flight", GIVE_UP_NS), ("aside", GIVE_UP_NS), ("waiting", GIVE_UP_WAITING_NS)],
)
def test_packets_are_given_up_after_a_while_or_at_the_end(name: str, patience: int) -> None:
    obj = new_object()
    key = KEY if name == "packets_in_flight" else LONG_KEY
    obj.map(name).update(key, in_flight(NOW - patience + 1))
    assert left(obj) == []
    assert [values_of(raw)["end"] for raw in left(obj, ended=True)] == ["timeout"]
    obj.map(name).update(key, in_flight(NOW - patience))
    (raw,) = left(obj)
    assert [each[0] for each in sorted_stages(raw)][-1] == NOW - patience
    assert obj.entries(name) == {}


def test_what_is_taken_out_is_counted_for_the_kernel_side() -> None:
    obj = new_object()
    for number in range(3):
        obj.map("packets_in_flight").update(bytes([number]) * 8, in_flight(NOW - GIVE_UP_NS))
    obj.map("waiting").update(LONG_KEY, in_flight(NOW - GIVE_UP_WAITING_NS))
    assert len(left(obj)) == 4
    counted = [
        int.from_bytes(each, sys.byteorder) for each in obj.entries("removed_by_user").values()
    ]
    assert counted == [3, 1]


def test_what_the_kernel_side_gave_up_is_left_to_it() -> None:
    obj = new_object()
    given_up = in_flight(NOW - GIVE_UP_NS)[:-4] + u32(CGNET_EVICTED)
    obj.map("packets_in_flight").update(KEY, given_up)
    assert left(obj, ended=True) == []
    assert obj.entries("packets_in_flight") == {KEY: given_up}


def test_what_carries_no_data_is_done_with_where_it_was_seen_last() -> None:
    obj = new_object()
    obj.map("packets_in_flight").update(KEY, in_flight(NOW - GIVE_UP_NS, payload=0))
    (raw,) = left(obj)
    assert values_of(raw)["end"] == "consumed"


def test_a_summary_has_the_stages_of_what_is_left() -> None:
    """Of each end by its own owner, if both are certain."""
    obj = new_object()
    way = (StageAt.STAGE_TCP_TRANSMIT, StageAt.STAGE_DEV_QUEUE, StageAt.STAGE_TCP_RECEIVE)
    packet = in_flight(NOW, holder(wanted=True), way=way, retransmitted=1, retrans_ns=77)
    obj.map("packets_in_flight").update(KEY, packet)
    (each,) = taken(obj, ended=True)
    found = {}
    for by in ("dport", "pid"):
        counting = Counting(read_by([by]), NANOSECONDS, stages={4: "tcp_transmit"})
        values = [
            (COUNT_KEY.packed.unpack(key), value) for key, value in stage_values(each, counting)
        ]
        found[by] = [(key[5], key[-2], value) for key, value in values]
    stages = ((StageAt.STAGE_RETRANSMIT, 77), (way[1], 1000), (way[2], 1000))
    assert found["dport"] == [(0, *each) for each in stages]
    assert found["pid"] == [(pid, *each) for pid, each in zip((7, 7, 8), stages, strict=True)]


@pytest.mark.parametrize("another", [None, 6])
def test_what_ended_while_it_was_looked_at_is_told_by_the_kernel_side_alone(
    another: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another packet may have its address by then."""
    obj = new_object()
    begun = {} if another is None else {KEY: in_flight(NOW, packet=another)}
    obj.map("packets_in_flight").update(KEY, in_flight(NOW - GIVE_UP_NS))

    def look(raw: bytes) -> list[Any]:
        obj.map("packets_in_flight").entries = dict(begun)
        return sorted_stages(raw)

    monkeypatch.setattr(expired, "sorted_stages", look)
    assert left(obj, ended=True) == []
    assert obj.entries("packets_in_flight") == begun
    assert set(obj.entries("removed_by_user").values()) == {bytes(8)}


@pytest.mark.parametrize(
    ("in_flight", "cpus", "number"),
    [
        (CGNET_IN_FLIGHT, 1, 64), (CGNET_IN_FLIGHT, 48, 32), (CGNET_IN_FLIGHT, 128, 16),
        (CGNET_IN_FLIGHT, 4096, 0), (CGNET_IN_FLIGHT - 1, 1, 0),
    ],
)  # fmt: skip
def test_so_many_births_of_a_cpu_are_young(in_flight: int, cpus: int, number: int) -> None:
    assert recent(in_flight, cpus) == number
    assert number * cpus <= MAX_RECENT_OF_ALL


NEW = owner(OwnerSource.OWNER_LEARNED, undecided=Undecided.UNDECIDED_NAME)


@pytest.mark.parametrize(
    ("made", "more", "pid"),
    [
        ({"wanted": True}, {}, 7),
        ({"wanted": False}, {}, None),
        ({"wanted": False, "receiver": holder(wanted=True)}, {}, 8),
        ({"wanted": False, "receiver": holder(wanted=False)}, {}, None),
        ({"owner": NEW, "receiver": holder(wanted=True)}, {}, 8),
        ({"owner": NEW, "receiver": holder(wanted=False)}, {}, 7),
        ({"sent": 0, "owner": owner(OwnerSource.OWNER_UNKNOWN, 0)}, {}, 0),
        ({"sent": 0, "owner": owner(OwnerSource.OWNER_UNKNOWN, 0)}, {"container": ("web",)}, None),
        ({"sent": 0, "owner": owner(OwnerSource.OWNER_UNKNOWN, 0)}, {"container": ("!web",)}, 0),
    ],
)
def test_who_is_shown(made: dict[str, Any], more: dict[str, Any], pid: int | None) -> None:
    obj = new_object()
    obj.map("packets_in_flight").update(KEY, in_flight(NOW - GIVE_UP_NS, **made))
    found = [OWNER.packed.unpack(raw[expired.OWNER_PART])[5] for raw in left(obj, **more)]
    assert found == ([] if pid is None else [pid])


def test_a_receivers_role_is_the_other_one() -> None:
    obj = new_object()
    shown = in_flight(NOW - GIVE_UP_NS, holder(wanted=True), wanted=False, role=Role.ROLE_CLIENT)
    obj.map("packets_in_flight").update(KEY, shown)
    (raw,) = left(obj)
    assert values_of(raw)["role"] == "server"


@pytest.mark.parametrize(
    ("measures", "shown"),
    [
        ({"by_end": 1 << TraceEnd.TRACE_DROPPED}, False),
        ({"retransmitted": 1}, False),
        ({"min_ns": 2000}, True),
        ({"min_ns": 2001}, False),
        ({"slow_stage": WAY[2], "slow_stage_ns": 999}, True),
        ({"slow_stage": WAY[2], "slow_stage_ns": 1000}, False),
        ({"slow_stage": StageAt.STAGE_APP_READ, "slow_stage_ns": 0}, False),
    ],
)
def test_what_is_left_passes_the_same_filters(measures: dict[str, int], *, shown: bool) -> None:
    obj = new_object()
    obj.map("packets_in_flight").update(KEY, in_flight(NOW - GIVE_UP_NS))
    assert bool(left(obj, **measures)) == shown
