# SPDX-License-Identifier: BSD-2-Clause
"""HTTP queries to the sockets of root's docker and podman, for data missing from the files.

They use Docker's engine API and libpod's, with a time-out, a size limit, and a pause after a
failure.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from cgnet.owners.cgroup_paths import HEX_ID
from cgnet.owners.runtimes.files import parse, part, text, texts
from cgnet.owners.runtimes.found import Found, number, with_pod

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = "/run/docker.sock"
PODMAN = "/run/podman/podman.sock"
TIMEOUT_S = 1.0
REST_S = 10.0
MAX_IN_VAIN, IN_VAIN_S = 50, 1.0  # queries for unknown ids, per so many seconds at most


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
        # Most runs make no query, and HTTP takes 10 ms to import.
        from cgnet.owners.runtimes import http_get  # noqa: PLC0415

        try:
            return parse(http_get.body(self._root, path, what, self._timeout))
        except OSError:
            self._resting[path] = time.monotonic() + REST_S
            return {}

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
