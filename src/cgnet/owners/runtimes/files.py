# SPDX-License-Identifier: BSD-2-Clause
"""Files of root's, read so that nobody else decides what is read.

The container's users choose names and contents below some of the same folders. So no link is
followed at any place of a path, every part has to be root's, what isn't a regular file isn't
opened, and no more than a bound is read.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("cgnet")  # what is said to people begins with it

OWNER = 0
MAX_BYTES = 4 << 20  # a container's configuration has some 10 KB
MAX_NAMES = 4096
MAX_COMPLAINTS = 8
PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def place(root: Path, path: str) -> Iterator[int]:
    """Open what is at ``path`` below ``root`` as a place only. Raises OSError.

    openat2's RESOLVE_NO_SYMLINKS would do it at once; Linux has it since v5.6, Python hasn't.
    """
    fd = os.open(root, PATH_ONLY | os.O_DIRECTORY)
    try:
        for part in path.split("/"):
            if part in ("", ".", ".."):
                continue
            below = os.open(part, PATH_ONLY, dir_fd=fd)
            os.close(fd)
            fd = below
            if os.fstat(fd).st_uid != OWNER:
                raise PermissionError(f"{path}: {part} isn't root's")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def regular(root: Path, path: str) -> Iterator[int]:
    """Open a regular file to read. Raises OSError. What it may be instead is never opened."""
    with place(root, path) as fd:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is no regular file")
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def read(root: Path, path: str, most: int = MAX_BYTES) -> bytes:
    """Return what a file holds. Raises OSError, also if that is more than ``most`` bytes."""
    with regular(root, path) as fd:
        size = os.fstat(fd).st_size
        if size > most:
            raise OSError(f"{path} has {size} bytes")
        parts = []
        while most > 0 and (part := os.read(fd, min(most, 1 << 20))):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)


_complaints: set[str] = set()


def complain(path: str, why: object) -> None:
    """Say once of a file of a runtime that it isn't what it should be: names are missing then."""
    if path not in _complaints and len(_complaints) < MAX_COMPLAINTS:
        _complaints.add(path)
        log.error("%s: %s; what only this file tells of containers may be missing", path, why)


def parse(raw: object) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    with suppress(ValueError, RecursionError, MemoryError):
        found = json.loads(raw) if isinstance(raw, str | bytes) else None
        if isinstance(found, dict):
            return found
    return {}


def read_if_there(root: Path, path: str, most: int = MAX_BYTES) -> bytes | None:
    """Return what a file holds; None if there is none, or none that may be read."""
    try:
        return read(root, path, most)
    except OSError as error:
        if error.errno is None and not isinstance(error, PermissionError):
            complain(path, str(error).removeprefix(f"{path} "))
    except ValueError:  # a path from a file may be none
        pass
    return None


def read_object(root: Path, path: str) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one if there is none."""
    raw = read_if_there(root, path)
    if raw is None:
        return {}
    found = parse(raw)
    if not found and raw.strip() != b"{}":
        complain(path, "holds no JSON object")
    return found


def folder(root: Path, path: str) -> list[str]:
    """Return the names in a folder, at most MAX_NAMES; none if it isn't there or isn't root's."""
    names: list[str] = []
    with suppress(OSError, ValueError), place(root, path) as fd:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(opened) as entries:
                for entry, _ in zip(entries, range(MAX_NAMES), strict=False):
                    names.append(entry.name)
        finally:
            os.close(opened)
    return sorted(names)


def text(value: Any) -> str | None:
    """Return a value of JSON if it is a text that says something."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> dict[str, str]:
    """Return what of a JSON object is text."""
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in value.items() if isinstance(each, str)}


def part(value: Any, name: str) -> dict[str, Any]:
    """Return a member of a JSON object that is an object itself, else an empty one."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}
