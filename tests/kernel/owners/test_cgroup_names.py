# SPDX-License-Identifier: BSD-2-Clause
"""The paths that rows have, of cgroups that somebody made to be hard to name."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import CGNET, PYTHON, V1, new_cgroup, run, tracing, wait_until

from cgnet.text import CUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = "d" * 250
DEEP = 18  # of these are more than PATH_MAX
CONNECT = """
import os, socket, sys
os.write(int(sys.argv[1]), str(os.getpid()).encode())
sock = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
"""


@contextmanager
def nested(top: Path, depth: int) -> Iterator[list[int]]:
    """Cgroups below each other with long names; yield their descriptors. No path leads that deep."""
    fds = [os.open(top, os.O_RDONLY)]
    try:
        for _ in range(depth):
            os.mkdir(LONG, dir_fd=fds[-1])
            fds.append(os.open(LONG, os.O_RDONLY, dir_fd=fds[-1]))
        yield fds
    finally:
        for above in reversed(fds[:-1]):
            wait_until("an empty cgroup", lambda above=above: removed(above))
        for fd in fds:
            os.close(fd)


def removed(above: int) -> bool:
    try:
        os.rmdir(LONG, dir_fd=above)
    except OSError:
        return False
    return True


def connect(cgroup: int, port: int) -> int:
    """Connect from a cgroup; return the PID."""
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=cgroup)
    try:
        command = [PYTHON, "-c", CONNECT, str(procs), str(port)]
        with subprocess.Popen(command, pass_fds=(procs,)) as process:
            assert process.wait(60) == 0
            return process.pid
    finally:
        os.close(procs)


@pytest.mark.parametrize("later", [False, True], ids=["before", "later"])
def test_a_path_that_is_too_long_is_told_as_far_as_it_goes(
    hook: str, group: Path, port: int, *, later: bool
) -> None:
    top = inner(group, group.parent)
    arguments = ("--hook", hook, "--cgroup", str(group))
    with (
        new_cgroup(group) as base,
        nested(base, 0 if later else DEEP) as before,
        tracing(*arguments) as tracer,
        nested(base, DEEP if later else 0) as after,
    ):
        fds = after if later else before
        pids = {depth: connect(fds[depth], port) for depth in (2, 5, DEEP)}
        tracer.wait_for(len(pids))
        paths = {row["pid"]: row["cgroup"] for row in tracer.stop()}
    whole = f"{top}/{base.name}"
    for depth in (2, 5):
        assert paths[pids[depth]] == whole + f"/{LONG}" * depth
    told = paths[pids[DEEP]]
    assert told.startswith(whole + f"/{LONG}" * 14)
    assert told.endswith(f"/{LONG}/{CUT}")
    assert len(told) < 4096


def test_a_cgroup_that_is_too_deep_for_a_path_is_selected_with_its_parents(
    group: Path, port: int
) -> None:
    with new_cgroup(group) as base, nested(base, DEEP) as fds:
        for values, number in (((str(base),), 1), ((str(group), f"!{base}"), 0)):
            arguments = [option for value in values for option in ("--cgroup", value)]
            with tracing(*arguments) as tracer:
                pid = connect(fds[DEEP], port)
                last = connect(fds[DEEP], port)
                other = os.open(group, os.O_RDONLY)
                try:
                    marker = connect(other, port)
                finally:
                    os.close(other)
                if not number:
                    tracer.wait_for(1)
                else:
                    tracer.wait_for(2)
                pids = {row["pid"] for row in tracer.stop()}
                assert pids == ({pid, last} if number else {marker}), tracer


@pytest.mark.parametrize(
    "arguments",
    [
        ("connect", "--duration", "0.1", "--cgroup", f"/{'a' * 300}"),
        ("connect", "--duration", "0.1", "--cgroup", "/" + "a/" * 3000),
        ("connect", "--duration", "0.1", "--cgroup", "/proc/1/root/nosuch"),
    ],
)
def test_a_path_that_cannot_be_looked_at_is_a_sentence(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([CGNET, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("cgnet: --cgroup ")


IN_MOUNTS_OF_ITS_OWN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(*arguments):
    if libc.mount(*arguments):
        raise OSError(ctypes.get_errno(), "mount")
assert libc.unshare(0x20000) == 0
mount(b"none", b"/", None, 0x44000, None)
{code}
os.execv(sys.argv[1], sys.argv[1:])
"""
NO_SOURCE = 'mount(b"", b"/mnt", b"tmpfs", 0, None)'
NO_PROC = 'assert libc.umount2(b"/proc", 2) == 0'
PROCESSES_ALONE = 'mount(b"proc", b"/proc", b"proc", 0, b"subset=pid")'


