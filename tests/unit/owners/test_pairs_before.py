# SPDX-License-Identifier: BSD-2-Clause
"""Ends of connections from before the start: told by their places, and marked in their records."""

from __future__ import annotations

import pytest

from cgnet.owners.pairs import Pairs
from cgnet.owners.pairs_before import PairsBefore
from cgnet.records._layouts import (
    DROP_EVENT,
    LIFE_EVENT,
    PACKET_END,
    Flow,
    Identity,
    Owner,
    Role,
)
from cgnet.records.conn_id import PUBLIC_KEY, conn_ids
from cgnet.records.schema import FLOW_PART

CLIENT, SERVER = (Owner(pid=pid).pack() for pid in (11, 22))
NEAR, FAR = b"\n\0\0\1".ljust(16, b"\0"), b"\n\0\0\2".ljust(16, b"\0")
IDENTITY_PART, ROLE_PART = LIFE_EVENT.slice("identity"), LIFE_EVENT.slice("life.role")
END_PART, DROP_ROLE_PART = DROP_EVENT.slice("end"), DROP_EVENT.slice("drop.role")


def flow(mapped: int = 0, netns: int = 5) -> bytes:
    return Flow(NEAR, FAR, netns, dport=80, family=4, mapped=mapped, sport=4711).pack()


def back() -> bytes:
    return Flow(FAR, NEAR, 5, dport=4711, family=4, sport=80).pack()


def record(size: int, **parts: tuple[slice, bytes]) -> bytes:
    raw = bytearray(size)
    for part, value in parts.values():
        raw[part] = value
    return bytes(raw)


def before(*, of_packets: bool = False) -> PairsBefore:
    end, role = (END_PART, DROP_ROLE_PART) if of_packets else (IDENTITY_PART, ROLE_PART)
    return PairsBefore([(flow(mapped=1), SERVER)], end, role, of_packets=of_packets)


def test_a_record_of_such_a_connection_has_the_other_end_and_no_id() -> None:
    raw = record(LIFE_EVENT.size, flow=(FLOW_PART, flow()))
    known = Pairs()
    known.before = before()
    mark = known.before.mark(raw)[IDENTITY_PART]
    assert known.other(mark) == SERVER
    assert conn_ids(PUBLIC_KEY, [mark]) == [None]


@pytest.mark.parametrize(
    "parts",
    [
        {"role": (ROLE_PART, bytes([Role.ROLE_CLIENT]))},
        {"identity": (IDENTITY_PART, Identity(1, 2).pack())},
        {"flow": (FLOW_PART, back())},
        {"flow": (FLOW_PART, flow(netns=6))},
    ],
    ids=["began later", "identified", "the other end", "elsewhere"],
)
def test_another_record_stays_as_it_is(parts: dict[str, tuple[slice, bytes]]) -> None:
    raw = record(LIFE_EVENT.size, **{"flow": (FLOW_PART, flow()), **parts})
    assert before().mark(raw) == raw


@pytest.mark.parametrize(
    ("known_and_source", "addresses", "is_known"),
    [
        ((1, 1), flow(), True),
        ((1, 0), back(), True),
        ((1, 0), flow(), False),
        ((0, 0), flow(), False),
    ],
)
def test_a_packet_of_its_socket(
    known_and_source: tuple[int, int], addresses: bytes, is_known: bool
) -> None:
    end = PACKET_END.packed.pack(0, 0, *known_and_source)
    raw = record(DROP_EVENT.size, flow=(FLOW_PART, addresses), end=(END_PART, end))
    known = before(of_packets=True)
    owner = known.other(known.mark(raw)[END_PART][: len(Identity().pack())])
    assert owner == (SERVER if is_known else None)
