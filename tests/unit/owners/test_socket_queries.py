# SPDX-License-Identifier: BSD-2-Clause
"""Queries of sockets: the question in the map, the thread's name, and the state afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from cgnet.owners import socket_queries
from cgnet.owners.open_sockets import Place, Sockets
from cgnet.records._layouts import QUESTION

if TYPE_CHECKING:
    from collections.abc import Iterator

COMM = Path("/proc/thread-self/comm")
NOBODY = bytes(QUESTION.size)


class Obj:
    """Stands for the loaded object: takes what is asked, and the thread's name a moment before."""

    def __init__(self, addresses: list[int] = []) -> None:  # noqa: B006 - nobody changes it
        self.addresses = addresses
        self.asked: list[bytes] = []

    def map(self, _name: str) -> Self:
        return self

    def keys(self, size: int) -> Iterator[bytes]:
        return iter([each.to_bytes(size, sys.byteorder) for each in self.addresses])

    def update(self, _key: bytes, value: bytes) -> None:
        self.asked.append(value)

    def questions(self) -> list[tuple[Any, ...]]:
        """Return address, process and descriptor of each question; behind the last one nobody asks."""
        assert self.asked[-1] == NOBODY
        return [QUESTION.packed.unpack(each)[2:] for each in self.asked[:-1]]


def descriptors() -> list[str]:
    return [each.name for each in Path("/proc/self/fd").iterdir()]


@pytest.fixture(autouse=True)
def own_name() -> Iterator[None]:
    before = COMM.read_text()
    yield
    assert COMM.read_text() == before


def test_each_socket_of_the_ledger_is_asked_for_once() -> None:
    obj = Obj([7, 2**64 - 64, 7])
    assert list(socket_queries.tell_open(obj)) == [None]  # type: ignore[arg-type]
    assert obj.questions() == [(7, -1, -1), (2**64 - 64, -1, -1)]


def test_the_thread_has_the_name_of_the_question() -> None:
    obj = Obj([*range(1, socket_queries.AT_ONCE + 1)])
    answers = socket_queries.tell_open(obj)  # type: ignore[arg-type]
    next(answers)
    first, second = QUESTION.packed.unpack(obj.asked[0])[:2]
    name = b"".join(each.to_bytes(8, sys.byteorder) for each in (first, second))
    assert COMM.read_bytes().strip() == name.rstrip(b"\0")
    assert (len(name.rstrip(b"\0")), name[:5]) == (15, b"cgnet")
    assert list(answers) == [None]


def test_answers_are_fetched_before_a_buffer_is_full() -> None:
    obj = Obj([*range(2 * socket_queries.AT_ONCE + 1)])
    asked = [len(obj.asked) for _ in socket_queries.tell_open(obj)]  # type: ignore[arg-type]
    assert asked == [socket_queries.AT_ONCE, 2 * socket_queries.AT_ONCE, len(obj.asked)]


def test_names_are_of_one_run() -> None:
    found = set()
    for _ in range(3):
        obj = Obj([1])
        list(socket_queries.tell_open(obj))  # type: ignore[arg-type]
        found.add(obj.asked[0][:16])
    assert len(found) == 3


def test_what_is_open_is_asked_for_by_process_and_descriptor(tmp_path: Path) -> None:
    for pid in ("7", "8"):
        (tmp_path / pid).mkdir()
    place = Place(1, 80, bytes(16))
    sockets = Sockets(
        {1: None, 2: place, 3: None, 4: None, 5: None},
        {1: 7, 2: 7, 3: 8, 4: 9},
        {1: 11, 2: 12, 3: 13, 4: 14},
    )
    obj, before = Obj(), len(descriptors())
    socket_queries.learn_open(obj, sockets, tmp_path)  # type: ignore[arg-type]
    asked = obj.questions()
    assert [(address, fd) for address, _, fd in asked] == [(0, 11), (0, 13)]
    assert all(process >= 0 for _, process, _ in asked)
    assert len(descriptors()) == before
