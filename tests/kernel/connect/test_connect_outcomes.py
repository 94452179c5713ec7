# SPDX-License-Identifier: BSD-2-Clause
"""Every outcome of an attempt, made for real: one row each, and the row is exact."""

from __future__ import annotations

import pytest
from harness import (
    Workload,
    check,
    in_netns,
    ip,
    listener,
    netns_inode,
    new_netns,
    run,
    tracing,
    unused_port,
    wait_until,
)
from raw_peer import LOCAL, PEER, peer


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_established(hook: str, address: str) -> None:
    with listener(address=address) as port, tracing("--hook", hook) as tracer:
        made = run("connect", address, port, 3)
        (row, *_) = check(tracer, made, saddr=address, tcp_state="ESTABLISHED", syn_retrans=0)
    assert 0 <= row["latency_us"] < 1_000_000
    assert row["uid"] == 0
    assert row["comm"].startswith("python")


def test_ipv4_mapped_address_is_shown_as_ipv4(hook: str, port: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("connect", "::ffff:127.0.0.1", port)
        assert made[0]["mapped"]
        check(tracer, made, saddr="127.0.0.1", daddr="127.0.0.1", family=4, mapped=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_refused(hook: str, address: str) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("connect", address, unused_port())
        check(tracer, made, result="ECONNREFUSED", tcp_state="SYN_SENT")


def test_nonblocking(hook: str, port: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("nonblocking", "127.0.0.1", port)
        check(tracer, made, result="ok")


def test_nonblocking_refused_asks_for_the_error_later(hook: str) -> None:
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        made = run("nonblocking", "127.0.0.1", unused_port())
        check(tracer, made, result="ECONNREFUSED")


def test_two_attempts_on_one_socket_are_two_rows(hook: str, port: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("twice", unused_port(), port)
        assert [row["result"] for row in made] == ["ECONNREFUSED", "ok", "ok"]
        check(tracer, made)


def test_timed_out_after_a_retransmission(hook: str) -> None:
    with peer("silence") as (netns, silent), tracing("--hook", hook) as tracer:
        made = run("connect", PEER, 80, netns=netns)
        (row,) = check(
            tracer,
            made,
            result="ETIMEDOUT",
            saddr=LOCAL,
            syn_retrans=silent.syns - 1,
            tcp_state="SYN_SENT",
            netns=netns_inode(netns),
        )
    assert silent.syns > 1
    assert row["latency_us"] > 2_000_000  # 1 s and more until it gives up


def test_established_after_a_retransmission(hook: str) -> None:
    with peer("late") as (netns, late), tracing("--hook", hook) as tracer:
        made = run("connect", PEER, 80, netns=netns)
        (row,) = check(tracer, made, result="ok", syn_retrans=late.syns - 1)
    assert row["latency_us"] > 900_000


def test_unreachable_told_by_icmp(hook: str) -> None:
    with peer("unreachable") as (netns, _), tracing("--hook", hook) as tracer:
        made = run("connect", PEER, 80, netns=netns)
        check(tracer, made, result="EHOSTUNREACH", tcp_state="SYN_SENT")


REFUSALS = {
    "reject": "ECONNREFUSED",
    "reject with icmpx type host-unreachable": "EHOSTUNREACH",
    "reject with icmpx type no-route": None,  # of IPv4 and IPv6 another one
    "reject with icmpx type admin-prohibited": None,
    "reject with tcp reset": "ECONNREFUSED",
}


def reject(netns: str, rule: str) -> None:
    """A firewall of the same host answers SYNs to port 80."""
    in_netns(netns, "nft", "add table inet t")
    in_netns(netns, "nft", "add chain inet t o { type filter hook output priority 0; }")
    in_netns(netns, "nft", f"add rule inet t o tcp dport 80 tcp flags syn {rule}")


# Who asks IPv6 for the error at once, before a second SYN is refused, takes away what there is to see.
ASKING = [("connect", "127.0.0.1"), ("connect", "::1"), ("nonblocking", "127.0.0.1"),
          ("nonblocking", "::1"), ("asking", "127.0.0.1")]  # fmt: skip


@pytest.mark.parametrize("rule", REFUSALS)
@pytest.mark.parametrize(("how", "address"), ASKING)
def test_refused_by_a_firewall_of_the_host(
    hook: str, netns: str, address: str, rule: str, how: str
) -> None:
    """Its ICMP error comes while connect() has the socket: no state tells of it."""
    reject(netns, rule)
    with tracing("--hook", hook, "--netns", netns) as tracer:
        made = run(how, address, 80, netns=netns)
        assert made[0]["result"] == (REFUSALS[rule] or made[0]["result"])
        check(tracer, made)


@pytest.mark.parametrize("how", ["asking", "nonblocking"])
def test_return_of_connect_tells_of_ipv6(hook: str, netns: str, how: str) -> None:
    reject(netns, "reject")
    with tracing("--hook", hook, "--netns", netns, "--sync-errors", "on") as tracer:
        check(tracer, run(how, "::1", 80, netns=netns), result="ECONNREFUSED")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_refused_and_closed_before_anybody_asks(hook: str, netns: str, address: str) -> None:
    reject(netns, "reject")
    with tracing("--hook", hook, "--netns", netns) as tracer:
        made = run("closed", address, 80, netns=netns)
        check(tracer, [row | {"result": "ECONNREFUSED"} for row in made])


def test_filter_finds_what_a_firewall_of_the_host_refused(hook: str, netns: str) -> None:
    reject(netns, "reject")
    with (
        tracing("--hook", hook, "--netns", netns, "--result", "ECONNREFUSED") as found,
        tracing("--hook", hook, "--netns", netns, "--result", "aborted") as other,
    ):
        check(found, run("asking", "127.0.0.1", 80, netns=netns), result="ECONNREFUSED")
        assert other.stop() == []


@pytest.mark.parametrize("how", ["connect", "nonblocking", "asking"])
@pytest.mark.parametrize(
    ("kind", "result"),
    [("unreachable", "EHOSTUNREACH"), ("prohibit", "EHOSTUNREACH"), ("blackhole", None)],
)
def test_route_of_the_next_hop(hook: str, netns: str, kind: str, result: str, how: str) -> None:
    """A router on the same host has no way on."""
    with new_netns() as router, tracing("--hook", hook, "--netns", netns) as tracer:
        ip(
            "link",
            "add",
            "v0",
            "netns",
            netns,
            "type",
            "veth",
            "peer",
            "name",
            "v1",
            "netns",
            router,
        )
        ip("-n", netns, "addr", "add", "192.0.2.1/24", "dev", "v0")
        ip("-n", router, "addr", "add", "192.0.2.2/24", "dev", "v1")
        for name, device in ((netns, "v0"), (router, "v1")):
            ip("-n", name, "link", "set", device, "up")
        in_netns(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_syn_retries=1")
        run("connect", "192.0.2.2", 81, netns=netns)  # neighbours know one another now
        ip("-n", router, "route", "add", kind, "198.51.100.0/24")
        ip("-n", netns, "route", "add", "default", "via", "192.0.2.2")
        made = run(how, "198.51.100.1", 80, netns=netns)
        if result:
            assert made[0]["result"] == result
        wait_until("a row", lambda: len(tracer.lines) >= 2)
        (row,) = (row for row in tracer.stop() if row["pid"] == made[0]["pid"])
    assert row["result"] == made[0]["result"]


def test_reset_in_a_simultaneous_open(hook: str) -> None:
    with peer("cross_reset") as (netns, _), tracing("--hook", hook) as tracer:
        made = run("connect", PEER, 80, netns=netns)
        check(tracer, made, result="ECONNRESET", tcp_state="SYN_RECV")


def test_simultaneous_open_with_itself_is_one_row(hook: str) -> None:
    with tracing("--hook", hook) as tracer:
        port = unused_port()
        made = run("self_connect", port)
        check(tracer, made, result="ok", sport=port, tcp_state="ESTABLISHED")


@pytest.mark.parametrize("scenario", ["closed", "shut_down", "disconnected", "killed"])
def test_given_up_while_in_syn_sent(hook: str, scenario: str) -> None:
    with peer("silence") as (netns, _), tracing("--hook", hook) as tracer:
        made = run(scenario, PEER, 80, netns=netns)
        check(tracer, made, result="aborted", tcp_state="SYN_SENT", daddr=PEER)


def test_time_out_of_the_application(hook: str) -> None:
    """How long it waited, and how often the SYN was sent, tells it from somebody who gave up at once."""
    with (
        peer("silence") as (netns, silent),
        tracing("--hook", hook, "--result", "!ok") as tracer,
        tracing("--hook", hook, "--result", "ECONNREFUSED,ETIMEDOUT") as misses,
    ):
        misses.wait_said("time-outs that applications set themselves are aborted")
        made = run("own_timeout", PEER, 80, netns=netns)
        (row,) = check(tracer, made, result="aborted", syn_retrans=silent.syns - 1)
        assert misses.stop() == []
    assert silent.syns > 1
    assert row["latency_us"] > 1_400_000
    assert not any("time-outs" in line for line in tracer.said)


def test_destroyed_from_outside_has_the_errno_that_connect_returns(hook: str) -> None:
    """As by `ss -K`."""
    with peer("silence") as (netns, _), tracing("--hook", hook) as tracer:
        workload = Workload("connect", PEER, 80, netns=netns)
        workload.begin()
        wait_until("SYN_SENT", lambda: PEER in in_netns(netns, "ss", "-tn", "state", "syn-sent"))
        in_netns(netns, "ss", "-K", "dst", PEER)
        check(tracer, workload.finish(), result="ECONNABORTED", tcp_state="SYN_SENT")


def test_no_local_port_left(hook: str, netns: str) -> None:
    with (
        listener(netns=netns) as port,
        tracing("--hook", hook, "--sync-errors", "on") as tracer,
    ):
        free = port % 2 + 20000  # one port, and not the listener's
        in_netns(netns, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={free} {free}")
        made = run("many_ports_taken", port, netns=netns)
        assert [row["result"] for row in made] == ["ok", "EADDRNOTAVAIL"]
        check(tracer, made)


@pytest.mark.parametrize("flags", [0, 16, 2], ids=["inline", "worker", "sqpoll"])
def test_io_uring_shows_the_process_and_not_its_worker(hook: str, port: int, flags: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("io_uring", port, flags)
        assert made[0]["result"] == "ok"
        (row,) = check(tracer, made)
    assert row["comm"].startswith("python")


def test_fast_open(hook: str, netns: str) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with listener(netns=netns, fast_open=True) as port, tracing("--hook", hook) as tracer:
        check(tracer, run("fast_open", port, netns=netns), result="ok")


def test_fast_open_deferred_leaves_out_the_applications_pause(hook: str, netns: str) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with listener(netns=netns, fast_open=True) as port, tracing("--hook", hook) as tracer:
        made = run("fast_open_deferred", port, "0.3", netns=netns)
        rows = check(tracer, made, result="ok")
    assert rows[-1]["latency_us"] < 300_000


def test_mptcp_is_one_row(hook: str, port: int) -> None:
    with tracing("--hook", hook, "--sync-errors", "on") as tracer:
        made = run("mptcp", "127.0.0.1", port) + run("mptcp", "127.0.0.1", 1)
        assert [row["result"] for row in made] == ["ok", "ECONNREFUSED"]
        check(tracer, made)


def test_fast_open_given_up_before_the_syn(hook: str, netns: str) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with listener(netns=netns, fast_open=True) as port, tracing("--hook", hook) as tracer:
        made = run("fast_open_unsent", port, netns=netns)
        assert [row["result"] for row in made] == ["ok", "ok", "aborted"]
        check(tracer, made)


def test_a_process_that_connects_and_exits_at_once(hook: str, port: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = [row for _ in range(20) for row in run("connect", "127.0.0.1", port)]
        check(tracer, made, result="ok")


def test_threads_are_shown_as_their_process(hook: str, port: int) -> None:
    with tracing("--hook", hook) as tracer:
        made = run("passed_threads", port, 64)
        tracer.wait_for(64)
        shown = [row for row in tracer.stop() if row["pid"] == made[0]["pid"]]
    assert {row["sport"] for row in made} == {row["sport"] for row in shown}
    assert len(shown) == 64
