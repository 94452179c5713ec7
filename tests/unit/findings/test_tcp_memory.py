# SPDX-License-Identifier: BSD-2-Clause
"""Which limit of TCP's memory was hit, by the files of cgroups and of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cgnet.findings import tcp_memory
from cgnet.findings.tcp_memory import limit_of_host, limit_of_v1, limit_of_v2
from cgnet.owners.cgroups import Hierarchy

if TYPE_CHECKING:
    from pathlib import Path

NO_LIMIT = 9223372036854771712


def _files(place: Path, **values: object) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (place / name.replace("__", ".")).write_text(f"{value}\n")
    return place


def _v1(place: Path, limit: int, failed: int, most: int = 0) -> Path:
    return _files(
        place,
        memory__kmem__tcp__limit_in_bytes=limit,
        memory__kmem__tcp__usage_in_bytes=limit // 2,
        memory__kmem__tcp__max_usage_in_bytes=most or limit // 2,
        memory__kmem__tcp__failcnt=failed,
    )


def test_the_containers_own_limit(tmp_path: Path) -> None:
    hit = limit_of_v1(_v1(tmp_path / "web", 299008, 17, 299008))
    assert hit
    assert "limit of 299008 bytes" in hit.text
    assert "the most was 299008" in hit.text
    assert hit.evidence["memory.kmem.tcp.failcnt"] == 17
    assert hit.evidence["memory.kmem.tcp.max_usage_in_bytes"] == 299008


def test_the_limit_of_the_pod_above(tmp_path: Path) -> None:
    _v1(tmp_path / "pod", 299008, 0, 303104)  # kernels that don't count what fails
    hit = limit_of_v1(_v1(tmp_path / "pod/web", NO_LIMIT, 0))
    assert hit
    assert f"cgroup {tmp_path / 'pod'} " in hit.text


@pytest.mark.parametrize(("limit", "failed"), [(NO_LIMIT, 0), (NO_LIMIT, 3), (299008, 0)])
def test_a_limit_that_was_not_hit(tmp_path: Path, limit: int, failed: int) -> None:
    assert limit_of_v1(_v1(tmp_path / "web", limit, failed)) is None


@pytest.mark.parametrize(
    ("most", "now", "met", "hit"),
    [
        ("1000", 990, 3, True),
        ("1000", 990, 0, False),
        ("1000", 100, 3, False),
        ("max", 990, 3, False),
    ],
)
def test_the_memory_of_v2(tmp_path: Path, most: str, now: int, met: int, hit: bool) -> None:
    files = {"memory__max": most, "memory__current": now}
    place = _files(tmp_path, **files, memory__events=f"low 0\nmax {met}", memory__stat="sock 77")
    found = limit_of_v2(place)
    assert bool(found) is hit
    if found:
        assert found.evidence["memory.stat sock"] == 77


@pytest.mark.parametrize(("used", "hit"), [(10, False), (190, True), (300, True)])
def test_the_hosts(tmp_path: Path, used: int, hit: bool) -> None:
    _files(tmp_path / "sys/net/ipv4", tcp_mem="100\t200\t300")
    _files(tmp_path / "net", sockstat=f"sockets: used 9\nTCP: inuse 1 orphan 0 alloc 2 mem {used}")
    found = limit_of_host(tmp_path)
    assert bool(found) is hit
    if found:
        assert found.evidence["sockstat TCP mem"] == used


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    assert limit_of_v1(tmp_path) is None
    assert limit_of_v2(tmp_path) is None
    assert limit_of_host(tmp_path) is None


def test_a_process_is_looked_up_in_its_own_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("4:cpu,memory:/web\n1:name=systemd:/x\n0::/there\n")
    (tmp_path / "mount/there").mkdir(parents=True)
    (tmp_path / "mount/web").mkdir()
    mounts = [
        Hierarchy(0, "v2", (), tmp_path / "mount", "/"),
        Hierarchy(4, "memory", ("cpu", "memory"), tmp_path / "mount", "/"),
    ]
    monkeypatch.setattr(tcp_memory, "hierarchies", lambda: mounts)
    assert tcp_memory.directory("v2", 7, "/else", tmp_path) == tmp_path / "mount/there"
    assert tcp_memory.directory("memory", 7, None, tmp_path) == tmp_path / "mount/web"
    assert tcp_memory.directory("memory", None, "/web", tmp_path) == tmp_path / "mount/web"
    assert tcp_memory.directory("memory", None, "/gone", tmp_path) is None
