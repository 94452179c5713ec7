# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets`` on a host with 20,000 connections in 200 network namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import ss_lines
from harness import CGNET, HIERARCHY, PATIENCE_S, PYTHON, ip, new_cgroup, unique
from podman import Podman
from remote_python import RemotePython, in_own_cgroups
from socket_lists import by_flow, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Row

SUPPORT = Path(__file__).parents[1] / "support"
NAMESPACES, CONNECTIONS, ENDED = 200, 98, 8
# Each has a listener, and two connections more; the client of one is an orphan.
OPEN = 1 + 2 * (CONNECTIONS - ENDED) + 4
JOINED = 20  # namespaces in which containers come and go
MAX_BYTES = 1500  # of memory for a socket
FIXED_BYTES = 100 << 20  # of memory besides


class Scene(NamedTuple):
    """The namespaces, by name: their inodes."""

    spaces: dict[str, int]
    prefix: str


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    prefix = unique("cgt")
    process = subprocess.Popen(
        [PYTHON, SUPPORT / "many_namespaces.py", *map(str, (NAMESPACES, CONNECTIONS, ENDED)), prefix],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        inodes: set[int] = set()
        while len(inodes) < NAMESPACES:
            line = process.stdout.readline()
            assert line, "a process of the scene failed"
            inodes.update(map(int, line.split()))
        paths = Path("/run/netns").glob(f"{prefix}-*")
        yield Scene({path.name: path.stat().st_ino for path in paths}, prefix)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        for path in Path("/run/netns").glob(f"{prefix}-*"):
            ip("netns", "del", path.name)


class Used(NamedTuple):
    """What a command printed, and what it took."""

    stdout: str
    cpu_s: float
    peak_bytes: int


# A process's peak begins with the memory of the one that it was forked from: a small one.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("used", used.ru_utime + used.ru_stime, used.ru_maxrss << 10, file=sys.stderr)
"""


def used(*command: str | Path) -> Used:
    """Run a command to its end."""
    measured = [PYTHON, "-c", MEASURE, *command]
    done = subprocess.run(measured, check=True, capture_output=True, text=True)
    _, cpu_s, peak_bytes = done.stderr.splitlines()[-1].split()
    return Used(done.stdout, float(cpu_s), int(peak_bytes))


def ss_in(name: str) -> str:
    command = ["nsenter", f"--net=/run/netns/{name}", "ss", "-tanmoiOH"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def containers_that_come_and_go(scene: Scene) -> Iterator[None]:
    names = [f"{scene.prefix}-{number}" for number in range(JOINED)]
    with new_cgroup(HIERARCHY) as cgroup:
        process = subprocess.Popen(
            [PYTHON, SUPPORT / "coming_and_going.py", *names, cgroup],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield
            assert process.poll() is None
        finally:
            process.stdin.close()
            process.wait(PATIENCE_S)
            process.stdout.close()


def test_it_lists_what_ss_does_in_each_while_containers_come_and_go(scene: Scene) -> None:
    with containers_that_come_and_go(scene):
        begin = time.monotonic()
        before = {name: ss_in(name) for name in scene.spaces}
        rows, summary = listed()
        after = {name: ss_in(name) for name in scene.spaces}
        apart_us = round((time.monotonic() - begin) * 1e6)
    ours: dict[int, list[Row]] = {}
    for row in rows:
        ours.setdefault(row["netns"], []).append(row)
    for name, inode in scene.spaces.items():
        first, last = (
            [ss_lines.parse(line) for line in text[name].splitlines()] for text in (before, after)
        )
        same = ss_lines.settled(first, last)
        mine, known = by_flow(ours[inode]), by_flow(same)
        ss_lines.check([mine[flow] for flow in known if flow in mine], same, apart_us)
        others = mine.keys() - known.keys()
        if int(name.rpartition("-")[2]) >= JOINED:  # nothing comes there; what ends may be gone
            assert others <= by_flow(first).keys()
        # A connection that began and ended in between is in none of the other lists.
        assert len(known) >= OPEN - 1  # the orphan may have ended
    assert summary["lost"] == 0
    assert summary["namespaces"] > NAMESPACES
    counts = Counter((row["netns"], row["state"]) for row in rows)
    for name, inode in scene.spaces.items():
        if int(name.rpartition("-")[2]) >= JOINED:
            assert counts[inode, "LISTEN"] == counts[inode, "CLOSE_WAIT"] == 1
            assert counts[inode, "ESTABLISHED"] == 2 * (CONNECTIONS - ENDED + 1)


def test_it_takes_less_than_ss_in_each_namespace(scene: Scene) -> None:
    """By CPU time, which other processes don't lengthen: one walk is enough for all namespaces."""
    theirs = sum(
        used("nsenter", f"--net=/run/netns/{name}", "ss", "-tanmoiH").cpu_s for name in scene.spaces
    )
    every = used(CGNET, "sockets", "-o", "json")
    assert every.stdout.count("\n") > NAMESPACES * OPEN
    assert every.cpu_s < theirs
    table = used(CGNET, "sockets")
    assert table.cpu_s < 2 * theirs
    # What is left out isn't measured, and doesn't cross to user space.
    with new_cgroup(HIERARCHY) as cgroup:
        none = used(CGNET, "sockets", "-o", "json", "--cgroup", str(cgroup))
    assert none.cpu_s < every.cpu_s
    for each in (every, table):
        assert each.peak_bytes < FIXED_BYTES + MAX_BYTES * NAMESPACES * OPEN


def test_a_containers_sockets_alone(scene: Scene, tmp_path: Path) -> None:
    assert scene.spaces
    with closing(Podman(tmp_path / "containers.conf")) as podman:
        name = unique("web")
        podman.run("--network=none", name=name)
        pid = int(podman.inspect(name, "{{.State.Pid}}"))
        with RemotePython(f"/proc/{pid}/ns/net", in_own_cgroups(pid)) as process:
            port = process.listen("0.0.0.0")
            some = used(CGNET, "sockets", "-o", "json", "--container", name)
        (row, _) = map(json.loads, some.stdout.splitlines())
        assert (row["container"], row["sport"], row["pid"]) == (name, port, process.pid)
        assert some.cpu_s < used(CGNET, "sockets", "-o", "json").cpu_s


def test_the_reader_may_end_early(scene: Scene) -> None:
    """As ``cgnet sockets | head`` does."""
    assert scene.spaces
    for options in ((), ("-o", "json"), ("-o", "csv"), ("--ports",)):
        process = subprocess.Popen(
            [CGNET, "sockets", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.wait(PATIENCE_S) == 0


def test_states_are_counted_in_each_namespace(scene: Scene) -> None:
    counts, summary = listed("--states", "--by", "netns,state")
    told = {(row["netns"], row["state"]): row["count"] for row in counts}
    for inode in scene.spaces.values():
        assert told[inode, "LISTEN"] == told[inode, "CLOSE_WAIT"] == 1
        assert told[inode, "ESTABLISHED"] == 2 * (CONNECTIONS - ENDED + 1)
    assert summary["records"] == len(counts)
    places = [f"--netns={path}" for path in map("/run/netns/{}".format, [*scene.spaces][:5])]
    (some,), _ = listed("--states", "--by", "state", "--state", "ESTABLISHED", *places)
    assert some["count"] == 5 * 2 * (CONNECTIONS - ENDED + 1)


def test_ports_are_counted_in_each_namespace(scene: Scene) -> None:
    rows, _ = listed("--ports")
    told = {(row["netns"], row["dport"]): row for row in rows}
    for name, inode in scene.spaces.items():
        lines = [ss_lines.parse(line) for line in ss_in(name).splitlines()]
        (listener,) = (row["sport"] for row in lines if row["state"] == "LISTEN")
        ports = {row["sport"] for row in lines if row["dport"] == listener}
        row = told[inode, listener]
        # What was in TIME_WAIT may have ended between both looks.
        assert len(ports) <= row["used"] <= CONNECTIONS + 2
        assert row["left"] == row["last_port"] - row["first_port"] + 1 - row["used"]
