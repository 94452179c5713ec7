# SPDX-License-Identifier: BSD-2-Clause
"""The reader of perf buffers, one per CPU: for kernels without BPF ring buffers."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from cgnet.errors import LibbpfError
from cgnet.kernel._libbpf import EVENT_CALLBACK, lib
from cgnet.records._layouts import HEAD, number_in

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/perf_event.h
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW = 1, 10, 1 << 10
PERF_RECORD_SAMPLE = 9
WATERMARK = 1 << 14  # a flag: wakeup_watermark counts bytes, not events
NEVER = (1 << 31) - 1  # more bytes than a buffer holds: the reader polls, and is never woken
# libbpf.h: enum bpf_perf_event_ret
ERROR, CONTINUE = -1, -2
DATA = 12  # offset of the data, past struct perf_event_header and the sample's size
ALIGNED = ~7  # the kernel pads size and data to 8 bytes; record sizes are multiples of 8


class _Attr(ctypes.Structure):
    """struct perf_event_attr of linux/perf_event.h, the first 64 bytes: PERF_ATTR_SIZE_VER0."""

    _fields_ = (
        ("type", ctypes.c_uint32), ("size", ctypes.c_uint32), ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64), ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64), ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32), ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
    )  # fmt: skip


class _Sample(ctypes.Structure):
    """struct perf_event_header, followed by the size of a raw sample."""

    _fields_ = (("type", ctypes.c_uint32), ("misc", ctypes.c_uint16), ("bytes", ctypes.c_uint16),
                ("size", ctypes.c_uint32))  # fmt: skip


_WHEN = HEAD.slice("ts_ns")


def _time_of(record: bytes) -> int:
    return number_in(record[_WHEN])


def pages_of_each(total: int, cpus: int) -> int:
    """Return the pages of each CPU's buffer, a power of two, for ``total`` bytes over all CPUs."""
    pages = total // cpus // mmap.PAGESIZE
    return 1 << max(pages.bit_length() - 1, 0)


class PerfBuffers:
    """A reader of perf buffers. Records come in the order of their times, as from a ring.

    The kernel side counts lost records when it writes; lost-record events are ignored here.
    """

    def __init__(self, fd: int, total: int) -> None:
        """Open a buffer for each CPU, ``total`` bytes together. Raises LibbpfError."""
        self._records: list[bytes] = []
        self._later: list[bytes] = []
        self._waiting: Counter[int] = Counter()  # pending bytes, by CPU
        self._raised: BaseException | None = None
        self.filled = 0.0
        attr = _Attr(
            PERF_TYPE_SOFTWARE, ctypes.sizeof(_Attr), PERF_COUNT_SW_BPF_OUTPUT,
            sample_period=1, sample_type=PERF_SAMPLE_RAW, flags=WATERMARK, wakeup_watermark=NEVER,
        )  # fmt: skip
        pages = pages_of_each(total, os.cpu_count() or 1)
        self._each = pages * mmap.PAGESIZE
        self._callback = EVENT_CALLBACK(self._make_callback())
        self._handle = lib.perf_buffer__new_raw(
            fd, pages, ctypes.addressof(attr), self._callback, None, None
        )

    def _make_callback(self) -> Callable[[Any, int, int], int]:
        """Return the function that libbpf calls for each event. No exception may leave it."""
        records, waiting, copy = self._records, self._waiting, ctypes.string_at

        def event(_context: Any, cpu: int, address: int) -> int:
            try:
                sample = _Sample.from_address(address)
                waiting[cpu] += sample.bytes
                if sample.type == PERF_RECORD_SAMPLE:
                    records.append(copy(address + DATA, sample.size & ALIGNED))
            except BaseException as error:  # noqa: BLE001
                self._raised = error
                return ERROR
            return CONTINUE

        return event

    def consume(self) -> list[bytes]:
        """Return the pending records, without blocking. Raises LibbpfError.

        Records written during the call are returned by the next one: an earlier record of another
        CPU may have been missed. Raises ValueError once closed.
        """
        if self._handle is None:
            raise ValueError("the buffers are closed")
        began = time.monotonic_ns()
        self._waiting.clear()
        result = lib.perf_buffer__consume(self._handle)
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error
        if result < 0:
            raise LibbpfError("cannot read the perf buffers", -result or errno.EIO)
        self.filled = max(self._waiting.values(), default=0) / self._each
        found = sorted([*self._later, *self._records], key=_time_of)
        self._records.clear()
        taken = [record for record in found if _time_of(record) <= began]
        self._later = found[len(taken) :]
        return taken

    def close(self) -> None:
        """Unmap the buffers. Closing twice does nothing."""
        if self._handle is not None:
            lib.perf_buffer__free(self._handle)
            self._handle = None
