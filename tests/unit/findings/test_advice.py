# SPDX-License-Identifier: BSD-2-Clause
"""Advice stands on evidence; without evidence it says what the reason means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cgnet.findings.advice import BY_REASON, Seen, advise, hook_of
from cgnet.findings.drop_reasons import BY_REASON as CLASS_OF
from cgnet.findings.evidence import Place, Queue, Socket
from cgnet.findings.tcp_memory import Limit


class Told:
    """What a test says that was read; what it doesn't say can't be read."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    def grown(self, _netns: int, names: tuple[str, ...]) -> dict[str, int]:
        return {name: value for name, value in self.known.get("grown", {}).items() if name in names}

    def grown_lately(self, netns: int, names: tuple[str, ...]) -> dict[str, int]:
        return self.grown(netns, names)

    def sockets(self, _netns: int, _port: int) -> list[Socket]:
        return self.known.get("sockets", [])

    def is_running(self, _netns: int, _device: str) -> bool | None:
        return self.known.get("is_running")

    def rules(self, _netns: int) -> dict[str, int] | None:
        return self.known.get("rules")

    def programs(
        self, _pid: int | None, _cgroup: str | None, _kind: int
    ) -> tuple[Path, dict[int, str]] | None:
        return self.known.get("programs")

    def memory(self, _netns: int, _pid: int | None, _cgroup: str | None) -> Limit | None:
        return self.known.get("memory")

    def place(self, _netns: int) -> Place:
        return Place("network namespace blue", "ip netns exec blue ")

    def sysctl(self, _netns: int, name: str) -> str | None:
        return self.known.get("sysctl", {}).get(name)

    def queues(self, _netns: int) -> list[Queue] | None:
        return self.known.get("queues")

    def qdiscs(self, _netns: int, _device: str) -> list[dict[str, Any]] | None:
        return self.known.get("qdiscs")

    def throttling(self, _cgroup: str) -> dict[str, int] | None:
        return self.known.get("throttling")


def seen(reason: str, **also: Any) -> Seen:
    return Seen(reason, "application", 1, **also)


CALL = {"dport": 80, "daddr": "10.0.0.2", "tcp_flags": "S"}


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        (None, "nobody listens at 10.0.0.2 port 80"),
        ([], "nobody listens at port 80 in that"),
        ([Queue("127.0.0.1", 80, 0, 128)], "listens on 127.0.0.1 alone"),
        ([Queue("10.0.0.3", 80, 0, 128)], "listens on 10.0.0.3, not on 10.0.0.2"),
        ([Queue("0.0.0.0", 80, 0, 128)], "by now"),
        ([Queue("0.0.0.0", 81, 0, 128)], "nobody listens at port 80 in that"),
    ],
)
def test_no_socket(queues: list[Queue] | None, said: str) -> None:
    advice = advise(seen("NO_SOCKET", **CALL), Told(queues=queues))
    assert advice
    assert said in advice[0]
    assert ("listeners" in advice[1]) is (queues is not None)


NO_PORTS = (
    "nobody listens at the ports that they went to, or their connections are gone; count by dport "
    "to see the ports"
)
COUNTED = {"10.0.0.0/24": "a network's", None: "of any address"}


@pytest.mark.parametrize("daddr", COUNTED, ids=COUNTED.get)
@pytest.mark.parametrize(
    ("queues", "said"),
    [
        (None, "nobody listens at port 80"),
        ([], "nobody listens at port 80 in that network namespace"),
        (
            [Queue("127.0.0.1", 80, 0, 128)],
            "the server at port 80 listens on 127.0.0.1 alone; have it listen on the called address",
        ),
        (
            [Queue("10.0.0.3", 80, 0, 128)],
            "the server at port 80 listens on 10.0.0.3 alone, and may be called elsewhere",
        ),
        (
            [Queue("::", 80, 0, 128)],
            "somebody listens at port 80 by now, and didn't when it was called",
        ),
    ],
)
def test_no_socket_of_counts_without_an_address(
    queues: list[Queue] | None, said: str, daddr: str | None
) -> None:
    advice = advise(seen("NO_SOCKET", dport=80, daddr=daddr), Told(queues=queues))
    assert advice
    assert advice[0] == said


@pytest.mark.parametrize("daddr", ["10.0.0.2", None])
def test_no_socket_of_counts_without_ports(daddr: str | None) -> None:
    """What listens at other ports is no evidence."""
    told = Told(queues=[Queue("0.0.0.0", 80, 0, 128)])
    assert advise(seen("NO_SOCKET", daddr=daddr), told) == (
        NO_PORTS,
        {},
    )


@pytest.mark.parametrize("reason", BY_REASON)
def test_advice_of_counts_by_a_reason_alone_is_a_sentence(reason: str) -> None:
    advice = advise(seen(reason), Told(queues=[]))
    assert advice
    assert not {"?", "None"} & set(advice[0].split())


