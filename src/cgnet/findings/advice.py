# SPDX-License-Identifier: BSD-2-Clause
"""Advice on drops by reason, and its evidence.

Advice claims only what its evidence shows. Without evidence it explains the reason.
"""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.kernel.program_stats import EGRESS, INGRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.findings.evidence import Look, Queue

    Evidence = dict[str, Any]
    Advisor = Callable[["Seen", "Look"], tuple[str, Evidence]]

LOOPBACK = ("127.", "::1")
ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound to


class Seen(NamedTuple):
    """Drops of one reason, owner and network namespace; other fields are those of the last one."""

    reason: str | None
    reason_class: str | None
    netns: int
    location: str | None = None
    container: str | None = None
    cgroup: str | None = None
    pid: int | None = None
    dev: str | None = None
    saddr: str | None = None
    sport: int | None = None
    daddr: str | None = None
    dport: int | None = None
    tcp_flags: str | None = None
    tcp_state: str | None = None
    direction: str | None = None
    stack: tuple[str, ...] = ()
    drops: int = 0


def _at_port(seen: Seen, look: Look) -> list[Queue] | None:
    found = look.queues(seen.netns)
    return None if found is None else [each for each in found if each.port == seen.dport]


TRANSLATED = (
    "an address was translated on the way there and not on the way back (NAT whose entry is gone, "
    "or that takes the packet for INVALID), or the answer came another way (asymmetric routes)"
)


def _astray(seen: Seen, look: Look) -> tuple[str, Evidence]:
    """Return advice on a packet that isn't a connection's first one and finds no socket."""
    sockets = look.sockets(seen.netns, seen.dport) if seen.dport else []
    others = [each for each in sockets if (each.peer, each.peer_port) != (seen.saddr, seen.sport)]
    if others and seen.saddr and "/" not in seen.saddr:
        peer = f"{others[-1].peer} port {others[-1].peer_port}"
        text = (
            f"what came from {seen.saddr} port {seen.sport} is for port {seen.dport}, whose socket "
            f"here talks to {peer}: {TRANSLATED}"
        )
        return text, {"sockets": [f"{each.peer}:{each.peer_port}" for each in others]}
    if seen.tcp_flags == "SA":
        text = (
            "answers to connections that no socket here makes: it has given up, a SYN was forged "
            f"with its address, or {TRANSLATED}"
        )
        return text, {}
    text = "segments of connections that aren't there any more, or never were"
    return f"{text}; who sent data is told by a reset ('connection reset by peer')", {}


def _flags(seen: Seen, look: Look) -> tuple[str, Evidence]:
    if seen.tcp_flags == "SA":
        return _astray(seen, look)
    return "flags that don't fit the state of the connection: a scan, or a broken sender", {}


def _no_socket(seen: Seen, look: Look) -> tuple[str, Evidence]:
    if seen.tcp_flags is not None and seen.tcp_flags != "S":
        return _astray(seen, look)
    if seen.dport is None:  # counted by keys without the port
        text = "nobody listens at the ports that they went to, or their connections are gone"
        return f"{text}; count by dport to see the ports", {}
    # A count may be of a whole network, or of all addresses.
    called = None if seen.daddr is None or "/" in seen.daddr else seen.daddr
    listeners = _at_port(seen, look)
    if listeners is None:
        return f"nobody listens at {f'{called} ' if called else ''}port {seen.dport}", {}
    evidence = {"listeners": [f"{each.address}:{each.port}" for each in listeners]}
    addresses = sorted({each.address for each in listeners})
    return _by_listeners(seen.dport, called, addresses), evidence


