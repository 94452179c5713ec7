# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets``: records, sums, what earlier listings tell, options."""

from __future__ import annotations

from typing import Any

import pytest
from records import Names, no_runtimes

from cgnet.cli import _run
from cgnet.commands.sockets.command import COMMAND, STATES, _state_bits
from cgnet.commands.sockets.counting import Ports, States
from cgnet.commands.sockets.history import History
from cgnet.commands.sockets.record import NO_U32, NO_U64, Shared, groups
from cgnet.counting.keys import OF_LISTINGS, read_by
from cgnet.records._layouts import (
    FLOW,
    HEAD,
    IDENTITY,
    OPEN_SOCKET,
    OWNER,
    SOCKET_EVENT,
    OpenSocket,
    OwnerSource,
    RecordKind,
    Role,
    SocketLimit,
    SocketNetns,
    SocketTimer,
)
from cgnet.records.schema import Clock, Schema

NETNS = 4026531833
NOTHING = OpenSocket(*[NO_U64] * 12, *[NO_U32] * 14, STATES["ESTABLISHED"], 0, 0, 0, 0)


def record(sport: int = 40000, dport: int = 80, netns: int = NETNS, **values: int) -> bytes:
    flow = FLOW.packed.pack(
        bytes([127, 0, 0, 1]).ljust(16, b"\0"), bytes([127, 0, 0, 2]).ljust(16, b"\0"), netns, dport, 4,
        0, sport, bytes(6),
    )  # fmt: skip
    owner = OWNER.packed.pack(7, 0, OwnerSource.OWNER_SEEDED, 0, 0, 1234, 0, b"web")
    head = HEAD.packed.pack(RecordKind.RECORD_SOCKET, 0, 1)
    identities = bytes(2 * IDENTITY.size)
    return head + owner + flow + identities + OPEN_SOCKET.packed.pack(*NOTHING._replace(**values))


@pytest.fixture
def schema() -> Schema:
    names: Any = Names()
    return Schema(
        "sockets", Clock(), groups(names, no_runtimes(), COMMAND.shared), SOCKET_EVENT.size
    )


def test_what_a_socket_doesnt_have_is_null(schema: Schema) -> None:
    row = schema.row(record(recv_q=3, inode=0))
    assert (row["state"], row["timer"], row["recv_q"], row["inode"]) == (
        "ESTABLISHED",
        "none",
        3,
        None,
    )
    nulls = (
        "role", "limited_by", "age_us", "cwnd", "ssthresh", "srtt_us", "timer_us", "delivery_rate",
        "backlog", "queue_high", "drops", "holders",
    )  # fmt: skip
    assert [row[field] for field in nulls] == [None] * len(nulls)


def test_marks_are_named(schema: Schema) -> None:
    row = schema.row(
        record(
            role=Role.ROLE_SERVER,
            timer=SocketTimer.TIMER_PROBE,
            limited_by=SocketLimit.LIMIT_RWND,
            tcp_state=STATES["CLOSE_WAIT"],
            timer_us=2**40,
        )
    )
    assert (row["role"], row["state"]) == ("server", "CLOSE_WAIT")
    assert (row["timer"], row["timer_us"], row["limited_by"]) == ("probe", 2**40, "rwnd")


def test_a_schema_of_some_fields_has_their_values(schema: Schema) -> None:
    raw = record(sport=1, dport=2, queue=3)
    some = schema.only({"dport", "queue", "comm"}).row(raw)
    whole = schema.row(raw)
    assert {"time", "ts_ns", "dport", "queue", "comm"} <= some.keys() < whole.keys()
    assert some == {field: whole[field] for field in some}


def test_holders_are_all_processes_in_order_of_pids() -> None:
    shared = Shared()
    names: Any = Names()
    schema = Schema("sockets", Clock(), groups(names, no_runtimes(), shared), SOCKET_EVENT.size)
    owners = [
        OWNER.packed.pack(cgroup, 0, OwnerSource.OWNER_SEEDED, 0, 0, pid, 0, b"web")
        for cgroup, pid in ((8, 30), (7, 20))
    ]
    number = shared.add(owners)
    assert [each["pid"] for each in schema.row(record(shared=number))["holders"]] == [20, 30]
    assert schema.row(record())["holders"] is None
    shared.begin()
    assert schema.row(record(shared=number))["holders"] is None  # of the last listing


def test_states_are_counted_by_keys(schema: Schema) -> None:
    keys = read_by(["container,state,daddr/8"], OF_LISTINGS)
    states = States(keys, schema, ())
    states.add([record(sport=1), record(sport=2), record(tcp_state=STATES["LISTEN"])])
    rows = states.take()
    assert [(row["state"], row["daddr"], row["count"]) for row in rows] == [
        ("ESTABLISHED", "127.0.0.0/8", 2), ("LISTEN", "127.0.0.0/8", 1),
    ]  # fmt: skip
    assert set(rows[0]) == set(states.fields)
    assert states.take() == []


def test_ports_are_counted_within_the_range_of_their_namespace(schema: Schema) -> None:
    ports = Ports(schema)
    ports.begin([SocketNetns(0, 0, 0, 0, 0, 0, NETNS, 40000, 40009)])
    ports.add(
        [
            *(record(sport=sport) for sport in (40000, 40009, 40010)),
            record(sport=40001, dport=81),
            record(sport=40000, tcp_state=STATES["TIME_WAIT"]),  # the same port
            record(sport=40002, role=Role.ROLE_SERVER),
        ]
    )
    rows = ports.take()
    assert [(row["dport"], row["used"], row["left"]) for row in rows] == [(80, 2, 8), (81, 1, 9)]
    assert (rows[0]["first_port"], rows[0]["last_port"]) == (40000, 40009)


def test_a_socket_has_an_age_if_it_came_later(schema: Schema) -> None:
    history = History()
    history.begin()
    old = history.tell(record(sport=1, address=64))
    history.end()
    history.begin()
    new = history.tell(record(sport=2, address=128))
    again = history.tell(record(sport=3, address=64))  # the address is used again
    still = history.tell(record(sport=1, address=64))
    ages = [schema.row(raw)["age_us"] for raw in (old, still, new, again)]
    assert ages[:2] == [None, None]
    assert all(isinstance(age, int) for age in ages[2:])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ports", "--listeners"], "--ports: not with --listeners or --states"),
        (["--listeners", "--state", "ESTABLISHED"], "--listeners: their state is LISTEN"),
        (["--by", "container"], "--by: goes with --states"),
        (["--states", "--by", "result"], "--by 'result'"),
        (["--state", "CLOSED"], "--state 'CLOSED': no such state"),
        (["--states", "--by", "selected"], "--by selected"),
    ],
)
def test_wrong_options_are_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(["sockets", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_states_are_taken_as_ss_writes_them() -> None:
    assert _state_bits(("close-wait,TIME_WAIT",)) == 1 << 8 | 1 << 6
    assert _state_bits(()) == 0
    assert _state_bits(("!listen",)) & 1 << STATES["LISTEN"] == 0
