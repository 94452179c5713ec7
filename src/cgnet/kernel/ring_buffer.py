# SPDX-License-Identifier: BSD-2-Clause
"""The reader of BPF ring buffers, and the interface of all readers.

It reads the kernel's pages directly (kernel/bpf/ringbuf.c): the consumer position, written here;
the producer position, written by the kernel side; and the records, each after a header. The data is
mapped twice in a row, so that no record is split at the end. libbpf's reader calls back for each
record, which took half of all time spent on a record.
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

BATCH_RECORDS = 8192  # of a consume(), before the rest of cgnet runs
# include/uapi/linux/bpf.h. A header has the length with these two bits, and a number of the
# kernel's own.
BUSY, DISCARDED = 1 << 31, 1 << 30
HEADER = 8
# Headers compared at once: more after a row of equal ones. Most records have the same size.
MIN_ROW, MAX_ROW = 16, 1024

_lock = Lock()


def _fence() -> None:
    """Fence loads and stores. x86 needs it for none of ours; other processors reorder loads."""
    for _ in range(2):  # accesses before a release stay before the next acquire
        with _lock:
            pass


@lru_cache(maxsize=64)
def _record(length: int) -> Struct:
    """Return a Struct that unpacks a header and its record of ``length`` bytes."""
    return Struct(f"{HEADER}x{length}s{-length % 8}x")


class Reader(Protocol):
    """Reads records from the kernel side, as bytes."""

    filled: float
    """The share of the room that was taken when consume() last looked, 0 to 1."""

    def consume(self) -> list[bytes]:
        """Return the pending records, without blocking. Raises LibbpfError."""

    def close(self) -> None:
        """Unmap the buffer. Closing twice does nothing."""


class Ring:
    """A reader of a BPF ring buffer. It copies records as bytes; decoding is left to the caller."""

    def __init__(self, fd: int, size: int) -> None:
        """Map the ring buffer with descriptor ``fd`` and ``size`` bytes. Raises LibbpfError."""
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
        """Return pending records, without blocking; stop at about BATCH_RECORDS.

        Raises ValueError once closed.
        """
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
        """Yield rows of records with equal headers, and release their space."""
        most = MIN_ROW
        while at < end:
            _fence()  # a header is written before the kernel side advances its position
            offset = at % self._size
            first = self._words[offset // 4]
            if first & BUSY:
                return
            record = _record(first & ~DISCARDED)
            wanted = min((end - at) // record.size, most)
            stop = offset + wanted * record.size
            headers = self._words[offset // 4 : stop // 4 : record.size // 4].tolist()
            equal = headers.count(first)
            if equal < wanted:  # the equal ones come first; what follows may not be a header
                equal = next(i for i, header in enumerate(headers) if header != first)
            most = min(4 * most, MAX_ROW) if equal == wanted else MIN_ROW
            _fence()  # a record is complete before its header says so
            row = self._data[offset : offset + equal * record.size]
            records = [] if first & DISCARDED else [raw for (raw,) in record.iter_unpack(row)]
            _fence()  # the copies are complete before the space is released
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
