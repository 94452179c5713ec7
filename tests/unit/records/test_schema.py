# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import errno
import struct
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from records import EPOCH_NS, MEMORY, V2, Connect, Names, connect_schema, connects, packed_address

from cgnet.records._layouts import CGROUP_EVENT, CONNECT_EVENT, OwnerSource, RecordKind
from cgnet.records.conn_id import PUBLIC_KEY, siphash_2_4
from cgnet.records.schema import CgroupChange, cgroup_change, result_name
from cgnet.text import CUT

if TYPE_CHECKING:
    from cgnet.records.schema import Clock

SIZE = CONNECT_EVENT.size
PATHS = {(MEMORY, 42): "/docker/web", (V2, 42): "/system.slice/cron.service"}
STATES = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
    "BOUND_INACTIVE",
]
NOT_YET = (
    "container",
    "container_id",
    "image",
    "runtime",
    "pod",
    "pod_namespace",
    "unit",
    "labels",
)
CGROUP_ALONE = {  # nobody was seen to use the socket
    OwnerSource.OWNER_SK_CGRP,
    OwnerSource.OWNER_MEMCG,
    OwnerSource.OWNER_NETNS,
    OwnerSource.OWNER_DEVICE,
    OwnerSource.OWNER_ADDRESS,
}
OWNER_FIELDS = ("pid", "uid", "comm", "hierarchy", "cgroup", "cgroup_id", *NOT_YET)


def expected_owner(record: Connect) -> dict[str, Any]:
    """Return an owner's fields by the words of the schema."""
    if record.source == OwnerSource.OWNER_UNKNOWN:
        return {**dict.fromkeys(OWNER_FIELDS), "owner_source": "unknown"}
    process = {
        "pid": record.pid or (None if record.source == OwnerSource.OWNER_SEEDED else 0),
        "uid": record.uid,
        "comm": record.comm.split(b"\0")[0].decode("utf-8", "backslashreplace"),
    }
    if record.source in CGROUP_ALONE:
        process = dict.fromkeys(process)
    return {
        **process,
        "hierarchy": {MEMORY: "memory", V2: "v2"}.get(record.hierarchy),
        "cgroup": PATHS.get((record.hierarchy, record.cgroup_id)),
        "cgroup_id": f"{record.cgroup_id}",
        **dict.fromkeys(NOT_YET),
        "owner_source": OwnerSource(record.source).name.split("_", 1)[1].lower(),
    }


def expected_address(family: int, packed: bytes) -> str:
    if family == 4:
        return str(IPv4Address(packed[:4]))
    return str(IPv6Address(packed))


def expected_result(number: int) -> str:
    return {0: "ok", -1: "aborted"}.get(number) or errno.errorcode.get(number) or f"{number}"


def expected_conn_id(*ends: int) -> str | None:
    low, high = sorted(ends)
    return f"{siphash_2_4(PUBLIC_KEY, [low | high << 32])[0]:016x}" if low != high else None


def expected_row(record: Connect) -> dict[str, Any]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=(record.ts_ns + EPOCH_NS) // 1000
    )
    return {
        "schema": 2,
        "type": "connect",
        "time": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ts_ns": record.ts_ns,
        **expected_owner(record),
        "netns": record.netns,
        "family": record.family,
        "mapped": record.mapped == 1,
        "saddr": expected_address(record.family, record.saddr),
        "daddr": expected_address(record.family, record.daddr),
        "dport": record.dport,
        "sport": record.sport,
        "role": {1: "client", 2: "server"}[record.role],
        "tcp_state": STATES[record.tcp_state - 1],
        "result": expected_result(record.result),
        "latency_us": record.latency_ns // 1000 if record.latency_ns else None,
        "syn_retrans": record.syn_retrans,
        "conn_id": expected_conn_id(record.local, record.remote),
    }


def same_address(text: str, other: str) -> bool:
    return ip_address(text) == ip_address(other)


@given(connects() | connects(cgroup_id=42))
def test_a_row_has_the_values_that_the_schema_promises(record: Connect) -> None:
    row, expected = connect_schema(Names(PATHS)).row(record.raw()), expected_row(record)
    # Python writes ::192.0.2.1 as ::c000:201: the text may differ, the address may not.
    for field in ("saddr", "daddr"):
        assert same_address(row[field], expected[field])
        row[field] = expected[field]
    assert row == expected


def test_the_fields_are_those_of_a_row_in_order() -> None:
    schema = connect_schema(Names())
    assert list(schema.row(Connect().raw())) == list(schema.fields)


def test_rows_are_those_of_the_batch_in_order() -> None:
    schema = connect_schema(Names())
    batch = [Connect(pid=pid).raw() for pid in (3, 1, 2)]
    assert [row["pid"] for row in schema.rows(batch)] == [3, 1, 2]


@given(connects(source=int(OwnerSource.OWNER_UNKNOWN)))
def test_an_unknown_owner_has_no_values_whatever_the_bytes_hold(record: Connect) -> None:
    row = connect_schema(Names(PATHS)).row(record.raw())
    assert {field: row[field] for field in OWNER_FIELDS} == dict.fromkeys(OWNER_FIELDS)
    assert row["owner_source"] == "unknown"


def test_ipv4_on_an_ipv6_socket_is_family_4_and_mapped() -> None:
    row = connect_schema(Names()).row(Connect(family=4, mapped=1).raw())
    assert (row["family"], row["mapped"], row["saddr"]) == (4, True, "10.0.0.1")


