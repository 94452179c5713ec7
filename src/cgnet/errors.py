# SPDX-License-Identifier: BSD-2-Clause
"""What can go wrong, and the exit status of each. cli.py turns these into one line of text."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit codes of the command; docs/usage.md lists them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_PERMITTED = 3
    UNSUPPORTED = 4
    EVENTS_LOST = 5


class CgnetError(Exception):
    """A failure that is told to the user in one sentence, without a traceback."""

    exit_status = ExitStatus.FAILED


class UsageError(CgnetError):
    """A value that the user gave is wrong."""

    exit_status = ExitStatus.USAGE


class NotPermittedError(CgnetError):
    """A capability is missing."""

    exit_status = ExitStatus.NOT_PERMITTED


class UnsupportedError(CgnetError):
    """This kernel, or its libbpf, lacks what the command needs."""

    exit_status = ExitStatus.UNSUPPORTED


class LayoutError(CgnetError):
    """An object was built from other structs than this cgnet."""


class LibbpfError(CgnetError):
    """A call of libbpf failed.

    ``errno`` is positive; ``log`` holds what libbpf and the verifier said.
    """

    def __init__(self, message: str, errno: int, log: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.log = log


class NotYetKnownError(Exception):
    """A new cgroup's names aren't known yet, and may be soon.

    ``until`` is when nothing more is expected, on the monotonic clock.
    """

    def __init__(self, until: float = 0.0) -> None:
        super().__init__("not known yet")
        self.until = until
