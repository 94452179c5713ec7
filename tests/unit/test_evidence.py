# SPDX-License-Identifier: BSD-2-Clause
"""What namespaces and cgroups say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.evidence import Look, counters, namespaces, parse_counters, throttling
from cgnet.netns import inside

if TYPE_CHECKING:
    from pathlib import Path

NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 0 12 13
IpExt: InNoRoutes
IpExt: 4
"""


def test_counters() -> None:
    assert dict(parse_counters(NETSTAT)) == {
        "TcpExtSyncookiesSent": 0,
        "TcpExtListenOverflows": 12,
        "TcpExtListenDrops": 13,
        "IpExtInNoRoutes": 4,
    }


def test_names_without_values_are_left_out() -> None:
    assert dict(parse_counters("TcpExt: A B\nTcpExt: 1\nTcpExt: C")) == {"TcpExtA": 1}


def test_a_namespace_that_is_gone(tmp_path: Path) -> None:
    assert inside(tmp_path / "net", lambda: 1) is None
    assert counters(tmp_path / "net") is None


def test_namespaces_by_inode(tmp_path: Path) -> None:
    (tmp_path / "proc/17/ns").mkdir(parents=True)
    place = tmp_path / "proc/17/ns/net"
    place.touch()
    (tmp_path / "proc/18/ns").mkdir(parents=True)
    found = namespaces(tmp_path / "proc", tmp_path / "netns")
    assert found == {place.stat().st_ino: place}


def test_throttling(tmp_path: Path) -> None:
    group = tmp_path / "cpu/shop"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("nr_periods 10\nnr_throttled 4\nthrottled_time 77\n")
    assert throttling("/shop", tmp_path) == {"nr_periods": 10, "nr_throttled": 4}
    assert throttling("/other", tmp_path) is None


def test_throttling_that_is_not_limited(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/cpu.stat").write_text("usage_usec 5\n")
    assert throttling("/shop", tmp_path) is None


def test_of_a_namespace_that_is_not_known_nothing_is_said() -> None:
    look = Look({}, {})
    assert look.grown(1, ("TcpInErrs",)) == {}
    assert look.sysctl(1, "net/ipv4/tcp_rmem") is None
    assert look.queues(1) is None
    assert look.qdiscs(1, "eth0") is None
