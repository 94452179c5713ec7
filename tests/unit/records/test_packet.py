# SPDX-License-Identifier: BSD-2-Clause
"""What is told of a packet: flags, and which way it went."""

from __future__ import annotations

import pytest

from cgnet.records.packet import direction, flags_text


@pytest.mark.parametrize(
    ("flags", "text"),
    [(0x02, "S"), (0x12, "SA"), (0x18, "PA"), (0x11, "FA"), (0x04, "R"), (0xC2, "SEC"), (0, "")],
)
def test_flags(flags: int, text: str) -> None:
    assert flags_text(flags) == text


@pytest.mark.parametrize(
    ("stack", "sent", "way"),
    [
        ("tcp_v4_rcv ip_local_deliver_finish __dev_queue_xmit __tcp_transmit_skb", False, "rx"),
        ("nf_hook_slow __ip_local_out __ip_queue_xmit __tcp_transmit_skb", True, "tx"),
        ("nf_hook_slow ip_forward ip_rcv", False, "forward"),
        ("tbf_enqueue __dev_queue_xmit ip_finish_output2 ip_output ip_rcv", False, "forward"),
        ("__dev_queue_xmit ip_output __ip_queue_xmit __tcp_transmit_skb tcp_v4_rcv", True, "tx"),
        ("ip_rcv_core ip_rcv __netif_receive_skb_one_core", True, "rx"),
        ("codel_dequeue __qdisc_run __dev_queue_xmit __tcp_transmit_skb", False, "forward"),
        ("codel_dequeue __qdisc_run net_tx_action", True, "tx"),
        ("something_else", True, "tx"),
        ("something_else", False, None),
        ("", False, None),
    ],
)
def test_direction(stack: str, sent: bool, way: str | None) -> None:
    frames = tuple(f"{name}+0x1f" for name in stack.split())
    assert direction(frames, sent=sent) == way


def test_parts_that_a_compiler_split_off() -> None:
    assert direction(("tcp_v4_rcv.part.0+0x1 [module]",), sent=False) == "rx"
