# SPDX-License-Identifier: BSD-2-Clause
"""The findings of `cgnet why`, from watches that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from watches import (
    BACK,
    FLOW,
    NETNS,
    OTHER_NETNS,
    SERVER,
    WHO,
    answered,
    attempt,
    connection,
    drop,
    end,
    ids,
    listener,
    only,
    resend,
    watched,
)

from cgnet.findings.finding import MAX_NAMED, ranked
from cgnet.findings.rules import judge

if TYPE_CHECKING:
    from cgnet.findings.tally import Group

NS = 1_000_000_000


# -- attempts


def test_nobody_listens_where_the_syn_was_dropped() -> None:
    found = only(watched(attempt("ECONNREFUSED", 3), drop("NO_SOCKET")))
    assert (found.id, found.severity, found.confidence) == ("no-listener", "error", "certain")
    assert (found.owner["container"], found.daddr, found.dport, found.count) == (
        "app",
        "10.0.0.2",
        80,
        3,
    )


def test_another_host_refuses() -> None:
    found = only(watched(attempt("ECONNREFUSED")))
    assert (found.id, found.confidence) == ("no-listener", "likely")


def test_the_service_listens_elsewhere() -> None:
    there = listener(netns=300, container="db")
    found = only(watched(attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[there]))
    assert found.id == "no-listener"
    assert "db does in another network namespace" in found.text


def test_the_service_listens_on_loopback_alone() -> None:
    made = watched(
        attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[listener(address="127.0.0.1")]
    )
    found = only(made)
    assert (found.id, found.peer["container"]) == ("wrong-bind-address", "web")


def test_the_service_listens_on_the_other_family_alone() -> None:
    other = listener(address="::", family=6)
    made = watched(attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[other])
    assert only(made).id == "wrong-bind-address"
    made = watched(attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[other | {"old": False}])
    assert only(made).id == "no-listener"


def test_two_hosts_have_the_address() -> None:
    both = {OTHER_NETNS: {"10.0.0.2"}, 300: {"10.0.0.2"}}
    made = watched(
        attempt("ECONNREFUSED"), attempt("ok", state="ESTABLISHED"), drop("NO_SOCKET"),
        listeners=[listener(netns=300)], addresses=both,
    )  # fmt: skip
    assert only(made).id == "duplicate-address"
    # Networks of containers may have equal addresses: that is no fault.
    made = watched(
        attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[listener(netns=300)], addresses=both
    )
    assert only(made).id == "no-listener"


def test_a_firewall_refuses() -> None:
    assert only(watched(attempt("ECONNREFUSED"), drop("NETFILTER_DROP"))).id == "firewall-reject"


def test_a_firewall_refuses_and_drops_beyond_the_rate_of_icmp() -> None:
    made = watched(
        attempt("ECONNREFUSED"), attempt("ETIMEDOUT", 5, syn_retrans=9), resend("syn"),
        drop("NETFILTER_DROP"),
    )  # fmt: skip
    assert ids(made) == ["firewall-reject"]


def test_a_router_prohibits_by_icmp() -> None:
    made = watched(attempt("EACCES"), drop("NETFILTER_DROP"))
    assert (only(made).id, only(made).confidence) == ("firewall-reject", "certain")
    assert only(watched(attempt("EACCES"))).confidence == "likely"


@pytest.mark.parametrize(
    ("reason", "ident"),
    [
        ("NETFILTER_DROP", "firewall-drop"), ("IP_RPFILTER", "rp-filter"),
        ("QDISC_DROP", "qdisc-limit"), ("IP_INNOROUTES", "no-route"), ("PROTO_MEM", "tcp-memory"),
    ],
)  # fmt: skip
def test_a_syn_that_was_dropped_here(reason: str, ident: str) -> None:
    made = watched(
        attempt("ETIMEDOUT", syn_retrans=3, latency_ns=7 * NS), resend("syn"), drop(reason)
    )
    found = only(made)
    assert (found.id, found.confidence, found.seconds) == (ident, "certain", 7.0)


def test_a_syn_that_is_dropped_by_its_address_alone_is_likely() -> None:
    made = watched(attempt("ETIMEDOUT", syn_retrans=3), drop("NETFILTER_DROP", seq=8))
    assert only(made).confidence == "likely"


def test_what_lost_records_is_not_certain() -> None:
    made = watched(
        attempt("ETIMEDOUT", syn_retrans=1), resend("syn"), drop("NETFILTER_DROP"), lost={"drop": 1}
    )
    assert only(made).confidence == "likely"


def test_nothing_comes_back() -> None:
    found = only(watched(attempt("aborted", 2, syn_retrans=4), resend("syn")))
    assert (found.id, found.count) == ("syn-unanswered", 2)


def test_an_attempt_that_waits_at_the_end() -> None:
    waiting = WHO | FLOW | {"state": "SYN_SENT", "role": "client", "retrans": 2}
    assert only(watched(pending=[waiting])).id == "syn-unanswered"
    # The first second shows nothing.
    assert ids(watched(pending=[waiting | {"retrans": 0}])) == []


def test_an_attempt_that_its_application_gives_up_at_once_is_no_fault() -> None:
    assert ids(watched(attempt("aborted", latency_ns=1000))) == []


def test_a_source_address_that_is_gone() -> None:
    elsewhere = {NETNS: ["10.0.0.9"], OTHER_NETNS: ["10.0.0.2"]}
    made = watched(
        attempt("ETIMEDOUT", syn_retrans=3), resend("syn"), drop("IP_INNOROUTES", "SA"),
        addresses=elsewhere,
    )  # fmt: skip
    assert only(made).id == "source-address-missing"


def test_the_listener_has_no_way_back() -> None:
    made = watched(
        attempt("ETIMEDOUT", syn_retrans=3), resend("syn"), listeners=[listener(drops_grown=4)],
        has_route=False,
    )  # fmt: skip
    found = only(made)
    assert (found.id, found.peer["container"]) == ("no-route", "web")


@pytest.mark.parametrize(
    ("result", "state", "ident"),
    [
        ("EPERM", "CLOSE", "connect-denied"), ("EACCES", "CLOSE", "connect-denied"),
        ("ENETUNREACH", "CLOSE", "no-route"), ("EHOSTUNREACH", "CLOSE", "no-route"),
        ("EINVAL", "CLOSE", "source-address-missing"),
        ("EADDRNOTAVAIL", "CLOSE", "source-address-missing"),
        ("EADDRNOTAVAIL", "SYN_SENT", "ports-exhausted"), ("EHOSTUNREACH", "SYN_SENT", "no-route"),
    ],
)  # fmt: skip
def test_an_errno(result: str, state: str, ident: str) -> None:
    assert only(watched(attempt(result, state=state))).id == ident


# -- queues


def test_a_full_accept_queue_is_the_servers() -> None:
    full = listener(recv_q=129, fullest=129, drops_grown=40)
    made = watched(attempt("aborted", 5, syn_retrans=9), resend("syn"), listeners=[full])
    found = only(made)
    assert (found.id, found.confidence, found.count) == ("accept-queue-full", "certain", 5)
    assert (found.owner["container"], found.peer["container"]) == ("web", "app")
    assert (found.daddr, found.dport) == ("10.0.0.2", 80)


def test_a_queue_that_was_never_full_is_no_fault() -> None:
    assert ids(watched(listeners=[listener(recv_q=100, fullest=128)])) == []


# -- transfers


def test_loss_on_the_way() -> None:
    found = only(watched(resend("fast", 9), resend("timeout", 2, rto_us=300_000)))
    assert (found.id, found.severity) == ("path-loss", "warning")
    assert found.evidence["resent"] == 11
    assert ids(watched(resend("fast", 2))) == []


def test_a_full_queue_of_this_host() -> None:
    made = watched(resend("fast", 9), drop("QDISC_DROP", "PA", netns=NETNS))
    assert only(made).id == "qdisc-limit"


def test_segments_that_overtake_each_other() -> None:
    made = watched(resend("fast", 10), end(None, None, reordering=40, dsack_dups=9))
    assert only(made).id == "path-reordering"
    made = watched(resend("fast", 10), end(None, None, reordering=40, dsack_dups=1))
    assert only(made).id == "path-loss"


def test_large_segments_that_never_arrive() -> None:
    stuck = connection(WHO | FLOW | {"send_q": 3000}, stuck=5.0)
    made = watched(
        attempt("ok", state="ESTABLISHED"), resend("timeout", 4, len=1448, attempt=4),
        connections=[stuck],
    )  # fmt: skip
    found = only(made)
    assert (found.id, found.severity, found.seconds) == ("mtu-blackhole", "error", 5.0)


def test_a_peer_that_is_gone() -> None:
    stuck = connection(WHO | FLOW | {"send_q": 3000}, stuck=5.0)
    made = watched(resend("timeout", 4, len=1448, attempt=4), connections=[stuck])
    assert only(made).id == "peer-vanished"
    small = connection(WHO | FLOW | {"send_q": 50}, stuck=5.0)
    made = watched(resend("timeout", 4, len=50, attempt=4), connections=[small])
    assert only(made).id == "peer-vanished"


def test_a_reader_that_does_not_read() -> None:
    held = connection(WHO | FLOW | {"send_q": 90_000}, probing=1.0)
    other = SERVER | BACK | {"recv_q": 300_000, "role": "server"}
    found = only(watched(connections=[held], others=[other]))
    assert (found.id, found.owner["container"], found.peer["container"]) == (
        "slow-reader",
        "web",
        "app",
    )


def test_a_receive_buffer_that_is_too_small() -> None:
    held = connection(WHO | FLOW | {"send_q": 90_000}, rwnd_limited=8.0)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    assert only(watched(connections=[held], others=[other])).id == "receive-buffer-small"


def test_a_server_that_thinks_long_and_one_whose_cpu_is_limited() -> None:
    waits = connection(WHO | FLOW, waiting=0.9, turns=8)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    assert only(watched(connections=[waits], others=[other])).id == "slow-server"
    limited = {"/web": {"nr_periods": 100, "nr_throttled": 90}}
    found = only(watched(connections=[waits], others=[other], throttled=limited))
    assert (found.id, found.owner["container"]) == ("cpu-limit", "web")


def test_a_server_that_thinks_long_on_a_connection_a_request() -> None:
    waits = [connection(WHO | FLOW | {"sport": n}, waiting=1.0, gone=True) for n in range(3)]
    made = watched(end("local", "fin", 3, duration_ns=3 * NS), connections=waits)
    assert (only(made).id, only(made).confidence) == ("slow-server", "possible")
    assert ids(watched(end("local", "fin", 3, duration_ns=90 * NS), connections=waits)) == []


def test_a_server_that_is_slow_as_its_end_shows_for_a_client_elsewhere() -> None:
    found = only(watched(answered(8, 500_000, 5.0)))
    assert (found.id, found.confidence, found.owner["container"]) == (
        "slow-server",
        "certain",
        "web",
    )
    assert (found.dport, found.count, found.seconds) == (80, 1, 4.0)
    assert found.evidence == {"ttfb_us": 500_000, "ttfb_max_us": 1_000_000, "turns": 8}
    assert "takes 500 ms to answer requests at its port 80" in found.text
    assert "80% of the time" in found.text
    assert only(watched(answered(8, 500_000, 5.0), lost={"life": 1})).confidence == "likely"
    limited = {"/web": {"nr_periods": 100, "nr_throttled": 90}}
    assert only(watched(answered(8, 500_000, 5.0), throttled=limited)).id == "cpu-limit"


def test_a_server_that_is_slow_on_connections_from_before_the_start() -> None:
    """Their role is that of who listens, and their length isn't known: the watch's counts."""
    before = {"role": None, "thinking_before": 1}
    found = only(watched(answered(10, 500_000, 0.0, **before), listeners=[listener()]))
    assert (found.id, found.owner["container"], found.dport) == ("slow-server", "web", 80)
    assert found.more.startswith("cgnet sockets")
    assert ids(watched(answered(10, 500_000, 0.0, **before))) == []  # a client that thinks
    rare = answered(4, 500_000, 0.0, **before)
    assert ids(watched(rare, listeners=[listener()])) == []


def test_a_fast_server_and_a_few_turns_are_no_fault() -> None:
    assert ids(watched(answered(1000, 50_000, 60.0))) == []
    assert ids(watched(answered(2, 500_000, 1.5))) == []


def test_the_servers_end_makes_what_its_client_shows_certain() -> None:
    waits = connection(WHO | FLOW, waiting=0.9, turns=8)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    made = watched(answered(8, 500_000, 5.0), connections=[waits], others=[other])
    found = only(made)
    assert (found.id, found.confidence, found.peer["container"]) == (
        "slow-server",
        "certain",
        "app",
    )
    assert (found.evidence["ttfb_us"], found.evidence["waiting"]) == (500_000, 0.9)


def test_many_short_connections_of_which_looks_find_a_few_wait_for_nobody() -> None:
    waits = [connection(WHO | FLOW | {"sport": n}, waiting=1.0, gone=True) for n in range(3)]
    assert ids(watched(end("local", "rst", 443, duration_ns=20 * NS), connections=waits)) == []


def test_a_long_poll_is_no_fault() -> None:
    assert ids(watched(connections=[connection(WHO | FLOW, waiting=1.0, turns=1)])) == []


def test_a_long_way_is_told_and_is_no_fault() -> None:
    found = only(watched(connections=[connection(WHO | FLOW, min_rtt_us=150_000)]))
    assert (found.id, found.severity) == ("path-delay", "info")


def test_a_way_that_has_grown_long() -> None:
    grown = connection(WHO | FLOW | {"srtt_us": 300_000}, min_rtt_us=1000)
    assert only(watched(connections=[grown])).id == "path-delay"
    # The least sample may be of a handshake whose SYN was sent again.
    resent = connection(WHO | FLOW | {"retrans": 1}, min_rtt_us=1_100_000)
    assert ids(watched(connections=[resent])) == []


def test_loss_explains_a_wait() -> None:
    waits = connection(WHO | FLOW, waiting=0.9, turns=8)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    back = {**SERVER, **BACK, "role": "server"}
    made = watched(
        resend("timeout", 9), resend("timeout", 5, **back), connections=[waits], others=[other]
    )
    assert ids(made) == ["path-loss", "path-loss"]


def test_what_a_deleted_container_leaves_is_nobodys_trouble() -> None:
    nobody = {"container": None, "cgroup": None, "cgroup_id": None, "owner_source": "unknown"}
    stuck = connection(WHO | FLOW | {"send_q": 3000} | nobody, stuck=5.0)
    seen = [resend("timeout", 9, **nobody), end("kernel", "timeout", **nobody)]
    assert ids(watched(*seen, connections=[stuck], gone=(NETNS,))) == []
    assert ids(watched(*seen, connections=[stuck])) == ["peer-vanished"]


# -- ends


def test_a_reset_of_the_peer() -> None:
    found = only(watched(end("peer", "rst", 4)))
    assert (found.id, found.count) == ("reset-by-peer", 4)


@pytest.mark.parametrize(
    ("reason", "told"),
    [("TCP_ABORT_ON_CLOSE", "by a reset (TCP_ABORT_ON_CLOSE)"), (None, "by a reset")],
)
def test_who_sent_a_reset_and_why_if_the_kernel_tells(reason: str | None, told: str) -> None:
    sender = end("local", "rst", **SERVER | BACK, role="server", rst_reason=reason)
    assert only(watched(end("peer", "rst"), sender)).text.endswith(told)


@pytest.mark.parametrize(
    ("closed_by", "cause"), [("local", "rst"), ("peer", "fin"), ("local", "fin")]
)
def test_an_end_that_harms_nobody(closed_by: str, cause: str) -> None:
    assert ids(watched(end(closed_by, cause, 9))) == []


def test_a_client_that_resets_is_no_fault_of_the_server() -> None:
    server = {**SERVER, **BACK, "role": "server"}
    assert ids(watched(end("peer", "rst", 9, **server))) == []


def test_an_idle_connection_that_the_server_had_closed() -> None:
    late = drop("TCP_FLAGS", "PA", reason_class="application")
    assert only(watched(end("peer", "rst"), late)).id == "idle-reset"


def test_a_kill_is_one_finding_of_both_ends() -> None:
    server = {**SERVER, **BACK, "role": "server"}
    made = watched(end("kernel", "abort", **server), end("peer", "rst"))
    assert ids(made) == ["killed-locally"]


def test_a_listener_that_closes_with_a_queue() -> None:
    server = {**SERVER, **BACK, "role": "server"}
    made = watched(end("local", "rst", **server), end("peer", "rst"), closed=[listener(fullest=3)])
    assert ids(made) == ["listener-closed"]


def test_a_time_out() -> None:
    assert only(watched(end("kernel", "timeout"))).id == "peer-vanished"


# -- all together


def test_only_what_is_selected_is_judged() -> None:
    made = watched(
        attempt("ECONNREFUSED"), drop("NO_SOCKET"), end("kernel", "timeout"), resend("fast", 20),
        selects=lambda row: row.get("container") == "another",
    )  # fmt: skip
    assert ids(made) == []


def test_the_worst_comes_first_and_few_destinations_are_named() -> None:
    refused = [attempt("ECONNREFUSED", number, daddr=f"10.0.1.{number}") for number in range(1, 9)]
    found = judge(watched(*refused, resend("fast", 20)))
    assert [each.id for each in found] == ["no-listener"] * MAX_NAMED + ["path-loss"]
    assert [each.count for each in found[:MAX_NAMED]] == [8, 7, 6]
    assert (found[2].evidence["destinations"], found[2].evidence["connections"]) == (6, 15)


def test_findings_of_one_cause_and_place_are_one() -> None:
    one = only(watched(attempt("ECONNREFUSED", 2), drop("NO_SOCKET")))
    (both,) = ranked([one, replace(one, count=3)])
    assert both.count == 5


def test_what_is_typed_is_quoted() -> None:
    made: Any = watched(attempt("ECONNREFUSED", container="a; rm -rf /"), drop("NO_SOCKET"))
    assert "--container 'a; rm -rf /'" in only(made).more


# -- drops whose reason the kernel doesn't tell: before 5.17


def by_tcp(**more: Any) -> Group:
    return drop(None, location="tcp_v4_rcv+0x62", **more)


def test_nobody_listens_where_tcp_freed_the_syn() -> None:
    found = only(watched(attempt("ECONNREFUSED", 3), by_tcp()))
    assert (found.id, found.confidence) == ("no-listener", "certain")
    made = watched(attempt("ECONNREFUSED"), by_tcp(), listeners=[listener(address="127.0.0.1")])
    assert only(made).id == "wrong-bind-address"


LOST = (attempt("ETIMEDOUT", syn_retrans=3), resend("syn"))
AT_CGROUP = ("/sys/fs/cgroup/web", {7: "sd_fw_ingress"})


def test_a_program_at_the_listeners_cgroup_drops_the_syn() -> None:
    found = only(watched(*LOST, by_tcp(), listeners=[listener()], programs=AT_CGROUP))
    assert (found.id, found.confidence) == ("firewall-drop", "likely")
    assert "7 sd_fw_ingress" in found.text


def test_a_syn_that_time_wait_refused_by_the_counter_of_old_stamps() -> None:
    made = watched(*LOST, by_tcp(), listeners=[listener()], grown={"TcpExtPAWSEstab": 1})
    assert (only(made).id, only(made).confidence) == ("time-wait-refused", "likely")


def test_a_drop_for_no_known_reason_is_told() -> None:
    found = only(watched(*LOST, by_tcp(), listeners=[listener()]))
    assert (found.id, found.confidence) == ("syn-unanswered", "likely")
    assert "dropped 1 packet of the handshake in tcp_v4_rcv" in found.text


def test_a_syn_that_is_sent_again_to_a_half_open_connection_tells_nothing() -> None:
    answered = resend("synack", **SERVER | BACK, role="server")
    made = watched(*LOST, answered, by_tcp(), listeners=[listener()], programs=AT_CGROUP)
    assert "firewall-drop" not in ids(made)


def test_what_drops_the_answer_counts_if_nothing_is_known_of_the_syns_drop() -> None:
    answer = drop(None, "SA", seq=8, location="nf_hook_slow+0x93", reason_class="firewall")
    found = only(watched(*LOST, by_tcp(), answer, listeners=[listener()]))
    assert (found.id, found.confidence) == ("firewall-drop", "likely")


@pytest.mark.parametrize(
    ("grown", "ident"), [({"TcpExtIPReversePathFilter": 2}, "rp-filter"), ({}, "no-route")]
)
def test_routing_drops_by_the_counter_of_reverse_paths(grown: dict[str, int], ident: str) -> None:
    made = drop(None, location="ip_rcv_finish_core.constprop.0+0x1", reason_class="configuration")
    assert only(watched(*LOST, made, grown=grown)).id == ident
