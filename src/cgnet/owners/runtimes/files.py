# SPDX-License-Identifier: BSD-2-Clause
"""Reading of root's files where others control parts of the directories.

Users in containers choose names and contents below some of the same directories. So no symbolic
link is followed anywhere in a path, every component must be owned by root, only regular files are
opened, and the size is limited.
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

log = logging.getLogger("cgnet")  # its name is the prefix of messages to users

OWNER = 0
MAX_BYTES = 4 << 20  # a container's configuration has some 10 KB
MAX_NAMES = 4096
MAX_COMPLAINTS = 8
PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def place(root: Path, path: str) -> Iterator[int]:
    """Open ``path`` below ``root`` with O_PATH, and yield the descriptor. Raises OSError.

    openat2's RESOLVE_NO_SYMLINKS would do it in one call; Linux has it since v5.6, Python hasn't.
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
    """Open a regular file to read, and yield the descriptor. Raises OSError for other files."""
    with place(root, path) as fd:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is no regular file")
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def read(root: Path, path: str, most: int = MAX_BYTES) -> bytes:
    """Return a file's contents. Raises OSError, also for more than ``most`` bytes."""
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
    """Log once that a runtime's file is invalid: names are missing then."""
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
    """Return a file's contents; None if it doesn't exist or isn't readable."""
    try:
        return read(root, path, most)
    except OSError as error:
        if error.errno is None and not isinstance(error, PermissionError):
            complain(path, str(error).removeprefix(f"{path} "))
    except ValueError:  # a path read from a file may be invalid
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
    """Return the names in a directory, at most MAX_NAMES; none if it is missing or not root's."""
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
    """Return a JSON value if it is a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> dict[str, str]:
    """Return the members of a JSON object that are strings."""
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in value.items() if isinstance(each, str)}


def part(value: Any, name: str) -> dict[str, Any]:
    """Return a member of a JSON object that is an object, else an empty one."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}
