# SPDX-License-Identifier: BSD-2-Clause
"""Packets as people see them: a line for each stage."""

from __future__ import annotations

from typing import Any

import pytest
from records import fixed_clock

from cgnet.errors import UsageError
from cgnet.records.schema import CountSchema
from cgnet.render import make_blocks

pytestmark = pytest.mark.usefixtures("utc")
NAMES = ("at", "delta_ns", "cpu", "dev", "netns", "container", "verdict")


def packet(*stages: tuple[Any, ...], **values: Any) -> dict[str, Any]:
    return {
        "ts_ns": 0, "packet": 7, "container": "web", "pod": None, "cgroup": "/x", "cgroup_id": "1",
        "saddr": "10.0.0.1", "sport": 4444, "daddr": "10.0.0.2", "dport": 80, "direction": "tx",
        "tcp_flags": "PA", "seq": 1, "ack": 2, "payload": 9, "retrans_of": None, "reason": None,
        "retrans_after_ns": None, "retransmitted": False, "out_of_order": False,
        "answer_after_ns": None,
        "location": None, "end": "delivered", "total_ns": sum(stage[1] for stage in stages),
        "stages": [dict(zip(NAMES, stage, strict=True)) for stage in stages],
    } | values  # fmt: skip


def block(row: dict[str, Any]) -> list[str]:
    rows: Any = CountSchema("trace", fixed_clock(), ())
    return make_blocks(rows, None).rows([row]).splitlines()


SENT = ("tcp_transmit", 0, 1, None, 9, "web", None)
QUEUED = ("dev_queue", 3330, 1, "eth0", 9, "web", None)
READ = ("app_read", 50_000_000, 0, None, 12, None, None)


def test_a_block_has_the_packet_its_stages_and_its_end() -> None:
    head, first, second, third, end, empty = block(packet(SENT, QUEUED, READ))
    assert head.endswith("#7 web 10.0.0.1:4444 > 10.0.0.2:80 tx [PA] seq 1 ack 2 payload 9")
    assert first.split() == ["+0", "ns", "tcp_transmit", "cpu", "1", "web"]
    assert second.split() == ["+3.33", "µs", "dev_queue", "cpu", "1", "eth0@web"]
    assert third.split()[:4] == ["*", "+50.0", "ms", "app_read"]
    assert third.endswith("netns 12  waiting for the application")
    assert end.strip() == "total 50.0 ms, delivered"
    assert empty == ""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"end": "consumed"}, "consumed"),
        (
            {"end": "dropped", "reason": "NETFILTER_DROP", "location": "nf_hook_slow+0x9"},
            "dropped: NETFILTER_DROP at nf_hook_slow+0x9",
        ),
        ({"end": "dropped"}, "dropped: no reason is told at ?"),
        ({"end": "timeout"}, "nothing more was heard of it"),
    ],
)
def test_how_it_ended(values: dict[str, Any], told: str) -> None:
    assert block(packet(SENT, QUEUED, **values))[-2].endswith(told)


def test_what_waits_at_its_socket_waits_for_the_application() -> None:
    at_socket = ("tcp_receive", 5, 0, None, 9, None, None)
    end = block(packet(SENT, at_socket, end="timeout"))[-2]
    assert end.endswith("still waiting for the application")


def test_what_was_sent_again_names_the_one_before() -> None:
    assert block(packet(SENT, retransmitted=True))[0].endswith("payload 9 again")
    known = {"retransmitted": True, "retrans_of": 3}
    assert block(packet(SENT, **known))[0].endswith("again, after #3")
    late = packet(SENT, **known, retrans_after_ns=204_000_000)
    assert block(late)[0].endswith("again, after #3, 204 ms later")


def test_a_hook_of_the_firewall_has_its_verdict() -> None:
    hook = ("nf_input", 700, 1, None, 9, "web", "drop")
    assert block(packet(SENT, hook))[2].split()[3:] == ["nf_input", "cpu", "1", "web", "drop"]


def test_names_cant_move_the_cursor() -> None:
    text = "\n".join(
        block(packet(("dev_queue", 1, 0, "e\x1b[2J", 9, "w\x9bx", None), container="a\x1bb"))
    )
    assert "\x1b" not in text
    assert "\x9b" not in text


def test_blocks_have_no_columns_to_choose() -> None:
    rows: Any = CountSchema("trace", fixed_clock(), ())
    with pytest.raises(UsageError, match="--fields"):
        make_blocks(rows, ["time"])
