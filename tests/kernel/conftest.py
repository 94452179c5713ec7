# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures for tests on the real kernel. They need root."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

pytest.register_assert_rewrite(
    "harness", "attribution", "stage", "drops", "measured", "lives", "ss_lines"
)  # its assertions tell what they compared, too

from attribution import build  # noqa: E402
from harness import (  # noqa: E402
    FORCED,
    HIERARCHIES,
    HIERARCHY,
    V1,
    V2,
    Workload,
    listener,
    new_cgroup,
    new_netns,
)  # fmt: skip
from hidden_events import Witness, watching  # noqa: E402
from owner_lab import Stage  # noqa: E402
from podman import Podman  # noqa: E402
from two_containers import TwoContainers  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


WITNESS = pytest.StashKey[Witness]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", help="force the way of records to user space")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("transport"):
        FORCED.extend(("--transport", config.getoption("transport")))
    if os.geteuid() != 0:
        pytest.exit("these tests load BPF programs: run them as root (make test does)", 1)
    cleanup = ExitStack()
    config.stash[WITNESS] = cleanup.enter_context(watching())
    config.add_cleanup(cleanup.close)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test again if it failed while something happened that no BPF program could see."""
    witness = item.config.stash[WITNESS]
    witness.forget()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed for report in reports) and witness.saw_more():
        print(
            f"\n{item.nodeid} runs again: PID 1 was current when a state changed or a packet came"
        )
        witness.forget()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def need_hierarchy(top: Path) -> None:
    """A host may have v1's cgroups, v2's, or both."""
    if top not in HIERARCHIES:
        pytest.skip(f"this host has no {'v1 memory hierarchy' if top == V1 else 'cgroup2'}")


@pytest.fixture(autouse=True)
def _no_workload_is_left() -> Iterator[None]:
    """A test that fails may leave some that wait."""
    yield
    while Workload.unfinished:
        Workload.unfinished.pop().end()


@pytest.fixture
def witness(request: pytest.FixtureRequest) -> Witness:
    """Who tells what no BPF program saw."""
    return request.config.stash[WITNESS]


@pytest.fixture(params=["tp_btf", "raw_tp"])
def hook(request: pytest.FixtureRequest) -> str:
    """Each of the two kinds of hook, forced."""
    return str(request.param)


@pytest.fixture(params=["memory", "v2"])
def hierarchy(request: pytest.FixtureRequest) -> str:
    """Each of two hierarchies that may name owners."""
    need_hierarchy(V1 if request.param == "memory" else V2)
    return str(request.param)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of attribution.bpf.c's objects."""
    return build(tmp_path_factory.mktemp("bpf"))


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def netns() -> Iterator[str]:
    with new_netns() as name:
        yield name


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of the hierarchy that names owners by default."""
    with new_cgroup(HIERARCHY) as path:
        yield path


@pytest.fixture
def groups() -> Iterator[tuple[Path, Path]]:
    """Two such cgroups."""
    with new_cgroup(HIERARCHY) as one, new_cgroup(HIERARCHY) as other:
        yield one, other


@pytest.fixture
def v1() -> Iterator[Path]:
    """A cgroup of the v1 memory hierarchy."""
    need_hierarchy(V1)
    with new_cgroup(V1) as path:
        yield path


@pytest.fixture
def v2() -> Iterator[Path]:
    need_hierarchy(V2)
    with new_cgroup(V2) as path:
        yield path


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an echo server on 127.0.0.1."""
    with listener() as number:
        yield number


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoContainers]:
    """Two containers and a router between them."""
    podman = Podman(tmp_path_factory.mktemp("podman") / "containers.conf")
    try:
        with TwoContainers(podman) as containers:
            yield containers
    finally:
        podman.close()
