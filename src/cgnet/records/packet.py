# SPDX-License-Identifier: BSD-2-Clause
"""TCP flags and direction of a packet."""

from __future__ import annotations

from functools import lru_cache

from cgnet.records._layouts import StageAt

STAGES: dict[int, str] = {
    each: each.name.removeprefix("STAGE_").lower()
    for each in StageAt
    if each != StageAt.STAGE_COUNT
}
NETFILTER = tuple(name for name in STAGES.values() if name.startswith("nf_"))
IN_SUMS_ONLY = frozenset({"retransmit", "answer"})

# RFC 9293, from bit 0 of the flags: as tcpdump(8) writes them.
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
# Output functions. Called by a receiving function, they forward its packet.
LEAVING = frozenset((
    "ip_output", "ip_mc_output", "ip_finish_output", "ip_finish_output2", "ip6_output",
    "ip6_finish_output", "ip6_finish_output2", "__dev_queue_xmit", "br_dev_queue_push_xmit",
    "dev_hard_start_xmit",
))  # fmt: skip
# These dequeue packets of any socket, in the context of any task.
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
    """Return "rx", "tx" or "forward"; None if the stack doesn't show the direction.

    ``stack`` has the innermost function first. The first function with a direction decides: on
    loopback, a packet is received on top of being sent. ``sent``: the packet still has its sending
    socket.
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