def test_no_socket_of_a_connection_that_is_gone() -> None:
    advice = advise(seen("NO_SOCKET", **CALL | {"tcp_flags": "PA"}), Told(queues=[]))
    assert advice
    assert advice[0].startswith("segments of connections that aren't there any more, or never were")
    assert advice[1] == {}


ANSWER = {"saddr": "10.2.2.2", "sport": 8080, "daddr": "10.0.0.2", "dport": 45000}


@pytest.mark.parametrize("reason", ["NO_SOCKET", "TCP_FLAGS"])
@pytest.mark.parametrize(
    ("peers", "said"),
    [
        ([], "answers to connections that no socket here makes"),
        ([("10.2.2.2", 8080)], "answers to connections that no socket here makes"),
        (
            [("10.93.0.1", 80)],
            "whose socket here talks to 10.93.0.1 port 80: an address was translated",
        ),
    ],
)
def test_answers_that_find_no_socket(reason: str, peers: list[tuple[str, int]], said: str) -> None:
    told = Told(sockets=[Socket("10.0.0.2", 45000, *peer) for peer in peers])
    advice = advise(seen(reason, tcp_flags="SA", **ANSWER), told)
    assert advice
    assert said in advice[0]
    assert ("sockets" in advice[1]) is ("whose socket" in said)


def test_overflow_with_all_evidence() -> None:
    told = Told(
        grown={"TcpExtListenOverflows": 3},
        queues=[Queue("0.0.0.0", 80, 129, 128)],
        sysctl={"net/core/somaxconn": "128"},
        throttling={"nr_periods": 10, "nr_throttled": 4},
    )
    advice = advise(seen("TCP_LISTEN_OVERFLOW", cgroup="/shop", **CALL), told)
    assert advice
    text, evidence = advice
    for part in ("129 wait, and 128 are allowed", "somaxconn there is 128", "4 of 10 periods"):
        assert part in text
    assert evidence["TcpExtListenOverflows"] == 3
    assert evidence["accept_queue"] == 129


def test_the_limit_of_memory_that_was_hit() -> None:
    told = Told(
        memory=Limit("its own limit", {"failcnt": 3}), sysctl={"net/ipv4/tcp_rmem": "1 2 3"}
    )
    assert advise(seen("PROTO_MEM"), told) == ("its own limit", {"failcnt": 3})


def test_a_full_table_of_connections() -> None:
    names = {"count": "100", "max": "100"}
    settings = {f"net/netfilter/nf_conntrack_{name}": value for name, value in names.items()}
    advice = advise(seen("NETFILTER_DROP"), Told(sysctl=settings))
    assert advice
    assert "100 of 100" in advice[0]


IN_FORWARD = ("nf_hook_slow+0x7d", "ip_forward+0x2d7", "ip_rcv+0x9")


@pytest.mark.parametrize(
    ("grown", "rules", "said"),
    [
        ({}, {"forward": 2}, "a firewall rule of the forward hook in network namespace blue"),
        ({}, {"input": 2, "output": 1}, "of the hooks that have such: input, output"),
        ({}, None, "a firewall rule of the forward hook in network namespace blue"),
        ({}, {}, "no rule in network namespace blue drops packets now"),
        (
            {"conntrack_insert_failed": 2, "conntrack_drop": 2},
            {},
            "no source port was left for NAT",
        ),
        ({"conntrack_drop": 2}, {"forward": 1}, "the table of connections was full for a while"),
        ({"conntrack_drop": 1}, {"forward": 1}, "1 of them: the table"),
        ({"conntrack_drop": 1}, {"forward": 1}, "the others: a firewall rule of the forward hook"),
        ({"conntrack_early_drop": 1}, {"forward": 1}, "a firewall rule of the forward hook"),
    ],
)
def test_what_dropped_in_netfilter(
    grown: dict[str, int], rules: dict[str, int] | None, said: str
) -> None:
    counts = {"conntrack_insert_failed": 0, "conntrack_drop": 0, "conntrack_early_drop": 0}
    told = Told(grown=counts | grown, rules=rules)
    advice = advise(seen("NETFILTER_DROP", stack=IN_FORWARD, drops=2), told)
    assert advice
    assert said in advice[0]
    assert advice[1] == {"hook": "forward"} | grown
    if rules == {}:
        assert "a firewall rule" not in advice[0]


def test_rules_at_one_hook_alone_tell_it() -> None:
    advice = advise(seen("NETFILTER_DROP", drops=2), Told(rules={"input": 3}))
    assert advice
    assert advice[0].startswith("a firewall rule of the input hook in network namespace blue")


