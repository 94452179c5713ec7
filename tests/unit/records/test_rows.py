# SPDX-License-Identifier: BSD-2-Clause
"""Rows of the commands beside `connect`, from the bytes of their records."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

import pytest
from fakes import FakeKernel
from hypothesis import given
from hypothesis import strategies as st
from records import (
    ENDED,
    IDENTITY,
    MEMORY,
    RESENT,
    SAMPLE,
    Connect,
    Names,
    connect_schema,
    connects,
    fixed_clock,
    no_runtimes,
    record_of,
    u,
)

from cgnet.commands import connlat, life, retrans, rtt
from cgnet.records._layouts import (
    CGNET_NO_FLIGHT,
    LIFE,
    LIFE_EVENT,
    RETRANS,
    RETRANS_EVENT,
    RTT_EVENT,
    RTT_SAMPLE,
    ClosedBy,
    DroppedHere,
    Life,
    RecordKind,
    RetransCause,
    Role,
)
from cgnet.records.conn_id import PUBLIC_KEY, conn_ids
from cgnet.records.schema import TCP_STATES, Schema
from cgnet.render import make_renderer

if TYPE_CHECKING:
    from cgnet.loader import Object
    from cgnet.run.command import Command

NAMES = Names({(MEMORY, 42): "/docker/web"})
CONN_ID = conn_ids(PUBLIC_KEY, [IDENTITY])[0]
# What all records begin with.
SHARED = connect_schema(NAMES).fields[2:]
SHARED = SHARED[: SHARED.index("sport") + 1]
LEARNT = {
    "pid": 4711, "uid": 1000, "comm": "curl", "cgroup": "/docker/web", "owner_source": "learned",
    "netns": 4026531840, "saddr": "10.0.0.1", "daddr": "10.0.0.2", "sport": 51000, "dport": 443,
}  # fmt: skip


def schema(command: Command) -> Schema:
    groups = command.fields(NAMES, no_runtimes())
    return Schema(command.name, fixed_clock(), groups, command.layouts[0].size)


def sample(record: Connect | None = None, **values: Any) -> dict[str, Any]:
    tail = RTT_SAMPLE.packed.pack(*SAMPLE._replace(**values)) + IDENTITY
    return schema(rtt.COMMAND).row(record_of(RecordKind.RECORD_RTT, tail, record))


def lived(record: Connect | None = None, **values: Any) -> dict[str, Any]:
    tail = LIFE.packed.pack(*ENDED._replace(**values)) + IDENTITY
    return schema(life.COMMAND).row(record_of(RecordKind.RECORD_LIFE, tail, record))


def resent(record: Connect | None = None, **values: Any) -> dict[str, Any]:
    tail = RETRANS.packed.pack(*RESENT._replace(**values)) + IDENTITY
    return schema(retrans.COMMAND).row(record_of(RecordKind.RECORD_RETRANS, tail, record))


def own(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row has behind the local port."""
    names = list(row)
    return {name: row[name] for name in names[names.index("sport") + 1 :]}


@pytest.mark.parametrize("row", [sample(), lived(), resent()], ids=["rtt", "life", "retrans"])
def test_owner_and_addresses_are_those_of_every_record(row: dict[str, Any]) -> None:
    assert tuple(row)[2 : 2 + len(SHARED)] == SHARED
    assert {name: row[name] for name in LEARNT} == LEARNT


@given(connects())
def test_what_records_share_is_read_alike(record: Connect) -> None:
    expected = connect_schema(NAMES).row(record.raw())
    for row in (sample(record), lived(record), resent(record)):
        assert {name: row[name] for name in SHARED} == {name: expected[name] for name in SHARED}


def test_a_sample_has_both_times_and_where_it_was_taken() -> None:
    assert sample()["type"] == "rtt"
    assert own(sample()) == {
        "role": "server", "tcp_state": "ESTABLISHED", "rtt_us": 1500, "srtt_us": 1800,
        "handshake": False, "conn_id": CONN_ID,
    }  # fmt: skip
    assert own(sample(handshake=1, role=0, tcp_state=77)) == {
        "role": None, "tcp_state": "77", "rtt_us": 1500, "srtt_us": 1800, "handshake": True,
        "conn_id": CONN_ID,
    }  # fmt: skip


@given(u(32), u(32), st.integers(1, len(TCP_STATES) - 1), st.sampled_from([0, 1, 2]), st.booleans())
def test_any_sample_is_read(
    measured: int, smoothed: int, state: int, role: int, handshake: bool
) -> None:
    values = {"rtt_us": measured, "srtt_us": smoothed, "tcp_state": state, "role": role}
    row = own(sample(None, handshake=handshake, **values))
    side = {1: "client", 2: "server"}.get(role)
    assert tuple(row.values()) == (side, TCP_STATES[state], measured, smoothed, handshake, CONN_ID)


