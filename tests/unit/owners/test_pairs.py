# SPDX-License-Identifier: BSD-2-Clause
"""Pairs of ends: learnt from records, forgotten at the end, never mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.owners import pairs
from cgnet.owners.pairs import NO_OWNER, Pairs
from cgnet.records._layouts import Head, Identity, Owner, RecordKind

if TYPE_CHECKING:
    import pytest

HERE, THERE = Identity(1000, 2000).pack(), Identity(2000, 1000).pack()
CLIENT, SERVER, WORKER = (Owner(pid=pid).pack() for pid in (11, 22, 33))


def pair(identity: bytes, local: bytes, remote: bytes) -> bytes:
    return Head(RecordKind.RECORD_PAIR, 0, 7).pack() + identity + local + remote


def numbered(number: int) -> tuple[bytes, bytes]:
    return Identity(number, number + 1).pack(), Identity(number + 1, number).pack()


def test_each_end_has_the_other_one_and_rows_pass() -> None:
    known = Pairs()
    row = Head(RecordKind.RECORD_LIFE, 0, 7).pack()
    assert known.take([row, pair(THERE, SERVER, CLIENT), row]) == [row, row]
    assert known.other(HERE) == SERVER
    assert known.other(THERE) == CLIENT
    assert known.other(Identity(1000, 2001).pack()) is None


def test_a_reader_takes_its_listeners_place() -> None:
    known = Pairs()
    known.take([pair(THERE, WORKER, NO_OWNER)])
    assert known.other(HERE) is None
    known.take([pair(THERE, SERVER, CLIENT), pair(THERE, WORKER, NO_OWNER)])
    assert known.other(HERE) == WORKER
    assert known.other(THERE) == CLIENT


def test_two_candidates_are_none() -> None:
    known = Pairs()
    known.take([pair(THERE, SERVER, CLIENT), pair(HERE, WORKER, SERVER)])
    assert known.other(HERE) is None
    assert known.other(THERE) is None
    assert known.evicted == 1


def test_an_evicted_entry_is_no_pair() -> None:
    known = Pairs()
    known.take([pair(bytes(8), SERVER, CLIENT)])
    assert known.other(bytes(8)) is None


def test_the_other_end_is_known_after_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_ENDED", 1)
    known = Pairs()
    known.take([pair(THERE, SERVER, CLIENT)])
    known.end([HERE])
    assert known.other(HERE) is None
    assert known.other(THERE) == CLIENT
    for number in (1, 10):
        one, other = numbered(number)
        known.take([pair(one, CLIENT, SERVER)])
        known.end([one])
        assert known.other(other) == CLIENT
    assert known.other(THERE) is None
    assert known.evicted == 0


def test_an_end_that_was_closed_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Pairs()
    known.take([pair(THERE, SERVER, CLIENT), pair(HERE, NO_OWNER, NO_OWNER)])
    assert (known.other(HERE), known.other(THERE)) == (SERVER, CLIENT)
    monkeypatch.setattr(pairs, "LINGERS_S", 0.0)
    known.take([pair(THERE, NO_OWNER, NO_OWNER)])
    known.take([])
    assert known.other(HERE) == SERVER  # in order: the first one's time isn't over
    monkeypatch.setattr(pairs.time, "monotonic", lambda: float("inf"))
    known.take([])
    assert (known.other(HERE), known.other(THERE)) == (None, None)
    assert known.evicted == 0


def test_closed_ends_make_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 2)
    known = Pairs()
    for number in (1, 10):
        known.take([pair(numbered(number)[0], CLIENT, SERVER)])
    known.take(
        [pair(numbered(10)[0], NO_OWNER, NO_OWNER), pair(numbered(10)[1], NO_OWNER, NO_OWNER)]
    )
    known.take([pair(numbered(20)[0], CLIENT, SERVER)])
    assert [known.other(numbered(number)[0]) for number in (1, 20)] == [SERVER, SERVER]
    assert known.evicted == 0


def test_open_pairs_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_PAIRS", 2)
    known = Pairs()
    for number in (1, 10, 20):
        known.take([pair(numbered(number)[0], CLIENT, SERVER)])
    assert [known.other(numbered(number)[0]) for number in (1, 10, 20)] == [None, SERVER, SERVER]
    assert known.evicted == 1
