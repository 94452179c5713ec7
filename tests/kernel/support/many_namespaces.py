# SPDX-License-Identifier: BSD-2-Clause
"""A process with connections in many network namespaces, until its stdin ends.

Arguments: how many namespaces, connections in each, and of these how many that end in TIME_WAIT. It
prints the inodes of the namespaces. With a fourth argument they are named so, with a number, as by
``ip netns``, and each has more: data that nobody reads, a keepalive timer, and an orphan. A process may
have few files open, so that its children share them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWNET, MS_BIND = 0x40000000, 4096
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
MAX_FILES = 100_000
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)


def enter_new(name: str) -> int:
    """Move to a new namespace, which has a name if given, and return its inode."""
    check(LIBC.unshare(CLONE_NEWNET), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    own = Path("/proc/self/ns/net")
    if name:
        path = Path("/run/netns") / name
        path.touch()
        check(LIBC.mount(bytes(own), bytes(path), b"none", MS_BIND, None), "mount")
    return own.stat().st_ino


def connect(server: socket.socket) -> list[socket.socket]:
    near = socket.socket()
    near.connect(server.getsockname())
    return [near, server.accept()[0]]


def others(server: socket.socket, number: int) -> list[socket.socket]:
    """Return the sockets of two more connections; one's client is an orphan."""
    near, far = connect(server)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    near.sendall(bytes(number + 1))
    orphan, left = connect(server)
    orphan.close()
    left.recv(1)
    return [near, far, left]


def fill(
    numbers: range, connections: int, ended: int, prefix: str
) -> tuple[list[int], list[socket.socket]]:
    kept, inodes = [], []
    for number in numbers:
        inodes.append(enter_new(prefix and f"{prefix}-{number}"))
        server = socket.create_server(("127.0.0.1", 0), backlog=16)
        kept.append(server)
        for each in range(connections):
            pair = connect(server)
            if each < ended:
                near, far = pair
                near.close()
                far.recv(1)  # else both sides may end in TIME_WAIT
                far.close()
            else:
                kept += pair
        if prefix:
            kept += others(server, number)
    return inodes, kept


def main() -> None:
    namespaces, connections, ended = map(int, sys.argv[1:4])
    prefix = sys.argv[4] if len(sys.argv) > 4 else ""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    each = max(1, (min(files, MAX_FILES) - 100) // (2 * connections + 4))
    while namespaces > each and os.fork():
        namespaces -= each
    numbers = range(max(0, namespaces - each), namespaces)
    inodes, _kept = fill(numbers, connections, ended, prefix)
    os.write(1, (" ".join(map(str, inodes)) + "\n").encode())
    sys.stdin.read()


if __name__ == "__main__":
    main()
