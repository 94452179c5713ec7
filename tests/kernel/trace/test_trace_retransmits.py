# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace --retrans`` shows all that TCP sends again, as the kernel counts it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from delay_line import RIGHT, delay_line
from harness import in_netns, wait_until
from packet_traces import joined, tracing_packets
from remote_python import RemotePython
from router_chain import chain, set_offload

if TYPE_CHECKING:
    from packet_traces import PacketTraces

DELAY_S = 0.01
LOSS = 0.02
SEGMENTS, MSS = 1000, 1448
SEEN = 0.9


def resent(netns: str) -> int:
    """Return TcpRetransSegs of a network namespace."""
    lines = in_netns(netns, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def send_all(sender: RemotePython, reader: RemotePython, size: int) -> None:
    """Send so many bytes, which are read at once, and close both ends."""
    reader.begin(f"left = {size}\nwhile left: left -= len(served.recv(1 << 20))")
    sender.do(f"client.sendall(bytes({size}))")
    reader.end()
    for remote, name in ((sender, "client"), (reader, "served")):
        remote.do(f"{name}.shutdown(socket.SHUT_WR)")
    for remote, name in ((sender, "client"), (reader, "served")):
        remote.do(f"{name}.recv(1)")


def check(
    again: PacketTraces, every: PacketTraces, sums: PacketTraces, port: int, counted: int
) -> None:
    """All of them are there, each with the packet that had its data before.

    Unless no program saw that packet: there are hosts that run none for some milliseconds, now and
    then. Sums lack the wait of its data.
    """
    rows = [row for row in again.tracer.stop() if row["dport"] == port]
    assert sum(row["segs"] for row in rows) == counted
    waits = [row for row in rows if row["retrans_of"] is not None]
    assert len(waits) >= len(rows) * SEEN
    (in_sums,) = (row for row in sums.tracer.stop() if row["stage"] == "retransmit")
    assert in_sums["count"] == len(waits)
    before = {row["packet"]: row for row in every.tracer.stop() if row["dport"] == port}
    told = [row for row in before.values() if row["retrans_of"] is not None]
    assert len(told) == len(waits)
    for row in told:
        first = before[row["retrans_of"]]
        assert 0 <= (row["seq"] - first["seq"]) % 2**32 < max(first["payload"], 1), (row, first)
        assert row["retrans_after_ns"] > 0


@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
def test_on_a_line_that_loses(congestion: str, hook: str) -> None:
    with delay_line(DELAY_S) as line, ExitStack() as stack:
        sender, reader = (
            stack.enter_context(RemotePython(f"/run/netns/{each}"))
            for each in (line.left, line.right)
        )
        port = joined(sender, reader, RIGHT[4])
        sender.do(f"client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b{congestion!r})")
        every, again, sums = (
            stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port), *options))
            for options in ((), ("--retrans",), ("--summary",))
        )
        line.lose(LOSS)
        send_all(sender, reader, SEGMENTS * MSS)
        counted = resent(line.left)
        assert counted
        check(again, every, sums, port, counted)


@pytest.mark.parametrize("large", [False, True])
def test_large_packets_that_a_router_loses(large: bool, hook: str) -> None:
    """TCP cuts up large packets to send again what was lost of them."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        set_offload(client, "e0", tso=large, gso=large)
        port = joined(sender, reader, server.address(4))
        every, again, sums = (
            stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port), *options))
            for options in ((), ("--retrans",), ("--summary",))
        )
        with router.firewall("forward", f"tcp dport {port} numgen random mod 25 == 0 drop"):
            send_all(sender, reader, 4 * SEGMENTS * MSS)
        counted = resent(client.netns)
        assert counted
        check(again, every, sums, port, counted)


def test_data_that_nobody_reads(hook: str) -> None:
    """Sums have the packets, too, whose end no program sees."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = joined(sender, reader, server.address(4))
        again, sums = (
            stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port), option))
            for option in ("--retrans", "--summary")
        )
        with router.firewall("forward", f"tcp dport {port} drop"):
            sender.do("client.sendall(bytes(100))")
            wait_until("a resend", lambda: resent(client.netns))
        wait_until("data", lambda: reader.get("select.select([served], [], [], 0)[0] != []"))
        counted = resent(client.netns)
        rows = again.tracer.stop()
        (in_sums,) = (row for row in sums.tracer.stop() if row["stage"] == "retransmit")
    assert "timeout" in {row["end"] for row in rows}
    assert in_sums["count"] == len(rows) == counted


@pytest.mark.parametrize("family", [4, 6])
def test_handshakes(family: int, hook: str) -> None:
    """A SYN, and a SYN-ACK, which TCP makes anew."""
    with chain(1) as (client, router, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(family))
        traces = stack.enter_context(
            tracing_packets("--hook", hook, "--port", str(port), "--retrans")
        )
        for place, flags, side in ((client, "syn", "dport"), (server, "syn | ack", "sport")):
            before = resent(place.netns)
            lost = f"tcp {side} {port} tcp flags == {flags} drop"
            with router.firewall("forward", lost):
                sender.connect(server.address(family), port)
                wait_until(lost, lambda place=place, before=before: resent(place.netns) > before)
            wait_until(
                "the handshake", lambda: sender.get("select.select([], [client], [], 0)[1] != []")
            )
        counted = {"S": resent(client.netns), "SA": resent(server.netns)}
        rows = traces.tracer.stop()
    told = {flags: [row for row in rows if row["tcp_flags"] == flags] for flags in counted}
    assert {flags: len(found) for flags, found in told.items()} == counted
    assert all(row["retrans_of"] and row["retrans_after_ns"] for row in rows)
    assert min(row["retrans_after_ns"] for row in told["S"]) > 500_000_000


def test_a_neighbour_that_answers_late(hook: str) -> None:
    """A packet that waits for its neighbour's address is sent once."""
    with chain(0) as (client, server), ExitStack() as stack:
        sender, reader = (stack.enter_context(each.remote()) for each in (client, server))
        port = reader.listen(server.address(4))
        client.run("ip", "neigh", "flush", "dev", "e0", "nud", "permanent")
        traces = stack.enter_context(tracing_packets("--hook", hook, "--dport", str(port)))
        assert sender.connect(server.address(4), port, timeout=30) == "ok"
        row = traces.one(tcp_flags="S")
    assert (row["retransmitted"], row["retrans_of"]) == (False, None)
