# SPDX-License-Identifier: BSD-2-Clause
"""Connections of real containers carry their names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from harness import Row, Tracer, tracing, unique, wait_until
from podman import Podman

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman") / "containers.conf")
    yield made
    made.close()


def connect_in(podman: Podman, name: str, port: int) -> None:
    podman("exec", name, "/bin/busybox", "nc", "127.0.0.1", str(port))


def row_to(tracer: Tracer, port: int, container: str) -> Row:
    """Wait for the row of a container's connection."""
    found: list[Row] = []

    def came() -> list[Row]:
        rows = [row for row in tracer.rows() if row["dport"] == port and row["comm"] == "busybox"]
        found[:] = [row for row in rows if row["container"] in (container, None)]
        return found

    wait_until(lambda: f"the row of {container}: {tracer}", came)
    return found[0]


def test_a_container_from_before(podman: Podman, hook: str, port: int) -> None:
    name = unique()
    found_id = podman.run("--network=host", "--label=app=shop", name=name)
    with tracing("--hook", hook) as tracer:
        connect_in(podman, name, port)
        row = row_to(tracer, port, name)
    wanted = {
        "container": name,
        "container_id": found_id,
        "image": podman.image,
        "runtime": "podman",
        "labels": {"app": "shop"},
        "owner_source": "learned",
    }
    assert {**row, **wanted} == row


def test_a_container_that_starts_later(podman: Podman, port: int) -> None:
    name = unique()
    with tracing() as tracer:
        podman.run("--network=host", name=name)
        connect_in(podman, name, port)
        row = row_to(tracer, port, name)
    assert (row["container"], row["runtime"]) == (name, "podman")


def test_counts_by_container(podman: Podman, port: int) -> None:
    names = [unique(), unique()]
    for name in names:
        podman.run("--network=host", name=name)
    with tracing("--count", "--by", "container", "--dport", str(port)) as tracer:
        for name in (*names, names[0]):
            connect_in(podman, name, port)
        tracer.stop()
    rows = [row for row in map(json.loads, tracer.lines) if row["type"] == "connect"]
    assert [(row["container"], row["cgroup"], row["count"]) for row in rows] == [
        (names[0], None, 2),
        (names[1], None, 1),
    ]
