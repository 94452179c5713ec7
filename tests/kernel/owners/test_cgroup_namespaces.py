# SPDX-License-Identifier: BSD-2-Clause
"""cgnet in a cgroup namespace, as in a container: the paths and names are the host's."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import CGNET, PYTHON, V1, V2, Workload, need, new_cgroup, run, tracing, unique

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Enters a cgroup, makes namespaces there, and mounts what a container's runtime mounts.
ENTER = """
import ctypes, os, sys
procs, mounts, *command = sys.argv[1:]
with open(procs, "w") as file:
    file.write(str(os.getpid()))
libc = ctypes.CDLL(None, use_errno=True)
def mount(*arguments):
    if libc.mount(*arguments):
        raise OSError(ctypes.get_errno(), "mount", str(arguments))
assert libc.unshare(0x02000000 | 0x00020000) == 0
mount(b"none", b"/", None, 0x44000, None)
for each in mounts.split():
    place, kind, data = each.split(",")
    assert libc.umount2(place.encode(), 2) == 0
    mount(b"none", place.encode(), kind.encode(), 0, data.encode())
os.execv(command[0], command)
"""


def mounts_of(top: Path) -> str:
    return f"{top},cgroup2," if top == V2 else f"{top},cgroup,memory"


@contextmanager
def inside(top: Path, *, own_mounts: bool) -> Iterator[tuple[str, ...]]:
    """A namespace two cgroups below the root; yield what a command begins with that runs there."""
    with new_cgroup(top) as outer, new_cgroup(outer) as own:
        mounts = mounts_of(top) if own_mounts else ""
        yield (PYTHON, "-c", ENTER, f"{own}/cgroup.procs", mounts)


@contextmanager
def lxc(top: Path) -> Iterator[Path]:
    """A container by its cgroup's place alone, with a process."""
    above = top / "lxc"
    there = above.exists()
    above.mkdir(exist_ok=True)
    try:
        with new_cgroup(above) as path, subprocess.Popen(["sleep", "600"]) as process:
            try:
                (path / "cgroup.procs").write_text(str(process.pid))
                yield path
            finally:
                process.kill()
    finally:
        if not there:
            above.rmdir()


def top_of(hierarchy: str) -> Path:
    return V1 if hierarchy == "memory" else V2


own_mounts = pytest.mark.parametrize("own_mounts", [False, True], ids=["hosts", "own"])


@own_mounts
def test_paths_are_the_hosts(hierarchy: str, port: int, *, own_mounts: bool) -> None:
    """Of cgroups elsewhere and below the namespace's own, there before and made later."""
    top = top_of(hierarchy)
    arguments = ("--hierarchy", hierarchy, "--port", str(port))
    with (
        inside(top, own_mounts=own_mounts) as enter,
        new_cgroup(top) as before,
        new_cgroup(before) as below,
        tracing(*arguments, program=(*enter, CGNET)) as tracer,
        new_cgroup(top) as later,
    ):
        groups = (before, below, later)
        made = [run("connect", "127.0.0.1", port, cgroups=(group,))[0] for group in groups]
        tracer.wait_for(len(made))
        paths = {row["pid"]: row["cgroup"] for row in tracer.stop()}
    for group, row in zip(groups, made, strict=True):
        assert paths[row["pid"]] == inner(group, top)


