# SPDX-License-Identifier: BSD-2-Clause
"""`cgnet` beside real containers of docker."""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker import Docker, docker
from harness import (
    CGNET,
    HIERARCHY,
    HIERARCHY_NAME,
    PYTHON,
    Row,
    Tracer,
    new_cgroup,
    run,
    tracing,
    unique,
    wait_until,
)

from cgnet.owners.cgroups import cgroup_id

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with docker(tmp_path_factory.mktemp("docker")) as daemon:
        yield daemon


def listed(daemon: Docker, by: str = "container", *, inside: bool = True) -> dict[str, Row]:
    """Return what cgnet lists, by a field; ``inside``: where the daemon's state is seen."""
    done = subprocess.run(
        [*(daemon.enter() if inside else ()), CGNET, "containers", "-o", "json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row[by]: row for row in rows}


def test_a_container_is_told_as_docker_tells_it(daemon: Docker) -> None:
    name = unique()
    with daemon.container(name, "--network=none", "--label=app=shop") as found_id:
        row, pid = listed(daemon)[name], daemon.pid(name)
        netns = Path(f"/proc/{pid}/ns/net").stat().st_ino
        cgroup = HIERARCHY / f"docker/{found_id}"
        assert row == row | {
            "container_id": found_id,
            "image": daemon.image,
            "runtime": "docker",
            "labels": {"app": "shop"},
            "pod": None,
            "hierarchy": HIERARCHY_NAME,
            "cgroup": f"/docker/{found_id}",
            "cgroup_id": str(cgroup_id(cgroup)),
            "netns": netns,
            "pid": pid,
            "found": "state",
        }
    assert name not in listed(daemon)


@pytest.mark.parametrize("later", [False, True], ids=["before", "later"])
def test_its_connections_carry_its_name(
    daemon: Docker, hook: str, port: int, *, later: bool
) -> None:
    """Of a container that is there before cgnet, and of one that starts later."""
    name = unique()
    arguments = ("--hook", hook, "--container", name)
    program = (*daemon.enter(), CGNET)
    with ExitStack() as cleanup:
        if not later:
            cleanup.enter_context(daemon.container(name, "--network=host"))
        tracer = cleanup.enter_context(tracing(*arguments, program=program))
        if later:
            cleanup.enter_context(daemon.container(name, "--network=host"))
        row = connected(daemon, tracer, name, port)
    assert row == row | {"container": name, "runtime": "docker", "owner_source": "learned"}


def connected(daemon: Docker, tracer: Tracer, name: str, port: int) -> Row:
    """Connect from the container; return the row."""
    daemon("exec", name, "/bin/busybox", "nc", "127.0.0.1", str(port))
    rows: list[Row] = wait_until(
        lambda: f"the row: {tracer.said}",
        lambda: [row for row in tracer.rows() if row["dport"] == port],
    )
    return rows[0]


def test_a_docker_in_a_container_with_sibling_cgroups(daemon: Docker, port: int) -> None:
    """Its state is in a mount namespace of its own: the host has its containers' ids."""
    name = unique()
    with daemon.container(name, "--network=host") as found_id:
        row = listed(daemon, "container_id", inside=False)[found_id]
        assert (row["container"], row["runtime"], row["found"]) == (None, "docker", "path")
        assert (row["cgroup"], row["pid"]) == (f"/docker/{found_id}", daemon.pid(name))
        with tracing("--container", found_id[:12]) as tracer:
            row = connected(daemon, tracer, name, port)
    assert (row["container"], row["container_id"]) == (None, found_id)


def test_a_docker_in_a_container_with_cgroups_below_it(daemon: Docker, port: int) -> None:
    """As with a cgroup namespace of its own, which the kernel's paths don't show."""
    outer, inner = unique(), f"{uuid.uuid4().hex}{uuid.uuid4().hex}"
    program = (*daemon.enter(), CGNET)
    with (
        daemon.container(outer) as outer_id,
        new_cgroup(HIERARCHY / f"docker/{outer_id}", "docker") as top,
        new_cgroup(top, inner) as group,
        subprocess.Popen([PYTHON, "-c", "import sys; sys.stdin.read()"], stdin=-1) as process,
    ):
        (group / "cgroup.procs").write_text(str(process.pid))
        rows = listed(daemon, "container_id")
        assert (rows[outer_id]["container"], rows[outer_id]["found"]) == (outer, "state")
        row = rows[inner]
        assert (row["container"], row["runtime"], row["found"]) == (None, "docker", "path")
        assert (row["pid"], row["labels"]) == (process.pid, None)
        with tracing("--container", inner[:12], program=program) as tracer:
            run("connect", "127.0.0.1", port)
            run("connect", "127.0.0.1", port, cgroups=(group,))
            tracer.wait_for(1)
            assert [row["container"] for row in tracer.stop()] == [outer]
        process.communicate(timeout=60)
