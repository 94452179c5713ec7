# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet trace`` follows at most N packets at once: one more evicts the oldest, and is counted."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness import wait_until
from packet_traces import PacketTraces, joined, names, tracing_packets
from remote_python import RemotePython
from segments import ACK, ETH_P, tcp_packet

if TYPE_CHECKING:
    from two_containers import TwoContainers

PORT = 9
MOST = 30
PACKETS = 100
FIRST = 1000  # sequence number
YOUNG = range(FIRST + PACKETS - MOST + 5, FIRST + PACKETS)  # packets that surely stay
PAYLOAD = 500
SENDS = 60
PIECE = 100
# TCP makes one packet of what it hasn't sent yet: each waits for the acknowledgement of the one before.
SEND_EACH = """
import array, fcntl, termios, time
def send_each(sock, sends, size):
    unacknowledged = array.array("i", [0])
    for _ in range(sends):
        sock.sendall(bytes(size))
        while True:
            fcntl.ioctl(sock, termios.TIOCOUTQ, unacknowledged)
            if not unacknowledged[0]:
                break
            time.sleep(0.0005)
"""


def given_up(traces: PacketTraces) -> int:
    return sum(row["count"] for row in traces.tracer.rows("lost") if row["where"] == "packets")


def send_many(remote: RemotePython, containers: TwoContainers) -> None:
    """Send packets of no connection, each with a number of its own."""
    ends = (containers.client.address(4), 4000), (containers.server.address(4), PORT)
    packets = [
        tcp_packet(*ends, seq=FIRST + number, ack=1, flags=ACK, payload=bytes(PAYLOAD)).hex()
        for number in range(PACKETS)
    ]
    hardware = bytes.fromhex(containers.router.hardware("to_client").replace(":", ""))
    where = ("c0", ETH_P[4], 0, 0, hardware)
    remote.do("raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)")
    remote.do(f"for each in {packets}: raw.sendto(bytes.fromhex(each), {where})")
    remote.do("raw.close()")


def test_queue_of_many(containers: TwoContainers, hook: str) -> None:
    """Those that wait longest in the shaper are given up; they are new where they come out of it."""
    arguments = ("--hook", hook, "--dport", str(PORT), "--in-flight", str(MOST))
    with (
        tracing_packets(*arguments) as traces,
        containers.client.remote() as remote,
        containers.client.shaper(rate="8mbit", burst="3000", limit="200000"),
    ):
        send_many(remote, containers)
        last = FIRST + PACKETS - 1
        wait_until("the last packet", lambda: traces.of(seq=last, dport=PORT))
        traces.tracer.stop()
        rows = traces.of(dport=PORT)
        lost = given_up(traces)
    whole = {row["seq"] for row in rows if names(row)[0] == "dev_queue"}
    # An interrupt may have hidden the stage at which one came out: it begins with the next.
    cut = {row["seq"] for row in rows} - whole
    assert sum(names(row)[0] == "qdisc_dequeue" for row in rows) >= len(cut) - 5
    assert set(YOUNG) <= whole
    assert max(cut) < min(YOUNG)
    assert len(whole | cut) == PACKETS
    assert len(cut) <= lost <= len(cut) + 5
    assert len(cut) >= PACKETS / 2


def test_reader_that_lets_many_wait(netns: str, hook: str) -> None:
    with ExitStack() as stack:
        client, server = (
            stack.enter_context(RemotePython(f"/run/netns/{netns}")) for _ in range(2)
        )
        arguments = ("--hook", hook, "--netns", netns, "--in-flight", str(MOST))
        traces = stack.enter_context(tracing_packets(*arguments))
        port = joined(client, server, "127.0.0.1")
        client.do("client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
        client.do(f"exec({SEND_EACH!r}, globals())")
        client.do(f"send_each(client, {SENDS}, {PIECE})")
        server.do(f"left = {SENDS * PIECE}")
        server.do("while left: left -= len(served.recv(left))")
        first = traces.one(tcp_flags="S", dport=port)["seq"] + 1
        last = (first + (SENDS - 1) * PIECE) % 2**32
        wait_until("the last packet", lambda: traces.of(seq=last, dport=port, end="delivered"))
        traces.tracer.stop()
        rows = traces.of(dport=port, end="delivered")
        lost = given_up(traces)
    told = sorted((row["seq"] - first) % 2**32 // PIECE for row in rows)
    assert told[-1] == SENDS - 1
    assert told[0] >= SENDS - MOST - 1  # those before were given up
    assert lost >= SENDS - MOST - 1
