# SPDX-License-Identifier: BSD-2-Clause
"""Directories nested deeper than a system call's path can express."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cgnet.text import CUT

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH_MAX = 4096  # include/uapi/linux/limits.h; the longest path of a system call, with its zero
ENOUGH_UP = 1024  # steps; a path of so many "../" fits a system call


def open_place(path: Path) -> int:
    """Open a directory with O_PATH, even if nested deeper than PATH_MAX. Raises OSError."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    rest = os.fsencode(path)
    fd = -1
    try:
        while True:
            end = len(rest) if len(rest) < PATH_MAX else rest.rindex(b"/", 1, PATH_MAX)
            below = os.open(rest[:end], flags, dir_fd=None if fd < 0 else fd)
            if fd >= 0:
                os.close(fd)
            fd, rest = below, rest[end:].lstrip(b"/")
            if not rest:
                return fd
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise


def tellable_path(fd: int) -> Path:
    """Return the path of an open directory; CUT replaces the part that the kernel has no room for.

    Raises OSError.
    """
    try:
        return Path(f"/proc/self/fd/{fd}").readlink()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    fd = os.dup(fd)
    try:
        while True:  # each step up shortens the path by at least two bytes
            above = next((up for up in _powers_of_two(ENOUGH_UP) if _path_above(fd, up)), None)
            if above is not None:
                break
            fd = _replace(fd, ENOUGH_UP)
        # The nearest ancestor with a path that fits lies between these two.
        low, high = above // 2, above
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _path_above(fd, middle) else (middle, high)
        return (_path_above(fd, high) or Path("/")) / CUT
    finally:
        os.close(fd)


def _powers_of_two(most: int) -> Iterator[int]:
    return (1 << shift for shift in range(most.bit_length()))


def _above(fd: int, up: int) -> int:
    return os.open("../" * up, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def _replace(fd: int, up: int) -> int:
    found = _above(fd, up)
    os.close(fd)
    return found


def _path_above(fd: int, up: int) -> Path | None:
    """Return the path of the ancestor ``up`` steps above; None if too long. Raises OSError."""
    above = _above(fd, up)
    try:
        return Path(f"/proc/self/fd/{above}").readlink()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None
    finally:
        os.close(above)