@pytest.mark.parametrize(
    ("stack", "hook"),
    [
        (("nf_hook_slow+0x1", "ip_local_deliver+0x1"), "input"),
        (("nf_hook_slow_list.constprop.0+0x1", "ip_sublist_rcv+0x1"), "prerouting"),
        (("nf_hook_slow+0x1", "__ip_local_out+0x1", "ip_output+0x1"), "output"),
        (("nf_hook_slow+0x1", "ip6_xmit+0x1"), "output"),
        (("nf_hook_slow+0x1", "ip_output+0x1"), "postrouting"),
        (
            ("nft_do_chain+0x3e8", "nft_do_chain_ipv4+0x66", "nf_hook_slow+0x1", "ip_rcv+0x1"),
            "prerouting",
        ),
        (("nf_hook_slow+0x1", "br_forward+0x1", "ip_output+0x1"), None),
        (("tcp_v4_rcv+0x1", "ip_local_deliver+0x1"), None),
        ((), None),
    ],
)
def test_the_hook_is_who_called_it(stack: tuple[str, ...], hook: str | None) -> None:
    assert hook_of(stack) == hook


@pytest.mark.parametrize(
    ("reason", "also", "said"),
    [
        ("NOT_SPECIFIED", {"tcp_state": "TIME_WAIT"}, "that this side had closed, answered"),
        (None, {"tcp_state": "TIME_WAIT"}, "that this side had closed, answered"),
        ("TCP_FLAGS", {"tcp_state": "LISTEN"}, "before the server was restarted"),
        ("NOT_SPECIFIED", {"location": "tcp_v4_do_rcv+0x1"}, "before the server was restarted"),
        ("TCP_ABORT_ON_DATA", {"tcp_state": "FIN_WAIT2"}, "that this side had closed, answered"),
        ("NOT_SPECIFIED", {"tcp_state": "ESTABLISHED"}, "the application didn't take it"),
    ],
)
def test_data_after_the_close(reason: str | None, also: dict[str, str], said: str) -> None:
    told = Told(grown={"TcpOutRsts": 3})
    advice = advise(Seen(reason, "application", 1, tcp_flags="PA", **also), told)
    assert advice
    assert said in advice[0]
    assert ("keep-alive" in advice[0]) is ("answered by a reset" in advice[0])


BPF = Path("/sys/fs/cgroup/shop")


@pytest.mark.parametrize(
    ("programs", "kind", "said"),
    [
        (None, "firewall", "a BPF program at a cgroup (ingress): 'bpftool cgroup tree'"),
        ((BPF, {}), "firewall", "no BPF program is at the cgroup now"),
        (
            (BPF, {7: "mine"}),
            "firewall",
            "a BPF program at the cgroup, or one above it (ingress): 7 mine;",
        ),
        ((BPF, {7: "sd_fw_ingress"}), "firewall", "It is systemd's: IPAddressDeny="),
        ((BPF, {}), "application", "a filter that the application has set itself"),
        ((BPF, {7: "mine"}), "application", "SO_ATTACH_BPF); or a BPF program at the cgroup"),
    ],
)
def test_filters_of_sockets(
    programs: tuple[Path, dict[int, str]] | None, kind: str, said: str
) -> None:
    advice = advise(Seen("SOCKET_FILTER", kind, 1), Told(programs=programs))
    assert advice
    assert said in advice[0]
    known = [{"id": number, "name": name} for number, name in (programs or (0, {}))[1].items()]
    assert advice[1].get("programs", []) == known


@pytest.mark.parametrize(
    ("reason", "location", "said"),
    [
        (
            "NOT_SPECIFIED",
            "do_xdp_generic+0x284",
            "an XDP program at device eth0 in network namespace blue",
        ),
        ("XDP", None, "'ip netns exec blue ip -d link show dev eth0'"),
        ("TC_INGRESS", None, "tc filter show dev eth0 ingress"),
        ("TC_EGRESS", None, "tc filter show dev eth0 egress"),
        ("NOT_SPECIFIED", "ip_error+0x94", "'ip netns exec blue ip route get 10.0.0.2' tells"),
    ],
)
def test_what_names_the_culprit(reason: str, location: str | None, said: str) -> None:
    also = {"location": location, "dev": "eth0", "daddr": "10.0.0.2"}
    advice = advise(Seen(reason, "firewall", 1, **also), Told())
    assert advice
    assert said in advice[0]


def test_a_connection_that_time_wait_refuses() -> None:
    advice = advise(Seen("NOT_SPECIFIED", "peer", 1, tcp_state="TIME_WAIT"), Told())
    assert advice
    assert "is in TIME_WAIT here" in advice[0]


@pytest.mark.parametrize("reason", BY_REASON)
def test_without_evidence_no_number_is_told(reason: str) -> None:
    advice = advise(seen(reason, cgroup="/shop", dev="eth0", dport=80), Told())
    assert advice
    text, evidence = advice
    assert text
    assert evidence == {}


@pytest.mark.parametrize("reason", CLASS_OF)
def test_each_reason_with_a_class_has_advice(reason: str) -> None:
    kind = CLASS_OF[reason].name.removeprefix("DROP_").lower()
    assert advise(Seen(reason, kind, 1), Told())


def test_what_nobody_knows_is_not_explained() -> None:
    assert advise(Seen("SOMETHING_NEW", None, 1), Told()) is None
    assert advise(Seen(None, None, 1), Told()) is None
