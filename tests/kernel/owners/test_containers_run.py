# SPDX-License-Identifier: BSD-2-Clause
"""`cgnet containers` beside real containers of podman and containerd."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import CGNET, HIERARCHY, HIERARCHY_NAME, new_cgroup, unique, wait_until
from podman import Podman, containerd, ctr_container

from cgnet.owners.cgroups import cgroup_id
from cgnet.owners.runtimes import EXPECTED_S, Runtimes

if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = dict[str, Any]

HOST_NETNS = Path("/proc/self/ns/net").stat().st_ino


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman") / "containers.conf")
    yield made
    made.close()


def cgnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CGNET, "containers", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done


def listed(*arguments: str) -> dict[str, Row]:
    """Return the rows by the path of the cgroup."""
    lines = cgnet("-o", "json", *arguments).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert {(row["schema"], row["type"]) for row in rows} <= {(2, "container")}
    return {row["cgroup"]: row for row in rows}


def path_of(pid: int) -> str:
    """Return a process's cgroup in the hierarchy that names owners."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (controllers or "v2").split(",")[0] == HIERARCHY_NAME:
            return path
    raise AssertionError(pid)


def row_of(podman: Podman, name: str, *arguments: str) -> Row:
    return listed(*arguments)[path_of(int(podman.inspect(name, "{{.State.Pid}}")))]


def test_a_container_is_told_as_its_runtime_tells_it(podman: Podman) -> None:
    name = unique()
    found_id = podman.run("--network=host", "--label=app=shop", name=name)
    pid = int(podman.inspect(name, "{{.State.Pid}}"))
    path = path_of(pid)
    row = row_of(podman, name)
    assert row == {
        **row,
        "container": name,
        "container_id": found_id,
        "image": podman.image,
        "runtime": "podman",
        "labels": {"app": "shop"},
        "pod": None,
        "sandbox": False,
        "hierarchy": HIERARCHY_NAME,
        "cgroup": path,
        "cgroup_id": str(cgroup_id(HIERARCHY / path.lstrip("/"))),
        "netns": HOST_NETNS,
        "pid": pid,
        "found": "state",
    }
    podman.remove(name)
    assert path not in listed()


def test_a_pods_containers_share_its_name_and_network(podman: Podman) -> None:
    pod = podman.pod()
    names = [unique(), unique()]
    for name in names:
        podman.run(f"--pod={pod}", name=name)
    rows = [row_of(podman, name) for name in names]
    assert [row["container"] for row in rows] == names
    assert {row["pod"] for row in rows} == {pod}
    assert len({row["netns"] for row in rows}) == 1
    assert rows[0]["netns"] != HOST_NETNS
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod)
    everybody = {row["container_id"]: row for row in listed("--all").values()}
    assert (everybody[infra]["sandbox"], everybody[infra]["pod"]) == (True, pod)
    assert infra not in {row["container_id"] for row in listed().values()}


def test_its_monitor_is_no_container(podman: Podman) -> None:
    name = unique()
    podman.run("--network=host", name=name)
    monitor = int(Path(podman.inspect(name, "{{.ConmonPidFile}}")).read_text())
    assert path_of(monitor) not in listed("--all")


def test_a_containers_id_in_another_place_is_not_believed(podman: Podman) -> None:
    name = unique()
    found_id = podman.run("--network=host", name=name)
    with (
        new_cgroup(HIERARCHY) as delegated,
        new_cgroup(delegated, f"libpod-{found_id}.scope") as fake,
        subprocess.Popen(["sleep", "600"]) as process,
    ):
        try:
            (fake / "cgroup.procs").write_text(str(process.pid))
            path = f"/{fake.relative_to(HIERARCHY)}"
            done = cgnet("-o", "json")
            assert path not in {json.loads(line)["cgroup"] for line in done.stdout.splitlines()}
            assert "no runtime's state that may be read here confirms" in done.stderr
            row = listed("--all")[path]
            assert (row["found"], row["container"], row["container_id"], row["pid"]) == (
                None, None, None, process.pid,
            )  # fmt: skip
        finally:
            process.kill()


def test_the_table_and_csv_say_the_same(podman: Podman) -> None:
    name = unique()
    podman.run("--network=host", "--label=formula==1+1", name=name)
    row = row_of(podman, name)
    lines = cgnet().stdout.splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "RUNTIME", "POD", "IMAGE", "PID", "NETNS"]
    (line,) = [line.split() for line in lines if line.startswith(name)]
    assert line == [
        name, row["container_id"][:12], "podman", "-", podman.image, str(row["pid"]),
        str(HOST_NETNS),
    ]  # fmt: skip
    assert any(row["cgroup"] in line for line in cgnet("-o", "wide").stdout.splitlines())
    cells = list(csv.DictReader(io.StringIO(cgnet("-o", "csv").stdout)))
    (found,) = [each for each in cells if each["container"] == name]
    assert (found["cgroup_id"], found["type"]) == (row["cgroup_id"], "container")


def test_a_container_that_starts_later_is_named_in_time(podman: Podman) -> None:
    runtimes = Runtimes()
    try:
        name = unique()
        podman.run("--network=host", name=name)
        path = path_of(int(podman.inspect(name, "{{.State.Pid}}")))
        begin = time.monotonic()
        wait_until("a name", lambda: runtimes.of(path).is_final)
        assert time.monotonic() - begin < EXPECTED_S
        assert runtimes.of(path).facts.container == name
    finally:
        runtimes.close()


def test_podmans_daemon_tells_the_same_as_its_files(podman: Podman, tmp_path: Path) -> None:
    pod, name = podman.pod(), unique()
    podman.run(f"--pod={pod}", "--label=app=shop", name=name)
    path = path_of(int(podman.inspect(name, "{{.State.Pid}}")))
    by_files = Runtimes().find(path)
    (tmp_path / "run/podman").mkdir(parents=True)
    service = podman.service(tmp_path / "run/podman/podman.sock")
    try:
        by_socket = Runtimes(tmp_path).find(path)
    finally:
        service.terminate()
        service.wait()
    assert by_socket.inside[0].source == "socket"
    assert by_socket.facts == by_files.facts


def test_containers_of_containerd(tmp_path: Path) -> None:
    name = unique()
    options = ("--label=app=shop", "--cgroup", f"/default/{name}")
    with containerd(tmp_path), ctr_container(tmp_path / "root", name, *options):
        row = listed()[f"/default/{name}"]
    assert (row["container"], row["container_id"], row["runtime"], row["found"]) == (
        name, name, "containerd", "state",
    )  # fmt: skip
    assert row["labels"]["app"] == "shop"
    assert row["netns"] != HOST_NETNS


def test_what_a_container_does_is_done_in_its_cgroup(podman: Podman) -> None:
    """A child of the container, in a cgroup below it, is still in the container."""
    name = unique()
    podman.run("--network=host", name=name)
    path = path_of(int(podman.inspect(name, "{{.State.Pid}}")))
    with new_cgroup(HIERARCHY / path.lstrip("/")) as below:
        inner = f"/{below.relative_to(HIERARCHY)}"
        assert Runtimes().find(inner).facts.container == name
