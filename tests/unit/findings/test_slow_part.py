# SPDX-License-Identifier: BSD-2-Clause
"""Which part of packets' ways is said to be slow, and in which words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cgnet.counting.counts import Counting
from cgnet.counting.histograms import MICROSECONDS
from cgnet.counting.keys import Key
from cgnet.findings.slow_part import SlowParts
from cgnet.records.packet import STAGES


def companion(*keys: str, netfilter: bool = False, writes: bool = True) -> SlowParts:
    made = SlowParts(Counting([*map(Key, keys), Key("stage")], MICROSECONDS, stages=STAGES))
    names = ["netfilter__both__nf_hook_slow__fentry"] if netfilter else []
    names += ["trace_sock_send_length"] if writes else []
    programs = [SimpleNamespace(name=name) for name in ("trace_tcp_probe", *names)]
    obj: Any = SimpleNamespace(attached=lambda: programs)
    made.begin(obj)
    return made


def told(made: SlowParts, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    made.see(list(rows))
    return made.records()


def row(stage: str, total_ns: int, **keys: Any) -> dict[str, Any]:
    return {"stage": stage, "total_ns": total_ns, "p99_ns": total_ns // 10, **keys}


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("app_read", "application"),
        ("qdisc_dequeue", "qdisc"),
        ("netif_receive", "softirq"),
        ("nf_forward", "netfilter"),
        ("nf_bridge", "netfilter"),
        ("retransmit", "retransmission"),
        ("in_order", "hole"),
        ("nagle", "nagle"),
        ("window", "window"),
        ("answer", "answer"),
        ("tcp_receive", "socket"),
        ("dev_xmit", "stack"),
    ],
)
def test_the_part_with_most_of_the_time_is_named(stage: str, part: str) -> None:
    made = companion(netfilter=True)
    (found,) = told(made, row("ip_rcv", 100_000), row(stage, 900_000))
    assert found == {
        "type": "slow_part", "part": part, "share": 1.0 if part == "stack" else 0.9,
        "stage": stage, "p99_ns": 90_000, "not_covered": ["blocked_write"], "text": found["text"],
    }  # fmt: skip
    assert made.records() == []


@pytest.mark.parametrize(
    ("stage", "total_ns", "part"),
    [
        ("app_read", 5_000, "application"),
        ("in_order", 5_000, "hole"),
        ("app_read", 4_999, "window"),
        ("dev_xmit", 90_000, "window"),
    ],
)
def test_a_wait_for_a_window_is_told_by_what_holds_the_window_up(
    stage: str, total_ns: int, part: str
) -> None:
    (found,) = told(companion(), row("window", 100_000), row(stage, total_ns))
    assert found["part"] == part


def test_time_that_no_stage_has_is_said() -> None:
    (found,) = told(companion(writes=False), row("app_read", 900))
    assert found["not_covered"] == ["blocked_write", "send_queue"]
    assert "sender's queue" in found["text"]


def test_hooks_of_netfilter_are_one_part() -> None:
    rows = (row("nf_input", 300), row("nf_output", 250), row("app_read", 450))
    (found,) = told(companion(netfilter=True), *rows)
    assert (found["part"], found["stage"], found["share"]) == ("netfilter", "nf_input", 0.55)


@pytest.mark.parametrize("stage", ["dev_queue", "tcp_receive", "drop"])
def test_where_netfilter_isnt_told_apart_it_may_be_that(stage: str) -> None:
    (found,) = told(companion(), row(stage, 900), row("dev_xmit", 100))
    assert found["part"] == "stack"
    assert "netfilter" in found["text"]


def test_there_is_a_line_for_each_group() -> None:
    made = companion("container", "role")
    web = {"container": "w\x1bb", "pod": "shop", "pod_namespace": "prod", "cgroup": None}
    none = dict.fromkeys(web)
    records = told(
        made,
        row("app_read", 5_000_000, role="server", **web),
        row("dev_xmit", 50_000, role="server", **web),
        row("qdisc_dequeue", 70_000_000, role="client", **none),
    )
    assert [record["container"] for record in records] == ["w\x1bb", None]
    assert [made.text(record) for record in records] == [
        r"shop/w\x1bb server: 99% of the time: the application is late to read (app_read, p99 500 µs)",
        (
            "client: 100% of the time: a queueing discipline holds packets back "
            "(qdisc_dequeue, p99 7.00 ms)"
        ),
    ]


def test_without_a_group_all_packets_are_one() -> None:
    made = companion()
    (record,) = told(made, row("app_read", 0))
    assert record["share"] == 0.0
    assert made.text(record).startswith("all packets: ")
