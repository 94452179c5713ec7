# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet retrans`` shows all that TCP sends again, by the causes that the kernel counts."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from counters import tcp_counters
from delay_line import RIGHT, delay_line
from harness import in_netns, netns_inode, tracing, wait_until
from packet_traces import joined
from remote_python import RemotePython
from router_chain import chain, set_offload

from cgnet.kernel.btf import tracepoint_arguments
from cgnet.kernel.variants import HOOK, all_work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delay_line import Line
    from harness import Row, Tracer

DELAY_S = 0.005
SEGMENTS, MSS = 1500, 1448
# Those that this kernel takes.
HOOKS = [each.code for each in HOOK.variants if all_work(each.needs).ok]
# What the kernel's counters call the causes that it counts one by one.
EXACTLY = {"fast": "TcpExtTCPFastRetrans", "slow_start": "TcpExtTCPSlowStartRetrans"}


@contextmanager
def both_hooks(netns: str, *options: str) -> Iterator[list[Tracer]]:
    """Yield a tracer for each hook, of a namespace."""
    place = ("--netns", f"/run/netns/{netns}")
    with ExitStack() as stack:
        yield [
            stack.enter_context(tracing(*place, *options, "--hook", hook, command="retrans"))
            for hook in HOOKS
        ]


def ended(tracer: Tracer) -> list[Row]:
    """End a tracer; return its rows by time, for perf buffers don't keep the order."""
    return sorted(tracer.stop(), key=lambda row: row["ts_ns"])


def by_cause(rows: list[Row]) -> Counter[str]:
    """Return the number of segments for each cause."""
    found: Counter[str] = Counter()
    for row in rows:
        found[row["cause"]] += row["segs"]
    return found


def check_counters(found: Counter[str], grown: Counter[str]) -> None:
    """Compare segments by cause with the growth of the kernel's counters."""
    assert found.total() == grown["TcpRetransSegs"], (found, grown)
    assert found["syn"] + found["synack"] == grown["TcpExtTCPSynRetrans"], (found, grown)
    assert {cause: found[cause] for cause in EXACTLY} == {
        cause: grown[name] for cause, name in EXACTLY.items()
    }
    assert found["tail_loss_probe"] <= grown["TcpExtTCPLossProbes"]
    assert found["timeout"] + found["syn"] <= grown["TcpExtTCPTimeouts"]