def _by_listeners(port: int, called: str | None, addresses: list[str]) -> str:
    """Return why no listener took a connection, from the current listeners at its port."""
    if not addresses:
        return f"nobody listens at port {port} in that network namespace"
    places = ", ".join(addresses)
    if all(each.startswith(LOOPBACK) for each in addresses):
        where = called or "the called address"
        return f"the server at port {port} listens on {places} alone; have it listen on {where}"
    if any(each in (*ANY, called) for each in addresses):
        return f"somebody listens at port {port} by now, and didn't when it was called"
    if called:
        return f"the server at port {port} listens on {places}, not on {called}"
    return f"the server at port {port} listens on {places} alone, and may be called elsewhere"


RESET = (
    ", answered by a reset, which the sender sees as 'connection reset by peer' or 'broken pipe'. "
    "Often the client used an idle connection again when the server's keep-alive time-out had just "
    "closed it: let the client's idle time-out be the shorter one, or let it try again"
)


def _after_close(seen: Seen, look: Look) -> tuple[str, Evidence] | None:
    """Return advice on data that came after close, for which kernels have many reasons or none."""
    resets = look.grown(seen.netns, ("TcpOutRsts", "TcpExtTCPAbortOnData"))
    evidence: Evidence = {name: each for name, each in resets.items() if each}
    nothing_said = seen.reason in ("NOT_SPECIFIED", "TCP_FLAGS", None)
    if seen.reason == "TCP_ABORT_ON_DATA":
        return f"data for a connection that this side had closed{RESET}", evidence
    if not nothing_said or seen.reason_class != "application":
        return None
    if seen.tcp_state == "TIME_WAIT":
        return f"data for a connection that this side had closed{RESET}", evidence
    if seen.tcp_state == "LISTEN" or (seen.location or "").startswith(("tcp_v4_do_", "tcp_v6_do_")):
        text = "data for a connection that this side had closed, or had before the server was restarted"
        return f"{text}{RESET}", evidence
    return None


def _refused_by_time_wait(seen: Seen, look: Look) -> tuple[str, Evidence] | None:
    if seen.tcp_state != "TIME_WAIT" or seen.reason_class != "peer":
        return None
    text = (
        "a connection from a port whose last one is in TIME_WAIT here, and whose sequence number "
        "or time stamp isn't newer: the client, or a NAT, uses its ports again too soon"
    )
    value = look.sysctl(seen.netns, "net/ipv4/tcp_timestamps")
    return text, {"net.ipv4.tcp_timestamps": value} if value else {}


def _overflow(seen: Seen, look: Look) -> tuple[str, Evidence]:
    names = ("TcpExtListenOverflows", "TcpExtListenDrops")
    evidence: Evidence = dict(look.grown(seen.netns, names))
    text = "the application accepts connections too slowly for its listen() backlog"
    listeners = _at_port(seen, look)
    if listeners:
        fullest = max(listeners, key=lambda each: each.length - each.limit)
        evidence |= {"accept_queue": fullest.length, "backlog": fullest.limit}
        text += f"; now {fullest.length} wait, and {fullest.limit} are allowed"
    most = look.sysctl(seen.netns, "net/core/somaxconn")
    if most is not None:
        evidence["net.core.somaxconn"] = int(most)
        if listeners and max(each.limit for each in listeners) >= int(most):
            text += f"; net.core.somaxconn there is {most}: raise it, then the backlog"
    return _with_throttling(seen, look, text, evidence)


def _syn_queue(seen: Seen, look: Look) -> tuple[str, Evidence]:
    grown = look.grown(seen.netns, ("TcpExtTCPReqQFullDrop", "TcpExtListenDrops"))
    evidence: Evidence = {name: each for name, each in grown.items() if each}
    text = (
        "the queue of half-open connections is full: a flood of SYNs, or clients that the answer "
        "doesn't reach, or that don't answer it"
    )
    bounds = []
    for name in ("tcp_max_syn_backlog", "tcp_syncookies"):
        value = look.sysctl(seen.netns, f"net/ipv4/{name}")
        if value is not None:
            evidence[f"net.ipv4.{name}"] = int(value)
            bounds.append(f"net.ipv4.{name} there is {value}")
    listeners = _at_port(seen, look)
    if listeners:
        evidence["backlog"] = least = min(each.limit for each in listeners)
        bounds.append(f"the listener's backlog {least}")
    if evidence.get("net.ipv4.tcp_syncookies") == 0:
        bounds.append("SYN cookies (tcp_syncookies 1) would let real clients in")
    return "; ".join((text, *bounds)), evidence


