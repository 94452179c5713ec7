# SPDX-License-Identifier: BSD-2-Clause
"""Network namespaces by process, path or inode; cookies tell reused inodes apart."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cgnet.text import is_number, number

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

NAMED = Path("/run/netns")  # of ip-netns(8)
OWN = Path("/proc/self/ns/net")
GIVE = "give a PID, a path such as /run/netns/NAME, or an inode"
MAX_PID = 1 << 22  # include/linux/threads.h: PID_MAX_LIMIT; inodes begin far above
MAX_INODE = 2**32 - 1
CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71  # asm-generic/socket.h


class Netns(NamedTuple):
    """A network namespace; the cookie is 0 if the kernel doesn't provide it."""

    inode: int
    cookie: int


def inside(place: Path, function: Callable[[], T]) -> T | None:
    """Return a function's result in a network namespace; None if it raised OSError or didn't run.

    It runs in a temporary thread: the other threads keep their namespace.
    """
    found: list[T] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with suppress(OSError):
            fd = os.open(place, os.O_RDONLY)
            try:
                if libc.setns(fd, CLONE_NEWNET) == 0:
                    found.append(function())
            finally:
                os.close(fd)

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    return found[0] if found else None


def _own_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, sys.byteorder)


def cookie_of(place: Path) -> int:
    """Return a namespace's cookie; 0 if not available.

    The socket option exists since Linux kernel commit e8b9eab99232 "net: retrieve netns cookie via
    getsocketopt" (in v5.14).
    """
    return inside(place, _own_cookie) or 0


def _place_of_inode(inode: int) -> Path | None:
    """Return a file of the namespace, from a name or a process; None if there is none."""
    for place in (*NAMED.glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        try:
            if place.stat().st_ino == inode:
                return place
        except OSError:
            continue
    return None


def find(text: str) -> Netns:
    """Return the namespace of a PID, of a path or a name of ``ip netns``, or with an inode.

    Raises ValueError.
    """
    if is_number(text):
        found = number(text, MAX_INODE)
        if found is None:
            raise ValueError(f"no inode of a network namespace; they go to {MAX_INODE}")
        if found > MAX_PID:
            named = _place_of_inode(found)
            return Netns(found, cookie_of(named) if named else 0)
        place = Path(f"/proc/{found}/ns/net")
    else:
        place = Path(text) if "/" in text else NAMED / text
    try:
        status = place.stat()
    except OSError as error:
        raise ValueError(f"no such network namespace ({error.strerror}); {GIVE}") from None
    if status.st_dev != OWN.stat().st_dev:
        raise ValueError(f"no network namespace, but another kind of file; {GIVE}")
    return Netns(status.st_ino, cookie_of(place))
