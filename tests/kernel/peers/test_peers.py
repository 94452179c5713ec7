# SPDX-License-Identifier: BSD-2-Clause
"""The other end of a connection by its socket: right, or not named, whatever is between the ends."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from background import background
from both_ends import CLAIMS, TELLS, Ends, serving, talking, told
from harness import HIERARCHY, new_cgroup, new_netns, tracing, wait_until
from lives import within
from nat_lab import PUBLISHED, translate
from router_chain import chain

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row, Tracer
    from two_containers import TwoContainers

COUNT = 20


def check(tracers: list[Tracer], ends: Ends, count: int = COUNT) -> None:
    """Let the client talk; every row of both tells the other end."""
    ends.client.say()
    ends.client.wait("talked")
    pids = {*ends.pids.values()}
    for tracer in tracers:

        def rows(tracer: Tracer = tracer) -> list[Row]:
            return [row for row in tracer.rows() if row["pid"] in pids]

        wait_until(lambda t=tracer: f"{t}", lambda: len(rows()) >= 2 * count)
        assert len(rows()) == 2 * count
        for row in rows():
            assert told(row) == ends.other(row["role"]), row
    for tracer in tracers:
        tracer.stop()
        (summary,) = tracer.rows("summary")
        assert summary["lost"] == 0


def start(stack: ExitStack, hook: str, *more: str) -> list[Tracer]:
    return [
        stack.enter_context(tracing("--hook", hook, "--peers", *options, *more, command=command))
        for command, options in (("connect", ("--all",)), ("life", ()))
    ]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("dnat", "snat"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_through_translation(
    hook: str, groups: tuple[Path, Path], family: int, dnat: bool, snat: bool
) -> None:
    with chain(1) as (near, router, far), ExitStack() as stack:
        address = far.address(family)
        server, port = serving(stack, far.netns, address, groups[1])
        translate(router, family, address, port, dnat=dnat, snat=snat)
        to = (router.address(family), PUBLISHED) if dnat else (address, port)
        client = talking(stack, near.netns, groups[0], *to, COUNT)
        check(start(stack, hook), Ends(client, server, groups))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_over_loopback(hook: str, groups: tuple[Path, Path], netns: str, address: str) -> None:
    with ExitStack() as stack:
        server, port = serving(stack, netns, address, groups[1])
        client = talking(stack, netns, groups[0], address, port, COUNT)
        check(start(stack, hook), Ends(client, server, groups))


def test_mapped_sockets(hook: str, groups: tuple[Path, Path], netns: str) -> None:
    with ExitStack() as stack:
        server, port = serving(stack, netns, "::", groups[1], dualstack_ipv6=True)
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT, mapped=True)
        check(start(stack, hook), Ends(client, server, groups))


def test_only_one_end_is_selected(groups: tuple[Path, Path], netns: str, hook: str) -> None:
    """The other end is named, also where a filter leaves out its rows."""
    with ExitStack() as stack:
        server, port = serving(stack, netns, "127.0.0.1", groups[1])
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT)
        ends = Ends(client, server, groups)
        tracers = [
            stack.enter_context(
                tracing(
                    "--hook", hook, "--peers", *options, "--cgroup", str(group), command=command
                )
            )
            for command, options in (("connect", ("--all",)), ("life", ()))
            for group in groups
        ]
        tracers.append(stack.enter_context(tracing("--hook", hook, "--peers", *within(netns))))
        client.say()
        for tracer, role in zip(
            tracers, ("client", "server", "client", "server", "client"), strict=True
        ):
            for row in tracer.wait_for(COUNT):
                assert row["role"] == role
                assert told(row) == ends.other(role)


def test_a_proxy_is_the_peer_of_both_its_connections(
    hook: str, groups: tuple[Path, Path], netns: str
) -> None:
    """As docker-proxy: each of its connections has an identity of its own."""
    with new_cgroup(HIERARCHY) as middle, ExitStack() as stack:
        server, port = serving(stack, netns, "127.0.0.1", groups[1])
        proxy = stack.enter_context(background(netns, PROXY.format(port=port), (middle,)))
        front = int(proxy.wait(""))
        client = talking(stack, netns, groups[0], "127.0.0.1", front, COUNT)
        tracers = start(stack, hook)
        client.say()
        client.wait("talked")
        at = {client.pid, server.pid, proxy.pid}
        for tracer in tracers:

            def rows(tracer: Tracer = tracer) -> list[Row]:
                return [row for row in tracer.rows() if row["pid"] in at]

            wait_until(lambda t=tracer: f"{t}", lambda: len(rows()) >= 4 * COUNT)
            met = {(row["pid"], row["role"], row["peer_pid"]) for row in rows()}
            assert met == {
                (client.pid, "client", proxy.pid),
                (proxy.pid, "server", client.pid),
                (proxy.pid, "client", server.pid),
                (server.pid, "server", proxy.pid),
            }
            of_proxy = {row["conn_id"] for row in rows() if row["pid"] == proxy.pid}
            assert len(of_proxy) == 2 * COUNT


PROXY = """
import socket, threading
front = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(front.getsockname()[1], flush=True)
def serve(near):
    far = socket.create_connection(("127.0.0.1", {port}))
    far.sendall(near.recv(64))
    near.sendall(far.recv(64))
    near.recv(64)
    far.close()
    near.close()
