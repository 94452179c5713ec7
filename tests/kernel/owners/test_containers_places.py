# SPDX-License-Identifier: BSD-2-Clause
"""Containers whose cgroups are in other places than a runtime's usual ones."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import (
    CGNET,
    HIERARCHY,
    HIERARCHY_NAME,
    PYTHON,
    Row,
    new_cgroup,
    run,
    tracing,
    unique,
    wait_until,
)
from podman import Podman, containerd, ctr_container

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_IN_CGROUP_OF = """
import os, socket, sys
for line in open(f"/proc/{sys.argv[1]}/cgroup"):
    _, controllers, path = line.rstrip("\\n").split(":", 2)
    if (controllers or "v2").split(",")[0] == sys.argv[3]:
        with open(f"{sys.argv[4]}{path}/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
socket.create_connection(("127.0.0.1", int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman") / "containers.conf")
    yield made
    made.close()


def listed(*arguments: str) -> dict[str, Row]:
    """Return what cgnet lists, by cgroup."""
    done = subprocess.run(
        [CGNET, "containers", "-o", "json", *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["cgroup"]: row for row in rows}


def path_of(pid: int) -> str:
    """Return a process's cgroup in the hierarchy that names owners."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (controllers or "v2").split(",")[0] == HIERARCHY_NAME:
            return path
    raise AssertionError(pid)


def connect(pid: int, port: int) -> None:
    """Connect from the cgroup of a process."""
    command = [PYTHON, "-c", CONNECT_IN_CGROUP_OF, str(pid), str(port), HIERARCHY_NAME, HIERARCHY]
    subprocess.run(command, check=True, timeout=60)


def test_podman_with_a_relative_parent(podman: Podman, port: int) -> None:
    """runc's cgroupfs driver takes it from where the monitor is."""
    name, parent = unique(), unique("parent")
    try:
        with tracing("--container", name, "--port", str(port)) as tracer:
            podman.run("--network=host", f"--cgroup-parent={parent}", name=name)
            pid = int(podman.inspect(name, "{{.State.Pid}}"))
            row = listed()[path_of(pid)]
            assert (row["container"], row["found"], row["pid"]) == (name, "state", pid)
            connect(pid, port)
            tracer.wait_for(1)
            assert [row["container"] for row in tracer.stop()] == [name]
        podman.remove(name)
    finally:
        for path in (f"{parent}/conmon/{parent}", f"{parent}/conmon", parent):
            for hierarchy in Path("/sys/fs/cgroup").iterdir():
                if (hierarchy / path).is_dir():
                    wait_until(f"no {path}", lambda place=hierarchy / path: is_removed(place))


def is_removed(place: Path) -> bool:
    try:
        place.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.mark.parametrize("later", [False, True], ids=["before", "later"])
@pytest.mark.parametrize("chosen", ["namespace", "path"])
def test_containerd_with_a_namespace_or_a_path_of_the_users(
    tmp_path: Path, port: int, chosen: str, *, later: bool
) -> None:
    """Of a container that is there before cgnet, and of one that starts later."""
    name, corp = unique(), unique("corp")
    options = ("--cgroup", f"/{corp}/x") if chosen == "path" else ()
    namespace = corp if chosen == "namespace" else "default"
    with containerd(tmp_path), ExitStack() as cleanup:
        cleanup.callback(remove_everywhere, corp)
        started = ctr_container(tmp_path / "root", name, *options, namespace=namespace)
        if not later:
            pid = cleanup.enter_context(started)
        tracer = cleanup.enter_context(tracing("--container", name, "--port", str(port)))
        if later:
            pid = cleanup.enter_context(started)
        path = path_of(pid)
        assert path == (f"/{corp}/x" if chosen == "path" else f"/{corp}/{name}")
        row = listed()[path]
        assert (row["container"], row["runtime"], row["found"]) == (name, "containerd", "state")
        run("connect", "127.0.0.1", port)
        connect(pid, port)
        tracer.wait_for(1)
        assert [row["cgroup"] for row in tracer.stop()] == [path]


def remove_everywhere(name: str) -> None:
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        if (hierarchy / name).is_dir() and not hierarchy.is_symlink():
            (hierarchy / name).rmdir()


@contextmanager
def placed(name: str) -> Iterator[tuple[Path, int]]:
    """A cgroup at the usual place of docker's, with a process; nobody has state of it."""
    with ExitStack() as cleanup:
        top = HIERARCHY / "docker"
        if not top.is_dir():
            top = cleanup.enter_context(new_cgroup(HIERARCHY, "docker"))
        group = cleanup.enter_context(new_cgroup(top, name))
        process = cleanup.enter_context(subprocess.Popen(["sleep", "600"]))
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            yield group, process.pid
        finally:
            process.kill()


def test_without_any_state_it_is_listed_and_selected_by_its_id(port: int) -> None:
    name = f"{uuid.uuid4().hex}{uuid.uuid4().hex}"
    with placed(name) as (group, pid):
        row = listed()[f"/docker/{name}"]
        assert (row["container"], row["container_id"], row["runtime"]) == (None, name, "docker")
        assert (row["found"], row["pid"]) == ("path", pid)
        with tracing("--container", name[:12], "--port", str(port)) as tracer:
            run("connect", "127.0.0.1", port)
            run("connect", "127.0.0.1", port, cgroups=(group,))
            tracer.wait_for(1)
            assert [row["container_id"] for row in tracer.stop()] == [name]


def test_in_a_part_of_the_tree_that_somebody_was_given_it_is_none() -> None:
    name = f"docker-{uuid.uuid4().hex}{uuid.uuid4().hex}.scope"
    with (
        new_cgroup(HIERARCHY) as delegated,
        new_cgroup(delegated, name) as group,
        subprocess.Popen(["sleep", "600"]) as process,
    ):
        try:
            for owner in (65534, 0):
                os.chown(delegated, owner, owner)
                os.chown(group, 65534 - owner, 65534 - owner)
                (group / "cgroup.procs").write_text(str(process.pid))
                path = f"/{group.relative_to(HIERARCHY)}"
                assert path not in listed()
                assert listed("--all")[path]["found"] is None
        finally:
            process.kill()
