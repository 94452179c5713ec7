# SPDX-License-Identifier: BSD-2-Clause
"""The reader of a BPF ring buffer, and what all readers have in common.

The kernel's pages are read as they are (kernel/bpf/ringbuf.c): a position that the reader writes, one
that the kernel side writes, and the records, each behind a header. The records are mapped twice, one
copy behind the other, so that none is broken at the end. libbpf's reader calls back for each record:
that took as long as half of all that is done with one.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING, Protocol, Self

from cgnet.errors import LibbpfError

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_RECORDS = 8192  # taken from the ring before the rest of cgnet gets its turn
# Of include/uapi/linux/bpf.h. A header has the length with these two bits, and a number of the kernel's.
BUSY, DISCARDED = 1 << 31, 1 << 30
HEADER = 8
# Headers that are looked at together: more after a row of equal ones. Most records are of one size.
MIN_ROW, MAX_ROW = 16, 1024

_lock = Lock()


def _fence() -> None:
    """Let no load or store pass. x86 needs it for none of ours; other processors reorder loads."""
    for _ in range(2):  # what is done before a release stays before the acquire that comes after it
        with _lock:
            pass


@lru_cache(maxsize=64)
def _record(length: int) -> Struct:
    """Return what takes records out that follow each other, each behind its header."""
    return Struct(f"{HEADER}x{length}s{-length % 8}x")


class Reader(Protocol):
    """Takes records from the kernel side, as bytes."""

    filled: float
    """The share of the room that was taken when consume() last looked, 0 to 1."""

    def consume(self) -> list[bytes]:
        """Take what waits, without blocking. Raises LibbpfError."""

    def close(self) -> None:
        """Unmap the buffer. Closing twice does nothing."""


class Ring:
    """A reader of a BPF ring buffer. Records are copied out as bytes, and decoded later if at all."""

    def __init__(self, fd: int, size: int) -> None:
        """Map the buffer of a map's descriptor, ``size`` bytes. Raises LibbpfError."""
        page = mmap.PAGESIZE
        try:
            ours = mmap.mmap(fd, page)
            theirs = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError as error:
            raise LibbpfError("cannot map the ring buffer", error.errno or 0) from error
        self._size = size
        self.filled = 0.0
        self._consumed = memoryview(ours).cast("Q")
        self._produced = memoryview(theirs)[:page].cast("Q")
        self._data = memoryview(theirs)[page:]
        self._words = self._data.cast("I")
        self._open = True

    def consume(self) -> list[bytes]:
        """Take what waits, BATCH_RECORDS at most, without blocking."""
        if not self._open:
            raise ValueError("the ring is closed")
        taken: list[bytes] = []
        at, end = self._consumed[0], self._produced[0]
        self.filled = (end - at) / self._size
        for row in self._rows(at, end):
            taken += row
            if len(taken) >= BATCH_RECORDS:
                break
        return taken

    def _rows(self, at: int, end: int) -> Iterator[list[bytes]]:
        """Yield rows of records with equal headers, and give their room back."""
        most = MIN_ROW
        while at < end:
            _fence()  # a header is there before the kernel side moves its position
            offset = at % self._size
            first = self._words[offset // 4]
            if first & BUSY:
                return
            record = _record(first & ~DISCARDED)
            wanted = min((end - at) // record.size, most)
            stop = offset + wanted * record.size
            headers = self._words[offset // 4 : stop // 4 : record.size // 4].tolist()
            equal = headers.count(first)
            if equal < wanted:  # those in front are, and what follows may be no header
                equal = next(i for i, header in enumerate(headers) if header != first)
            most = min(4 * most, MAX_ROW) if equal == wanted else MIN_ROW
            _fence()  # a record is whole before its header says so
            row = self._data[offset : offset + equal * record.size]
            records = [] if first & DISCARDED else [raw for (raw,) in record.iter_unpack(row)]
            _fence()  # and was copied before its room is given back
            at += equal * record.size
            self._consumed[0] = at
            yield records

    def close(self) -> None:
        """Unmap the buffer. Closing twice does nothing."""
        self._open = False
        for view in (self._consumed, self._produced, self._words, self._data):
            view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
