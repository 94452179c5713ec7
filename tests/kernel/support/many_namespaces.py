# SPDX-License-Identifier: BSD-2-Clause
"""A process with connections in many network namespaces, until its stdin ends.

Arguments: how many namespaces, connections in each, and of these how many that end in TIME_WAIT. It
prints the inodes of the namespaces. A process may have few files open, so that its children share them.
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

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
MAX_FILES = 100_000


def enter_new() -> int:
    """Move to a new namespace, and return its inode."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return Path("/proc/self/ns/net").stat().st_ino


def connect(server: socket.socket) -> list[socket.socket]:
    near = socket.socket()
    near.connect(server.getsockname())
    return [near, server.accept()[0]]


def fill(namespaces: int, connections: int, ended: int) -> tuple[list[int], list[socket.socket]]:
    kept, inodes = [], []
    for _ in range(namespaces):
        inodes.append(enter_new())
        server = socket.create_server(("127.0.0.1", 0), backlog=16)
        kept.append(server)
        for number in range(connections):
            pair = connect(server)
            if number < ended:
                near, far = pair
                near.close()
                far.recv(1)  # else both sides may end in TIME_WAIT
                far.close()
            else:
                kept += pair
    return inodes, kept


def main() -> None:
    namespaces, connections, ended = map(int, sys.argv[1:])
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    each = max(1, (min(files, MAX_FILES) - 100) // (2 * connections + 1))
    while namespaces > each and os.fork():
        namespaces -= each
    inodes, _kept = fill(min(namespaces, each), connections, ended)
    os.write(1, (" ".join(map(str, inodes)) + "\n").encode())
    sys.stdin.read()


main()
