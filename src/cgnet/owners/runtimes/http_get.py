# SPDX-License-Identifier: BSD-2-Clause
"""A query by HTTP to a socket of root's daemons, with a time-out and a size limit."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cgnet.owners.runtimes import files

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 << 20
UCRED = struct.Struct("=iII")  # socket(7), SO_PEERCRED: pid, uid, gid


class _Connection(http.client.HTTPConnection):
    """HTTP over root's socket, without following links to it."""

    def __init__(self, root: Path, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._root, self._path, self._timeout = root, path, timeout

    def connect(self) -> None:
        """Connect. Raises OSError, also if the listener isn't root's."""
        with files.place(self._root, self._path) as fd:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(f"{self._path} is no socket")
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self._timeout)
            self.sock.connect(f"/proc/self/fd/{fd}")
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(raw)[1] != files.OWNER:
            raise PermissionError(f"{self._path}: somebody else listens")


def body(root: Path, path: str, what: str, timeout: float) -> bytes:
    """Return what is at a URL; empty if there is nothing. Raises OSError, also on a time-out."""
    deadline = time.monotonic() + timeout
    connection = _Connection(root, path, timeout)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        raw = b""
        while len(raw) <= MAX_BYTES and (more := answer.read1(1 << 16)):
            raw += more
            if time.monotonic() > deadline:
                raise TimeoutError(path)
    except http.client.HTTPException as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        with suppress(OSError):
            connection.close()
    return raw if answer.status == http.HTTPStatus.OK else b""
