# SPDX-License-Identifier: BSD-2-Clause
"""What namespaces and cgroups say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cgnet.findings.evidence import (
    Look,
    Socket,
    counters,
    dropping_hooks,
    living_in,
    namespaces,
    parse_conntrack,
    parse_counters,
    parse_sockets,
    place_of,
    throttling,
)
from cgnet.owners.netns import OWN, inside

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


TCP = """\
  sl  local_address rem_address   st tx_queue
   0: 0200000A:AFC8 01005D0A:0050 02 00000000
   1: 00000000:AFC8 00000000:0000 0A 00000000
   2: 0200000A:0050 0300000A:AFC8 01 00000000
   3: 0000000000000000FFFF00000200000A:AFC8 0000000000000000FFFF000001005D0A:0051 01 00000000
   4: 00000000000000000000000001000000:AFC8 00000000000000000000000001000000:0052 01 00000000
"""


def test_sockets_at_a_port() -> None:
    assert list(parse_sockets(TCP, 45000)) == [
        Socket("10.0.0.2", 45000, "10.93.0.1", 80),
        Socket("10.0.0.2", 45000, "10.93.0.1", 81),
        Socket("::1", 45000, "::1", 82),
    ]


def test_who_lives_in_a_namespace(tmp_path: Path) -> None:
    for pid, cgroup in ((17, "/web"), (18, "/web"), (19, "/other")):
        (tmp_path / f"{pid}/ns").mkdir(parents=True)
        (tmp_path / f"{pid}/cgroup").write_text(f"0::{cgroup}")
    (tmp_path / "17/ns/net").touch()
    inode = (tmp_path / "17/ns/net").stat().st_ino
    for pid in (18, 19):
        (tmp_path / f"{pid}/ns/net").hardlink_to(tmp_path / "17/ns/net")
    found = list(living_in(inode, tmp_path))
    assert len(found) == 2
    assert 19 in found
    assert list(living_in(inode + 1, tmp_path)) == []


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


CONNTRACK = """\
entries  clashres found new insert_failed drop early_drop
00000002  00000000 00000000 00000000 0000000a 00000001 00000000
00000002  00000000 00000000 00000000 00000002 00000001 00000003
"""


def test_connection_tracking_is_summed_up_over_the_cpus() -> None:
    found = dict(parse_conntrack(CONNTRACK))
    assert found["conntrack_insert_failed"] == 12
    assert (found["conntrack_drop"], found["conntrack_early_drop"]) == (2, 3)
    assert dict(parse_conntrack("")) == {}


def _chain(name: str, hook: str = "", policy: str = "accept") -> dict[str, Any]:
    base = {"hook": hook, "policy": policy} if hook else {}
    return {"chain": {"family": "ip", "table": "t", "name": name} | base}


def _rule(chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "t", "chain": chain, "expr": list(expressions)}}


MATCH = {"match": {"op": "==", "left": {}, "right": 9}}


@pytest.mark.parametrize(
    ("ruleset", "found"),
    [
        ([], {}),
        ([_chain("in", "input")], {}),
        ([_chain("in", "input", "drop")], {"input": 1}),
        ([_chain("in", "input"), _rule("in", MATCH, {"drop": None})], {"input": 1}),
        ([_chain("p", "postrouting"), _rule("p", {"masquerade": None})], {}),
        ([_chain("in", "input"), _chain("x"), _rule("x", {"reject": None})], {}),
        (
            [
                _chain("in", "forward"),
                _chain("x"),
                _rule("in", {"jump": {"target": "x"}}),
                _rule("x", {"jump": {"target": "in"}}),
                _rule("x", {"reject": {"type": "tcp reset"}}),
            ],
            {"forward": 1},
        ),
        (
            [
                _chain("in", "forward"),
                _rule("in", {"vmap": {"key": {}, "data": {}}}),
                _rule("x", {"xt": {"type": "target", "name": "DROP"}}),
            ],
            {"forward": 1},
        ),
    ],
)
def test_hooks_whose_rules_drop(ruleset: list[dict[str, Any]], found: dict[str, int]) -> None:
    assert dropping_hooks(ruleset) == found


def test_how_a_namespace_is_called() -> None:
    assert place_of(7, Path("/run/netns/a b")) == ("network namespace a b", "ip netns exec 'a b' ")
    assert place_of(7, Path("/proc/9/ns/net")).enter == "nsenter --net=/proc/9/ns/net "
    assert "is gone" in place_of(7, None).name
    assert place_of(OWN.stat().st_ino, OWN) == ("cgnet's own network namespace", "")
