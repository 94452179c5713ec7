# SPDX-License-Identifier: BSD-2-Clause
"""Processes in a network namespace and cgroups that run Python statements, line by line."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness import PATIENCE_S, PYTHON

if TYPE_CHECKING:
    from types import TracebackType

# The process's loop: a command a line, as [is it an expression, text]; it answers with the value or
# the error.
LOOP = """
import errno, json, os, select, socket, struct, sys, time
for line in sys.stdin:
    expression, text = json.loads(line)
    try:
        answer = [True, eval(text, globals()) if expression else exec(text, globals())]
    except OSError as error:
        answer = [False, errno.errorcode.get(error.errno, str(error))]
    print(json.dumps(answer), flush=True)
"""


class RemotePython:
    """The test's side of such a process, which ends with the ``with`` block."""

    def __init__(self, netns: str | Path, cgroups: tuple[Path, ...] = ()) -> None:
        self._netns = str(netns)
        self._cgroups = cgroups

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["nsenter", f"--net={self._netns}", PYTHON, "-c", LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for cgroup in self._cgroups:
            (cgroup / "cgroup.procs").write_text(str(self.pid))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _send(self, text: str, *, expression: bool) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([expression, text]) + "\n")
        self._process.stdin.flush()

    def _answer(self, text: str) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert ready, text
        done, answer = json.loads(self._process.stdout.readline())
        if not done:
            raise RemotePythonError(answer)
        return answer

    def _ask(self, text: str, *, expression: bool) -> Any:
        self._send(text, expression=expression)
        return self._answer(text)

    def do(self, text: str) -> None:
        """Run statements."""
        self._ask(text, expression=False)

    def begin(self, text: str) -> None:
        """Run statements while the test goes on; ``end`` waits for them."""
        self._send(text, expression=False)

    def end(self) -> None:
        """Wait for the statements of ``begin``."""
        self._answer("what was begun")

    def is_busy(self) -> bool:
        """Return whether the statements of ``begin`` still run."""
        return not select.select([self._process.stdout], [], [], 0)[0]

    def get(self, text: str) -> Any:
        """Return an expression's value."""
        return self._ask(text, expression=True)

    def listen(self, address: str, port: int = 0, backlog: int = 128) -> int:
        """Create the socket ``server``, which listens; return its port."""
        family = "AF_INET6" if ":" in address else "AF_INET"
        self.do(f"server = socket.socket(socket.{family})")
        self.do("server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)")
        self.do(f"server.bind(({address!r}, {port})); server.listen({backlog})")
        return int(self.get("server.getsockname()[1]"))

    def connect(self, address: str, port: int, name: str = "client", **how: Any) -> str:
        """Connect a new socket without blocking; return "ok" or the errno's name."""
        family = "AF_INET6" if ":" in address else "AF_INET"
        self.do(f"{name} = socket.socket(socket.{family})")
        if "source" in how:
            self.do(f"{name}.bind(({how['source']!r}, 0))")
        self.do(f"{name}.settimeout({how.get('timeout', 0)})")
        try:
            self.do(f"{name}.connect(({address!r}, {port}))")
        except RemotePythonError as error:
            return str(error)
        return "ok"


class RemotePythonError(OSError):
    """A statement failed: the errno's name."""


def in_own_cgroups(pid: int) -> tuple[Path, ...]:
    """Return the directories of a process's cgroups, in mounted hierarchies."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.split(",")[0].removeprefix("name=")
        for top in (f"/sys/fs/cgroup/{name or 'unified'}", "/sys/fs/cgroup"):
            place = Path(top) / path.lstrip("/")
            if (place / "cgroup.procs").exists() and os.access(place / "cgroup.procs", os.W_OK):
                found.append(place)
                break
    return tuple(found)
