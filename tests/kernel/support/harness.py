# SPDX-License-Identifier: BSD-2-Clause
"""The base of tests on the real kernel: a running cgnet, cgroups, namespaces, workloads."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
CGNET = ROOT / ".venv/bin/cgnet"
WORKLOAD = Path(__file__).with_name("workload.py")
PYTHON = sys.executable
# For events that must happen; only a failing test waits so long. Guests without KVM get more.
PATIENCE_S = float(os.environ.get("CGNET_TESTS_PATIENCE_S", "60"))
V1 = Path("/sys/fs/cgroup/memory")
_CGROUPS = Path("/sys/fs/cgroup")
_MOUNTED = [path for path in (_CGROUPS / "unified", _CGROUPS) if (path / "cgroup.procs").exists()]
V2 = (*_MOUNTED, _CGROUPS)[0]
HIERARCHIES = [*_MOUNTED, *([V1] if V1.is_dir() else [])]  # for the cgroups of tests
# The hierarchy that names owners by default.
HIERARCHY, HIERARCHY_NAME = (V1, "memory") if V1.is_dir() else (V2, "v2")
Row = dict[str, Any]
FORCED: list[str] = []  # options for every tracer, from pytest's --transport


def unique(prefix: str = "cgnet-test") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def wait_until(what: str | Callable[[], str], condition: Any) -> Any:
    """Wait until ``condition()`` is true; return its result."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)  # between two checks of the condition
    told = what if isinstance(what, str) else what()
    raise AssertionError(f"waited {PATIENCE_S} s for {told}")


def cgnet(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run cgnet to its end."""
    return subprocess.run(
        [CGNET, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, **options
    )


def unused_port(address: str = "127.0.0.1") -> int:
    """Return a port without a listener."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        return int(server.getsockname()[1])


class Tracer:
    """A running ``cgnet connect -o json``, or another command; its rows and its stderr."""

    def __init__(
        self,
        *arguments: str,
        output: str = "json",
        program: tuple[Any, ...] = (CGNET,),
        command: str = "connect",
    ) -> None:
        self.command = command
        self.process = subprocess.Popen(
            [*program, command, "-o", output, *FORCED, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.said: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.lines), (self.process.stderr, self.said))
        ]
        for reader in self._readers:
            reader.start()
        wait_until("cgnet: tracing", lambda: self.ready() or self.process.poll() is not None)
        if not self.ready():
            self.kill()
            raise AssertionError(self.said)

    def __str__(self) -> str:
        """Return details for a failing test."""
        return (
            f"ended {self.process.poll()}, {len(self.lines)} lines … {self.lines[-3:]} {self.said}"
        )

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))

    def ready(self) -> bool:
        return any(line.startswith("cgnet: tracing") for line in list(self.said))

    def rows(self, kind: str = "") -> list[Row]:
        kind = kind or self.command
        return [row for row in map(json.loads, list(self.lines)) if row["type"] == kind]

    def wait_for(self, count: int) -> list[Row]:
        wait_until(
            lambda: f"{count} rows: {self}",
            lambda: len(self.lines) >= count or self.process.poll() is not None,
        )
        assert len(self.lines) >= count, self
        return self.rows()

    def wait_said(self, text: str) -> None:
        wait_until(
            lambda: f"{text!r}: {self}", lambda: any(text in line for line in list(self.said))
        )

    def stop(self, number: int = signal.SIGINT) -> list[Row]:
        """End it with a signal, by default Ctrl-C's; return the rows."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        assert self.process.returncode == 0, (self.process.returncode, self.said)
        return self.rows() if self.lines and self.lines[0].startswith("{") else []

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def check(tracer: Tracer, made: list[Row], **also: Any) -> list[Row]:
    """Assert that the tracer shows one row for each attempt, with these values, and no other."""
    pids = {row["pid"] for row in made}
    try:
        tracer.wait_for(len(made))
    except AssertionError as error:
        raise AssertionError(f"made {made}: {error}") from error
    shown = [row for row in tracer.stop() if row["pid"] in pids]
    assert len(shown) == len(made), f"{shown}: {tracer}"
    for expected, actual in zip(made, shown, strict=True):
        wanted = {key: value for key, value in {**expected, **also}.items() if value is not None}
        assert wanted == {key: actual[key] for key in wanted}
        assert actual["owner_source"] == "learned"
        assert actual["role"] == "client"
    return shown


@contextmanager
def tracing(*arguments: str, **how: Any) -> Iterator[Tracer]:
    tracer = Tracer(*arguments, **how)
    try:
        yield tracer
    finally:
        tracer.kill()


class Workload:
    """A scenario of workload.py: start it, move it into cgroups, let it run, get its rows."""

    unfinished: ClassVar[list[Workload]] = []

    def __init__(self, *arguments: Any, cgroups: tuple[Path, ...] = (), netns: str = "") -> None:
        self.unfinished.append(self)
        command = [PYTHON, str(WORKLOAD), *map(str, arguments)]
        if netns:
            command = ["ip", "netns", "exec", netns, *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(self.process.pid))

    def go(self) -> list[Row]:
        self.begin()
        return self.finish()

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> list[Row]:
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors
        return json.loads(out)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def run(*arguments: Any, cgroups: tuple[Path, ...] = (), netns: str = "") -> list[Row]:
    workload = Workload(*arguments, cgroups=cgroups, netns=netns)
    try:
        return workload.go()
    finally:
        workload.end()


@contextmanager
def new_cgroup(parent: Path, name: str | bytes = "") -> Iterator[Path]:
    """Create a cgroup; at the end, empty and remove it with its descendants."""
    path = parent / os.fsdecode(name or unique())
    path.mkdir()
    try:
        yield path
    finally:
        remove_cgroup(path)


@contextmanager
def new_lxc() -> Iterator[Path]:
    """Create a cgroup that is a container's by its place."""
    parent = HIERARCHY / "lxc"
    parent.mkdir(exist_ok=True)
    try:
        with new_cgroup(parent) as path:
            yield path
    finally:
        with suppress(OSError):  # others are there
            parent.rmdir()


