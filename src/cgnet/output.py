# SPDX-License-Identifier: BSD-2-Clause
"""Where rows go."""

from __future__ import annotations

import os
import select

from cgnet.errors import CgnetError


class Writer:
    """Standard output, unbuffered: what is written is out."""

    def __init__(self, fd: int) -> None:
        """Write to a descriptor."""
        self._fd = fd

    def write(self, text: str) -> None:
        """Write all of it. Raises BrokenPipeError, CgnetError."""
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BrokenPipeError:
                raise
            except BlockingIOError:  # somebody made it non-blocking
                select.select([], [self._fd], [])
            except OSError as error:
                raise CgnetError(f"can't write the output: {error.strerror}") from error
