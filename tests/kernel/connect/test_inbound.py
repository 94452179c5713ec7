# SPDX-License-Identifier: BSD-2-Clause
"""--inbound and --all: accepted connections are of those who listen, not of those who connect."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from compare import inner
from harness import HIERARCHY, in_netns, new_cgroup, run, tracing, wait_until
from kernel_maps import entries
from servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Row, Tracer
    from servers import Server


@pytest.fixture
def other() -> Iterator[Path]:
    """One more cgroup of the hierarchy that names owners."""
    with new_cgroup(HIERARCHY) as path:
        yield path


def accepted(tracer: Tracer, port: int, count: int) -> list[Row]:
    """End it when it shows so many connections that a port accepted."""

    def rows() -> list[Row]:
        return [r for r in tracer.rows() if r["sport"] == port and r["role"] == "server"]

    wait_until(lambda: f"{count} accepted: {tracer}", lambda: len(rows()) >= count)
    tracer.stop()
    return rows()


def check_server(row: Row, server: Server | None, group: Path | None) -> None:
    """The row is of this process, or of nobody known."""
    known = ("inherited", server.pid, inner(group, HIERARCHY)) if server and group else None
    assert (row["owner_source"], row["pid"], row["cgroup"]) == (known or ("unknown", None, None))
    assert (row["role"], row["result"], row["tcp_state"]) == ("server", "ok", "ESTABLISHED")


class Way(NamedTuple):
    address: str  # of the server
    how: str
    target: str  # of the client


WAYS = (
    Way("127.0.0.1", "", "127.0.0.1"), Way("0.0.0.0", "", "127.0.0.1"), Way("::1", "", "::1"),
    Way("::", "dual", "::1"), Way("::", "dual", "127.0.0.1"), Way("::", "v6only", "::1"),
    Way("::", "dual", "::ffff:127.0.0.1"), Way("::ffff:127.0.0.1", "dual", "127.0.0.1"),
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.address}-{way.how}-{way.target}")
def test_server_row(hook: str, group: Path, other: Path, way: Way) -> None:
    with (
        tracing("--hook", hook, "--inbound") as tracer,
        serving(way.address, way.how, cgroups=(group,)) as server,
    ):
        made = run("connect", way.target, server.port, 3, cgroups=(other,))
        rows = accepted(tracer, server.port, 3)
        assert {row["role"] for row in tracer.rows()} == {"server"}
    assert Counter(row["dport"] for row in rows) == Counter(row["sport"] for row in made)
    for row in rows:
        check_server(row, server, group)
        assert row["family"] == (6 if way.target == "::1" else 4)
        assert row["mapped"] == (row["family"] == 4 and ":" in way.address)
        assert row["daddr"] == row["saddr"] == way.target.removeprefix("::ffff:")


def test_default_shows_no_server_rows_and_all_shows_both(
    hook: str, group: Path, other: Path
) -> None:
    with (
        tracing("--hook", hook) as default,
        tracing("--hook", hook, "--all") as both,
        tracing("--hook", hook, "--role", "server") as servers,
        serving(cgroups=(group,)) as server,
    ):
        (made,) = run("connect", "127.0.0.1", server.port, cgroups=(other,))
        (row,) = accepted(both, server.port, 1)
        assert len(accepted(servers, server.port, 1)) == 1
        default.wait_for(1)
        default.stop()
        assert {each["role"] for each in default.rows()} == {"client"}
        assert {each["role"] for each in servers.rows()} == {"server"}
        (client,) = (each for each in both.rows() if each["pid"] == made["pid"])
    check_server(row, server, group)
    assert (client["cgroup"], client["role"]) == (inner(other, HIERARCHY), "client")
    assert (client["sport"], client["dport"]) == (row["dport"], row["sport"])


def test_filters_on_owners_are_about_those_who_listen(hook: str, group: Path, other: Path) -> None:
    with (
        tracing("--hook", hook, "--inbound", "--cgroup", str(group)) as tracer,
        serving(cgroups=(group,)) as wanted,
        serving(cgroups=(other,)) as unwanted,
    ):
        run("connect", "127.0.0.1", unwanted.port, cgroups=(group,))
        run("connect", "127.0.0.1", wanted.port, cgroups=(other,))
        (row,) = accepted(tracer, wanted.port, 1)
        assert not any(each["sport"] == unwanted.port for each in tracer.rows())
    check_server(row, wanted, group)


POSITIVE = (["--cgroup", "CGROUP"], ["--uid", "0"], ["--comm", "COMM"], ["--pid", "PID"])


def filled(value: str, server: Server, group: Path) -> str:
    facts = {"PID": str(server.pid), "COMM": comm_of(server), "CGROUP": str(group)}
    return facts.get(value, value)


@pytest.mark.parametrize("option", POSITIVE, ids=lambda each: each[0])
def test_who_was_there_is_known(hook: str, group: Path, netns: str, option: list[str]) -> None:
    with serving(cgroups=(group,), netns=netns) as early:
        value = filled(option[1], early, group)
        arguments = ("--hook", hook, "--inbound", "--netns", netns)
        with (
            tracing(*arguments, option[0], value) as tracer,
            tracing(*arguments, option[0], f"!{value}") as negated,
        ):
            run("connect", "127.0.0.1", early.port, netns=netns)
            (row,) = accepted(tracer, early.port, 1)
            assert negated.stop() == []
        check_server(row, early, group)


@pytest.mark.parametrize("option", POSITIVE, ids=lambda each: each[0])
def test_unknown_owner_matches_nothing_that_was_asked_for(
    hook: str, group: Path, option: list[str]
) -> None:
    """Nobody has a listener open that is adrift, and by address it isn't told which of two it is."""
    how = "adrift" if hook == "tp_btf" else "shared"
    with ExitStack() as stack:
        early = stack.enter_context(serving("127.0.0.1", how, cgroups=(group,)))
        if how == "shared":
            stack.enter_context(serving("127.0.0.1", how, port=early.port))
        value = filled(option[1], early, group)
        port = ("--sport", str(early.port))
        arguments = ("--hook", hook, "--inbound", *port, option[0])
        tracer = stack.enter_context(tracing(*arguments, value))
        negated = stack.enter_context(tracing(*arguments, f"!{value}"))
        run("connect", "127.0.0.1", early.port)
        (row,) = accepted(negated, early.port, 1)
        assert tracer.stop() == []
    check_server(row, None, None)