@pytest.mark.parametrize("text", ["::", "::1", "2001:db8::1", "fe80::1:2:3:4", "64:ff9b::c000:201"])
def test_ipv6_addresses_are_written_in_their_short_form(text: str) -> None:
    row = connect_schema(Names()).row(Connect(family=6, daddr=packed_address(text)).raw())
    assert row["daddr"] == text


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "ok"),
        (-1, "aborted"),
        (errno.ECONNREFUSED, "ECONNREFUSED"),
        (errno.ETIMEDOUT, "ETIMEDOUT"),
        (errno.EHOSTUNREACH, "EHOSTUNREACH"),
        (errno.ENETUNREACH, "ENETUNREACH"),
        (errno.EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (512, "512"),  # ERESTARTSYS: the kernel's own, no name in user space
        (-7, "-7"),
    ],
)
def test_a_result_has_the_errnos_name(number: int, name: str) -> None:
    assert result_name(number) == name


@pytest.mark.parametrize(
    ("ts_ns", "text"),
    [
        (0, "2026-03-01T12:34:56.789012Z"),
        (987_999, "2026-03-01T12:34:56.789999Z"),
        (988_000, "2026-03-01T12:34:56.790000Z"),
        (210_987_999, "2026-03-01T12:34:56.999999Z"),
        (210_988_000, "2026-03-01T12:34:57.000000Z"),
    ],
)
def test_time_is_rfc_3339_in_utc_with_microseconds(clock: Clock, ts_ns: int, text: str) -> None:
    assert clock.text(ts_ns) == text


@given(st.lists(st.integers(0, 1 << 62), min_size=2, max_size=8))
def test_a_moments_text_does_not_depend_on_what_was_asked_before(moments: list[int]) -> None:
    schema = connect_schema(Names())
    for ts_ns in (*moments, *reversed(moments)):
        fresh = connect_schema(Names()).clock.text(ts_ns)
        assert schema.clock.text(ts_ns) == fresh


def test_a_clock_is_near_the_time_of_day(clock: Clock) -> None:
    clock.adjust()
    shown = datetime.fromisoformat(clock.text(time.monotonic_ns()))
    assert abs(shown - datetime.now(tz=UTC)) < timedelta(seconds=5)


@given(st.binary(min_size=SIZE, max_size=SIZE))
@example(b"\xff" * SIZE)
@example(Connect(tcp_state=14).raw())
@example(Connect(tcp_state=0).raw())
@example(Connect(source=200).raw())
@example(Connect(family=0).raw())
def test_any_bytes_of_the_right_length_make_a_row(raw: bytes) -> None:
    schema = connect_schema(Names())
    assert list(schema.row(raw)) == list(schema.fields)


@given(st.integers(0, SIZE - 1))
def test_a_record_that_is_cut_off_raises_instead_of_decoding_to_nonsense(length: int) -> None:
    with pytest.raises(struct.error):
        connect_schema(Names()).row(Connect().raw()[:length])


@pytest.mark.parametrize("more", [1, 8, 128])
def test_a_record_that_is_too_long_raises_instead_of_decoding_to_nonsense(more: int) -> None:
    with pytest.raises(struct.error):
        connect_schema(Names()).row(Connect().raw() + bytes(more))


def cgroup_event(kind: int, path: bytes, marks: int = 0) -> bytes:
    """Return the bytes of a record about a cgroup."""
    return CGROUP_EVENT.packed.pack(kind, 0, 5, 1 << 63, 7, marks, path)


@pytest.mark.parametrize(
    "kind",
    [
        RecordKind.RECORD_CGROUP_CREATED,
        RecordKind.RECORD_CGROUP_RENAMED,
        RecordKind.RECORD_CGROUP_REMOVED,
    ],
)
@pytest.mark.parametrize("marks", [0, 1, 6])
def test_a_change_of_cgroups_is_decoded(kind: int, marks: int) -> None:
    change = cgroup_change(cgroup_event(kind, b"/docker/a\0rubbish", marks))
    assert change == CgroupChange(kind, 7, 1 << 63, marks, "/docker/a", is_cut=False)


def test_a_cgroups_name_that_is_not_utf_8_is_escaped() -> None:
    raw = cgroup_event(RecordKind.RECORD_CGROUP_CREATED, b"/\xff\xfe")
    assert cgroup_change(raw).path == "/\\xff\\xfe"


def test_a_path_that_is_longer_than_the_record_is_marked_after_its_last_whole_name() -> None:
    told = b"/" + b"d" * 500 + b"/" + b"e" * 500 + b"/"
    for rest, expected in ((b"f" * 20, told.decode() + CUT), (b"f" * 21, told.decode() + CUT)):
        change = cgroup_change(cgroup_event(RecordKind.RECORD_CGROUP_CREATED, (told + rest)[:1023]))
        assert (change.path, change.is_cut) == (expected, True)
    change = cgroup_change(cgroup_event(RecordKind.RECORD_CGROUP_CREATED, told + b"f" * 19))
    assert (change.path, change.is_cut) == (told.decode() + "f" * 19, False)


@given(st.binary(min_size=CGROUP_EVENT.size, max_size=CGROUP_EVENT.size))
def test_any_bytes_of_the_right_length_make_a_change_of_cgroups(raw: bytes) -> None:
    assert "\0" not in cgroup_change(raw).path


@pytest.mark.parametrize("change", [-1, 1])
def test_a_change_of_cgroups_of_another_length_raises(change: int) -> None:
    raw = cgroup_event(RecordKind.RECORD_CGROUP_CREATED, b"/a") + b"\0"
    with pytest.raises(struct.error):
        cgroup_change(raw[: CGROUP_EVENT.size + change])
