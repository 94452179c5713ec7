# SPDX-License-Identifier: BSD-2-Clause
"""Cgroups by the thousand that look like containers'."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import CGNET, HIERARCHY, PYTHON, new_cgroup, tracing, unique, wait_until
from podman import Podman

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Tracer

CONNECTIONS = 30
MANY = 17_000  # more than are kept
MAX_MORE_MB = 80
# Connects once from each of many cgroups.
CONNECT_FROM_EACH = """
import os, socket, sys
home = open(sys.argv[3], "w")
for name in sorted(os.listdir(sys.argv[1])):
    procs = f"{sys.argv[1]}/{name}/cgroup.procs"
    if os.path.exists(procs):
        with open(procs, "w") as file:
            file.write(str(os.getpid()))
        socket.create_connection(("127.0.0.1", int(sys.argv[2]))).close()
home.write(str(os.getpid()))
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman") / "containers.conf")
    yield made
    made.close()


def looks_like_one() -> str:
    return f"libpod-{uuid.uuid4().hex}{uuid.uuid4().hex}.scope"


@contextmanager
def flood(top: Path) -> Iterator[list[int]]:
    """Make such cgroups and remove them, all the time; yields how many there were."""
    end, count = threading.Event(), [0]

    def make() -> None:
        while not end.is_set():
            path = top / looks_like_one()
            path.mkdir()
            path.rmdir()
            count[0] += 1

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield count
    finally:
        end.set()
        thread.join()


def memory_mb(tracer: Tracer) -> int:
    text = Path(f"/proc/{tracer.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) // 1024


def cpu_s(tracer: Tracer) -> float:
    fields = Path(f"/proc/{tracer.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def connect_in(podman: Podman, name: str, port: int) -> None:
    podman("exec", name, "/bin/busybox", "nc", "127.0.0.1", str(port))


@pytest.mark.parametrize("later", [False, True], ids=["before", "later"])
def test_a_flood_of_new_cgroups_hides_no_container(
    podman: Podman, group: Path, port: int, *, later: bool
) -> None:
    name = unique()
    if not later:
        podman.run("--network=host", name=name)
    with tracing("--container", name, "--port", str(port)) as tracer, flood(group) as count:
        wait_until("a flood", lambda: count[0] > MANY)
        if later:
            podman.run("--network=host", name=name)
        before = memory_mb(tracer)
        for _ in range(CONNECTIONS):
            connect_in(podman, name, port)
        tracer.wait_for(CONNECTIONS)
        assert memory_mb(tracer) - before < MAX_MORE_MB
        rows = tracer.stop()
    assert len(rows) == CONNECTIONS
    assert {row["container"] for row in rows} == {name}


def test_connections_from_many_cgroups_that_look_like_containers_cost_little(
    podman: Podman, group: Path, port: int
) -> None:
    name = unique()
    podman.run("--network=host", name=name)
    with tracing("--container", name, "--port", str(port)) as tracer:
        before = memory_mb(tracer)
        for _ in range(MANY):
            (group / looks_like_one()).mkdir()
        try:
            command = [PYTHON, "-c", CONNECT_FROM_EACH, group, str(port), f"{group}/cgroup.procs"]
            subprocess.run(command, check=True, timeout=60)
            connect_in(podman, name, port)
            tracer.wait_for(1)
            assert memory_mb(tracer) - before < MAX_MORE_MB
            idle_from(tracer)
            begin = time.monotonic()
            (row,) = tracer.stop(signal.SIGTERM)
            assert time.monotonic() - begin < 10
        finally:
            for path in group.iterdir():
                if path.is_dir():
                    path.rmdir()
    assert row["container"] == name


def idle_from(tracer: Tracer) -> None:
    """Wait until it has no more work with them."""

    def idles() -> bool:
        before = cpu_s(tracer)
        time.sleep(0.5)  # what is measured is what it does in this time
        return cpu_s(tracer) - before < 0.1

    wait_until("an idle cgnet", idles)


# -- what a runtime left in its files

ODD = {
    "empty": ("db.sql", b""),
    "random": ("db.sql", bytes(range(256)) * 20),
    "number": ("overlay-containers/containers.json", b"7"),
    "bolt": ("libpod/bolt_state.db", bytes(3 << 20)),
}
IN_STATE_OF_ITS_OWN = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(*arguments):
    if libc.mount(*arguments):
        raise OSError(ctypes.get_errno(), "mount")
assert libc.unshare(0x20000) == 0
mount(b"none", b"/", None, 0x44000, None)
mount(sys.argv[1].encode(), b"/var/lib/containers", None, 0x1000, None)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("odd", ODD)
def test_state_that_is_odd_costs_no_later_container_its_name(
    tmp_path: Path, port: int, odd: str
) -> None:
    """Three containers, one after the other; while the second one runs, the state is broken."""
    storage = tmp_path / "storage"
    folders = [storage / f"overlay-containers/{letter * 64}/userdata" for letter in "abc"]
    path, content = ODD[odd]
    broken = storage / path
    broken.parent.mkdir(parents=True, exist_ok=True)
    program = (PYTHON, "-c", IN_STATE_OF_ITS_OWN, str(tmp_path), CGNET)
    arguments = ("--container", "web0", "--container", "web2", "--port", str(port))
    with new_cgroup(HIERARCHY) as top, tracing(*arguments, program=program) as tracer:
        for number, folder in enumerate(folders):
            folder.mkdir(parents=True)
            found_id = folder.parent.name
            cgroup = f"/{top.name}/libpod-{found_id}"
            annotations = {"io.container.manager": "libpod"}
            config = {"linux": {"cgroupsPath": cgroup}, "annotations": annotations}
            (folder / "config.json").write_text(json.dumps(config))
            names = [{"id": found_id, "names": [f"web{number}"]}]
            (storage / "overlay-containers/containers.json").write_text(json.dumps(names))
            if number == 1:
                broken.write_bytes(content)
            with new_cgroup(top, f"libpod-{found_id}"):
                command = [PYTHON, "-c", CONNECT_FROM_EACH, top, str(port), f"{top}/cgroup.procs"]
                subprocess.run(command, check=True, timeout=60)
                if number == 1:
                    tracer.wait_said(f"{path}: ")
                    broken.unlink()
                else:
                    tracer.wait_for(number // 2 + 1)
        rows = tracer.stop()
    assert [row["container"] for row in rows] == ["web0", "web2"]