def comm_of(server: Server) -> str:
    with open(f"/proc/{server.pid}/comm") as name:  # noqa: PTH123
        return name.read().strip()


# -- several who listen at one port


def test_shared_port(hook: str, group: Path, other: Path) -> None:
    """Each child is of its own listener; programs that only know the address say so."""
    with (
        tracing("--hook", hook, "--inbound") as tracer,
        serving("127.0.0.1", "shared", cgroups=(group,)) as one,
        serving("127.0.0.1", "shared", port=one.port, cgroups=(other,)) as two,
    ):
        run("connect", "127.0.0.1", one.port, 40)
        rows = {row["dport"]: row for row in accepted(tracer, one.port, 40)}
        owners = ((one, group, one.accepted()), (two, other, two.accepted()))
    for server, place, ports in owners:
        assert ports
        for port in ports:
            typed = hook == "tp_btf"
            check_server(rows.pop(port), server if typed else None, place if typed else None)
    assert not rows


class Beside(NamedTuple):
    early: tuple[str, str]  # address, how; where clients connect to
    late: tuple[str, str]
    shared: bool  # the kernel gives either a part


BESIDE = {
    "reuseport": Beside(("127.0.0.1", "shared"), ("127.0.0.1", "shared"), True),
    "any address": Beside(("127.0.0.1", "shared"), ("0.0.0.0", "shared"), False),
    "family": Beside(("0.0.0.0", ""), ("::", "v6only"), False),
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_listener_from_before_beside_a_new_one(
    hook: str, group: Path, netns: str, beside: Beside
) -> None:
    """Whoever is shown is the one who accepted; by address, two who share a port aren't told apart."""
    with (
        serving(*beside.early, port=7000, netns=netns) as before,
        tracing("--hook", hook, "--inbound", "--netns", netns) as tracer,
        serving(*beside.late, port=7000, netns=netns, cgroups=(group,)) as after,
    ):
        run("connect", "127.0.0.1", 7000, 40, netns=netns)
        rows = accepted(tracer, 7000, 40)
        owned = dict.fromkeys(before.accepted(), before.pid)
        assert bool(after.accepted()) == beside.shared
        owned |= dict.fromkeys(after.accepted(), after.pid)
    shown = {row["dport"]: row["pid"] for row in rows}
    assert len(shown) == 40
    known = {port: pid for port, pid in shown.items() if pid is not None}
    assert known.items() <= owned.items()
    if hook == "tp_btf":
        assert known == owned


@pytest.mark.parametrize("port", [7000, 0], ids=["bound", "ephemeral"])
def test_port_that_is_taken_over(
    hook: str, group: Path, other: Path, netns: str, port: int
) -> None:
    with tracing("--hook", hook, "--inbound", "--netns", netns) as tracer:
        with serving(port=port, netns=netns, cgroups=(group,)) as first:
            run("connect", "127.0.0.1", first.port, netns=netns)
        with serving(port=first.port, netns=netns, cgroups=(other,)) as second:
            run("connect", "127.0.0.1", first.port, netns=netns)
        one, two = accepted(tracer, first.port, 2)
    check_server(one, first, group)
    check_server(two, second, other)


@pytest.mark.parametrize("port", ["7000", "0"], ids=["bound", "ephemeral"])
@pytest.mark.parametrize("kept_in", ["listeners", "listening"])
def test_those_who_listened_are_forgotten(hook: str, netns: str, port: str, kept_in: str) -> None:
    with tracing("--hook", hook, "--inbound") as tracer:
        before = entries(tracer.process.pid, kept_in)
        run("listeners", port, 50, netns=netns)
        assert entries(tracer.process.pid, kept_in) == before


def test_one_of_two_sharing_a_port_ends(hook: str, group: Path, other: Path, netns: str) -> None:
    """The one that is left is never taken for the other."""
    with tracing("--hook", hook, "--inbound", "--netns", netns) as tracer, ExitStack() as stack:
        stays, ends = (
            stack.enter_context(
                serving("127.0.0.1", "shared", port=7000, netns=netns, cgroups=(g,))
            )
            for g in (group, other)
        )
        ends.end()
        run("connect", "127.0.0.1", 7000, 4, netns=netns)
        rows = accepted(tracer, 7000, 4)
    assert {row["pid"] for row in rows} <= {stays.pid, None}
    if hook == "tp_btf":
        assert {row["pid"] for row in rows} == {stays.pid}


# -- no server at all, and other ways to be one


def test_simultaneous_open_has_no_server(hook: str, netns: str) -> None:
    with (
        tracing("--hook", hook, "--all", "--netns", netns) as tracer,
        serving(netns=netns, port=7001) as server,
    ):
        (made,) = run("self_connect", 7000, netns=netns)
        assert made["result"] == "ok"
        run("connect", "127.0.0.1", 7001, netns=netns)
        (row,) = accepted(tracer, server.port, 1)
        assert [each["role"] for each in tracer.rows() if each["sport"] == 7000] == ["client"]
        assert row["sport"] == 7001


def test_fast_open_is_accepted_before_it_is_established(hook: str, netns: str, group: Path) -> None:
    in_netns(netns, "sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    with (
        tracing("--hook", hook, "--inbound", "--netns", netns) as tracer,
        serving("127.0.0.1", "fastopen", port=7000, netns=netns, cgroups=(group,)) as server,
    ):
        made = run("fast_open", 7000, netns=netns)
        rows = accepted(tracer, 7000, 2)
    assert Counter(row["dport"] for row in rows) == Counter(row["sport"] for row in made)
    for row in rows:
        check_server(row, server, group)


def test_counts_of_both_roles(hook: str, group: Path, port: int) -> None:
    options = ["--all", "-c", "--by", "role,pid", "--cgroup", str(group)]
    with (
        tracing("--hook", hook, *options) as tracer,
        serving(cgroups=(group,)) as server,
    ):
        made = run("connect", "127.0.0.1", server.port, 9, cgroups=(group,))
        run("connect", "127.0.0.1", port, 3)
        wait_until("all accepted", lambda: len(server.accepted()) == 9)
        rows = tracer.stop()
    counted = {(row["role"], row["pid"]): row["count"] for row in rows}
    assert counted == {("client", made[0]["pid"]): 9, ("server", server.pid): 9}
