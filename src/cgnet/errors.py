# SPDX-License-Identifier: BSD-2-Clause
"""Errors, and the exit status of each. cli.py prints them as one line of text."""

from __future__ import annotations

import os
from difflib import get_close_matches
from enum import IntEnum
from errno import EAGAIN, EINTR, EMFILE, ENFILE, ENOMEM
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# include/linux/errno.h: internal numbers of the kernel, which reach user space now and then.
OF_THE_KERNEL = {
    512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK", 517: "EPROBE_DEFER", 518: "EOPENSTALE", 519: "ENOPARAM",
    521: "EBADHANDLE", 522: "ENOTSYNC", 523: "EBADCOOKIE", 524: "ENOTSUPP", 525: "ETOOSMALL",
    526: "ESERVERFAULT", 527: "EBADTYPE", 528: "EJUKEBOX", 529: "EIOCBQUEUED",
    530: "ERECALLCONFLICT", 531: "ENOGRACE",
}  # fmt: skip
TEXTS = {524: "Operation is not supported"}  # include/linux/errno.h, too
# These show nothing about a kernel's features.
SHORTAGES = {
    EMFILE: "cgnet may open no more files: raise its limit to 256 (ulimit -n; LimitNOFILE= of a unit)",
    ENFILE: "this host has no more open files to give: raise the sysctl fs.file-max",
    ENOMEM: "the kernel has no memory for programs and maps: free some, or give a smaller --buffer",
}
INTERRUPTED = (EAGAIN, EINTR)  # a signal stops the verifier


def strerror(number: int) -> str:
    """Return the text of an errno, including those unknown to the C library."""
    name = OF_THE_KERNEL.get(number)
    if name is None:
        return os.strerror(number)
    return f"{TEXTS[number]} ({name})" if number in TEXTS else name


class ExitStatus(IntEnum):
    """Exit codes of the command; docs/usage.md lists them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_PERMITTED = 3
    UNSUPPORTED = 4
    EVENTS_LOST = 5
    FOUND = 10


class CgnetError(Exception):
    """A failure, reported to the user in one sentence, without a traceback."""

    exit_status = ExitStatus.FAILED


class UsageError(CgnetError):
    """A value given by the user is invalid."""

    exit_status = ExitStatus.USAGE


class NotPermittedError(CgnetError):
    """A capability is missing."""

    exit_status = ExitStatus.NOT_PERMITTED


class UnsupportedError(CgnetError):
    """The kernel, or libbpf, lacks a feature that the command needs."""

    exit_status = ExitStatus.UNSUPPORTED


class LayoutError(CgnetError):
    """The struct layouts of an object and of this cgnet differ."""


class LibbpfError(CgnetError):
    """A libbpf call failed.

    ``errno`` is positive; ``log`` has the last messages of libbpf and the verifier.
    """

    def __init__(self, message: str, errno: int, log: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.log = log


class StoppedError(CgnetError):
    """A signal arrived before the work began."""


def refusal(error: LibbpfError) -> LibbpfError:
    """Return the kernel's error if it shows a missing feature.

    Raises CgnetError for one due to this host or this moment, StoppedError for a signal's.
    """
    if error.errno in INTERRUPTED:
        raise StoppedError("a signal came while the kernel looked at the programs") from error
    if error.errno in SHORTAGES:
        raise CgnetError(f"{SHORTAGES[error.errno]} ({error})") from error
    return error


NEAR = 0.7  # difflib's ratio: less similar words were hardly meant


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean NAME?)" with the known name most similar to a word, or ""."""
    names = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), names, n=1, cutoff=NEAR)
    return f" (did you mean {names[near[0]]}?)" if near else ""


class NotYetKnownError(Exception):
    """A new cgroup's names aren't known yet, but may be soon.

    After ``until``, a time of the monotonic clock, no more names are expected.
    """

    def __init__(self, until: float = 0.0) -> None:
        super().__init__("not known yet")
        self.until = until
