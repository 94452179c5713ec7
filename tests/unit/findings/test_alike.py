# SPDX-License-Identifier: BSD-2-Clause
"""The findings of `cgnet why`: what tells causes apart that look alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from watches import (
    BACK,
    FLOW,
    NETNS,
    OTHER_NETNS,
    SERVER,
    WHO,
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

NS = 1_000_000_000
LOST = (attempt("ETIMEDOUT", syn_retrans=3), resend("syn"))


# -- attempts


@pytest.mark.parametrize(("result", "kind"), [("EACCES", "prohibit"), ("EINVAL", "blackhole")])
def test_a_route_that_refuses(result: str, kind: str) -> None:
    found = only(watched(attempt(result, state="CLOSE"), route_error=result))
    assert found.id == "no-route"
    assert f"({kind})" in found.text
    assert only(watched(attempt("EACCES", state="CLOSE"), route_error="")).id == "connect-denied"


def test_a_router_of_this_host_that_prohibits() -> None:
    made = drop("NOT_SPECIFIED", location="ip6_pkt_drop+0x5")
    assert only(watched(attempt("EACCES"), made)).id == "no-route"
    discarded = drop("NOT_SPECIFIED", location="dst_discard_out+0x5")
    assert only(watched(*LOST, discarded)).id == "no-route"


def test_a_listener_that_is_bound_to_another_device() -> None:
    made = watched(attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=[listener()])
    assert only(made).id == "wrong-bind-address"
    assert "SO_BINDTODEVICE" in only(made).text
    recent = [listener(old=False)]  # it listens by now
    made = watched(attempt("ECONNREFUSED"), drop("NO_SOCKET"), listeners=recent)
    assert only(made).id == "no-listener"


@pytest.mark.parametrize("result", ["ECONNREFUSED", "ENETUNREACH"])
def test_who_is_answered_by_the_other_family_then_has_no_harm(result: str) -> None:
    state = "CLOSE" if result == "ENETUNREACH" else "SYN_SENT"
    first = attempt(result, 5, state=state, family=6, daddr="fd00::2")
    answered = attempt("ok", 5, state="ESTABLISHED")
    assert only(watched(first, answered)).severity == "info"
    assert only(watched(first, attempt("ok", 3, state="ESTABLISHED"))).severity == "error"
    assert only(watched(first, attempt("ok", 5, "ESTABLISHED", dport=81))).severity == "error"


def test_attempts_that_fail_while_others_succeed_are_lost_on_the_way() -> None:
    failed = replace(attempt("ETIMEDOUT", 2, syn_retrans=6), first_ns=1)
    answered = replace(attempt("ok", 9, state="ESTABLISHED"), last_ns=2)
    assert only(watched(failed, answered, resend("syn"))).id == "path-loss"
    earlier = replace(answered, last_ns=0)
    assert only(watched(failed, earlier, resend("syn"))).id == "syn-unanswered"


def test_attempts_that_wait_while_others_succeed_are_lost_on_the_way() -> None:
    waiting = WHO | FLOW | {"state": "SYN_SENT", "role": "client", "retrans": 2}
    made = watched(attempt("ok", 9, state="ESTABLISHED"), pending=[waiting])
    assert only(made).id == "path-loss"


def test_a_queue_of_half_open_connections_that_is_full() -> None:
    full = listener(drops_grown=9)
    made = watched(*LOST, listeners=[full], grown={"TcpExtTCPReqQFullDrop": 9})
    found = only(made)
    assert (found.id, found.owner["container"]) == ("accept-queue-full", "web")
    made = watched(
        *LOST, drop("NETFILTER_DROP"), listeners=[full], grown={"TcpExtTCPReqQFullDrop": 9}
    )
    assert only(made).id == "firewall-drop"


def test_a_handshake_that_is_refused_for_a_reason_of_no_id_of_its_own() -> None:
    found = only(watched(*LOST, drop("TCP_MD5FAILURE")))
    assert found.id == "syn-unanswered"
    assert "signed (TCP MD5) with another key" in found.text


def test_a_device_without_a_link() -> None:
    down = drop("QDISC_DROP", reason_class="resource", location="__dev_queue_xmit+0x9")
    assert only(watched(*LOST, down, is_running=False)).id == "no-route"
    assert only(watched(*LOST, down, is_running=True)).id == "qdisc-limit"
    lost = resend("timeout", 4, len=50, attempt=4)
    down = replace(down, row=down.row | {"tcp_flags": "PA"})
    assert only(watched(lost, down, is_running=False)).id == "peer-vanished"


# -- transfers


def test_answers_that_this_host_drops() -> None:
    stuck = connection(WHO | FLOW | {"send_q": 108}, stuck=5.0)
    lost = resend("timeout", 4, len=108, attempt=4)
    back = drop("NETFILTER_DROP", "A", seq=99, **SERVER | BACK)
    found = only(watched(lost, back, connections=[stuck]))
    assert (found.id, found.owner["container"]) == ("firewall-drop", "app")
    other = drop("NETFILTER_DROP", "A", seq=99, **SERVER | BACK | {"daddr": "10.0.0.9"})
    assert only(watched(lost, other, connections=[stuck])).id == "peer-vanished"


def test_segments_that_this_host_drops_for_a_reason_of_no_id_of_its_own() -> None:
    found = only(watched(resend("timeout", 9), drop("IP_INHDR", "PA", 9)))
    assert found.id == "path-loss"
    assert "dropped on this host" in found.text
    found = only(watched(resend("timeout", 9), drop("IP_INHDR", "PA", 1)))
    assert "dropped none of them" in found.text


def test_a_shaper_whose_queue_tcp_fills_is_no_harm() -> None:
    dropped = drop("QDISC_DROP", "PA", netns=NETNS)
    assert only(watched(resend("fast", 90), dropped)).severity == "info"
    made = watched(resend("fast", 90), resend("timeout", 3), dropped)
    assert only(made).severity == "warning"


def test_one_connection_that_stands_still_among_others_that_lose_segments() -> None:
    stuck = connection(WHO | FLOW | {"send_q": 3000}, stuck=2.0)
    many = [resend("timeout", 1, seq=n, len=1448, attempt=2) for n in range(12)]
    assert only(watched(*many, connections=[stuck])).id == "path-loss"


def test_large_segments_that_never_arrive_while_small_ones_do() -> None:
    stuck = connection(WHO | FLOW | {"send_q": 3000}, stuck=5.0, heard=0.1)
    much = end(None, None, tx_bytes=90_000, tx_segs=900)
    made = watched(resend("timeout", 4, len=1448, attempt=4), much, connections=[stuck])
    assert only(made).id == "mtu-blackhole"


def test_both_sides_hang_though_one_sends_little() -> None:
    server = connection(SERVER | BACK | {"role": "server", "send_q": 1000}, stuck=5.0)
    client = connection(WHO | FLOW | {"send_q": 108, "sport": 40001}, stuck=5.0)
    lost = resend("timeout", 4, len=1000, attempt=4, **SERVER | BACK, role="server")
    assert ids(watched(lost, connections=[server])) == ["mtu-blackhole"]
    assert set(ids(watched(lost, connections=[server, client]))) == {"peer-vanished"}


def test_a_route_of_an_open_connection_that_is_gone() -> None:
    held = connection(WHO | FLOW | {"send_q": 108}, probing=1.0)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    made = watched(connections=[held], others=[other], route_error="ENETUNREACH")
    assert only(made).id == "no-route"
    assert ids(watched(connections=[held], others=[other], route_error="")) == []


def test_data_that_a_firewall_may_keep_back() -> None:
    held = connection(WHO | FLOW | {"send_q": 108, "unsent": 108}, probing=1.0)
    other = SERVER | BACK | {"recv_q": 0, "role": "server"}
    known = {"connections": [held], "others": [other], "route_error": ""}
    dropped = drop("NETFILTER_DROP", "A")
    assert only(watched(dropped, **known)).confidence == "certain"
    found = only(watched(rules={"output": 1}, **known))
    assert (found.id, found.confidence) == ("firewall-drop", "possible")
    assert ids(watched(rules={"input": 1}, **known)) == []


UNHEARD = SERVER | BACK | {
    "role": "server", "state": "ESTABLISHED", "recv_q": 108, "last_sent_us": 20_000_000,
    "last_received_us": 12_000_000,
}  # fmt: skip


def test_a_server_that_does_not_read_requests() -> None:
    found = only(watched(connections=[connection(UNHEARD, unread=1.0)]))
    assert (found.id, found.severity, found.owner["container"]) == ("slow-server", "error", "web")
    assert found.seconds == 12.0


@pytest.mark.parametrize(
    "change",
    [
        {"last_sent_us": 9_000_000},  # it sends
        {"state": "CLOSE_WAIT"},  # the client has given up, before the start
        {"role": "client"},
        {"recv_q": 0},
    ],
)
def test_unread_data_that_nobody_waits_for(change: dict[str, Any]) -> None:
    assert ids(watched(connections=[connection(UNHEARD | change, unread=1.0)])) == []


def test_data_that_nobody_answers_again_and_again_is_no_request() -> None:
    waits = [
        connection(WHO | FLOW | {"sport": n}, waiting=1.0, gone=True, one_way=n == 1)
        for n in range(3)
    ]
    made = watched(end("local", "fin", 3, duration_ns=3 * NS), connections=waits)
    assert ids(made) == []


def test_a_cpu_limit_of_a_cgroup_above() -> None:
    waits = connection(WHO | FLOW, waiting=0.9, turns=8)
    other = SERVER | BACK | {"recv_q": 0, "role": "server", "cgroup": "/pod/web"}
    limited = {"/pod": {"nr_periods": 100, "nr_throttled": 90}}
    assert only(watched(connections=[waits], others=[other], throttled=limited)).id == "cpu-limit"


def test_connections_from_before_the_start_get_their_role_by_the_listener() -> None:
    unknown = {**SERVER, **BACK, "role": None}
    found = only(watched(resend("timeout", 9, **unknown), listeners=[listener()]))
    assert (found.daddr, found.dport) == ("10.0.0.2", 80)


def test_resets_by_one_of_two_that_have_the_address() -> None:
    both = {OTHER_NETNS: {"10.0.0.2"}, 300: {"10.0.0.2"}}
    accepted = attempt("ok", state="ESTABLISHED", **SERVER | BACK | {"netns": 300}, role="server")
    late = drop("NO_SOCKET", "PA", 4)
    made = watched(end("peer", "rst", 4), accepted, late, addresses=both)
    assert only(made).id == "duplicate-address"
    assert only(watched(end("peer", "rst", 4), late, addresses=both)).id == "idle-reset"


def test_data_on_its_way_at_a_reset_is_no_idle_connection() -> None:
    sender = end("local", "rst", 4, **SERVER | BACK, role="server", rst_reason="TCP_ABORT_ON_CLOSE")
    late = drop("NO_SOCKET", "PA", 9)
    assert only(watched(end("peer", "rst", 4), sender, late)).id == "reset-by-peer"
    assert only(watched(end("peer", "rst", 9), sender, late)).id == "idle-reset"
    few = drop("NO_SOCKET", "PA", 4)
    assert only(watched(end("peer", "rst", 9), few)).id == "reset-by-peer"