def _with_throttling(seen: Seen, look: Look, text: str, evidence: Evidence) -> tuple[str, Evidence]:
    """Add the owner's CPU throttling, if there was any."""
    cpu = look.throttling(seen.cgroup) if seen.cgroup else None
    if cpu and cpu["nr_throttled"]:
        evidence |= cpu
        text += (
            f"; its CPU limit held it up in {cpu['nr_throttled']} of {cpu['nr_periods']} periods "
            "since it was started"
        )
    return text, evidence


def _memory(seen: Seen, look: Look) -> tuple[str, Evidence]:
    names = ("TcpExtTCPRcvQDrop", "TcpExtPruneCalled", "TcpExtRcvPruned", "TcpExtTCPRcvCollapsed")
    evidence: Evidence = {
        key: grown for key, grown in look.grown(seen.netns, names).items() if grown
    }
    limit = look.memory(seen.netns, seen.pid, seen.cgroup)
    if limit:
        return limit.text, evidence | limit.evidence
    text = "no room for what came in: the application reads too slowly, or memory is short"
    sizes = look.sysctl(seen.netns, "net/ipv4/tcp_rmem")
    if sizes:
        evidence["net.ipv4.tcp_rmem"] = sizes
        text += f"; receive buffers there grow to {sizes.split()[-1]} bytes (net.ipv4.tcp_rmem)"
    return _with_throttling(seen, look, text, evidence)


def _backlog(seen: Seen, look: Look) -> tuple[str, Evidence]:
    evidence: Evidence = dict(look.grown(seen.netns, ("TcpExtTCPBacklogDrop",)))
    text = "packets came faster than the process that held the socket could take them"
    return _with_throttling(seen, look, text, evidence)


# The callers of netfilter's hooks, without suffixes such as .part.0.
HOOKS = {
    **dict.fromkeys(
        ("ip_rcv", "ipv6_rcv", "ip_list_rcv", "ipv6_list_rcv", "ip_sublist_rcv", "ip6_sublist_rcv"),
        "prerouting",
    ),
    **dict.fromkeys(("ip_local_deliver", "ip6_input", "ip6_mc_input"), "input"),
    **dict.fromkeys(("ip_forward", "ip6_forward"), "forward"),
    **dict.fromkeys(("__ip_local_out", "__ip6_local_out", "ip6_xmit"), "output"),
    **dict.fromkeys(("ip_output", "ip_mc_output", "ip6_output"), "postrouting"),
    **dict.fromkeys(("__netif_receive_skb_core",), "ingress"),
    **dict.fromkeys(("__dev_queue_xmit",), "egress"),
}
HOOK_CALLS = ("nf_hook_slow", "nf_hook_slow_list")
OF_RULES = ("nft_do_chain", "ipt_do_table", "ip6t_do_table")  # they drop only on behalf of a rule


def hook_of(stack: Iterable[str]) -> str | None:
    """Return the netfilter hook that a packet was in, by its stack; None if unknown."""
    names = [frame.partition("+")[0].partition(".")[0] for frame in stack]
    for name, caller in pairwise(names):
        if name in HOOK_CALLS and caller not in HOOK_CALLS:
            return HOOKS.get(caller)
    return None


CONNTRACK = ("conntrack_insert_failed", "conntrack_drop", "conntrack_early_drop")