@pytest.fixture(autouse=True)
def _tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a kernel of CONFIG_HZ=300."""
    monkeypatch.setattr("time.clock_getres", lambda _clock: 0.003333333)


def test_a_resend_has_its_cause_and_what_the_socket_was_like() -> None:
    assert resent()["type"] == "retrans"
    assert own(resent()) == {
        "role": "server", "tcp_state": "ESTABLISHED", "cause": "fast", "seq": 1000, "len": 2896,
        "segs": 2, "attempt": 1, "rto_us": 204_000, "srtt_us": 1800, "cwnd": 10, "ssthresh": 7,
        "in_flight": 3, "dropped_here": False, "dropped_packet": None, "dropped_at": None,
        "drop_reason": None, "conn_id": CONN_ID,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dropped", "told"),
    [
        (DroppedHere.DROPPED_UNKNOWN, (None, None)),
        (DroppedHere.DROPPED_ELSEWHERE, (False, None)),
        (DroppedHere.DROPPED_SEGMENT, (True, "segment")),
        (DroppedHere.DROPPED_ANSWER, (True, "answer")),
    ],
)
def test_unknown_is_not_elsewhere(dropped: DroppedHere, told: tuple[Any, ...]) -> None:
    row = resent(dropped=dropped, drop_location=1, drop_reason=2**32 - 2)
    assert (row["dropped_here"], row["dropped_packet"]) == told
    known = ("?", "TCP_LISTEN_OVERFLOW") if told[0] else (None, None)
    assert (row["dropped_at"], row["drop_reason"]) == known


def test_what_a_syn_ack_has_not_is_null() -> None:
    absent = {"rto_us": 0, "srtt_us": 0, "cwnd": 0, "ssthresh": 0, "in_flight": CGNET_NO_FLIGHT}
    row = resent(cause=6, tcp_state=12, **absent)
    assert (row["cause"], row["tcp_state"]) == ("synack", "NEW_SYN_RECV")
    assert {row[name] for name in absent} == {None}


@pytest.mark.parametrize("cause", RetransCause)
def test_a_cause_has_a_name(cause: RetransCause) -> None:
    assert resent(cause=cause)["cause"] == cause.name.removeprefix("RETRANS_").lower()


def test_a_life_has_all_that_was_counted() -> None:
    assert lived()["type"] == "life"
    assert own(lived()) == {
        "role": "client", "tcp_state": "FIN_WAIT2", "duration_us": 2_500_000, "handshake_us": 300,
        "tx_bytes": 10, "rx_bytes": 20, "tx_segs": 3, "rx_segs": 4, "retrans": 1, "srtt_us": 250,
        "min_rtt_us": 200, **dict.fromkeys(life.TURNS), "busy_us": 18 * 3333,
        "rwnd_limited_us": 6 * 3333,
        "sndbuf_limited_us": 7 * 3333, "delivery_rate": 1000, "reordering": 3, "dsack_dups": 2,
        "closed_by": "peer", "close_cause": "fin", "rst_reason": None,
        "open": False, "tx_bytes_delta": 9, "rx_bytes_delta": 19, "retrans_delta": 1,
        "conn_id": CONN_ID,
    }  # fmt: skip


def test_turns_are_of_servers_and_where_they_are_asked_for() -> None:
    measured = {"turns": 3, "mean_turn_us": 20, "least_turn_us": 10, "greatest_turn_us": 31}

    def told(command: life.Life, **values: int) -> list[Any]:
        tail = LIFE.packed.pack(*ENDED._replace(**values)) + IDENTITY
        row = schema(command).row(record_of(RecordKind.RECORD_LIFE, tail))
        return [row[name] for name in life.TURNS]

    asked, server = life.Life(ttfb=True), int(Role.ROLE_SERVER)
    assert told(asked, role=server, **measured) == [20, 10, 31, 3]
    assert told(asked, role=server) == [None, None, None, 0]
    assert told(asked) == told(life.Life(), role=server, **measured) == [None] * 4


def test_what_was_before_the_start_or_never_measured_is_null() -> None:
    unknown = {
        "duration_ns": 0,
        "handshake_ns": 0,
        "srtt_us": 0,
        "min_rtt_us": 2**32 - 1,
        "busy_ticks": 2**32 - 1,
        "delivery_rate": 0,
        "dsack_dups": 2**32 - 1,
        "role": 0,
    }
    row = lived(None, **unknown)
    fields = (
        "duration_us", "handshake_us", "srtt_us", "min_rtt_us", "busy_us", "rwnd_limited_us",
        "sndbuf_limited_us", "delivery_rate", "dsack_dups", "role",
    )  # fmt: skip
    assert [row[name] for name in fields] == [None] * 10


def test_a_connection_that_is_open_has_no_end() -> None:
    row = lived(closed_by=0, close_cause=0)
    assert (row["open"], row["closed_by"], row["close_cause"]) == (True, None, None)


@pytest.mark.parametrize(
    ("by", "name"), [(1, "local"), (2, "peer"), (3, "kernel"), (77, None)], ids=str
)
def test_who_closed_it(by: int, name: str | None) -> None:
    assert (lived(closed_by=by)["closed_by"], lived(closed_by=by)["open"]) == (name, False)


@pytest.mark.parametrize(
    ("cause", "name"), [(1, "fin"), (2, "rst"), (3, "timeout"), (4, "abort"), (77, None)]
)
def test_how_it_was_closed(cause: int, name: str | None) -> None:
    assert lived(close_cause=cause)["close_cause"] == name


def test_a_resets_reason_is_named_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with 1 added, as its own numbers begin with 0."""
    names = {0: "NOT_SPECIFIED", 4: "TCP_RFC7323_PAWS"}
    monkeypatch.setattr(life.SYMBOLS, "rst_reason", lambda number: names.get(number, str(number)))
    found = [lived(rst_reason=number)["rst_reason"] for number in (0, 1, 5, 99)]
    assert found == [None, "NOT_SPECIFIED", "TCP_RFC7323_PAWS", "98"]


