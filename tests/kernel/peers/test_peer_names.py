# SPDX-License-Identifier: BSD-2-Clause
"""The other end by its address, by --names, and --peer; two containers with one address are nobody."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from harness import ip, new_netns, tracing, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row, Tracer
    from two_containers import TwoContainers

NOBODY = "192.0.2.9"


def refused(containers: TwoContainers, address: str, port: int = 9) -> None:
    """Try to connect from the client's container, to a port without a listener."""
    with containers.client.remote() as client:
        client.do(f"s = socket.socket(socket.AF_INET{'6' if ':' in address else ''})")
        client.do(f"s.settimeout(0.2); s.connect_ex(({address!r}, {port})); s.close()")


def attempts(tracer: Tracer, address: str, count: int = 1) -> list[Row]:
    def found() -> list[Row]:
        return [row for row in tracer.rows() if row["daddr"] == address]

    wait_until(lambda: f"{count} to {address}: {tracer}", lambda: len(found()) >= count)
    return found()


@pytest.mark.parametrize("family", [4, 6])
def test_a_refused_attempt_names_the_only_container_with_the_address(
    hook: str, containers: TwoContainers, family: int
) -> None:
    near, far = containers.client, containers.server
    address = far.address(family)
    with tracing("--hook", hook, "--peers", "--container", near.container) as tracer:

        def named() -> Row | None:
            refused(containers, address)
            row = attempts(tracer, address)[-1]
            return row if row["peer_source"] else None

        row = wait_until(lambda: f"{tracer}", named)
        assert (row["result"], row["peer_source"]) == ("ECONNREFUSED", "address")
        assert (row["peer_container"], row["peer"]) == (far.container, far.container)
        assert row["peer_pid"] is None


def test_an_address_of_two_namespaces_is_nobodys(containers: TwoContainers) -> None:
    near, far = containers.client, containers.server
    address = far.address(4)
    with new_netns() as elsewhere, ExitStack() as stack:
        ip("-n", elsewhere, "addr", "add", f"{address}/32", "dev", "lo")
        tracer = stack.enter_context(tracing("--peers", "--container", near.container))
        for count in range(1, 8):
            refused(containers, address)
            attempts(tracer, address, count)
        assert {row["peer_source"] for row in attempts(tracer, address)} == {None}
        assert {row["peer"] for row in attempts(tracer, address)} == {address}
        tracer.stop()
        (summary,) = tracer.rows("summary")
        assert summary["peers"] == {"socket": 0, "address": 0, "names": 0, "unknown": 7}
        assert far.container


def test_names_of_addresses(containers: TwoContainers, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("192.0.2.0/24 office  # all\n192.0.2.9 the printer\n::/0 six\n")
    near = containers.client
    with ExitStack() as stack:
        options = ("--names", str(names), "--container", near.container)
        shown = stack.enter_context(tracing(*options))
        printer = stack.enter_context(tracing(*options, "--peer", "the *"))
        others = stack.enter_context(tracing(*options, "--peer", "!the printer"))
        for address in (NOBODY, "192.0.2.8"):
            refused(containers, address)
        assert attempts(shown, NOBODY)[0]["peer"] == "the printer"
        row = attempts(shown, "192.0.2.8")[0]
        assert (row["peer"], row["peer_source"], row["peer_container"]) == ("office", "names", None)
        assert attempts(printer, NOBODY)
        assert attempts(others, "192.0.2.8")
        assert {row["daddr"] for row in printer.stop()} == {NOBODY}
        assert {row["daddr"] for row in others.stop()} == {"192.0.2.8"}


def test_counts_by_the_other_ends_address(hook: str, containers: TwoContainers) -> None:
    """Exact, and named only if the container had the address all the while."""
    near, far = containers.client, containers.server
    address = far.address(4)
    options = ("--hook", hook, "-c", "--by", "container,peer", "--container", near.container)
    with ExitStack() as stack:
        counted = stack.enter_context(tracing(*options))
        selected = stack.enter_context(tracing(*options, "--peer", far.container))
        shared = stack.enter_context(tracing(*options))
        for port in range(9, 14):
            refused(containers, address, port)
        refused(containers, NOBODY)
        for tracer in (counted, selected):
            tracer.stop()
        with new_netns() as elsewhere:  # from now on two have it
            ip("-n", elsewhere, "addr", "add", f"{address}/32", "dev", "lo")
            shared.stop()
        told = {
            (row["container"], row["peer"], row["peer_container"], row["peer_source"]): row["count"]
            for row in counted.rows()
        }
        named = (near.container, far.container, far.container, "address")
        assert told == {named: 5, (near.container, NOBODY, None, None): 1}
        assert [(row["peer"], row["count"]) for row in selected.rows()] == [(far.container, 5)]
        told = {row["peer"]: (row["peer_source"], row["count"]) for row in shared.rows()}
        assert told == {address: (None, 5), NOBODY: (None, 1)}
        (summary,) = counted.rows("summary")
        assert summary["peers"] == {"socket": 0, "address": 5, "names": 0, "unknown": 1}


def test_who_got_an_address_meanwhile_isnt_named(containers: TwoContainers) -> None:
    near, far = containers.client, containers.server
    with tracing("-c", "--by", "peer", "--container", near.container) as tracer:
        refused(containers, NOBODY)
        ip("-n", far.netns, "addr", "add", f"{NOBODY}/32", "dev", "lo")
        try:
            tracer.stop()
        finally:
            ip("-n", far.netns, "addr", "del", f"{NOBODY}/32", "dev", "lo")
        assert [(row["peer"], row["peer_source"]) for row in tracer.rows()] == [(NOBODY, None)]


def test_connections_are_selected_by_their_other_end(hook: str, containers: TwoContainers) -> None:
    near, far = containers.client, containers.server
    address = far.address(4)
    with ExitStack() as stack:
        both = ("--hook", hook, "--all")
        to_far = stack.enter_context(tracing(*both, "--peer", far.container))
        not_far = stack.enter_context(tracing(*both, "--peer", f"!{far.container}"))
        pattern = stack.enter_context(tracing(*both, "--peer", f"{near.container[:-1]}?"))
        with far.remote() as server, near.remote() as client:
            server.do(f"l = socket.create_server(({address!r}, 0))")
            port = server.get("l.getsockname()[1]")
            client.do(f"c = socket.create_connection(({address!r}, {port}))")
            for tracer, role in ((to_far, "client"), (not_far, "server"), (pattern, "server")):
                wait_until(lambda t=tracer: f"{t}", lambda t=tracer: by_port(t, port))
                tracer.stop()
                assert [row["role"] for row in by_port(tracer, port)] == [role]


def by_port(tracer: Tracer, port: int) -> list[Row]:
    return [row for row in tracer.rows() if port in (row["sport"], row["dport"])]