def run_with(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run cgnet in mounts of its own, which the code changes."""
    command = [sys.executable, "-c", IN_MOUNTS_OF_ITS_OWN.format(code=code), str(CGNET)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)


COMMANDS = [("connect", "--duration", "0.1"), ("containers",), ("doctor",)]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda each: each[0])
@pytest.mark.parametrize("code", [NO_SOURCE, PROCESSES_ALONE], ids=["source", "subset"])
def test_odd_mounts_are_passed_over(code: str, arguments: tuple[str, ...]) -> None:
    done = run_with(code, *arguments)
    assert done.returncode in ((0, 4) if arguments == ("doctor",) else (0,)), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda each: each[0])
def test_without_proc_there_is_a_sentence(arguments: tuple[str, ...]) -> None:
    done = run_with(NO_PROC, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "is /proc mounted?" in done.stderr


# -- renamed, which v1 allows


def test_a_renamed_cgroup_has_its_new_name(hook: str, port: int) -> None:
    """So has what is below it; what was told before stays."""
    if not V1.is_dir():
        pytest.skip("v2 doesn't rename cgroups")
    with new_cgroup(V1) as top:
        old, new = top / "old", top / "new"
        (old / "below").mkdir(parents=True)
        with tracing("--hook", hook, "--hierarchy", "memory", "--port", str(port)) as tracer:
            made = [run("connect", "127.0.0.1", port, cgroups=(old,))]
            made.append(run("connect", "127.0.0.1", port, cgroups=(old / "below",)))
            tracer.wait_for(2)
            old.rename(new)
            made.append(run("connect", "127.0.0.1", port, cgroups=(new,)))
            tracer.wait_for(3)

            def told_below() -> bool:
                made.append(run("connect", "127.0.0.1", port, cgroups=(new / "below",)))
                tracer.wait_for(len(made))
                return tracer.rows()[-1]["cgroup"] == inner(new / "below", V1)

            wait_until("the new path of what is below", told_below)
            paths = {row["pid"]: row["cgroup"] for row in tracer.stop()}
    wanted = [old, old / "below", new]
    for path, (row,) in zip(wanted, made, strict=False):
        assert paths[row["pid"]] == inner(path, V1)


def test_a_cgroup_that_is_renamed_stays_selected_and_one_that_gets_the_name_is(port: int) -> None:
    if not V1.is_dir():
        pytest.skip("v2 doesn't rename cgroups")
    with new_cgroup(V1) as top:
        given, other = top / "given", top / "other"
        given.mkdir()
        (other / "below").mkdir(parents=True)
        with tracing("--cgroup", str(given), "--port", str(port)) as tracer:
            run("connect", "127.0.0.1", port, cgroups=(other,))
            made = [run("connect", "127.0.0.1", port, cgroups=(given,))]
            tracer.wait_for(1)
            given.rename(top / "away")
            made.append(run("connect", "127.0.0.1", port, cgroups=(top / "away",)))
            tracer.wait_for(2)
            other.rename(given)
            tracer.wait_said("a cgroup was renamed to it")
            below = given / "below"
            made += [run("connect", "127.0.0.1", port, cgroups=(path,)) for path in (given, below)]
            tracer.wait_for(len(made))
            rows = tracer.stop()
    assert [row["pid"] for row in rows] == [row["pid"] for (row,) in made]
    expected = [given, top / "away", given, given / "below"]
    assert [row["cgroup"] for row in rows] == [inner(path, V1) for path in expected]
