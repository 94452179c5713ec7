# SPDX-License-Identifier: BSD-2-Clause
"""What is found out of a host without loading anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgnet import loader
from cgnet.commands.doctor import host
from cgnet.kernel import variants
from cgnet.owners.cgroups import Hierarchy

V2 = Hierarchy(0, "v2", ("v2",), Path("/sys/fs/cgroup"), "/")
MEMORY = Hierarchy(7, "memory", ("memory",), Path("/sys/fs/cgroup/memory"), "/")


def test_the_libbpf_in_use_is_named(libbpf_path: Path) -> None:
    version, path = loader.libbpf()
    assert version[0].isdigit()
    assert path == str(libbpf_path)


def test_a_file_that_is_no_btf_of_a_kernel_is_not_taken(tmp_path: Path, built_object: Path) -> None:
    garbage = tmp_path / "vmlinux"
    garbage.write_bytes(b"BTF")
    assert host.btf(garbage)["problem"] == f"{garbage} is no BTF of a kernel"
    assert host.btf(built_object)["problem"] == f"{built_object} is no BTF of a kernel"
    assert host.btf(tmp_path)["problem"] == f"{tmp_path}: Is a directory"
    if variants.KERNEL_BTF.exists():
        assert host.btf(variants.KERNEL_BTF)["problem"] is None


@pytest.mark.parametrize(
    ("mounted", "layout", "owners"),
    [
        ([V2], "v2", "v2"),
        ([MEMORY], "v1", "memory"),
        ([MEMORY, V2], "hybrid", "memory"),
        ([], None, None),
    ],
)
def test_the_cgroup_layout_is_told(
    monkeypatch: pytest.MonkeyPatch,
    mounted: list[Hierarchy],
    layout: str | None,
    owners: str | None,
) -> None:
    monkeypatch.setattr(host, "hierarchies", lambda: mounted)
    found = host.cgroups()
    assert (found["layout"], found["owners"]) == (layout, owners)
    assert [(each["name"], each["id"], each["mount"]) for each in found["hierarchies"]] == [
        (each.name, each.id, str(each.mount)) for each in mounted
    ]
    assert (found["problem"] is None) == bool(mounted)


def test_runtimes_are_known_by_what_root_left_on_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert host.runtimes(tmp_path) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run/docker.sock").symlink_to("/nowhere")  # looked at, not followed
    (tmp_path / "var/lib/containers/storage").mkdir(parents=True)
    monkeypatch.setattr(host, "OWNER", os.geteuid())
    assert host.runtimes(tmp_path) == [
        {"name": "docker", "paths": ["/run/docker.sock"]},
        {"name": "podman", "paths": ["/var/lib/containers/storage"]},
    ]
    monkeypatch.setattr(host, "OWNER", os.geteuid() + 1)
    assert host.runtimes(tmp_path) == []


@pytest.mark.parametrize(
    ("held", "last", "cost"),
    [
        ({38, 21}, 40, {"CAP_BPF": "nothing: CAP_SYS_ADMIN stands for it"}),
        ({38}, 40, {"CAP_BPF": variants.LOADING, "CAP_SYSLOG": variants.SYMBOLS}),
        (set(), 37, {"CAP_SYS_ADMIN": variants.LOADING}),
    ],
)
def test_a_missing_capability_is_told_with_its_cost(
    monkeypatch: pytest.MonkeyPatch, held: set[int], last: int, cost: dict[str, str]
) -> None:
    monkeypatch.setattr(variants, "effective_capabilities", lambda: frozenset(held))
    monkeypatch.setattr(variants, "last_capability", lambda: last)
    rights = {each["capability"]: each for each in host.rights()}
    assert {name for name, each in rights.items() if each["held"]} == {
        each.name for each in variants.CAPABILITIES if each.number in held
    }
    assert {name: rights[name]["cost"] for name in cost} == cost
    assert ("CAP_BPF" in rights) == (last >= variants.CAP_BPF)
