# SPDX-License-Identifier: BSD-2-Clause
"""The reader of the ring buffer, on pages such as the kernel's."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnet.errors import LibbpfError
from cgnet.kernel.ring_buffer import (
    BATCH_RECORDS,
    BUSY,
    DISCARDED,
    HEADER,
    MAX_ROW,
    MIN_ROW,
    Ring,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = mmap.PAGESIZE
SIZE = 4 * PAGE


class Producer:
    """Writes as the kernel side does, into pages laid out as its own are."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * size)
        self.pages = mmap.mmap(self.fd, 2 * PAGE + 2 * size)
        self.at = 0

    def consumed(self) -> int:
        """Return how far the reader is."""
        return int.from_bytes(self.pages[:8], "little")

    def put(self, raw: bytes, flags: int = 0) -> int:
        """Add a record; return where its header is."""
        whole = struct.pack("=II", len(raw) | flags, 0xABCD) + raw
        whole += b"\xee" * (-len(whole) % 8)
        assert self.at + len(whole) - self.consumed() <= self.size, "no room"
        for i, byte in enumerate(whole):
            place = 2 * PAGE + (self.at + i) % self.size
            self.pages[place] = self.pages[place + self.size] = byte
        begin, self.at = self.at, self.at + len(whole)
        self.pages[PAGE : PAGE + 8] = self.at.to_bytes(8, "little")
        return begin

    def finish(self, begin: int, length: int) -> None:
        """Submit the record that was busy."""
        header = length.to_bytes(4, "little")
        for copy in (0, self.size):
            place = 2 * PAGE + begin % self.size + copy
            self.pages[place : place + 4] = header


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    made.pages.close()
    os.close(made.fd)


def test_records_come_in_order_and_once(producer: Producer) -> None:
    with Ring(producer.fd, SIZE) as ring:
        for raw in (b"one", b"", b"three\0", b"three\1"):
            producer.put(raw)
        assert ring.consume() == [b"one", b"", b"three\0", b"three\1"]
        assert ring.consume() == []
        producer.put(b"more")
        assert ring.consume() == [b"more"]


def test_what_was_taken_makes_room(producer: Producer) -> None:
    with Ring(producer.fd, SIZE) as ring:
        producer.put(b"x" * 100)
        assert producer.consumed() == 0
        ring.consume()
        assert producer.consumed() == producer.at == 112


def test_it_tells_how_full_it_was(producer: Producer) -> None:
    with Ring(producer.fd, SIZE) as ring:
        for _ in range(6):
            producer.put(bytes(SIZE // 8 - HEADER))
        ring.consume()
        assert ring.filled == 0.75
        ring.consume()
        assert ring.filled == 0


def test_a_record_that_is_being_written_waits_and_all_behind_it(producer: Producer) -> None:
    with Ring(producer.fd, SIZE) as ring:
        producer.put(b"done")
        begin = producer.put(b"half", BUSY)
        producer.put(b"also")
        assert ring.consume() == [b"done"]
        assert ring.consume() == []
        producer.finish(begin, 4)
        assert ring.consume() == [b"half", b"also"]


def test_what_the_kernel_side_discarded_is_no_record(producer: Producer) -> None:
    with Ring(producer.fd, SIZE) as ring:
        for raw, flags in ((b"a", 0), (b"b", DISCARDED), (b"c", DISCARDED), (b"d", 0)):
            producer.put(raw, flags)
        assert ring.consume() == [b"a", b"d"]
        assert producer.consumed() == producer.at


@given(st.lists(st.lists(st.sampled_from([0, 1, 8, 40, 184, 1056]), max_size=30), max_size=20))
def test_records_of_any_sizes_come_back_at_any_place_of_the_ring(batches: list[list[int]]) -> None:
    producer = Producer(SIZE)
    chance = 0
    try:
        with Ring(producer.fd, SIZE) as ring:
            for sizes in batches:
                expected = []
                for size in sizes:
                    if producer.at - producer.consumed() + size + 2 * HEADER > SIZE:
                        break
                    chance += 1
                    expected.append(bytes([chance % 256]) * size)
                    producer.put(expected[-1])
                assert ring.consume() == expected
    finally:
        os.close(producer.fd)


@pytest.mark.parametrize("number", [MIN_ROW, MIN_ROW + 1, 5 * MIN_ROW, 2 * MAX_ROW])
def test_a_long_row_of_one_size_ends_where_another_size_begins(number: int) -> None:
    producer = Producer(256 * PAGE)
    with Ring(producer.fd, producer.size) as ring:
        rows = [*([b"%07d" % i for i in range(number)]), b"another size", b"%07d" % number]
        for raw in rows:
            producer.put(raw)
        assert ring.consume() == rows
    os.close(producer.fd)


def test_the_others_get_a_turn_after_a_batch() -> None:
    producer = Producer(64 * PAGE)
    number = BATCH_RECORDS + MAX_ROW + 3
    with Ring(producer.fd, producer.size) as ring:
        for _ in range(number):
            producer.put(b"x")
        taken = [len(ring.consume()) for _ in range(3)]
    assert sum(taken) == number
    assert BATCH_RECORDS <= taken[0] < BATCH_RECORDS + MAX_ROW
    os.close(producer.fd)


def test_what_cannot_be_mapped_raises_with_its_errno(producer: Producer) -> None:
    reading = os.open(f"/proc/self/fd/{producer.fd}", os.O_RDONLY)
    with pytest.raises(LibbpfError, match="cannot map the ring buffer") as raised:
        Ring(reading, SIZE)
    assert raised.value.errno == errno.EACCES
    os.close(reading)


def test_a_closed_ring_raises(producer: Producer) -> None:
    ring = Ring(producer.fd, SIZE)
    ring.close()
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.consume()
