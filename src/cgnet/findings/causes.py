# SPDX-License-Identifier: BSD-2-Clause
"""The ids of causes that the kernel's reasons of drops stand for: those of ``cgnet why``."""

from __future__ import annotations

from typing import Any

# By the kernel's reason of a drop: the id of what dropped it.
CAUSES = {
    "NO_SOCKET": "no-listener",
    "NETFILTER_DROP": "firewall-drop",
    "BPF_CGROUP_EGRESS": "firewall-drop",
    "SOCKET_FILTER": "firewall-drop",
    "XDP": "firewall-drop",
    "TC_INGRESS": "firewall-drop",
    "TC_EGRESS": "firewall-drop",
    "IP_RPFILTER": "rp-filter",
    "TCP_LISTEN_OVERFLOW": "accept-queue-full",
    "TCP_SYN_QUEUE_FULL": "accept-queue-full",
    "PROTO_MEM": "tcp-memory",
    "SOCKET_RCVBUFF": "tcp-memory",
    "TCP_ZEROWINDOW": "tcp-memory",
    "TCP_OFO_QUEUE_PRUNE": "tcp-memory",
    "TCP_OFO_DROP": "tcp-memory",
    "SOCKET_BACKLOG": "tcp-memory",
    "QDISC_DROP": "qdisc-limit",
    "QDISC_OVERLIMIT": "qdisc-limit",
    "QDISC_CONGESTED": "qdisc-limit",
    "QDISC_CORRUPTED": "qdisc-limit",
    "FQ_FLOW_LIMIT": "qdisc-limit",
    "FQ_BAND_LIMIT": "qdisc-limit",
    "TC_RECLASSIFY_LOOP": "qdisc-limit",
    "PKT_TOO_BIG": "mtu-blackhole",
    "IP_OUTNOROUTES": "no-route",
    "IP_INNOROUTES": "no-route",
    "IP_INADDRERRORS": "no-route",
    "NEIGH_FAILED": "no-route",
    "NEIGH_QUEUEFULL": "no-route",
    "NEIGH_CREATEFAIL": "no-route",
}
OF_CLASS = {"firewall": "firewall-drop", "resource": "qdisc-limit", "configuration": "no-route"}
BY_FUNCTION = {
    "ip_error": "no-route", "ip6_pkt_drop": "no-route",
    "dst_discard": "no-route", "dst_discard_out": "no-route",  # of blackhole routes
    "nf_hook_slow": "firewall-drop", "nft_do_chain": "firewall-drop",
    "sk_filter_trim_cap": "firewall-drop", "ip_finish_output": "firewall-drop",
    "ip6_finish_output": "firewall-drop",
    "__dev_forward_skb2": "mtu-blackhole", "__dev_forward_skb": "mtu-blackhole",
}  # fmt: skip


def function_of(row: dict[str, Any]) -> str:
    """Return the function that dropped a packet, without parts that gcc split off; "" if unknown."""
    return (row.get("location") or "").partition("+")[0].partition(".")[0]


def cause_of(row: dict[str, Any]) -> str | None:
    """Return the id of what a drop is: of its reason, its function, or its class."""
    if row.get("tcp_state") == "TIME_WAIT" and row.get("reason_class") == "peer":
        return "time-wait-refused"
    if row.get("link_down"):
        return "no-route"
    found = CAUSES.get(row.get("reason") or "") or BY_FUNCTION.get(function_of(row))
    return found or OF_CLASS.get(row.get("reason_class") or "")
