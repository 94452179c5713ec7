# SPDX-License-Identifier: BSD-2-Clause
"""The place of a fault: namespaces, cgroups, the programs in them, and what their users see."""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from delay_line import LEFT, RIGHT, Line, delay_line
from harness import (
    HIERARCHIES,
    HIERARCHY,
    PATIENCE_S,
    PYTHON,
    V2,
    new_cgroup,
    new_netns,
    unique,
    wait_until,
)
from podman import Podman
from remote_python import in_own_cgroups
from router_chain import chain
from two_containers import Place, TwoContainers

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from types import TracebackType

APPS = Path(__file__).with_name("apps.py")
PORT = 8080
CPU = Path("/sys/fs/cgroup/cpu")
_NAMED = [*HIERARCHIES, *([CPU] if CPU.is_dir() else [])]


class App:
    """A running function of apps.py, and what it has reported."""

    def __init__(self, end: End, function: str, arguments: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [
                "nsenter",
                f"--net={end.place.path}",
                PYTHON,
                str(APPS),
                function,
                json.dumps(arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reports: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        for cgroup in end.cgroups:
            (cgroup / "cgroup.procs").write_text(str(self.process.pid))
        self.line()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.reports.append({"at": time.monotonic(), **json.loads(line)})

    def line(self) -> None:
        """Send a line: the first lets it begin."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def count(self, *results: str, since: float = 0) -> int:
        """Return how many reports have one of these results, since a time of time.monotonic()."""
        return sum(each["result"] in results and each["at"] >= since for each in list(self.reports))

    def sum(self, since: float = 0) -> int:
        """Return the bytes that streams reported."""
        return sum(each.get("bytes", 0) for each in list(self.reports) if each["at"] >= since)

    def slowest(self, since: float = 0) -> float:
        """Return the seconds of the slowest report."""
        return max(
            (each["seconds"] or 0 for each in list(self.reports) if each["at"] >= since), default=0
        )

    def wait_for(self, *results: str, count: int = 1, since: float = 0) -> None:
        wait_until(
            lambda: f"{count} of {results}: {self}",
            lambda: self.count(*results, since=since) >= count or self.process.poll() is not None,
        )
        assert self.count(*results, since=since) >= count, str(self)

    def __str__(self) -> str:
        return f"ended {self.process.poll()}, reports {self.reports[-5:]}"

    def stop(self) -> None:
        """Kill it; once more does nothing."""
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


class End:
    """A container: as the kernel knows it, a network namespace and a cgroup; or podman's."""

    def __init__(self, lab: Lab, name: str, place: Place) -> None:
        self.place = place
        self.name = place.container or unique(name)
        self._lab = lab
        self.cgroups = (
            in_own_cgroups(place.pid)
            if place.pid
            else tuple(lab.enter(new_cgroup(top, self.name)) for top in _NAMED)
        )
        self.address = ""

    def cgroup(self, top: Path = HIERARCHY) -> Path:
        """Return the directory in a hierarchy."""
        return top / self.name

    def below(self, name: str) -> End:
        """Make a cgroup in this one's, in each hierarchy, as a container of a pod has."""
        inner = copy.copy(self)
        inner.name = unique(name)
        inner.cgroups = tuple(
            self._lab.enter(new_cgroup(each, inner.name)) for each in self.cgroups
        )
        self._lab.ends.append(inner)
        return inner

    @property
    def v2(self) -> Path:
        return V2 / self.name

    def start(self, function: str, /, **arguments: Any) -> App:
        """Start a function of apps.py."""
        app = App(self, function, arguments)
        self._lab.apps.append(app)
        return app

    def listen(self, function: str = "serve", /, **arguments: Any) -> App:
        """Start a server, on all addresses unless told otherwise; wait until it listens."""
        everywhere = "::" if self._lab.family == 6 else "0.0.0.0"
        app = self.start(function, **{"address": everywhere, "port": PORT, **arguments})
        app.wait_for("listening")
        return app


class Lab:
    """What a fault has made; all of it ends with the ``with`` block."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.cleanup = ExitStack()
        self.ends: list[End] = []
        self.places: list[Place] = []
        self.apps: list[App] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.cleanup:
            for app in self.apps:
                app.stop()
            for place in self.places:
                if place.path.exists():
                    _end_sockets(place)

    def enter(self, context: Any) -> Any:
        """Enter a context manager until the end."""
        return self.cleanup.enter_context(context)

    def end(self, name: str, place: Place, address: str = "") -> End:
        """Make a container of a namespace."""
        found = End(self, name, place)
        found.address = address
        self.ends.append(found)
        if place not in self.places:
            self.places.append(place)
        return found

    def routed(self) -> tuple[End, Place, End]:
        """Make a client, a router and a server, each in a namespace."""
        client, router, server = self.enter(chain(1))
        self.places += [client, router, server]
        return (
            self.end("client", client, client.address(self.family)),
            router,
            self.end("server", server, server.address(self.family)),
        )

    def in_podman(self) -> tuple[End, Place, End]:
        """Make the same, the client and the server in containers of podman."""
        folder = self.enter(tempfile.TemporaryDirectory())
        podman = Podman(Path(folder) / "containers.conf")
        self.cleanup.callback(podman.close)
        both = self.enter(TwoContainers(podman))
        self.places += [both.client, both.router, both.server]
        return (
            self.end("client", both.client, both.client.address(self.family)),
            both.router,
            self.end("server", both.server, both.server.address(self.family)),
        )

    def apart(self, delay_s: float = 0.01) -> tuple[End, Line, End]:
        """Make a client and a server with a delay line between them, which the kernel can't see."""
        line = self.enter(delay_line(delay_s))
        return (
            self.end("client", Place(line.left), LEFT[self.family]),
            line,
            self.end("server", Place(line.right), RIGHT[self.family]),
        )

    def lone(self, name: str) -> End:
        """Make a container with a loopback alone."""
        return self.end(name, Place(self.enter(new_netns())), self.loopback)

    def repeat(self, seconds: float, action: Callable[[], Any]) -> None:
        """Do something now and every so many seconds until the end."""
        ended = threading.Event()

        def work() -> None:
            while True:
                action()
                if ended.wait(seconds):
                    return

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.cleanup.callback(thread.join, PATIENCE_S)
        self.cleanup.callback(ended.set)

    @property
    def loopback(self) -> str:
        return "::1" if self.family == 6 else "127.0.0.1"

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        wait_until(what, condition)


def _end_sockets(place: Place) -> None:
    """End orphans: they would keep their namespace, and be found by the next `why`."""
    place.run("ss", "-K", "-a", "-t")


def grown(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Return the counters that have changed, and by how much."""
    return {key: after[key] - before[key] for key in after if after[key] != before[key]}
