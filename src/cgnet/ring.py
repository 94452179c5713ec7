# SPDX-License-Identifier: BSD-2-Clause
"""The reader of a BPF ring buffer."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any, Self

from cgnet._libbpf import SAMPLE_CALLBACK, lib
from cgnet.errors import LibbpfError

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_RECORDS = 8192  # taken from the ring before the rest of cgnet gets its turn


class Ring:
    """A reader of a BPF ring buffer. Records are copied out as bytes, and decoded later if at all."""

    def __init__(self, fd: int) -> None:
        """Map the buffer of a map's descriptor. Raises LibbpfError."""
        self._records: list[bytes] = []
        self._raised: BaseException | None = None
        self._callback = SAMPLE_CALLBACK(self._make_callback())
        self._handle = lib.ring_buffer__new(fd, self._callback, None, None)

    def _make_callback(self) -> Callable[[Any, int, int], int]:
        """Make the function that libbpf calls for each record.

        An exception can't leave a C callback: ctypes would swallow it and return garbage. It is
        kept, and raised when libbpf has returned.
        """
        records, copy = self._records, ctypes.string_at

        def sample(_context: Any, data: int, size: int) -> int:
            try:
                records.append(copy(data, size))
                return -errno.ECANCELED if len(records) >= BATCH_RECORDS else 0
            except BaseException as error:  # noqa: BLE001
                self._raised = error
                return -errno.ECANCELED

        return sample

    def _require_open(self) -> Any:
        if self._handle is None:
            raise ValueError("the ring is closed")
        return self._handle

    def consume(self) -> list[bytes]:
        """Take what waits, BATCH_RECORDS at most, without blocking. Raises LibbpfError."""
        result = lib.ring_buffer__consume(self._require_open())
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error
        if result < 0 and result != -errno.ECANCELED:
            raise LibbpfError("cannot read the ring buffer", -result)
        taken = self._records.copy()
        self._records.clear()
        return taken

    def close(self) -> None:
        """Unmap the buffer. Closing twice does nothing."""
        if self._handle is not None:
            lib.ring_buffer__free(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
