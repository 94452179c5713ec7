# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from cgnet.errors import UsageError
from cgnet.owners.cgroups import Hierarchy, resolve, subtree

if TYPE_CHECKING:
    from pathlib import Path


class Host(NamedTuple):
    """A made-up host with v1 cpu,cpuacct and memory, v2, and a named hierarchy."""

    root: Path
    cpu: Hierarchy
    memory: Hierarchy
    unified: Hierarchy

    def find(self, value: str) -> tuple[Hierarchy, Path]:
        return resolve(value, [self.cpu, self.memory, self.unified], self.memory)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for path in ("cpu,cpuacct/docker/a", "memory/docker/a", "unified/x", "systemd/docker/a"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "memory/cgroup.procs").touch()
    return Host(
        tmp_path,
        Hierarchy(4, "cpu", ("cpu", "cpuacct"), tmp_path / "cpu,cpuacct", "/"),
        Hierarchy(5, "memory", ("memory",), tmp_path / "memory", "/"),
        Hierarchy(0, "v2", ("v2",), tmp_path / "unified", "/"),
    )


def test_a_path_as_mounted_is_found_in_its_hierarchy(host: Host) -> None:
    path = host.root / "unified/x"
    assert host.find(str(path)) == (host.unified, path)


def test_a_path_inside_the_hierarchy_is_found_in_the_chosen_one(host: Host) -> None:
    assert host.find("/docker/a") == (host.memory, host.root / "memory/docker/a")


@pytest.mark.parametrize("value", ["/docker/a/", "/docker//a", "/docker/./a", "/docker/b/../a"])
def test_a_path_may_be_written_untidily(host: Host, value: str) -> None:
    assert host.find(value) == (host.memory, host.root / "memory/docker/a")


@pytest.mark.parametrize("tail", ["/", "/docker/..", "//", "/."])
def test_a_mount_itself_is_the_whole_hierarchy(host: Host, tail: str) -> None:
    assert host.find(f"{host.root}/cpu,cpuacct{tail}") == (host.cpu, host.cpu.mount)


def test_the_root_is_the_whole_hierarchy(host: Host) -> None:
    assert host.find("/") == (host.memory, host.memory.mount)


def test_a_path_that_begins_with_two_slashes_is_the_same_path(host: Host) -> None:
    assert host.find(f"/{host.root}/unified/x") == (host.unified, host.root / "unified/x")


def test_a_path_through_the_usual_link_to_controllers_mounted_together_is_found(
    host: Host,
) -> None:
    """Hosts with v1 link cpu and cpuacct to cpu,cpuacct."""
    (host.root / "cpu").symlink_to("cpu,cpuacct")
    found, path = host.find(f"{host.root}/cpu/docker/a")
    assert (found, path.resolve()) == (host.cpu, host.root / "cpu,cpuacct/docker/a")


def test_a_mount_inside_another_is_preferred(host: Host) -> None:
    inner = Hierarchy(9, "pids", ("pids",), host.root / "unified/x", "/")
    (host.root / "unified/x/y").mkdir()
    path = host.root / "unified/x/y"
    assert resolve(str(path), [host.unified, inner], host.unified) == (inner, path)


def test_a_path_of_a_mount_of_a_part_is_found_inside_and_as_mounted(host: Host) -> None:
    part = host.memory._replace(root="/kubepods")
    path = host.root / "memory/docker/a"
    for value in (str(path), "/kubepods/docker/a"):
        assert resolve(value, [part], part) == (part, path)


@pytest.mark.parametrize(
    "value", ["/nosuch", "docker/a", "", ".", "/docker/a\x1b[31m", "/cgroup.procs"]
)
def test_a_path_that_is_no_cgroup_is_quoted_and_both_forms_shown(host: Host, value: str) -> None:
    with pytest.raises(UsageError) as raised:
        host.find(value)
    assert str(raised.value) == (
        f"--cgroup {value!r}: no such cgroup; give a directory as mounted "
        f"({host.memory.mount}/…) or a path inside the hierarchy memory (/…)"
    )


@pytest.mark.parametrize("path", ["systemd/docker/a", "systemd"])
def test_a_path_of_a_named_hierarchy_is_refused_with_the_usable_mounts(
    host: Host, path: str
) -> None:
    value = str(host.root / path)
    with pytest.raises(UsageError) as raised:
        host.find(value)
    mounts = f"{host.cpu.mount}, {host.memory.mount}, {host.unified.mount}"
    assert str(raised.value) == (
        f"--cgroup {value!r}: lies in no hierarchy that programs can read; usable: {mounts}"
    )


def test_a_subtree_may_be_nested_deeper_than_pythons_stack(tmp_path: Path) -> None:
    nested = [tmp_path]
    for _ in range(1200):
        nested.append(nested[-1] / "n")
        nested[-1].mkdir()
    try:
        assert nested == list(subtree(tmp_path))
    finally:
        for path in reversed(nested[1:]):  # rmtree would recurse
            path.rmdir()