@own_mounts
def test_containers_are_the_hosts(hierarchy: str, port: int, *, own_mounts: bool) -> None:
    top = top_of(hierarchy)
    with inside(top, own_mounts=own_mounts) as enter, lxc(top) as path:
        done = subprocess.run(
            [*enter, CGNET, "containers", "--hierarchy", hierarchy, "-o", "json"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        rows = {row["container"]: row for row in map(json.loads, done.stdout.splitlines())}
        assert rows[path.name]["cgroup"] == inner(path, top)
        assert done.stderr == ""
        arguments = ("--hierarchy", hierarchy, "--container", path.name)
        with tracing(*arguments, program=(*enter, CGNET)) as tracer:
            run("connect", "127.0.0.1", port)
            made = run("connect", "127.0.0.1", port, cgroups=(path,))
            tracer.wait_for(1)
            (row,) = tracer.stop()
        assert (row["pid"], row["container"]) == (made[0]["pid"], path.name)


@own_mounts
def test_cgroups_are_given_as_the_host_has_them_or_as_they_are_mounted(
    hierarchy: str, port: int, *, own_mounts: bool
) -> None:
    """A directory as mounted in the namespace, a path of the host, a pattern of one."""
    top = top_of(hierarchy)
    with inside(top, own_mounts=own_mounts) as enter, new_cgroup(top) as group:
        own = enter[3].removesuffix("/cgroup.procs")
        whole = f"/{own.removeprefix(f'{top}/')}"
        part = f"{top}" if own_mounts else own
        with new_cgroup(group.parent / whole.lstrip("/")) as below:
            for value in (part, whole, f"{whole[:-1]}?"):
                arguments = ("--hierarchy", hierarchy, "--cgroup", value, "--port", str(port))
                with tracing(*arguments, program=(*enter, CGNET)) as tracer:
                    run("connect", "127.0.0.1", port, cgroups=(group,))
                    made = run("connect", "127.0.0.1", port, cgroups=(below,))
                    tracer.wait_for(1)
                    (row,) = tracer.stop()
                assert (row["pid"], row["cgroup"]) == (made[0]["pid"], inner(below, top)), value


@own_mounts
def test_a_process_is_selected_whatever_its_cgroup(
    hierarchy: str, port: int, *, own_mounts: bool
) -> None:
    top = top_of(hierarchy)
    with inside(top, own_mounts=own_mounts) as enter, new_cgroup(top) as group:
        workload = Workload("connect", "127.0.0.1", port, cgroups=(group,))
        arguments = ("--hierarchy", hierarchy, "--pid", str(workload.process.pid))
        with tracing(*arguments, program=(*enter, CGNET)) as tracer:
            workload.go()
            tracer.wait_for(1)
            (row,) = tracer.stop()
        assert row["cgroup"] == inner(group, top)


def test_what_cannot_be_seen_is_said(hierarchy: str) -> None:
    """Opening by handle takes a capability."""
    top = top_of(hierarchy)
    without = (need("setpriv"), "--bounding-set=-dac_read_search", "--inh-caps=-all")
    with inside(top, own_mounts=True) as enter:
        command = [*enter, *without, CGNET, "containers", "--hierarchy", hierarchy]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert f"{top} shows a part of the hierarchy {hierarchy}" in done.stderr
        arguments = ("--hierarchy", hierarchy, "--comm", unique("c"))
        with tracing(*arguments, program=(*enter, *without, CGNET)) as tracer:
            tracer.wait_said("shows a part of the hierarchy")


# -- in a PID namespace

IN_PID_NAMESPACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000000 | 0x00020000) == 0
pid = os.fork()
if pid == 0:
    for arguments in ((b"none", b"/", None, 0x44000, None), (b"proc", b"/proc", b"proc", 0, None)):
        assert libc.mount(*arguments) == 0, ctypes.get_errno()
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
ENTER_PIDS = (PYTHON, "-c", IN_PID_NAMESPACE)


def test_a_pid_of_another_namespace_is_refused() -> None:
    command = [*ENTER_PIDS, CGNET, "connect", "--pid", "1", "--duration", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("cgnet: --pid '1': cgnet runs in a PID namespace")
    assert done.stderr.count("\n") == 1


def test_containers_of_other_pid_namespaces_are_listed_without_pids(hierarchy: str) -> None:
    top = top_of(hierarchy)
    with lxc(top) as path:
        command = [*ENTER_PIDS, CGNET, "containers", "--hierarchy", hierarchy, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        rows = {row["container"]: row for row in map(json.loads, done.stdout.splitlines())}
    row = rows[path.name]
    assert (row["cgroup"], row["pid"], row["netns"]) == (inner(path, top), None, None)
