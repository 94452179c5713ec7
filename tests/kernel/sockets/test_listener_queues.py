# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets --listeners``: how full accept queues are, and have been between two listings."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import harness
import pytest
from harness import HIERARCHY, in_netns, new_cgroup, tracing, wait_until
from remote_python import RemotePython
from socket_lists import listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Row, Tracer

FAMILIES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
SERVERS = """
family = socket.AF_INET6 if ':' in {address!r} else socket.AF_INET
servers = [socket.socket(family) for _ in range(3)]
for index, each in enumerate(servers):
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, {shared:d})
    each.bind(({address!r}, servers[0].getsockname()[1] if {shared} and index else 0))
    each.listen({backlog})
socks = []
"""
BURST = """
for _ in range({count}):
    sock = socket.socket(family)
    sock.setblocking({wait})
    sock.connect_ex(servers[1].getsockname())
    socks.append(sock)
"""
ACCEPT = """
for each in servers:
    each.setblocking(False)
    try:
        while True:
            socks.append(each.accept()[0])
    except BlockingIOError:
        pass
"""


@contextmanager
def three_listeners(
    netns: str, address: str = "127.0.0.1", *, backlog: int, shared: bool = False
) -> Iterator[tuple[RemotePython, list[int], Path]]:
    """Yield a process, its ports, which are one if ``shared``, and the cgroup that it has alone."""
    with (
        new_cgroup(HIERARCHY) as cgroup,
        RemotePython(f"/run/netns/{netns}", cgroups=(cgroup,)) as process,
    ):
        process.do(SERVERS.format(address=address, backlog=backlog, shared=shared))
        yield process, process.get("[each.getsockname()[1] for each in servers]"), cgroup


@contextmanager
def watching(netns: str, monkeypatch: pytest.MonkeyPatch, interval: float) -> Iterator[Tracer]:
    monkeypatch.setattr(harness, "FORCED", [])  # there is no transport to force
    place = ("--netns", f"/run/netns/{netns}")
    with tracing("--listeners", "-i", str(interval), *place, command="sockets") as tracer:
        yield tracer


def next_rows(tracer: Tracer) -> list[Row]:
    """Return the rows of a listing that begins later."""

    def listings() -> list[list[Row]]:
        found: dict[int, list[Row]] = {}
        ends = 0  # rows of one listing are apart by less than this
        for row in sorted(tracer.rows("sockets"), key=lambda row: row["ts_ns"]):
            if row["ts_ns"] > ends:
                begin = row["ts_ns"]
            found.setdefault(begin, []).append(row)
            ends = row["ts_ns"] + 100_000_000
        return list(found.values())

    before = len(listings())
    # The one after the next is complete when another has begun.
    return wait_until(str(tracer), lambda: len(all_ := listings()) >= before + 3 and all_[-2])


@FAMILIES
def test_a_burst_between_two_listings_is_seen(
    netns: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills a queue that is emptied at once: listings find it empty."""
    with (
        three_listeners(netns, address, backlog=64) as (process, ports, _),
        watching(netns, monkeypatch, 0.5) as tracer,
    ):
        process.do(BURST.format(count=20, wait=True) + ACCEPT)
        rows = {row["sport"]: row for row in next_rows(tracer)}
        assert [rows[port]["queue"] for port in ports] == [0, 0, 0]
        assert [rows[port]["queue_high"] for port in ports] == [0, 20, 0]
        process.do(BURST.format(count=7, wait=True) + ACCEPT)  # less doesn't lower it
        rows = {row["sport"]: row for row in next_rows(tracer)}
        assert [rows[port]["queue_high"] for port in ports] == [0, 20, 0]


def test_each_listener_at_a_shared_port_has_its_own_mark(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are spread over the group, and don't tell which one they come from."""
    with (
        three_listeners(netns, backlog=64, shared=True) as (process, (port, *_), _),
        watching(netns, monkeypatch, 0.5) as tracer,
    ):
        process.do(BURST.format(count=30, wait=True))
        lines = in_netns(netns, "ss", "-ltnH", f"sport = :{port}").splitlines()
        queues = sorted(int(line.split()[1]) for line in lines)
        assert sum(queues) == 30
        process.do(ACCEPT)
        rows = next_rows(tracer)
        assert [row["queue"] for row in rows] == [0, 0, 0]
        assert sorted(row["queue_high"] for row in rows) == queues


def test_a_listener_that_comes_later_begins_anew(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one at the same port, and perhaps at the same address in the kernel."""
    with (
        RemotePython(f"/run/netns/{netns}") as process,
        watching(netns, monkeypatch, 0.5) as tracer,
    ):
        process.do("family, socks, port = socket.AF_INET, [], 0")
        for count in (9, 4):
            process.do(
                "servers = [None, socket.socket()]\n"
                "servers[1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
                "servers[1].bind(('127.0.0.1', port)); servers[1].listen(64)\n"
                "port = servers[1].getsockname()[1]"
            )
            process.do(BURST.format(count=count, wait=True) + "servers[0] = servers[1]" + ACCEPT)
            assert [row["queue_high"] for row in next_rows(tracer)] == [count]
            process.do("for each in servers: each.close()")


@FAMILIES
def test_a_burst_fills_one_of_three_listeners(netns: str, address: str) -> None:
    """Of a container's: the others tell of no drop."""
    with three_listeners(netns, address, backlog=2) as (process, ports, cgroup):
        process.do(BURST.format(count=8, wait=False))

        def told() -> list[Row]:
            rows, _ = listed("--listeners", "--cgroup", str(cgroup))
            return sorted(rows, key=lambda row: ports.index(row["sport"]))

        rows = wait_until("drops", lambda: (found := told())[1]["drops"] and found)
        assert [row["drops"] > 0 for row in rows] == [False, True, False]
        assert [row["queue"] for row in rows] == [0, 3, 0]
        assert [row["backlog"] for row in rows] == [2, 2, 2]
