# SPDX-License-Identifier: BSD-2-Clause
"""Connections that were open before the start: both ends name each other, or nobody."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from both_ends import Ends, holding, serving, talking, told
from harness import HIERARCHY, cgnet, in_netns, new_cgroup, tracing, wait_until
from nat_lab import PUBLISHED, translate
from remote_python import RemotePython
from router_chain import chain

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row, Tracer

COUNT = 5
SIDES = 4  # clients, and servers
IDLE, BUSY = 1000, 96
OPTIONS = {"rtt": ("--slower", "1us"), "retrans": (), "drop": ("--all",), "trace": ()}
LOSES = (
    "add table inet lossy; add chain inet lossy c { type filter hook output priority 0; }; "
    "add rule inet lossy c tcp flags & (psh|fin) == psh numgen inc mod 3 == 0 drop"
)


def of(tracer: Tracer, pids: set[int]) -> list[Row]:
    return [row for row in tracer.rows() if row["pid"] in pids]


@pytest.mark.parametrize("family", [4, 6])
def test_their_ends(groups: tuple[Path, Path], family: int, hook: str) -> None:
    """Through address translation both ways; conn_id is that of connections that were seen to begin."""
    with chain(1) as (near, router, far), ExitStack() as stack:
        address = far.address(family)
        server, port = serving(stack, far.netns, address, groups[1])
        translate(router, family, address, port, dnat=True, snat=True)
        to = (router.address(family), PUBLISHED)
        client = talking(stack, near.netns, groups[0], *to, COUNT, held=True)
        ends = Ends(client, server, groups)
        client.say()
        client.wait("talked")
        ours = [each for group in groups for each in ("--cgroup", str(group))]
        tracer = stack.enter_context(tracing("--hook", hook, "--peers", *ours, command="life"))
        client.say()
        rows = tracer.wait_for(2 * COUNT)
        for row in rows:
            role = "client" if row["pid"] == client.pid else "server"
            assert told(row) == ends.other(role), row
            assert (row["role"], row["conn_id"]) == (None, None)
        assert Counter(row["pid"] for row in rows) == {client.pid: COUNT, server.pid: COUNT}


@pytest.mark.parametrize("command", OPTIONS)
def test_their_packets(groups: tuple[Path, Path], netns: str, command: str, hook: str) -> None:
    place = f"/run/netns/{netns}"
    with ExitStack() as stack:
        client, server = (stack.enter_context(RemotePython(place, (each,))) for each in groups)
        port = server.listen("127.0.0.1")
        assert client.connect("127.0.0.1", port, timeout=10) == "ok"
        server.do("end, _ = server.accept()")
        for each, end in ((client, "client"), (server, "end")):
            each.do(f"{end}.setsockopt(6, 1, 1)")  # TCP_NODELAY
        options = ("--hook", hook, "--peers", "--port", str(port), *OPTIONS[command])
        tracer = stack.enter_context(tracing(*options, command=command))
        in_netns(netns, "nft", LOSES)
        pids = {client.pid: server.pid, server.pid: client.pid}

        def both_are_shown() -> bool:
            client.do("client.send(b'question')")
            server.do("end.recv(64); end.send(b'answer')")
            client.do("client.recv(64)")
            return {row["pid"] for row in of(tracer, {*pids})} == {*pids}

        wait_until(lambda: f"{tracer}", both_are_shown)
        for row in of(tracer, {*pids}):
            assert (row["peer_pid"], row["peer_source"]) == (pids[row["pid"]], "socket"), row


@pytest.mark.parametrize("translated", [False, True])
def test_a_thousand_idle_and_a_hundred_busy_ones(translated: bool, netns: str) -> None:
    """Every name is right; idle connections all have one."""
    with ExitStack() as stack:
        groups = [stack.enter_context(new_cgroup(HIERARCHY)) for _ in range(2 * SIDES)]
        near = far = netns
        if translated:
            places = stack.enter_context(chain(1))
            near, far = places[0].netns, places[2].netns
            translate(places[1], 4, "", 0, dnat=False, snat=True)
        address = places[2].address(4) if translated else "127.0.0.1"
        servers = [serving(stack, far, address, group) for group in groups[:SIDES]]
        to = [(address, port) for _, port in servers]
        server_of: dict[tuple[int, int], int] = {}  # PIDs, by the ports of both
        idle: set[int] = set()  # of clients
        for group in groups[SIDES:]:
            for count in (IDLE, BUSY):
                busy = count == BUSY
                client, ports = holding(stack, near, group, to, count // SIDES**2, busy=busy)
                idle |= set() if busy else {client.pid}
                for mine, (server, port) in zip(ports, servers, strict=True):
                    server_of |= {(each, port): server.pid for each in mine}
        done = cgnet(
            "life", "--peers", "-i", "2", "--duration", "3", "-o", "json",
            "--netns", f"/run/netns/{near}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        named: Counter[bool] = Counter()
        for row in rows_of(done.stdout):
            if (right := server_of.get((row["sport"], row["dport"]))) is not None:
                assert row["peer_pid"] in (None, right), row
                named[row["pid"] in idle] += row["peer_pid"] is not None
        # Twice: an open connection has a row at each interval, and at the end.
        assert named[True] >= SIDES**2 * (IDLE // SIDES**2)
        assert named[False]


# A connection from before the start ends, and a restored socket takes its addresses.
RESTORES = """
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(6, 19, 1)  # TCP_REPAIR
for queue in (2, 1):
    sock.setsockopt(6, 20, queue)
    sock.setsockopt(6, 21, struct.pack("I", 4711))
sock.bind(("127.0.0.1", mine))
sock.connect(("127.0.0.1", {port}))
sock.setsockopt(6, 19, -1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
sock.close()
"""


def test_a_restored_socket_takes_no_place(groups: tuple[Path, Path], netns: str, hook: str) -> None:
    place = f"/run/netns/{netns}"
    with ExitStack() as stack:
        client, server = (stack.enter_context(RemotePython(place, (each,))) for each in groups)
        port = server.listen("127.0.0.1")
        assert client.connect("127.0.0.1", port, timeout=10) == "ok"
        server.do("end, _ = server.accept()")
        client.do("mine = client.getsockname()[1]")
        tracer = stack.enter_context(
            tracing("--hook", hook, "--peers", "--port", str(port), command="life")
        )
        client.do(RESTORES.format(port=port))
        server.do("end.close()")
        wait_until(lambda: f"{tracer}", lambda: len(of(tracer, {client.pid})) == 2)
        wait_until(lambda: f"{tracer}", lambda: of(tracer, {server.pid}))
        first, restored = of(tracer, {client.pid})
        (far,) = of(tracer, {server.pid})
        assert (first["peer_pid"], far["peer_pid"]) == (server.pid, client.pid)
        assert (restored["peer_pid"], restored["peer_source"]) == (None, None)


def rows_of(text: str) -> list[Row]:
    return [row for row in map(json.loads, text.splitlines()) if row["type"] == "life"]
