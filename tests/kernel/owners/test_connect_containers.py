# SPDX-License-Identifier: BSD-2-Clause
"""Connections of real containers carry their names."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from harness import HIERARCHY, Row, Tracer, new_cgroup, run, tracing, unique, wait_until
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


def containers_of(tracer: Tracer, port: int) -> list[str | None]:
    """End the tracer; return whose connections to the port it shows."""
    tracer.stop()
    rows = [json.loads(line) for line in tracer.lines]
    return [row["container"] for row in rows if row.get("dport") == port]


def test_filters_by_name(podman: Podman, hook: str, port: int) -> None:
    """Those that are there, and one that starts later; by name, by the beginning of its id, negated."""
    one, other, later = unique("one"), unique("other"), unique("later")
    found_id = podman.run("--network=host", name=one)
    podman.run("--network=host", name=other)
    trace = partial(tracing, "--hook", hook, "--dport", str(port))
    with (
        trace("--container", one) as by_name,
        trace("--container", found_id[:12]) as by_id,
        trace("--container", f"!{one}", "--comm", "busybox") as negated,
        trace("--container", later, "--container", other) as both,
        trace("--container", one, "--container", f"!{found_id[:12]}") as none,
        trace("--container", one, "--uid", "4711") as other_user,
    ):
        connect_in(podman, one, port)
        connect_in(podman, other, port)
        podman.run("--network=host", name=later)
        connect_in(podman, later, port)
        assert containers_of(by_name, port) == [one]
        assert containers_of(by_id, port) == [one]
        assert containers_of(negated, port) == [other, later]
        assert containers_of(both, port) == [other, later]
        assert containers_of(none, port) == []
        assert containers_of(other_user, port) == []


def test_filter_by_pod(podman: Podman, port: int) -> None:
    """The containers of a pod are one, whatever their names; its network is its own."""
    pod, alone = podman.pod(), unique("alone")
    names = [unique(), unique()]
    for name in names:
        podman.run(f"--pod={pod}", name=name)
    podman.run("--network=host", name=alone)
    with tracing("--pod", pod, "--sync-errors", "off") as tracer:
        for name in names:
            podman("exec", name, "/bin/sh", "-c", "/bin/busybox nc 127.0.0.1 9 || true")
        connect_in(podman, alone, port)
        tracer.stop()
    assert [(row["container"], row["pod"]) for row in tracer.rows()] == [
        (name, pod) for name in names
    ]


def test_counts_of_a_container_that_starts_later(podman: Podman, hook: str, port: int) -> None:
    name = unique()
    arguments = ("--count", "--by", "container", "--container", name)
    with tracing("--hook", hook, *arguments) as tracer:
        podman.run("--network=host", name=name)
        for _ in range(3):
            connect_in(podman, name, port)
        run("connect", "127.0.0.1", port)
        tracer.stop()
    rows = [row for row in map(json.loads, tracer.lines) if row["type"] == "connect"]
    assert [(row["container"], row["count"]) for row in rows] == [(name, 3)]


def test_filter_by_unit(port: int) -> None:
    """A unit is a name of a cgroup's path below slices, also of one that is made later."""
    with (
        new_cgroup(HIERARCHY, f"{unique()}.slice") as top,
        tracing("--unit", "cgt-web") as tracer,
        new_cgroup(top, "cgt-web.service") as web,
        new_cgroup(top, "cgt-db.service") as db,
    ):
        made = run("connect", "127.0.0.1", port, cgroups=(web,))
        run("connect", "127.0.0.1", port, cgroups=(db,))
        run("connect", "127.0.0.1", port, cgroups=(top,))
        rows = tracer.stop()
    assert [(row["pid"], row["unit"]) for row in rows] == [(made[0]["pid"], "cgt-web.service")]