def _conntrack(seen: Seen, look: Look) -> tuple[str, int, Evidence] | None:
    """Return advice if connection tracking dropped packets, how many, and its evidence."""
    lately = look.grown_lately(seen.netns, CONNTRACK)
    failed, dropped, early = (lately.get(name, 0) for name in CONNTRACK)
    names = ("count", "max")
    values = [look.sysctl(seen.netns, f"net/netfilter/nf_conntrack_{name}") for name in names]
    evidence: Evidence = {name: each for name, each in lately.items() if each}
    if all(values):
        count, most = (int(value) for value in values if value)
        evidence |= {"nf_conntrack_count": count, "nf_conntrack_max": most}
        if count >= most and (dropped or "conntrack_drop" not in lately):
            text = f"the table of connections is full, {count} of {most}: raise nf_conntrack_max"
            return text, dropped or max(seen.drops, 1), evidence
    if failed:
        text = (
            "connection tracking could not add the connections: no source port was left for NAT to that "
            "destination, or two had the same addresses and ports (insert_failed). More addresses or a "
            "wider range of ports to translate to, or fewer connections to one destination, help"
        )
        return text, max(failed, dropped), evidence
    if dropped:
        text = (
            "the table of connections was full for a while (drop); raise nf_conntrack_max, or let "
            "connections be forgotten sooner (nf_conntrack_tcp_timeout_*)"
        )
        return text, dropped, evidence
    return ("", 0, evidence) if early or evidence else None


def _by_rules(seen: Seen, look: Look, hook: str | None) -> tuple[str, bool]:
    """Return advice on the rules that may have dropped packets, and whether there are any."""
    place = look.place(seen.netns)
    found = look.rules(seen.netns)
    if found is None:
        where = f" of the {hook} hook" if hook else ""
        return (
            f"a firewall rule{where} in {place.name}: '{place.enter}nft list ruleset' there",
            True,
        )
    hook = next(iter(found)) if not hook and len(found) == 1 else hook
    if hook and found.get(hook):
        text = f"a firewall rule of the {hook} hook in {place.name}"
        return f"{text}: '{place.enter}nft list ruleset' shows it", True
    if found:
        text = f"a firewall rule in {place.name}, of the hooks that have such: {', '.join(found)}"
        return f"{text}; '{place.enter}nft list ruleset' shows it", True
    text = f"no rule in {place.name} drops packets now, by '{place.enter}nft list ruleset'"
    return (
        f"{text}: it is gone by now, or a module or BPF program at a hook of netfilter did",
        False,
    )


def _firewall(seen: Seen, look: Look) -> tuple[str, Evidence]:
    hook = hook_of(seen.stack)
    tracked = None if (seen.location or "").startswith(OF_RULES) else _conntrack(seen, look)
    evidence: Evidence = tracked[2] if tracked else {}
    if hook:
        evidence = {"hook": hook} | evidence
    if not tracked or not tracked[1]:
        return _by_rules(seen, look, hook)[0], evidence
    text, count, _ = tracked
    text = (
        f"{text} (in {look.place(seen.netns).name}; '{look.place(seen.netns).enter}conntrack -S')"
    )
    rule, there = _by_rules(seen, look, hook)
    if count < seen.drops and there:
        text = f"{count} of them: {text}; the others: {rule}"
    return text, evidence


def _cgroup_program(seen: Seen, look: Look, kind: int) -> tuple[str, Evidence]:
    """Return advice on the BPF programs of the owner's cgroup that may have dropped packets."""
    way = {INGRESS: "ingress", EGRESS: "egress"}[kind]
    found = look.programs(seen.pid, seen.cgroup, kind)
    if found is None:
        return f"a BPF program at a cgroup ({way}): 'bpftool cgroup tree' lists them", {}
    cgroup, programs = found
    if not programs:
        return "", {}
    told = ", ".join(f"{number} {name}".strip() for number, name in programs.items())
    text = (
        f"a BPF program at the cgroup, or one above it ({way}): {told}; 'bpftool cgroup show "
        f"{shlex.quote(str(cgroup))} effective' lists them"
    )
    if any(name.startswith("sd_fw_") for name in programs.values()):
        text += ". It is systemd's: IPAddressDeny= of the unit, or of a slice above"
    each = [{"id": number, "name": name} for number, name in programs.items()]
    return text, {"cgroup_v2": str(cgroup), "programs": each}


