# SPDX-License-Identifier: BSD-2-Clause
"""A listener that changes hands: who has it now is the owner of what it accepts, never who had it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from harness import V1, V2, tracing, wait_until
from owner_lab import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Row, Tracer
    from owner_lab import Group, Player, Stage

    Way = Callable[[Stage, "Listener"], None]


class Listener:
    """A listener of cgroup a, the process that had it, and the one that has it now."""

    def __init__(self, stage: Stage, *how: str, server: Server | None = None) -> None:
        self.server = server or Server(stage.player(stage.a), *how)
        self.before = self.now = self.server.player
        self.fd = self.server.fd
        self.client = stage.player(stage.c)

    def connect(self) -> None:
        self.client.do("close", self.client.connect(self.server), "reset")


def path_of(group: Group, hierarchy: str) -> str:
    top = V2 if hierarchy == "v2" else V1
    return str(next(path for path in group.paths if path.is_relative_to(top)))


def row_of(tracer: Tracer, listener: Listener) -> Row:
    """Have a connection made, and return its row."""
    port = listener.server.port

    def rows() -> list[Row]:
        return [row for row in tracer.rows() if row["sport"] == port]

    count = len(rows())
    listener.connect()
    wait_until(lambda: f"a row: {tracer}", lambda: len(rows()) > count)
    return rows()[-1]


def wait_for_owner(tracer: Tracer, listener: Listener, *may_be: Player) -> None:
    """Until the one that has it is found, the owner is unknown; these may be shown as well."""
    pids = {None, listener.now.pid, *(player.pid for player in may_be)}

    def row() -> Row | None:
        row = row_of(tracer, listener)
        assert row["pid"] in pids, (row, str(tracer))
        return row if row["pid"] == listener.now.pid else None

    row = wait_until(lambda: f"the owner: {tracer}", row)
    assert row["owner_source"] == "inherited"
    hierarchy = "v2" if row["hierarchy"] == "v2" else "memory"
    assert path_of(listener.now.group, hierarchy).endswith(row["cgroup"])


@contextmanager
def seen(hook: str, hierarchy: str, listener: Listener, *more: str) -> Iterator[Tracer]:
    port = str(listener.server.port)
    address = listener.before.address
    options = ("--hook", hook, "--hierarchy", hierarchy, "--saddr", address, "--sport", port)
    with tracing("--inbound", *options, *more) as tracer:
        yield tracer


# -- ways to hand a listener on


def outlive(stage: Stage, player: Player) -> None:
    """Have it stay when the process that it was forked from ends; it ends with the test."""
    player.do("outlive")
    stage.stack.callback(end, player.pid)


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def fork_and_exit(stage: Stage, listener: Listener) -> None:
    listener.now = listener.before.fork(stage.b)
    outlive(stage, listener.now)
    listener.before.leave()


def send(stage: Stage, listener: Listener) -> None:
    """As haproxy does when it is reloaded: the old process lives on."""
    listener.now = stage.player(stage.b)
    listener.fd = listener.before.hand(listener.fd, listener.now)


def send_and_exit(stage: Stage, listener: Listener) -> None:
    """As at an upgrade of the binary."""
    send(stage, listener)
    listener.before.leave()


def fork_execute_and_exit(stage: Stage, listener: Listener) -> None:
    listener.now = listener.before.fork(stage.b)
    listener.now.do("execute")
    outlive(stage, listener.now)
    listener.before.leave()


def fork_and_close(stage: Stage, listener: Listener) -> None:
    listener.now = listener.before.fork(stage.b)
    listener.before.do("close", listener.fd)


WAYS = (fork_and_exit, send, send_and_exit, fork_execute_and_exit, fork_and_close)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_handed_on(stage: Stage, hook: str, hierarchy: str, way: Way) -> None:
    player = stage.player(stage.a)
    options = ("--hook", hook, "--hierarchy", hierarchy, "--saddr", player.address)
    with tracing("--inbound", *options) as tracer:
        listener = Listener(stage, server=Server(player))
        way(stage, listener)
        wait_for_owner(tracer, listener)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_handed_on_by_who_was_there(stage: Stage, hook: str, hierarchy: str, way: Way) -> None:
    """By raw_tp what /proc tells is looked at again a little later."""
    listener = Listener(stage)
    with seen(hook, hierarchy, listener) as tracer:
        wait_for_owner(tracer, listener)
        way(stage, listener)
        wait_for_owner(tracer, listener, *([listener.before] if hook == "raw_tp" else []))


def test_filters_and_counts_go_by_who_has_it(stage: Stage, hook: str, hierarchy: str) -> None:
    listener = Listener(stage)
    old, new = (path_of(group, hierarchy) for group in (stage.a, stage.b))
    with (
        seen(hook, hierarchy, listener) as tracer,
        seen(hook, hierarchy, listener, "--cgroup", new) as of_new,
        seen(hook, hierarchy, listener, "--cgroup", old) as of_old,
        seen(hook, hierarchy, listener, "-i", "0.5", "--by", "pid", "--cgroup", new) as counts,
    ):
        fork_and_exit(stage, listener)
        wait_for_owner(tracer, listener, listener.before)
        wait_for_rows(of_new, listener)
        wait_for_rows(counts, listener)
        wait_until("forgotten", lambda: all(is_silent(of_old, listener) for _ in range(3)))
        since = time.monotonic_ns()
        for _ in range(5):
            listener.connect()
        rows = of_new.stop()
        assert len(rows) >= 6
        assert {row["pid"] for row in rows} == {listener.now.pid}
        assert [row for row in of_old.stop() if row["ts_ns"] > since] == []
        assert {row["pid"] for row in counts.stop()} == {listener.now.pid}


def wait_for_rows(tracer: Tracer, listener: Listener) -> None:
    def is_seen() -> bool:
        listener.connect()
        return bool(tracer.rows())

    wait_until(lambda: f"rows: {tracer}", is_seen)


def is_silent(tracer: Tracer, listener: Listener) -> bool:
    """Tell whether it shows nothing of a connection, once another one is shown."""
    before = len(tracer.rows())
    with tracing("--inbound", "--sport", str(listener.server.port)) as other:
        row_of(other, listener)
    return len(tracer.rows()) == before


@pytest.mark.parametrize("way", ["accept", "epoll"])
def test_activated_by_who_keeps_the_listener(
    stage: Stage, hook: str, hierarchy: str, way: str
) -> None:
    """As by systemd: one opens it and has it still, another one waits for connections."""
    listener = Listener(stage)
    with seen(hook, hierarchy, listener) as tracer:
        listener.now = listener.before.fork(stage.b)
        listener.now.do("execute")
        outlive(stage, listener.now)
        if way == "epoll":
            listener.now.begin("serve", listener.fd, 1 << 20)
        else:
            listener.now.begin("accept_all", listener.fd)
        wait_for_owner(tracer, listener, listener.before)


def test_workers_whose_master_lives(stage: Stage, hook: str, hierarchy: str) -> None:
    """The listener is the master's, until it is gone; then it is a worker's."""
    listener = Listener(stage)
    master = listener.before
    with seen(hook, hierarchy, listener) as tracer:
        workers = [master.fork(stage.a) for _ in range(3)]
        for worker in workers:
            outlive(stage, worker)
            worker.begin("serve", listener.fd, 1 << 20)
        for _ in range(10):
            assert row_of(tracer, listener)["pid"] == master.pid
        master.leave()
        listener.now = workers[0]
        wait_for_owner(tracer, listener, *([master] if hook == "raw_tp" else []))


def test_in_flight(stage: Stage, hook: str, hierarchy: str) -> None:
    """It is on its way to another process, and nobody has it."""
    listener = Listener(stage)
    with seen(hook, hierarchy, listener) as tracer:
        assert row_of(tracer, listener)["pid"] == listener.before.pid
        taker = stage.player(stage.b)
        here, there = listener.before.channel(taker)
        listener.before.do("put", here, listener.fd)
        while (row := row_of(tracer, listener))["pid"] is not None:
            assert row["pid"] == listener.before.pid
            assert hook == "raw_tp"
        assert row["owner_source"] == "unknown"
        listener.fd = taker.do("take", there)
        listener.now = taker
        wait_for_owner(tracer, listener)


def test_one_of_a_reuseport_group(stage: Stage, hook: str, hierarchy: str) -> None:
    """By place they aren't told apart; nobody who has none is shown."""
    one = Listener(stage, "shared")
    with seen(hook, hierarchy, one) as tracer:
        stays = stage.player(stage.c)
        address = one.before.address
        Server(stays, "shared", address=address, port=one.server.port)
        fork_and_exit(stage, one)
        known = {None, stays.pid, one.now.pid}
        wanted = {one.now.pid, stays.pid} if hook == "tp_btf" else {None}
        shown: set[int | None] = set()

        def is_enough() -> bool:
            shown.add(row_of(tracer, one)["pid"])
            return shown >= wanted

        wait_until(lambda: f"both: {tracer}", is_enough)
        assert shown <= known


def test_new_name(stage: Stage, hook: str, hierarchy: str) -> None:
    """The process is called as it is now, which exec changes."""
    listener = Listener(stage)
    with (
        seen(hook, hierarchy, listener) as tracer,
        seen(hook, hierarchy, listener, "--comm", "renamed") as filtered,
    ):
        assert row_of(tracer, listener)["comm"] != "renamed"
        listener.before.do("rename", "renamed")
        while (row := row_of(tracer, listener))["comm"] != "renamed":
            assert row["pid"] == listener.before.pid
        wait_for_rows(filtered, listener)
        assert {each["comm"] for each in filtered.stop()} == {"renamed"}


@pytest.mark.parametrize("command", ["rtt", "life"])
def test_first_facts_of_a_connection(stage: Stage, hook: str, hierarchy: str, command: str) -> None:
    """Before anybody has read from it."""
    player = stage.player(stage.a)
    options = ("--hook", hook, "--hierarchy", hierarchy, "--saddr", player.address)
    more = ("--slower", "0us") if command == "rtt" else ()
    with tracing(*options, *more, command=command) as tracer:
        listener = Listener(stage, server=Server(player))
        fork_and_exit(stage, listener)
        wait_for_owner(tracer, listener)
