# SPDX-License-Identifier: BSD-2-Clause
"""HTTP queries to the sockets of root's docker and podman, for data missing from the files.

They use Docker's engine API and libpod's, with a time-out, a size limit, and a pause after a
failure.
"""

from __future__ import annotations

import http.client
import os
import socket
import stat
import struct
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cgnet.owners.cgroup_paths import HEX_ID
from cgnet.owners.runtimes import files
from cgnet.owners.runtimes.files import parse, part, place, text, texts
from cgnet.owners.runtimes.found import Found, number, with_pod

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = "/run/docker.sock"
PODMAN = "/run/podman/podman.sock"
TIMEOUT_S = 1.0
REST_S = 10.0
MAX_IN_VAIN, IN_VAIN_S = 50, 1.0  # queries for unknown ids, per so many seconds at most
MAX_BYTES = 4 << 20
UCRED = struct.Struct("=iII")  # socket(7), SO_PEERCRED: pid, uid, gid


class _Connection(http.client.HTTPConnection):
    """HTTP over root's socket, without following links to it."""

    def __init__(self, root: Path, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._root, self._path, self._timeout = root, path, timeout

    def connect(self) -> None:
        """Connect. Raises OSError, also if the listener isn't root's."""
        with place(self._root, self._path) as fd:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(f"{self._path} is no socket")
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self._timeout)
            self.sock.connect(f"/proc/self/fd/{fd}")
        raw = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(raw)[1] != files.OWNER:
            raise PermissionError(f"{self._path}: somebody else listens")


class Sockets:
    """Queries the daemons; for use by one thread at a time."""

    def __init__(self, root: Path, timeout: float = TIMEOUT_S) -> None:
        """``root`` has the host's files; ``timeout`` is in seconds."""
        self._root = root
        self._timeout = timeout
        self._resting: dict[str, float] = {}  # end of the pause
        self._in_vain: deque[float] = deque(maxlen=MAX_IN_VAIN)

    def look_up(self, runtime: str | None, name: str, *, in_pod: bool) -> Found | None:
        """Return docker's or podman's data about a container; None without data or for others."""
        if not HEX_ID.fullmatch(name) or not self._may_ask():
            return None
        found = None
        if runtime == "docker":
            found = self._docker(name, in_pod=in_pod)
        elif runtime == "podman":
            found = self._podman(name)
        else:
            return None
        if found is None:
            self._in_vain.append(time.monotonic())
        return found

    def _may_ask(self) -> bool:
        """Return whether a query is allowed: anybody may create cgroups that cause queries."""
        full = len(self._in_vain) == MAX_IN_VAIN
        return not full or self._in_vain[0] <= time.monotonic() - IN_VAIN_S

    def _get(self, path: str, what: str) -> dict[str, Any]:
        """Return the JSON object at a URL; an empty one if there is none, or on a time-out."""
        if self._resting.get(path, 0.0) > time.monotonic():
            return {}
        deadline = time.monotonic() + self._timeout
        connection = _Connection(self._root, path, self._timeout)
        try:
            connection.request("GET", what)
            answer = connection.getresponse()
            raw = b""
            while len(raw) <= MAX_BYTES and (more := answer.read1(1 << 16)):
                raw += more
                if time.monotonic() > deadline:
                    raise TimeoutError(path)
            return parse(raw) if answer.status == http.HTTPStatus.OK else {}
        except (OSError, http.client.HTTPException):
            self._resting[path] = time.monotonic() + REST_S
            return {}
        finally:
            with suppress(OSError):
                connection.close()

    def _docker(self, name: str, *, in_pod: bool) -> Found | None:
        """Query GET /containers/ID/json."""
        told = self._get(DOCKER, f"/containers/{name}/json")
        if told.get("Id") != name:
            return None
        config = part(told, "Config")
        labels = texts(config.get("Labels"))
        found = Found(
            "docker",
            "socket",
            name=(text(told.get("Name")) or "").removeprefix("/") or None,
            image=text(config.get("Image")),
            labels=labels,
            pid=number(part(told, "State").get("Pid")),
        )
        return with_pod(found, {}, labels) if in_pod else found

    def _podman(self, name: str) -> Found | None:
        """Query libpod's own API, which knows pods."""
        told = self._get(PODMAN, f"/v1.0.0/libpod/containers/{name}/json")
        if told.get("Id") != name:
            return None
        state = part(told, "State")
        pod = text(told.get("Pod"))
        if pod and HEX_ID.fullmatch(pod):
            pod = text(self._get(PODMAN, f"/v1.0.0/libpod/pods/{pod}/json").get("Name"))
        return Found(
            "podman",
            "socket",
            name=text(told.get("Name")),
            image=text(told.get("ImageName")),
            pod=pod,
            labels=texts(part(told, "Config").get("Labels")),
            sandbox=told.get("IsInfra") is True,
            pid=number(state.get("Pid")),
            cgroup=text(state.get("CgroupPath")),
        )