def _socket_filter(seen: Seen, look: Look) -> tuple[str, Evidence]:
    text, evidence = _cgroup_program(seen, look, INGRESS)
    if seen.reason_class != "firewall":  # the socket has a filter
        own = "a filter that the application has set itself (SO_ATTACH_FILTER, SO_ATTACH_BPF)"
        return f"{own}; or {text}" if evidence else own, evidence
    if not text:
        text = "no BPF program is at the cgroup now: one that is gone, or a security module, as SELinux"
    return text, evidence


def _cgroup_egress(seen: Seen, look: Look) -> tuple[str, Evidence]:
    text, evidence = _cgroup_program(seen, look, EGRESS)
    return text or "a BPF program at the cgroup (egress), which is gone by now", evidence


def _at_device(text: str, *commands: str) -> Advisor:
    """Return an advisor with a text, and commands that are formatted with a device's name."""

    def advise(seen: Seen, look: Look) -> tuple[str, Evidence]:
        place = look.place(seen.netns)
        dev = shlex.quote(seen.dev or "DEVICE")
        said = " or ".join(f"'{place.enter}{each.format(dev=dev)}'" for each in commands)
        where = f" at device {seen.dev}" if seen.dev else ""
        return f"{text}{where} in {place.name}: {said} shows it", {}

    return advise


_TOO_LARGE = _at_device(
    "larger than the other end of a link takes (its MTU is smaller), which tells nobody,",
    "ip link show dev {dev}",
)
_XDP = _at_device("an XDP program", "ip -d link show dev {dev}", "bpftool net show dev {dev}")


def _refusing_route(seen: Seen, look: Look) -> tuple[str, Evidence]:
    place = look.place(seen.netns)
    to = seen.daddr if seen.daddr and "/" not in seen.daddr else "ADDRESS"
    text = f"{place.name} has no route to it, or one that refuses it (blackhole, unreachable, prohibit)"
    return f"{text}: '{place.enter}ip route get {to}' tells", {}


def _queue(seen: Seen, look: Look) -> tuple[str, Evidence]:
    if seen.dev and look.is_running(seen.netns, seen.dev) is False:
        place = look.place(seen.netns)
        show = f"'{place.enter}ip link show dev {shlex.quote(seen.dev)}' shows it"
        return f"device {seen.dev} in {place.name}, or the link behind it, is down: {show}", {}
    whose = f"the queue of device {seen.dev}" if seen.dev else "a device's queue"
    text = f"{whose} is full, or shapes what it sends"
    found = look.qdiscs(seen.netns, seen.dev) if seen.dev else None
    if not found:
        return text, {}
    told = [f"{each['kind']} dropped {each.get('drops', '?')}" for each in found]
    return f"{text}: {', '.join(told)} since it was made", {"qdiscs": found}


def _reverse_path(seen: Seen, look: Look) -> tuple[str, Evidence]:
    text = f"the route back doesn't lead through {seen.dev or 'the device they came by'}"
    evidence: Evidence = {}
    for device in ("all", seen.dev):
        value = device and look.sysctl(seen.netns, f"net/ipv4/conf/{device}/rp_filter")
        if value:
            evidence[f"net.ipv4.conf.{device}.rp_filter"] = int(value)
    if evidence:
        told = ", ".join(f"{name} is {value}" for name, value in evidence.items())
        text += f"; {told} (1 is strict, 2 is loose, the greater one holds)"
    return text, evidence


def _grown(*names: str, text: str) -> Advisor:
    """Return an advisor with a text, and those of some counters that grew."""

    def advise(seen: Seen, look: Look) -> tuple[str, Evidence]:
        grown = look.grown(seen.netns, names)
        return text, {name: each for name, each in grown.items() if each}

    return advise


