# SPDX-License-Identifier: BSD-2-Clause
"""Names that nobody has yet are said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.errors import did_you_mean
from cgnet.filters import absent
from cgnet.filters.names import NameFilter
from cgnet.owners.cgroup_paths import Facts, place
from cgnet.owners.runtimes import Known
from cgnet.owners.runtimes.found import Found

if TYPE_CHECKING:
    from pathlib import Path


def known(name: str, pod: str | None = None, namespace: str | None = None) -> Known:
    facts = Facts(container=name, pod=pod, pod_namespace=namespace, unit="nginx.service")
    found = Found("docker", "state", name=name)
    return Known(facts, (found,), ("ab" * 32,), place("/x"), expected=False, is_final=True)


KNOWN = [known("web", "web-0", "shop"), known("db")]


def test_a_container_that_nobody_has_is_said_with_the_nearest_name() -> None:
    assert absent.of_names(NameFilter(container=["webb"]), KNOWN) == [
        "no container named webb yet; waiting (did you mean web?); cgnet containers lists them"
    ]
    assert absent.of_names(NameFilter(container=["zzz"]), []) == [
        "no container named zzz yet; waiting; cgnet containers lists them"
    ]


def test_what_somebody_has_isnt_said() -> None:
    wanted = NameFilter(["web", "abab"], ["web-0", "shop/web-0"], ["shop"], ["nginx"])
    assert absent.of_names(wanted, KNOWN) == []


def test_what_is_left_out_isnt_waited_for() -> None:
    assert absent.of_names(NameFilter(container=["!webb"]), KNOWN) == []


def test_pods_namespaces_and_units_are_told_apart() -> None:
    wanted = NameFilter(pod=["other/web-0", "web-1"], pod_namespace=["shopp"], unit=["ngnix"])
    said = absent.of_names(wanted, KNOWN)
    assert [line.partition(";")[0] for line in said] == [
        "no pod named other/web-0 yet",
        "no pod named web-1 yet",
        "no pod namespace named shopp yet",
        "no unit named ngnix.service yet",
    ]
    assert ["did you mean" in line for line in said] == [False, True, True, True]


def test_a_device_is_looked_for_where_processes_live(tmp_path: Path) -> None:
    proc, named = tmp_path / "proc", tmp_path / "named"
    for pid, devices in (("1", ["lo", "eth0"]), ("2", ["lo", "veth1"])):
        (proc / pid / "ns").mkdir(parents=True)
        (proc / pid / "ns/net").touch()
        (proc / pid / "net").mkdir()
        lines = "".join(f"{device:>6}: 0 0\n" for device in devices)
        (proc / pid / "net/dev").write_text(f"Inter-|\n face |\n{lines}")
    assert absent.of_devices(["eth0", "veth1"], proc, named) == []
    assert absent.of_devices(["eht0"], proc, named) == [
        "no network device named eht0 yet; waiting (did you mean eth0?); ip link lists them"
    ]
    named.mkdir()
    (named / "empty").touch()
    (line,) = absent.of_devices(["eht0"], proc, named)
    assert line.startswith("no network device where processes live named eht0 yet; waiting")


def test_the_nearest_name_is_found_in_any_case() -> None:
    assert did_you_mean("econrefused", ["ok", "ECONNREFUSED"]) == " (did you mean ECONNREFUSED?)"
    assert did_you_mean("zzz", ["ok", "ECONNREFUSED"]) == ""