def accept():
    while True:
        threading.Thread(target=serve, args=(front.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
input()
"""


def test_a_worker_that_reads_is_the_peer(hook: str, groups: tuple[Path, Path], netns: str) -> None:
    """Its listener is another process's."""
    with ExitStack() as stack:
        server = stack.enter_context(background(netns, FORKS, (groups[1],)))
        port, worker = map(int, server.wait("").split())
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT)
        tracer = stack.enter_context(tracing("--hook", hook, "--peers", command="life"))
        client.say()
        client.wait("talked")
        wait_until(lambda: f"{tracer}", lambda: len(of(tracer, client.pid)) >= COUNT)
        assert {row["peer_pid"] for row in of(tracer, client.pid)} == {worker}


FORKS = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
child = os.fork()
if child:
    print(server.getsockname()[1], child, flush=True)
    sys.stdin.read()
    os.kill(child, 9)
    os._exit(0)
while True:
    sock = server.accept()[0]
    while data := sock.recv(64):
        sock.send(data)
    sock.close()
"""


def test_a_restored_socket_takes_nobodys_place(
    hook: str, groups: tuple[Path, Path], netns: str
) -> None:
    """It claims the numbers of another connection, in a namespace of its own, while they are open."""
    with new_netns() as elsewhere, ExitStack() as stack:
        server, port = serving(stack, netns, "127.0.0.1", groups[1])
        tracers = start(stack, hook)
        client = stack.enter_context(background(netns, TELLS.format(port=port), (groups[0],)))
        numbers = client.wait("(")
        claimant = stack.enter_context(
            background(elsewhere, CLAIMS.format(numbers=numbers, close=True))
        )
        claimant.wait("claimed")
        claimant.say()
        client.say()
        connect, life = tracers
        wait_until(
            lambda: f"{connect}", lambda: of(connect, claimant.pid) and of(connect, client.pid)
        )
        wait_until(lambda: f"{life}", lambda: of(life, claimant.pid) and of(life, client.pid))
        wait_until(lambda: f"{life}", lambda: of(life, server.pid))
        for tracer in tracers:
            for row in of(tracer, claimant.pid):
                assert (row["peer_source"], row["peer_pid"], row["conn_id"]) == (None, None, None)
            for row in of(tracer, client.pid):
                assert row["peer_pid"] == server.pid
            for row in of(tracer, server.pid):
                assert row["peer_pid"] == client.pid


def of(tracer: Tracer, pid: int) -> list[Row]:
    return [row for row in tracer.rows() if row["pid"] == pid]


def test_containers_are_named(hook: str, containers: TwoContainers) -> None:
    near, far = containers.client, containers.server
    with ExitStack() as stack:
        tracers = start(stack, hook)
        with far.remote() as server, near.remote() as client:
            address = far.address(4)
            server.do(f"l = socket.create_server(({address!r}, 0))")
            port = server.get("l.getsockname()[1]")
            client.do(f"c = socket.create_connection(({address!r}, {port}))")
            server.do("s, _ = l.accept(); s.send(b'x')")
            client.do("c.recv(1); c.close()")
            server.do("s.close()")
            for tracer in tracers:
                found = wait_until(
                    lambda t=tracer: f"{t}",
                    lambda t=tracer: len(both := by_port(t, port)) == 2 and both,
                )
                assert {row["role"]: row["peer_container"] for row in found} == {
                    "client": far.container,
                    "server": near.container,
                }
                assert {row["role"]: row["peer"] for row in found} == {
                    "client": far.container,
                    "server": near.container,
                }


def by_port(tracer: Tracer, port: int) -> list[Row]:
    return [row for row in tracer.rows() if port in (row["sport"], row["dport"])]
