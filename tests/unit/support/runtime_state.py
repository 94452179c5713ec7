# SPDX-License-Identifier: BSD-2-Clause
"""Fake state of container runtimes, as they store it on disk."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from bolt_file import database

if TYPE_CHECKING:
    from pathlib import Path

ID, OTHER, POD_ID = "a1" * 32, "b2" * 32, "c3" * 32
UID = "0c9bb7a5-6ac4-4f3f-8a8d-8e2c1f4b8d11"
POD_PATH = f"/kubepods/burstable/pod{UID}"
TASKS = "run/containerd/io.containerd.runtime.v2.task"
STORAGE = "var/lib/containers/storage"
USERDATA = STORAGE + "/overlay-containers/{}/userdata/config.json"


def write(root: Path, path: str, content: Any) -> Path:
    """Write JSON, or bytes unchanged."""
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    place.write_bytes(raw)
    return place


def oci(cgroup: str, **annotations: str) -> dict[str, Any]:
    """Return an OCI configuration; __ in an argument's name stands for a dot."""
    return {
        "linux": {"cgroupsPath": cgroup},
        "annotations": {key.replace("__", "."): value for key, value in annotations.items()},
    }


def docker(root: Path, name: str = ID, cgroup: str = "", **config: Any) -> None:
    state = {
        "ID": name,
        "Name": "/web",
        "State": {"Pid": 4242},
        "Config": {"Image": "nginx:1", "Labels": {"app": "shop"}, **config},
    }
    write(root, f"var/lib/docker/containers/{name}/config.v2.json", state)
    write(root, f"{TASKS}/moby/{name}/config.json", oci(cgroup or f"/docker/{name}"))


def containerd(
    root: Path, name: str, cgroup: str, namespace: str = "k8s.io", **annotations: str
) -> None:
    write(root, f"{TASKS}/{namespace}/{name}/config.json", oci(cgroup, **annotations))
    write(root, f"{TASKS}/{namespace}/{name}/init.pid", b"77")


def containerd_labels(root: Path, namespace: str, **labels: dict[str, str]) -> None:
    """Write containerd's database: an image and labels of each container."""
    containers = {
        name.encode(): {
            b"image": b"nginx:2",
            b"labels": {key.encode(): value.encode() for key, value in each.items()},
        }
        for name, each in labels.items()
    }
    raw = database({b"v1": {namespace.encode(): {b"containers": containers}}})
    write(root, "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db", raw)


def podman(root: Path, name: str = ID, cgroup: str = "") -> None:
    spec = oci(cgroup or f"/libpod_parent/libpod-{name}", io__container__manager="libpod")
    write(root, USERDATA.format(name), spec)
    pidfile = f"run/containers/storage/overlay-containers/{name}/userdata/pidfile"
    write(root, pidfile, b"4243\n")


CONTAINER_CONFIG = {
    "name": "db",
    "rootfsImageName": "localhost/db:3",
    "labels": {"tier": "back"},
    "pod": POD_ID,
    "pause": False,
}
POD_CONFIG = {"name": "shop", "id": POD_ID}


def podman_bolt(root: Path, name: str = ID, **config: Any) -> None:
    container = json.dumps({**CONTAINER_CONFIG, **config}).encode()
    tree = {
        b"ctr": {name.encode(): {b"config": container}},
        b"pod": {POD_ID.encode(): {b"config": json.dumps(POD_CONFIG).encode()}},
    }
    write(root, f"{STORAGE}/libpod/bolt_state.db", database(tree))


def podman_sqlite(root: Path, name: str = ID) -> None:
    path = write(root, f"{STORAGE}/db.sql", b"")
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE ContainerConfig (ID TEXT PRIMARY KEY, Name TEXT, JSON TEXT)")
        made.execute("CREATE TABLE PodConfig (ID TEXT PRIMARY KEY, Name TEXT, JSON TEXT)")
        made.execute(
            "INSERT INTO ContainerConfig VALUES (?, 'db', ?)", (name, json.dumps(CONTAINER_CONFIG))
        )
        made.execute(
            "INSERT INTO PodConfig VALUES (?, 'shop', ?)", (POD_ID, json.dumps(POD_CONFIG))
        )
        made.commit()


def process(proc: Path, pid: int, cgroup: str) -> None:
    write(proc, f"{pid}/cgroup", f"5:memory:{cgroup}\n0::/\n".encode())
