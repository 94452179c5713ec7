# SPDX-License-Identifier: BSD-2-Clause
"""Resends, round-trip times, drops and traces name the other end, and have the connection's id."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from both_ends import Ends, serving, talking, told
from harness import in_netns, tracing, wait_until
from nat_lab import PUBLISHED, translate
from router_chain import chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Row, Tracer

COUNT = 10
DATA = "tcp flags & (psh|fin)"
SIDES = "dport", "sport"  # of the server's port: to it, and from it
ROLES = {"client", "server"}
OPTIONS = {"rtt": ("--slower", "1us"), "retrans": (), "drop": ("--all",), "trace": ()}


def lose(netns: str, hook: str, *those: str) -> None:
    """Drop some packets in a namespace."""
    rules = "; ".join(f"add rule inet lossy c {each} drop" for each in those)
    chain = f"add chain inet lossy c {{ type filter hook {hook} priority 0; }}"
    in_netns(netns, "nft", f"add table inet lossy; {chain}; {rules}")


@contextmanager
def lossy_lab(groups: tuple[Path, Path], family: int) -> Iterator[tuple[ExitStack, Ends]]:
    """Yield a client and a server, with translation and loss between them.

    Each of them loses some segments with data; the server's host also acknowledgements without, so
    that the same data comes again. The handshake's are not lost: the other end comes with the last.
    """
    with chain(1) as (near, router, far), ExitStack() as stack:
        address = far.address(family)
        server, port = serving(stack, far.netns, address, groups[1])
        translate(router, family, address, port, dnat=True, snat=True)
        there, back = (f"tcp {side} {port} {DATA} == psh numgen inc mod 4 == 0" for side in SIDES)
        lose(router.netns, "forward", there, back)
        lose(near.netns, "output", f"{DATA} == psh numgen inc mod 7 == 0")
        acknowledges = "tcp flags & (psh|syn|fin) == 0 numgen inc mod 3 == 0"
        lose(far.netns, "output", f"{DATA} == psh numgen inc mod 7 == 0", acknowledges)
        to = (router.address(family), PUBLISHED)
        client = talking(stack, near.netns, groups[0], *to, COUNT)
        yield stack, Ends(client, server, groups)


def start(
    stack: ExitStack, hook: str, command: str, groups: tuple[Path, Path], *more: str
) -> Tracer:
    ours = [each for group in groups for each in ("--cgroup", str(group))]
    options = ("--hook", hook, *ours, *OPTIONS[command], *more)
    return stack.enter_context(tracing(*options, command=command))


def known(tracer: Tracer, ends: Ends) -> list[Row]:
    """Return the rows of both whose connection is known."""
    pids = {*ends.pids.values()}
    return [row for row in tracer.rows() if row["pid"] in pids and row["conn_id"]]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("command", OPTIONS)
def test_through_translation_and_loss(
    hook: str, groups: tuple[Path, Path], command: str, family: int
) -> None:
    with lossy_lab(groups, family) as (stack, ends):
        connect = stack.enter_context(tracing("--hook", hook, "--all"))
        tracer = start(stack, hook, command, groups, "--peers")
        ends.client.say()
        ends.client.wait("talked")
        wait_until(
            lambda: f"{tracer}", lambda: {row["role"] for row in known(tracer, ends)} == ROLES
        )
        tracer.stop()
        rows = known(tracer, ends)
        for row in rows:
            assert told(row) == ends.other(row["role"]), row
        connect.stop()
        made = {row["conn_id"] for row in known(connect, ends)}
        assert len(made) == COUNT
        assert {row["conn_id"] for row in rows} <= made
        (summary,) = tracer.rows("summary")
        assert summary["lost"] == 0
        assert summary["peers"]["socket"] >= len(rows)


def test_rows_are_selected_by_their_other_end(groups: tuple[Path, Path], hook: str) -> None:
    with lossy_lab(groups, 4) as (stack, ends):
        tracers = {
            (command, role): start(stack, hook, command, groups, "--peer", ends.cgroups[role])
            for command in OPTIONS
            for role in ROLES
        }
        ends.client.say()
        ends.client.wait("talked")
        for (_, role), tracer in tracers.items():
            wait_until(lambda t=tracer: f"{t}", lambda t=tracer: known(t, ends))
            tracer.stop()
            assert {row["role"] for row in tracer.rows()} == ROLES - {role}


def test_a_drop_without_a_socket_has_no_other_end(groups: tuple[Path, Path]) -> None:
    """The router's: neither end of the connection is known there."""
    with lossy_lab(groups, 4) as (stack, ends):
        tracer = stack.enter_context(tracing("--peers", "--all", command="drop"))
        ends.client.say()
        ends.client.wait("talked")

        def of_router() -> list[Row]:
            return [row for row in tracer.rows() if row["direction"] == "forward"]

        wait_until(lambda: f"{tracer}", of_router)
        for row in of_router():
            assert (row["peer"], row["peer_source"], row["conn_id"]) == (None, None, None)
