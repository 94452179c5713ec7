# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets --peers``: of what is open, both ends name each other, or nobody."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from background import background
from both_ends import CLAIMS, TELLS, Ends, holding, serving, talking, told
from harness import HIERARCHY, cgnet, new_cgroup, new_netns, tracing, wait_until
from nat_lab import PUBLISHED, translate
from router_chain import chain

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row
    from two_containers import TwoContainers

COUNT = 5
SIDES = 4  # clients, and servers
IDLE, BUSY = 1000, 96


def listed(*options: str) -> tuple[list[Row], Row]:
    """Return the rows of ``cgnet sockets --peers``, and the summary."""
    done = cgnet("sockets", "--peers", "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    *rows, summary = map(json.loads, done.stdout.splitlines())
    return rows, summary


def check(ends: Ends) -> None:
    """Let the client talk, and keep its connections: both ends of each tell the other one."""
    ends.client.say()
    ends.client.wait("talked")
    pids = {*ends.pids.values()}
    found, _ = listed("--state", "ESTABLISHED")
    rows = [row for row in found if row["pid"] in pids]
    assert len(rows) == 2 * COUNT
    for row in rows:
        assert told(row) == ends.other(row["role"]), row
    by_role = {
        role: sorted(row["conn_id"] for row in rows if row["role"] == role)
        for role in ("client", "server")
    }
    assert by_role["client"] == by_role["server"]
    assert len({*by_role["client"]}) == COUNT


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("dnat", "snat"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_through_translation(
    groups: tuple[Path, Path], family: int, dnat: bool, snat: bool
) -> None:
    with chain(1) as (near, router, far), ExitStack() as stack:
        address = far.address(family)
        server, port = serving(stack, far.netns, address, groups[1])
        translate(router, family, address, port, dnat=dnat, snat=snat)
        to = (router.address(family), PUBLISHED) if dnat else (address, port)
        client = talking(stack, near.netns, groups[0], *to, COUNT, held=True)
        check(Ends(client, server, groups))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_over_loopback(groups: tuple[Path, Path], netns: str, address: str) -> None:
    with ExitStack() as stack:
        server, port = serving(stack, netns, address, groups[1])
        client = talking(stack, netns, groups[0], address, port, COUNT, held=True)
        check(Ends(client, server, groups))


def test_mapped_sockets(groups: tuple[Path, Path], netns: str) -> None:
    with ExitStack() as stack:
        server, port = serving(stack, netns, "::", groups[1], dualstack_ipv6=True)
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT, mapped=True, held=True)
        check(Ends(client, server, groups))


def test_conn_id_is_that_of_connect(groups: tuple[Path, Path], netns: str) -> None:
    with ExitStack() as stack:
        _, port = serving(stack, netns, "127.0.0.1", groups[1])
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT, held=True)
        tracer = stack.enter_context(tracing("--pid", str(client.pid)))
        client.say()
        client.wait("talked")
        made = {row["sport"]: row["conn_id"] for row in tracer.wait_for(COUNT)}
        rows, _ = listed("--pid", str(client.pid))
        assert {row["sport"]: row["conn_id"] for row in rows} == made
        assert None not in made.values()