def check_rows(rows: list[Row], netns: str) -> None:
    """Check what is true of each resent segment of a connection."""
    again: Counter[int] = Counter()
    for row in rows:
        again[row["seq"]] += 1
        assert row["attempt"] == again[row["seq"]], row
        assert row["netns"] == netns_inode(netns)
        assert row["segs"] == -(-row["len"] // MSS) or row["len"] == 0, row  # a FIN has no data
        assert row["rto_us"] >= 200_000, row
        assert row["srtt_us"] >= 2 * DELAY_S * 1e6, row
        assert row["cwnd"] > 0
        assert row["in_flight"] >= 0


def send_all(sender: RemotePython, reader: RemotePython, size: int) -> None:
    """Send so many bytes, which are read at once, and close both ends."""
    reader.begin(f"left = {size}\nwhile left: left -= len(served.recv(1 << 20))")
    sender.do(f"client.sendall(bytes({size}))")
    reader.end()


@contextmanager
def ends(line: Line) -> Iterator[tuple[RemotePython, RemotePython]]:
    """Yield a process at each end of the line."""
    with ExitStack() as stack:
        near, far = (
            stack.enter_context(RemotePython(f"/run/netns/{each}"))
            for each in (line.left, line.right)
        )
        yield near, far


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (0.01, {}),
        (0.03, {}),
        (0.03, {"tcp_recovery": 0}),
        (0.03, {"tcp_sack": 0}),
        (0.2, {}),
        (0.2, {"tcp_recovery": 0}),
    ],
)
def test_on_a_line_that_loses(loss: float, settings: dict[str, int]) -> None:
    with delay_line(DELAY_S) as line, ends(line) as (sender, reader):
        for name, value in settings.items():
            in_netns(line.left, "sysctl", "-qw", f"net.ipv4.{name}={value}")
        joined(sender, reader, RIGHT[4])
        before = tcp_counters(line.left)
        with both_hooks(line.left) as tracers, both_hooks(line.left, "-c") as counting:
            line.lose(loss)
            send_all(sender, reader, SEGMENTS * MSS // (10 if loss > 0.1 else 1))
            line.lose(0)
            wait_until("all is acknowledged", lambda: not _unsent(sender))
            grown = tcp_counters(line.left)
            grown.subtract(before)
            assert grown["TcpRetransSegs"]
            for tracer in tracers:
                rows = ended(tracer)
                check_counters(by_cause(rows), grown)
                check_rows(rows, line.left)
                assert {row["pid"] for row in rows} == {sender.pid}
            for tracer in counting:
                counts = {row["cause"]: row["count"] for row in tracer.stop()}
                check_counters(Counter(counts), grown)


def _unsent(sender: RemotePython) -> int:
    """Return the number of bytes that aren't acknowledged: SIOCOUTQ."""
    return int(
        sender.get(
            "__import__('struct').unpack('i', __import__('fcntl').ioctl(client, 0x5411, bytes(4)))[0]"
        )
    )


def test_a_peer_that_vanishes() -> None:
    """Tail loss probe, then the timer, again and again; the kernel gives up."""
    with delay_line(DELAY_S) as line, ends(line) as (sender, reader):
        joined(sender, reader, RIGHT[4])
        sender.do("client.setsockopt(socket.IPPROTO_TCP, 18, 2500)")  # TCP_USER_TIMEOUT
        before = tcp_counters(line.left)
        with both_hooks(line.left) as tracers:
            line.lose(1)
            sender.do("client.sendall(b'lost')")
            wait_until(
                "ETIMEDOUT",
                lambda: sender.get("client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)"),
            )
            grown = tcp_counters(line.left)
            grown.subtract(before)
            for tracer in tracers:
                rows = ended(tracer)
                check_counters(by_cause(rows), grown)
                assert [row["cause"] for row in rows][:2] == ["tail_loss_probe", "timeout"]
                assert {row["cause"] for row in rows[1:]} == {"timeout"}
                assert [row["attempt"] for row in rows] == list(range(1, len(rows) + 1))
                assert {(row["seq"], row["len"]) for row in rows} == {(rows[0]["seq"], 4)}
                lengths = [row["rto_us"] for row in rows[1:]]
                assert lengths == sorted(lengths)
                assert {row["role"] for row in rows} == {None}  # open before the start


@pytest.mark.parametrize("family", [4, 6])
def test_handshakes(family: int) -> None:
    """A SYN that a router loses, and a SYN-ACK: each is its owner's, and counted where it is sent."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family))
        tracers = [stack.enter_context(both_hooks(each.netns)) for each in (client, server)]
        before = [tcp_counters(each.netns) for each in (client, server)]
        for flags, side, place in (("syn", "dport", client), ("syn | ack", "sport", server)):
            start = tcp_counters(place.netns)
            lost = f"tcp {side} {port} tcp flags == {flags} drop"
            with router.firewall("forward", lost):
                sender.connect(server.address(family), port)
                wait_until(
                    lost,
                    lambda place=place, start=start: (
                        tcp_counters(place.netns)["TcpRetransSegs"] >= start["TcpRetransSegs"] + 2
                    ),
                )
            wait_until(
                "the handshake", lambda: sender.get("select.select([], [client], [], 0)[1] != []")
            )
        grown = []
        for place, then in zip((client, server), before, strict=True):
            grown.append(tcp_counters(place.netns))
            grown[-1].subtract(then)
        for hook in range(len(HOOKS)):
            syns, synacks = (ended(each[hook]) for each in tracers)
            check_counters(by_cause(syns), grown[0])
            assert by_cause(synacks)["synack"] == grown[1]["TcpExtTCPSynRetrans"]
            check_handshakes(syns, "syn", "client", sender)
            check_handshakes(synacks, "synack", "server", reader)
            assert {row["dport"] for row in syns} == {row["sport"] for row in synacks} == {port}


def check_handshakes(rows: list[Row], cause: str, role: str, owner: RemotePython) -> None:
    """Check the SYNs of two connections, or the SYN-ACKs of one."""
    assert len(rows) >= 2
    assert {(row["cause"], row["role"], row["len"], row["segs"]) for row in rows} == {
        (cause, role, 0, 1)
    }
    assert {row["pid"] for row in rows} == {owner.pid}
    connections: dict[int, list[int]] = {}
    for row in rows:
        connections.setdefault(row["sport"] if cause == "syn" else row["dport"], []).append(
            row["attempt"]
        )
    for attempts in connections.values():
        assert attempts == list(range(1, len(attempts) + 1))


def test_a_syn_to_nowhere() -> None:
    with chain(0) as (client, server), ExitStack() as stack:
        sender = stack.enter_context(client.remote())
        tracers = stack.enter_context(both_hooks(client.netns, "--cause", "syn"))
        others = stack.enter_context(both_hooks(client.netns, "--cause", "!syn"))
        with server.firewall("input", "tcp dport 9 drop"):
            sender.connect(server.address(4), 9)
            for tracer in tracers:
                rows = tracer.wait_for(2)
                assert {row["attempt"] for row in rows[:2]} == {1, 2}
                assert {(row["cause"], row["tcp_state"]) for row in rows} == {("syn", "SYN_SENT")}
                assert min(row["rto_us"] for row in rows) >= 1_000_000
                assert {(row["daddr"], row["dport"]) for row in rows} == {(server.address(4), 9)}
                assert {row["srtt_us"] for row in rows} == {None}
        sender.do("client.close()")
        assert [tracer.stop() for tracer in others] == [[], []]


@pytest.mark.parametrize("large", [False, True])
def test_large_packets_that_a_router_loses(large: bool) -> None:
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        set_offload(client, "e0", tso=large, gso=large)
        port = joined(sender, reader, server.address(4))
        before = tcp_counters(client.netns)
        tracers = stack.enter_context(both_hooks(client.netns))
        with router.firewall("forward", f"tcp dport {port} numgen random mod 25 == 0 drop"):
            send_all(sender, reader, 4 * SEGMENTS * MSS)
        wait_until("all is acknowledged", lambda: not _unsent(sender))
        grown = tcp_counters(client.netns)
        grown.subtract(before)
        assert grown["TcpRetransSegs"]
        for tracer in tracers:
            check_counters(by_cause(ended(tracer)), grown)


def check_failures(tracers: list[Tracer], errno_name: str) -> None:
    """Failed resends are no rows: the summary counts them where the kernel tells."""
    for tracer in tracers:
        rows = ended(tracer)
        assert {row["len"] for row in rows} <= {4}
        (summary,) = tracer.rows("summary")
        if tracepoint_arguments("tcp_retransmit_skb") > 2:
            assert set(summary["failed"]) == {errno_name}
            assert summary["failed"][errno_name] >= 2
        else:
            assert summary["failed"] == {}


@pytest.mark.parametrize("errno_name", ["EPERM", "EHOSTUNREACH"])
def test_resends_that_fail(errno_name: str) -> None:
    """A firewall that drops at once, and a device that is down."""
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        tracers = stack.enter_context(both_hooks(client.netns))
        stack.enter_context(server.firewall("input", f"tcp dport {port} drop"))
        sender.do("client.sendall(b'lost')")  # what can't be sent once isn't sent again
        if errno_name == "EPERM":
            stack.enter_context(client.firewall("output", f"tcp dport {port} drop"))
        else:
            client.run("ip", "link", "set", "e0", "down")
        before = tcp_counters(client.netns)
        wait_until(
            "timers",
            lambda: (
                tcp_counters(client.netns)["TcpExtTCPTimeouts"] > before["TcpExtTCPTimeouts"] + 2
            ),
        )
        check_failures(tracers, errno_name)
