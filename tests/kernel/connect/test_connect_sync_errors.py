# SPDX-License-Identifier: BSD-2-Clause
"""Errors that come back before a SYN leaves."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from bpf_programs import refusing_connect
from harness import CGNET, PATIENCE_S, V2, check, ip, listener, new_cgroup, run, tracing

from cgnet.commands.connect.attempts import WAYS

NO_ROUTE = "198.51.100.1"
NO_ROUTE_V6 = "2001:db8::1"


def cgnet(*arguments: str) -> subprocess.CompletedProcess[Any]:
    return subprocess.run([CGNET, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("address", [NO_ROUTE, NO_ROUTE_V6, f"::ffff:{NO_ROUTE}"])
def test_no_route(hook: str, netns: str, address: str) -> None:
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        made = run("connect", address, 80, netns=netns)
        check(tracer, made, result="ENETUNREACH", tcp_state="CLOSE", latency_us=None, dport=80)


def forced(way: str) -> tuple[str, ...]:
    """Return the options of a way; skip the test if this kernel doesn't have it, and says so."""
    needs = {"fexit": {"fentry", "fexit"}, "kprobe": {"kprobe", "kretprobe"}}.get(way, {way})
    report = json.loads(cgnet("doctor", "-o", "json").stdout)
    works = {each["name"] for each in report["features"] if each["works"]}
    how = ("--hook", "raw_tp", "--sync-errors-by", way)
    if not needs <= works:
        assert cgnet("connect", *how, "--duration", "0.1").returncode == 4
        pytest.skip(f"this kernel has no {way}, and cgnet says so")
    return how


@pytest.mark.parametrize("way", list(WAYS))
def test_each_way_forced(way: str, netns: str) -> None:
    """It shows errors of routing, and of a BPF program that lets no call come to TCP."""
    with (
        tracing(*forced(way)) as tracer,
        new_cgroup(V2) as cgroup,
        refusing_connect(cgroup, 4),
        listener() as port,
    ):
        refused = run("connect", "127.0.0.1", port, 2, cgroups=(cgroup,))
        without_route = run("connect", NO_ROUTE, 80, netns=netns)
        assert [row["result"] for row in refused + without_route] == ["EPERM"] * 2 + ["ENETUNREACH"]
        check(tracer, refused + without_route, tcp_state="CLOSE", latency_us=None)


def test_no_permission_by_route(hook: str, netns: str) -> None:
    ip("-n", netns, "route", "add", "prohibit", "198.51.100.0/24")
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        made = run("connect", NO_ROUTE, 80, netns=netns)
        check(tracer, made, result="EACCES", tcp_state="CLOSE")


def test_mptcp_without_a_route(hook: str, netns: str) -> None:
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        check(tracer, run("mptcp", NO_ROUTE, 80, netns=netns), result="ENETUNREACH")


def test_latency_is_null_when_no_syn_left(netns: str) -> None:
    with tracing("--sync-errors", "on") as tracer:
        run("connect", NO_ROUTE, 80, netns=netns)
        (row,) = tracer.wait_for(1)
    assert row["latency_us"] is None


def test_other_attempts_are_not_doubled(hook: str, port: int) -> None:
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        made = run("connect", "127.0.0.1", port, 3) + run("connect", "127.0.0.1", 1, 3)
        assert {row["result"] for row in made} == {"ok", "ECONNREFUSED"}
        check(tracer, made)


def test_filters_apply(group: object, netns: str) -> None:
    with tracing("--sync-errors", "on", "--cgroup", str(group)) as tracer:
        run("connect", NO_ROUTE, 80, netns=netns)
        made = run("connect", NO_ROUTE, 81, netns=netns, cgroups=(group,))
        check(tracer, made, dport=81)
        assert len(tracer.rows()) == 1


def test_auto_says_in_one_line_what_is_not_shown(netns: str, port: int) -> None:
    """This kernel allows neither fexit nor kprobes, or the attempt is shown: never silence."""
    with tracing() as tracer:
        refused = run("connect", NO_ROUTE, 80, netns=netns)
        made = run("connect", "127.0.0.1", port)
        pids = {refused[0]["pid"], made[0]["pid"]}
        tracer.wait_for(1)
        shown = [row for row in tracer.stop() if row["pid"] in pids]
    told = [line for line in tracer.said if "fails before a SYN" in line]
    assert (len(shown), len(told)) in ((1, 1), (2, 0))


def test_off_says_nothing(port: int) -> None:
    with tracing("--sync-errors", "off") as tracer:
        check(tracer, run("connect", "127.0.0.1", port))
    assert not [line for line in tracer.said if "SYN" in line]
