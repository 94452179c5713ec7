# SPDX-License-Identifier: BSD-2-Clause
"""The classes of the kernel's drop reasons.

A reason that isn't listed has no class. Kernels before Linux commit c504e5c2f964 "net: skb:
introduce kfree_skb_reason()" (in v5.17) report no reasons: there the class follows from the
function that dropped the packet.
"""

from __future__ import annotations

from cgnet.errors import UsageError, did_you_mean
from cgnet.records._layouts import DropClass

CLASSES = {each: each.name.removeprefix("DROP_").lower() for each in DropClass}
UNSPECIFIED = "NOT_SPECIFIED"

_NAMES: dict[DropClass, str] = {
    DropClass.DROP_BENIGN: """
        CONSUMED QUEUE_PURGE OTHERHOST UNICAST_IN_L2_MULTICAST TCP_OFOMERGE TCP_OLD_DATA TCP_OLD_ACK
        TCP_OLD_SEQUENCE TCP_RFC7323_PAWS_ACK DUP_FRAG LOCAL_MAC PACKET_SOCK_ERROR UNIX_DISCONNECT
        UNIX_SKIP_OOB TCP_RESET TCP_FASTOPEN
    """,
    DropClass.DROP_PEER: """
        TCP_CSUM IP_CSUM SKB_CSUM PKT_TOO_SMALL IP_INHDR HDR_TRUNC TCP_FLAGS TCP_INVALID_SYN
        TCP_INVALID_SEQUENCE TCP_INVALID_END_SEQUENCE TCP_INVALID_ACK_SEQUENCE TCP_TOO_OLD_ACK
        TCP_ACK_UNSENT_DATA TCP_OVERWINDOW TCP_RFC7323_PAWS TCP_RFC7323_TW_PAWS TCP_RFC7323_TSECR
        TCP_MD5NOTFOUND TCP_MD5UNEXPECTED TCP_MD5FAILURE TCP_AUTH_HDR TCP_AONOTFOUND
        TCP_AOUNEXPECTED TCP_AOKEYNOTFOUND TCP_AOFAILURE TCP_MINTTL IPV6_BAD_EXTHDR FRAG_TOO_FAR
        FRAG_REASM_TIMEOUT UNHANDLED_PROTO INVALID_PROTO IP_NOPROTO
    """,
    DropClass.DROP_APPLICATION: """
        NO_SOCKET SOCKET_CLOSE TCP_CLOSE TCP_ABORT_ON_DATA TCP_LISTEN_OVERFLOW SOCKET_RCVBUFF
        SOCKET_BACKLOG TCP_ZEROWINDOW SKB_UCOPY_FAULT
    """,
    DropClass.DROP_RESOURCE: """
        TCP_SYN_QUEUE_FULL
        PROTO_MEM NOMEM CPU_BACKLOG QDISC_DROP QDISC_OVERLIMIT QDISC_CONGESTED CAKE_FLOOD
        FQ_BAND_LIMIT FQ_HORIZON_LIMIT FQ_FLOW_LIMIT DUALPI2_STEP_DROP FULL_RING NEIGH_QUEUEFULL
        TCP_OFO_QUEUE_PRUNE TCP_OFO_DROP PFMEMALLOC SKB_GSO_SEG
    """,
    DropClass.DROP_FIREWALL: """
        NETFILTER_DROP SOCKET_FILTER BPF_CGROUP_EGRESS TC_INGRESS TC_EGRESS XDP XFRM_POLICY SECURITY_HOOK
        TC_CHAIN_NOTFOUND TC_RECLASSIFY_LOOP TC_COOKIE_ERROR TAP_FILTER TAP_TXFILTER
    """,
    DropClass.DROP_CONFIGURATION: """
        IP_RPFILTER IP_OUTNOROUTES IP_INNOROUTES IP_INADDRERRORS IP_LOCAL_SOURCE IP_INVALID_SOURCE
        IP_LOCALNET IP_INVALID_DEST PKT_TOO_BIG IPV6DISABLED NEIGH_CREATEFAIL NEIGH_FAILED NEIGH_DEAD
        NEIGH_HH_FILLFAIL DEV_HDR DEV_READY NO_TX_TARGET IP_TUNNEL_ECN TUNNEL_TXINFO
        VXLAN_INVALID_HDR VXLAN_VNI_NOT_FOUND VXLAN_ENTRY_EXISTS MAC_INVALID_SOURCE
        BRIDGE_INGRESS_STP_STATE RECURSION_LIMIT PSP_INPUT PSP_OUTPUT ICMP_CSUM
    """,
}
BY_REASON = {name: kind for kind, names in _NAMES.items() for name in names.split()}
# For missing or unspecific reasons.
BY_FUNCTION = {
    "nf_hook_slow": DropClass.DROP_FIREWALL,
    "nf_hook_slow_list": DropClass.DROP_FIREWALL,
    "nft_do_chain": DropClass.DROP_FIREWALL,
    "ipt_do_table": DropClass.DROP_FIREWALL,
    "ip6t_do_table": DropClass.DROP_FIREWALL,
    "sk_filter_trim_cap": DropClass.DROP_FIREWALL,
    "do_xdp_generic": DropClass.DROP_FIREWALL,
    "netif_receive_generic_xdp": DropClass.DROP_FIREWALL,
    "veth_xdp_rcv_skb": DropClass.DROP_FIREWALL,
    "ip_finish_output": DropClass.DROP_FIREWALL,
    "ip6_finish_output": DropClass.DROP_FIREWALL,
    "ip_forward": DropClass.DROP_CONFIGURATION,
    "ip6_forward": DropClass.DROP_CONFIGURATION,
    "ip_rcv_finish_core": DropClass.DROP_CONFIGURATION,
    "ip_error": DropClass.DROP_CONFIGURATION,
    "ip6_pkt_drop": DropClass.DROP_CONFIGURATION,
    "ip_fragment": DropClass.DROP_CONFIGURATION,
    "__ip_finish_output": DropClass.DROP_CONFIGURATION,
    "__dev_queue_xmit": DropClass.DROP_RESOURCE,
    "enqueue_to_backlog": DropClass.DROP_RESOURCE,
    "tcp_conn_request": DropClass.DROP_APPLICATION,
    "tcp_v4_syn_recv_sock": DropClass.DROP_APPLICATION,
    "tcp_v6_syn_recv_sock": DropClass.DROP_APPLICATION,
    "tcp_add_backlog": DropClass.DROP_APPLICATION,
    "ip_rcv_core": DropClass.DROP_PEER,
    "ip6_rcv_core": DropClass.DROP_PEER,
    "tcp_validate_incoming": DropClass.DROP_PEER,
}
# Functions that drop packets in ordinary traffic: a close empties its queues, a shaper frees a
# large packet that it has segmented, and multicast reaches hosts without a receiver.
BENIGN_FUNCTIONS = ("sk_stream_kill_queues", "tbf_enqueue", "ip6_mc_input", "inet_sock_destruct")

# They drop packets that find no socket, and packets for sockets in TIME_WAIT.
RECEIVING = ("tcp_v4_rcv", "tcp_v6_rcv")
# They drop packets that they have answered with a reset.
RESETTING = ("tcp_v4_do_rcv", "tcp_v6_do_rcv")


def class_name(kind: int) -> str | None:
    """Return the name of an enum drop_class, which the kernel side sets; None: unknown."""
    return CLASSES[DropClass(kind)] if kind != DropClass.DROP_UNKNOWN else None


def numbers_of(names: tuple[str, ...], known: dict[int, str]) -> dict[int, str]:
    """Return reasons by number, of names with or without the kernel's prefix. Raises UsageError."""
    by_name = {name: number for number, name in known.items()}
    found = {}
    for name in names:
        wanted = name.upper().removeprefix("SKB_DROP_REASON_")
        if wanted not in by_name:
            what = "no such reason in this kernel" if known else "this kernel tells no reasons"
            near = did_you_mean(wanted, by_name)
            raise UsageError(
                f"--reason {name!r}: {what}{near}; cgnet drop --list-reasons shows them"
            )
        found[by_name[wanted]] = wanted
    return found