def remove_cgroup(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        group = Path(directory)
        if not group.exists():
            continue
        for pid in (group / "cgroup.procs").read_text().split():
            try:
                (path.parent / "cgroup.procs").write_text(pid)
            except ProcessLookupError:
                continue
        wait_until(f"{group} empty", lambda group=group: not (group / "cgroup.procs").read_text())
        group.rmdir()


@contextmanager
def new_netns() -> Iterator[str]:
    """Create a network namespace with its loopback up; yield its name."""
    name = unique("cgt")
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "del", name)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def in_netns(netns: str, *command: str) -> str:
    return ip("netns", "exec", netns, *command)


def netns_inode(netns: str) -> int:
    return Path(f"/run/netns/{netns}").stat().st_ino


ECHO_SERVER = """
import socket, threading
server = socket.create_server(({address!r}, 0), family=socket.{family}, backlog=4096)
if {fast_open}:
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 100)
print(server.getsockname()[1], flush=True)
def serve(sock):
    with sock:
        while data := sock.recv(64):
            sock.send(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@contextmanager
def listener(netns: str = "", address: str = "127.0.0.1", fast_open: bool = False) -> Iterator[int]:
    """Run an echo server in a process of its own; yield its port."""
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = ECHO_SERVER.format(address=address, family=family, fast_open=fast_open)
    command = [PYTHON, "-c", code]
    if netns:
        command = ["ip", "netns", "exec", netns, *command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        assert ready
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def need(tool: str) -> str:
    """Return a tool's path; the test fails, and isn't skipped, where it isn't installed."""
    found = shutil.which(tool)
    assert found, f"{tool} is missing: run 'sudo make deps'"
    return found
