# SPDX-License-Identifier: BSD-2-Clause
"""Every outcome of an attempt, made for real: one row each, and the row is exact."""

from __future__ import annotations

import socket

import pytest
from harness import (
    Workload,
    check,
    in_netns,
    listener,
    netns_inode,
    run,
    tracing,
    wait_until,
)
from peer import LOCAL, PEER, peer


def unused_port(address: str = "127.0.0.1") -> int:
    """A port on which nobody listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        return int(server.getsockname()[1])


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