def test_the_other_end_is_named_where_filters_leave_it_out(
    groups: tuple[Path, Path], netns: str
) -> None:
    with ExitStack() as stack:
        server, port = serving(stack, netns, "127.0.0.1", groups[1])
        client = talking(stack, netns, groups[0], "127.0.0.1", port, COUNT, held=True)
        client.say()
        client.wait("talked")
        ends = Ends(client, server, groups)
        for role, group in zip(("client", "server"), groups, strict=True):
            rows, summary = listed("--cgroup", str(group), "--role", role, "--state", "!LISTEN")
            assert [told(row) for row in rows] == [ends.other(role)] * COUNT
            assert summary["peers"]["socket"] == COUNT
            assert summary["peers"]["unknown"] == 0
        for by in ("peer", "state"):
            (count,), summary = listed(
                "--states", "--by", by, "--cgroup", str(groups[0]), "--role", "client"
            )
            assert count["count"] == summary["peers"]["socket"] == COUNT
        rows, _ = listed("--peer", ends.cgroups["server"])
        assert {row["pid"] for row in rows} == {client.pid}
        assert len(rows) == COUNT


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
        client_of: dict[str, int] = {}  # PIDs, by conn_id
        idle: set[int] = set()  # of clients
        for group in groups[SIDES:]:
            for count in (IDLE, BUSY):
                busy = count == BUSY
                client, ports = holding(stack, near, group, to, count // SIDES**2, busy=busy)
                idle |= set() if busy else {client.pid}
                for mine, (server, port) in zip(ports, servers, strict=True):
                    server_of |= {(each, port): server.pid for each in mine}
        for _ in range(3):
            rows = listed("--state", "ESTABLISHED", "--netns", f"/run/netns/{near}")[0]
            clients = [row for row in rows if (row["sport"], row["dport"]) in server_of]
            for row in clients:
                right = server_of[row["sport"], row["dport"]]
                assert row["peer_pid"] in (None, right), row
                client_of |= {row["conn_id"]: row["pid"]} if row["conn_id"] else {}
            rows = listed("--state", "ESTABLISHED", "--netns", f"/run/netns/{far}")[0]
            for row in rows:
                if row["pid"] in server_of.values() and row["conn_id"] in client_of:
                    assert row["peer_pid"] in (None, client_of[row["conn_id"]]), row
            named = Counter(row["pid"] in idle for row in clients if row["peer_pid"])
            assert named[True] == SIDES**2 * (IDLE // SIDES**2)
            assert named[False]  # of busy ones


def test_restored_sockets_take_nobodys_place(groups: tuple[Path, Path], netns: str) -> None:
    """They claim the numbers of another connection, in a namespace of their own."""
    with new_netns() as elsewhere, ExitStack() as stack:
        _, port = serving(stack, netns, "127.0.0.1", groups[1])
        client = stack.enter_context(background(netns, TELLS.format(port=port), (groups[0],)))
        numbers = client.wait("(")
        claimant = stack.enter_context(
            background(elsewhere, CLAIMS.format(numbers=numbers, close=False))
        )
        claimant.wait("claimed")
        rows, _ = listed("--state", "ESTABLISHED")
        of = {pid: [row for row in rows if row["pid"] == pid] for pid in (claimant.pid, client.pid)}
        assert len(of[claimant.pid]) == 2
        for row in of[claimant.pid]:
            assert (row["peer_source"], row["peer_pid"], row["conn_id"]) == (None, None, None)
        assert [row["peer_pid"] for row in of[client.pid]] == [None]  # of two candidates none
        client.say()


def test_a_claim_on_a_connection_whose_other_end_is_elsewhere(
    groups: tuple[Path, Path], netns: str
) -> None:
    """The claimant is the only socket here that has the numbers, and isn't the other end."""
    with new_netns() as elsewhere, ExitStack() as stack:
        server, port = serving(stack, netns, "127.0.0.1", groups[1])
        client = stack.enter_context(background(netns, TELLS.format(port=port), (groups[0],)))
        numbers = client.wait("(")
        server.say()  # it ends, and its socket with it, without a word to the client
        claimant = stack.enter_context(
            background(elsewhere, CLAIMS.format(numbers=numbers, close=False))
        )
        claimant.wait("claimed")
        rows, _ = listed("--state", "ESTABLISHED,CLOSE_WAIT,FIN_WAIT2")
        assert [row["peer_pid"] for row in rows if row["pid"] == client.pid] != [claimant.pid]
        client.say()


def test_containers_are_named_and_selected(containers: TwoContainers) -> None:
    near, far = containers.client, containers.server
    with far.remote() as server, near.remote() as client:
        address = far.address(4)
        server.do(f"l = socket.create_server(({address!r}, 0))")
        port = server.get("l.getsockname()[1]")
        client.do(f"c = socket.create_connection(({address!r}, {port}))")
        server.do("s, _ = l.accept()")
        rows, _ = listed("--port", str(port), "--state", "!LISTEN")
        assert {row["role"]: row["peer"] for row in rows} == {
            "client": far.container,
            "server": near.container,
        }
        rows, _ = listed("--port", str(port), "--peer", f"!{near.container}")
        assert {row["role"]: row["state"] for row in rows} == {
            "client": "ESTABLISHED",
            "server": "LISTEN",
        }
        client.do("c.close()")


def test_an_unanswered_attempt_names_the_only_container_with_the_address(
    containers: TwoContainers,
) -> None:
    near, far = containers.client, containers.server
    address = far.address(4)
    with far.firewall("input", "drop"), near.remote() as client:
        client.do("s = socket.socket(); s.setblocking(False)")
        client.do(f"s.connect_ex(({address!r}, 9))")

        def named() -> Row | None:
            rows, _ = listed("--container", near.container, "--state", "SYN_SENT")
            return next((row for row in rows if row["peer_source"]), None)

        row = wait_until("the name", named)
        assert (row["peer_source"], row["peer"], row["peer_pid"]) == (
            "address",
            far.container,
            None,
        )
        client.do("s.close()")


def test_listeners_have_none(netns: str) -> None:
    with ExitStack() as stack, new_cgroup(HIERARCHY) as group:
        server, _ = serving(stack, netns, "0.0.0.0", group)
        (row,), summary = listed("--pid", str(server.pid))
        assert (row["state"], row["peer"], row["peer_source"]) == ("LISTEN", None, None)
        assert sum(summary["peers"].values()) == 0
        done = cgnet("sockets", "--listeners", "--peer", "web")
        assert done.returncode == 2
        assert "no other end" in done.stderr
