# SPDX-License-Identifier: BSD-2-Clause
"""One packet is one packet, also under load on all CPUs: no record has parts of two."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness import Row, ip, new_netns
from packet_traces import SENT, TAKEN, names, tracing_packets
from remote_python import RemotePython

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKETS = 50_000
SENDS = 16_000  # of each, each a packet or most of one
UNSEEN = 0.005  # of the packets: a softirq came in the middle of the same program
AGAIN = 0.05  # of a connection's packets: TCP's own doing, on a host that is busy
WAITS = ("app_write", "nagle", "window")  # of what TCP didn't send at once
IN_ORDER = "in_order"  # of what came while something before it was missing
FIELDS = "reason,type,packet,sport,dport,tcp_flags,seq,payload,stages,end,retrans_of"
SIZES = (101, 211, 307, 401, 503, 601, 701, 809)  # the connection's tag: its sends are so long
LOAD = """
import threading
def reader(sock, size, wrong):
    data = bytearray()
    number = 0
    while piece := sock.recv(65536):
        data += piece
        while len(data) >= size:
            wrong.append(number) if int.from_bytes(data[:8], "big") != number else None
            del data[:size]
            number += 1
    sock.close()
def writer(sock, size, sends):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(sends):
        sock.sendall(number.to_bytes(8, "big").ljust(size, b"."))
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)
    sock.close()
def load(sizes, sends, wrong):
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    threads, ports = [], {}
    for size in sizes:
        client = socket.create_connection(server.getsockname())
        ports[client.getsockname()[1]] = size
        served = server.accept()[0]
        threads.append(threading.Thread(target=reader, args=(served, size, wrong)))
        threads.append(threading.Thread(target=writer, args=(client, size, sends)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ports
"""


def pieces(rows: list[Row]) -> Iterator[tuple[int, int, Row]]:
    """Yield where the data of each packet begins and ends, by its first packet's number."""
    first = next(row["seq"] for row in rows if row["tcp_flags"] == "S") + 1
    for row in rows:
        if row["payload"]:
            begin = (row["seq"] - first) % 2**32
            yield begin, begin + row["payload"], row


def check_connection(rows: list[Row], size: int, lost: int) -> None:
    """What was delivered is all that was sent, without a gap; the rest was sent again for nothing."""
    behind, gaps = 0, []
    for begin, end, row in sorted(pieces(rows), key=lambda piece: piece[:2]):
        if row["end"] == "delivered":
            assert [name for name in names(row) if name != IN_ORDER][-2:] == TAKEN, row
            if begin > behind:
                gaps.append((behind, begin))
            behind = max(behind, end)
    assert behind == size * SENDS
    near = [
        (begin, end, row["end"], row["reason"], names(row))
        for begin, end, row in pieces(rows)
        if any(begin < high and end > low for low, high in gaps)
    ]
    assert len(gaps) <= len(rows) * UNSEEN + lost, (gaps, near)
    others = [row for row in rows if row["payload"] and row["end"] != "delivered"]
    assert len(others) <= len(rows) * AGAIN + lost, others[:9]
    assert all((row["reason"] or "TCP_").startswith("TCP_") for row in others)


def check_stages(row: Row) -> None:
    """Each stage once, in order; those that were seen of this packet alone."""
    at = names(row)
    order = [*WAITS, *SENT, TAKEN[0], IN_ORDER, TAKEN[1], "drop", "consume"]
    assert at == sorted(set(at), key=order.index), row
    assert row["stages"][0]["delta_ns"] == 0
    assert all(stage["delta_ns"] >= 0 for stage in row["stages"])


def test_none_is_mixed(hook: str) -> None:
    with new_netns() as netns, ExitStack() as stack:
        ip("-n", netns, "link", "set", "lo", "mtu", "1500")  # many packets of little data
        ip("-n", netns, "link", "set", "lo", "gso_max_segs", "1")
        remote = stack.enter_context(RemotePython(f"/run/netns/{netns}"))
        remote.do(f"exec({LOAD!r}, globals())")
        traces = stack.enter_context(
            tracing_packets(
                "--hook", hook, "--netns", netns, "--buffer", "256M", "--fields", FIELDS
            )
        )
        remote.do(f"wrong = []; ports = load({SIZES}, {SENDS}, wrong)")
        ports = {int(port): size for port, size in remote.get("ports").items()}
        assert remote.get("wrong") == []
        rows = traces.tracer.stop()
        lost = sum(row["count"] for row in traces.tracer.rows("lost"))
    assert len(rows) >= PACKETS
    assert len({row["packet"] for row in rows}) == len(rows)
    by_client = defaultdict(list)
    for row in rows:
        check_stages(row)
        if row["sport"] in ports:
            by_client[row["sport"]].append(row)
        else:
            assert row["dport"] in ports
    assert set(by_client) == set(ports)
    for port, size in ports.items():
        check_connection(by_client[port], size, lost)
