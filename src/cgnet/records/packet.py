# SPDX-License-Identifier: BSD-2-Clause
"""What is told of a packet: its flags, and which way it went."""

from __future__ import annotations

from functools import lru_cache

from cgnet.records._layouts import StageAt

# RFC 9293, from bit 0 of the flags: as tcpdump(8) writes them.

STAGES: dict[int, str] = {
    each: each.name.removeprefix("STAGE_").lower()
    for each in StageAt
    if each != StageAt.STAGE_COUNT
}
NETFILTER = tuple(name for name in STAGES.values() if name.startswith("nf_"))
IN_SUMS_ONLY = frozenset({"retransmit", "answer"})

FLAGS = "FSRPAUEC"
ORDER = "SFRPAUEC"
RECEIVED = (
    "tcp_v4_rcv", "tcp_v6_rcv", "tcp_v4_do_rcv", "tcp_v6_do_rcv", "tcp_rcv_established",
    "tcp_rcv_state_process", "ip_local_deliver", "ip_local_deliver_finish", "ip_rcv", "ip_rcv_core",
    "ip_rcv_finish", "ip6_input", "ip6_input_finish", "ipv6_rcv", "ip6_rcv_core",
    "ip6_rcv_finish", "ip_protocol_deliver_rcu", "ip6_protocol_deliver_rcu", "netif_rx",
    "enqueue_to_backlog", "__netif_receive_skb_core", "__netif_receive_skb_one_core",
)  # fmt: skip
FORWARDED = (
    "ip_forward", "ip_forward_finish", "ip6_forward", "ip6_forward_finish", "br_forward",
    "br_forward_finish", "br_nf_forward_ip",
)  # fmt: skip
SENT = (
    "__ip_queue_xmit", "ip_queue_xmit", "inet6_csk_xmit", "ip6_xmit", "__tcp_transmit_skb",
    "tcp_write_xmit", "ip_build_and_send_pkt", "ip_send_unicast_reply", "tcp_v4_send_reset",
    "tcp_v4_send_ack", "tcp_v6_send_response", "tcp_v4_send_synack", "tcp_v6_send_synack",
)  # fmt: skip
# On the way out. Below one that receives, it is somebody else's packet.
LEAVING = frozenset((
    "ip_output", "ip_mc_output", "ip_finish_output", "ip_finish_output2", "ip6_output",
    "ip6_finish_output", "ip6_finish_output2", "__dev_queue_xmit", "br_dev_queue_push_xmit",
    "dev_hard_start_xmit",
))  # fmt: skip
# Takes packets out of a queue, whoever runs at that moment.
DEQUEUES = frozenset(("__qdisc_run", "qdisc_run", "sch_direct_xmit", "net_tx_action"))
WAYS = {
    **dict.fromkeys(RECEIVED, "rx"),
    **dict.fromkeys(FORWARDED, "forward"),
    **dict.fromkeys(SENT, "tx"),
}


@lru_cache(maxsize=256)
def flags_text(flags: int) -> str:
    """Return TCP flags as letters: "S", "SA", "PA", "FA", "R"."""
    on = {letter for bit, letter in enumerate(FLAGS) if flags >> bit & 1}
    return "".join(letter for letter in ORDER if letter in on)


@lru_cache(maxsize=8192)
def direction(stack: tuple[str, ...], *, sent: bool) -> str | None:
    """Return "rx", "tx" or "forward"; None if the stack doesn't tell.

    The first function on the way out that belongs to one way tells it: on loopback a packet is
    received on top of being sent. ``sent``: the packet still has the socket that sent it.
    """
    leaves = False
    for frame in stack:
        name = frame.partition("+")[0].partition(".")[0]
        if name in DEQUEUES:
            return "tx" if sent else "forward"
        way = WAYS.get(name)
        if way:
            return "forward" if way == "rx" and leaves else way
        leaves = leaves or name in LEAVING
    return "tx" if sent else None