def _settings(*names: str, text: str) -> Advisor:
    """Return an advisor with a text and some settings."""

    def advise(seen: Seen, look: Look) -> tuple[str, Evidence]:
        found = {name: look.sysctl(seen.netns, name) for name in names}
        return text, {name.replace("/", "."): value for name, value in found.items() if value}

    return advise


def _signed(text: str, *names: str) -> Advisor:
    """Return an advisor on signatures (TCP MD5, as of BGP; TCP-AO)."""
    return _grown(
        *names, text=f"{text}; see TCP_MD5SIG and TCP_AO_* in tcp(7), for BGP its password"
    )


_CHECKSUM = _grown(
    "TcpInCsumErrors",
    "IpInHdrErrors",
    text="damaged on the way, or a sender that leaves checksums to a device that doesn't make them",
)
_HOPS = _grown(
    "IpInHdrErrors",
    "Ip6InHdrErrors",
    text="its header is wrong, or its hops (TTL) were used up: a routing loop, or a low limit",
)
_SEQUENCE = _grown(
    "TcpExtTCPChallengeACK",
    "TcpExtTCPACKSkippedSeq",
    text="not what the connection expects next: late, beyond its window, forged, or changed by NAT",
)
_STAMPS = _settings(
    "net/ipv4/tcp_timestamps",
    text="its timestamp is older than the last one: often several hosts behind one address of a NAT",
)
BY_REASON: dict[str, Advisor] = {
    "NO_SOCKET": _no_socket,
    "TCP_LISTEN_OVERFLOW": _overflow,
    "TCP_SYN_QUEUE_FULL": _syn_queue,
    "PROTO_MEM": _memory,
    "SOCKET_RCVBUFF": _memory,
    "TCP_ZEROWINDOW": _memory,
    "TCP_OFO_QUEUE_PRUNE": _memory,
    "TCP_OFO_DROP": _memory,
    "SOCKET_BACKLOG": _backlog,
    "NETFILTER_DROP": _firewall,
    "SOCKET_FILTER": _socket_filter,
    "BPF_CGROUP_EGRESS": _cgroup_egress,
    "XDP": _XDP,
    "TC_INGRESS": _at_device(
        "a BPF program or filter of traffic control",
        "tc filter show dev {dev} ingress",
        "bpftool net show dev {dev}",
    ),
    "TC_EGRESS": _at_device(
        "a BPF program or filter of traffic control",
        "tc filter show dev {dev} egress",
        "bpftool net show dev {dev}",
    ),
    "QDISC_DROP": _queue,
    "QDISC_OVERLIMIT": _queue,
    "QDISC_CONGESTED": _queue,
    "FQ_FLOW_LIMIT": _queue,
    "FQ_BAND_LIMIT": _queue,
    "IP_RPFILTER": _reverse_path,
    "TCP_FLAGS": _flags,
    "TCP_INVALID_SYN": _grown(
        "TcpExtTCPSYNChallenge",
        "TcpExtTCPChallengeACK",
        text="a SYN for a connection that is open here: its other side has forgotten it, as after "
        "a restart, or a NAT gave its port to another. It is asked back (challenge ACK), and may "
        "connect when its next SYN comes",
    ),
    "TCP_MD5NOTFOUND": _signed(
        "without the signature (TCP MD5) that this side wants: the sender has no key",
        "TcpExtTCPMD5NotFound",
    ),
    "TCP_MD5UNEXPECTED": _signed(
        "signed (TCP MD5), but this side has no key for that address",
        "TcpExtTCPMD5Unexpected",
    ),
    "TCP_MD5FAILURE": _signed(
        "signed (TCP MD5) with another key than this side has for that address",
        "TcpExtTCPMD5Failure",
    ),
    "TCP_AONOTFOUND": _signed(
        "without the signature (TCP-AO) that this side wants: the sender has no key",
        "TcpExtTCPAORequired",
    ),
    "TCP_AOUNEXPECTED": _signed(
        "signed (TCP-AO), but this side has no key for that address",
        "TcpExtTCPAOKeyNotFound",
    ),
    "TCP_AOKEYNOTFOUND": _signed(
        "signed (TCP-AO) by a key whose number this side doesn't have",
        "TcpExtTCPAOKeyNotFound",
    ),
    "TCP_AOFAILURE": _signed(
        "signed (TCP-AO) with another key than this side has by that number",
        "TcpExtTCPAOBad",
    ),
    "TCP_AUTH_HDR": _signed("signed by TCP MD5 and TCP-AO at once, or its signature is broken"),
    "TCP_CSUM": _CHECKSUM,
    "IP_CSUM": _CHECKSUM,
    "IP_INHDR": _HOPS,
    "TCP_INVALID_SEQUENCE": _SEQUENCE,
    "TCP_INVALID_END_SEQUENCE": _SEQUENCE,
    "TCP_INVALID_ACK_SEQUENCE": _SEQUENCE,
    "TCP_OVERWINDOW": _SEQUENCE,
    "TCP_RFC7323_PAWS": _STAMPS,
    "TCP_RFC7323_TW_PAWS": _STAMPS,
    "PKT_TOO_BIG": _grown(
        "IpFragFails",
        "Ip6FragFails",
        "Ip6InTooBigErrors",
        text="larger than the next link takes: lower the sender's MTU, or let ICMP through to it",
    ),
    "CPU_BACKLOG": _settings(
        "net/core/netdev_max_backlog",
        text="a CPU's queue of received packets was full: spread them (RPS), or lengthen it",
    ),
    "NEIGH_FAILED": _grown(text="the next hop doesn't answer on its link"),
    "NEIGH_QUEUEFULL": _grown(text="too many packets waited for the next hop's address"),
    "IP_OUTNOROUTES": _grown("IpOutNoRoutes", "Ip6OutNoRoutes", text="there is no route to it"),
    "IP_INNOROUTES": _grown("IpInNoRoutes", "Ip6InNoRoutes", text="there is no route for it"),
    "IP_INADDRERRORS": _grown(
        "IpInAddrErrors", "Ip6InAddrErrors", text="not for this host, which doesn't forward"
    ),
}
# For unknown or unspecific reasons.
BY_FUNCTION: dict[str, Advisor] = {
    **dict.fromkeys(("nf_hook_slow", "nf_hook_slow_list", *OF_RULES), _firewall),
    **dict.fromkeys(("do_xdp_generic", "netif_receive_generic_xdp", "veth_xdp_rcv_skb"), _XDP),
    **dict.fromkeys(("ip_finish_output", "ip6_finish_output"), _cgroup_egress),
    "sk_filter_trim_cap": _socket_filter,
    **dict.fromkeys(("__dev_forward_skb2", "__dev_forward_skb"), _TOO_LARGE),
    **dict.fromkeys(
        ("ip_error", "ip6_pkt_drop", "dst_discard", "dst_discard_out"), _refusing_route
    ),
}
BY_CLASS = {
    "firewall": "a filter dropped it on purpose",
    "resource": "there was no room for it",
    "configuration": "addresses or routes don't fit together",
    "peer": "what came in was wrong",
    "application": "the application didn't take it",
    "benign": "it comes with ordinary traffic",
}


def advise(seen: Seen, look: Look) -> tuple[str, Evidence] | None:
    """Return advice and its evidence; None if there is no advice."""
    known = _after_close(seen, look) or _refused_by_time_wait(seen, look)
    if known:
        return known
    function = (seen.location or "").partition("+")[0].partition(".")[0]
    advisor = BY_REASON.get(seen.reason or "") or BY_FUNCTION.get(function)
    if advisor:
        return advisor(seen, look)
    text = BY_CLASS.get(seen.reason_class or "")
    return (text, {}) if text else None