@pytest.mark.parametrize("duration_ns", [0, 1, 1 << 40])
def test_what_was_open_at_the_start_and_is(duration_ns: int) -> None:
    """What began since then has told nothing before: its first row isn't one to count from."""
    records = [
        record_of(
            RecordKind.RECORD_LIFE,
            ENDED._replace(closed_by=by, duration_ns=duration_ns).pack() + IDENTITY,
        )
        for by in (0, *ClosedBy)
    ]
    kernel, shown = FakeKernel(), life.Life()
    told = {"living_files": [b"".join(records)]}
    kernel.iterator = lambda name, _: told.get(name)  # type: ignore[assignment,method-assign]
    first, second = (list(shown.on_interval(cast("Object", kernel))) for _ in range(2))
    assert first == [records if duration_ns else records[1:]]
    assert second == [records]


@given(st.binary(min_size=LIFE.size, max_size=LIFE.size))
def test_any_life_is_read(tail: bytes) -> None:
    row = schema(life.COMMAND).row(record_of(RecordKind.RECORD_LIFE, tail + IDENTITY))
    assert row["open"] == (Life(*LIFE.packed.unpack(tail)).closed_by == 0)


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (rtt.COMMAND, RTT_EVENT.size),
        (life.COMMAND, LIFE_EVENT.size),
        (retrans.COMMAND, RETRANS_EVENT.size),
    ],
)
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_size_are_no_record(command: Command, size: int, change: int) -> None:
    with pytest.raises(struct.error):
        schema(command).row(bytes(size + change))


def test_connlat_has_the_records_of_connect_and_its_own_name() -> None:
    theirs, ours = connect_schema(NAMES), schema(connlat.COMMAND)
    assert ours.fields == theirs.fields
    record = Connect(latency_ns=1_020_000_000, syn_retrans=1).raw()
    assert ours.row(record) == theirs.row(record) | {"type": "connlat"}


TABLES = [
    (
        rtt.COMMAND,
        record_of(RecordKind.RECORD_RTT, RTT_SAMPLE.packed.pack(*SAMPLE) + IDENTITY),
        "1.50 ms",
    ),
    (life.COMMAND, record_of(RecordKind.RECORD_LIFE, ENDED.pack() + IDENTITY), "2.50 s"),
    (
        retrans.COMMAND,
        record_of(RecordKind.RECORD_RETRANS, RETRANS.packed.pack(*RESENT) + IDENTITY),
        "204 ms",
    ),
    (connlat.COMMAND, Connect(latency_ns=1_020_000_000, syn_retrans=1).raw(), "1.02 s"),
]


@pytest.mark.parametrize(
    ("command", "record", "shown"), TABLES, ids=["rtt", "life", "retrans", "connlat"]
)
@pytest.mark.parametrize("kind", ["table", "wide"])
def test_a_table_has_a_cell_for_each_column(
    command: Command, record: bytes, shown: str, kind: str
) -> None:
    made = make_renderer(kind, schema(command), None, command.columns, terminal=False, header=True)
    header, row = made.header(), made.rows([record])
    assert header.count("\n") == row.count("\n") == 1
    assert shown in row
    assert "/docker/web" in row
