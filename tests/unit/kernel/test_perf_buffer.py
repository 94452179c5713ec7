# SPDX-License-Identifier: BSD-2-Clause
"""The reader of perf buffers: what it makes of the kernel's events, in which order."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import time
from typing import Any

import pytest

from cgnet.errors import LibbpfError
from cgnet.kernel import perf_buffer
from cgnet.kernel.perf_buffer import PerfBuffers, pages_of_each

SAMPLE, LOST = 9, 2
LATER_NS = 3_600_000_000_000


class FakeLibrary:
    """Hands events to the callback, as libbpf does."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.freed: list[Any] = []
        self.result = 0

    def perf_buffer__new_raw(self, fd: int, pages: int, _attr: int, callback: Any, *_: Any) -> str:
        self.made = (fd, pages)
        self.callback = callback
        return "buffers"

    def perf_buffer__consume(self, handle: Any) -> int:
        assert handle == "buffers", "a closed handle was passed to C"
        while self.waiting:
            buffer = ctypes.create_string_buffer(self.waiting.pop(0))
            result = self.callback(None, len(self.waiting) % 2, ctypes.addressof(buffer))
            if result == perf_buffer.ERROR:
                return -1
            assert result == perf_buffer.CONTINUE
        return self.result

    def perf_buffer__free(self, handle: Any) -> None:
        self.freed.append(handle)

    def put(self, record: bytes, kind: int = SAMPLE) -> None:
        """As the kernel writes it: filled up so that size and data are a multiple of 8 bytes."""
        data = record + bytes(-(len(record) + 4) % 8)
        self.waiting.append(struct.pack("=IHHI", kind, 0, 12 + len(data), len(data)) + data)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeLibrary:
    fake = FakeLibrary()
    monkeypatch.setattr(perf_buffer, "lib", fake)
    return fake


def record(ts_ns: int, more: bytes = b"12345678") -> bytes:
    return struct.pack("=IIQ", 1, 0, ts_ns) + more


def test_records_come_as_they_were_written_in_the_order_of_time(library: FakeLibrary) -> None:
    buffers = PerfBuffers(5, 1 << 20)
    for ts_ns in (30, 10, 20):
        library.put(record(ts_ns))
    assert buffers.consume() == [record(10), record(20), record(30)]
    assert buffers.consume() == []
    assert library.made[0] == 5


def test_what_was_written_during_the_look_waits_for_the_next(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers = PerfBuffers(5, 1 << 20)
    late = record(time.monotonic_ns() + LATER_NS)
    library.put(late)
    library.put(record(1))
    assert buffers.consume() == [record(1)]
    monkeypatch.setattr(time, "monotonic_ns", lambda: 1 << 62)
    assert buffers.consume() == [late]


def test_what_the_kernel_says_of_losses_is_no_record(library: FakeLibrary) -> None:
    buffers = PerfBuffers(5, 1 << 20)
    library.put(bytes(16), LOST)
    assert buffers.consume() == []


def test_it_tells_how_full_the_fullest_buffer_was(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    buffers = PerfBuffers(5, 2 * mmap.PAGESIZE)
    for _ in range(3):  # two of them on CPU 0
        library.put(bytes(mmap.PAGESIZE // 4 - 12))
    buffers.consume()
    assert buffers.filled == 0.5
    buffers.consume()
    assert buffers.filled == 0


def test_an_exception_in_the_callback_is_raised_behind_it(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(ctypes, "string_at", interrupted)
    buffers = PerfBuffers(5, 1 << 20)
    library.put(record(1))
    with pytest.raises(KeyboardInterrupt):
        buffers.consume()


def test_an_error_of_libbpf_is_raised(library: FakeLibrary) -> None:
    buffers = PerfBuffers(5, 1 << 20)
    library.result = -22
    with pytest.raises(LibbpfError, match="perf buffers"):
        buffers.consume()


def test_a_closed_reader_is_refused_and_closes_once(library: FakeLibrary) -> None:
    buffers = PerfBuffers(5, 1 << 20)
    buffers.close()
    buffers.close()
    assert library.freed == ["buffers"]
    with pytest.raises(ValueError, match="closed"):
        buffers.consume()


@pytest.mark.parametrize(
    ("pages", "cpus", "expected"), [(1024, 2, 512), (1024, 3, 256), (1, 4, 1), (0, 1, 1)]
)
def test_pages_are_a_power_of_two(pages: int, cpus: int, expected: int) -> None:
    assert pages_of_each(pages * mmap.PAGESIZE, cpus) == expected
