# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet life``: connections that were open before the start, or are open now."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import HIERARCHY, new_netns, tracing, wait_until
from lives import rows_of, the_end, within
from measured import path_in
from owner_lab import Server
from remote_python import RemotePython

if TYPE_CHECKING:
    from harness import Row, Tracer
    from owner_lab import Player, Stage


def test_idle_ones_that_were_open(hook: str, stage: Stage) -> None:
    """Seen for the first time when they end; one nobody reads from, so that it is seeded."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    near = client.do("connect", client.address, server.address, listener.port)
    port, far = client.do("local_port", near), listener.accept()
    client.do("send", near, 5)
    server.do("await_data", far, 5)
    with tracing("--hook", hook, *within(stage.netns), command="life") as tracer:
        client.do("close", near)
        row = the_end(tracer, port)
        server.do("close", far)
    check_owner(row, client, "seeded")
    assert (row["tx_bytes"], row["rx_bytes"], row["duration_us"]) == (5, 0, None)
    assert (row["role"], row["close_cause"]) == (None, row["close_cause"])


LOOKS = {
    "tp_btf": ("--hook", "tp_btf"),
    "raw_tp": ("--hook", "raw_tp"),
    "raw_tp-questions": (
        "--hook", "raw_tp", "--transport", "perf",
        "--open-by", "one question for each, by a tracepoint",
    ),
    "tp_btf-files": ("--hook", "tp_btf", "--open-by", "iterator over files"),
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS)
def test_living_ones(look: str, stage: Stage) -> None:
    """Rows in between, with what came since the last one; the end has the rest."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    connect = ("connect", client.address, server.address, listener.port)
    old = client.do(*connect)
    old_far, old_port = listener.accept(), client.do("local_port", old)
    client.do("stream", old, 700)
    assert server.do("receive", old_far, 700) == 700
    with tracing(*LOOKS[look], "-i", "0.2", *within(stage.netns), command="life") as tracer:
        new = client.do(*connect)
        new_far, new_port = listener.accept(), client.do("local_port", new)
        sent = {new_port: 0, old_port: 700}
        for fd, far, port in ((new, new_far, new_port), (old, old_far, old_port)) * 2:
            client.do("stream", fd, 1000)
            assert server.do("receive", far, 1000) == 1000
            sent[port] += 1000
            wait_until(
                lambda port=port: f"{port} {sent[port]}: {tracer}",
                lambda port=port: tells(tracer, port, sent[port]),
            )
        assert not rows_of(tracer, new_port) + rows_of(tracer, old_port)
        opened = [row for port in sent for row in rows_of(tracer, port, opened=True)]
        assert {row["tcp_state"] for row in opened} == {"ESTABLISHED"}
        for fd in (new, old):
            client.do("close", fd)
        ends = {port: the_end(tracer, port) for port in sent}
        tracer.stop()
        for port, end in ends.items():
            check_living([*rows_of(tracer, port, opened=True), end], client, sent[port])
            assert len(rows_of(tracer, port)) == 1
        first = rows_of(tracer, new_port, opened=True)[0]
        assert first["tx_bytes_delta"] == first["tx_bytes"]
        assert ends[new_port]["duration_us"] > first["duration_us"]
        assert ends[old_port]["duration_us"] is None
        deltas = [row["tx_bytes_delta"] for row in tracer.rows() if row["sport"] == old_port]
        assert sum(deltas) == 2000  # since the start


@pytest.mark.parametrize("look", ["tp_btf", "raw_tp-questions", "tp_btf-files"])
def test_more_than_the_ring_has_room_for(look: str) -> None:
    with new_netns() as netns, RemotePython(f"/run/netns/{netns}") as both:
        both.listen("127.0.0.1")
        options = ("-i", "0.5", "--buffer", "4K", "--netns", netns, "--role", "client")
        with tracing(*LOOKS[look], *options, command="life") as tracer:
            both.do("join = lambda: socket.create_connection(server.getsockname())")
            both.do("kept = [end for _ in range(300) for end in (join(), server.accept()[0])]")
            ports = both.get("[each.getsockname()[1] for each in kept[::2]]")
            wait_until(
                lambda: f"{len(ports)} connections: {tracer}",
                lambda: {row["sport"] for row in tracer.rows() if row["open"]} >= {*ports},
            )
            tracer.stop()
    assert tracer.rows("summary")[0]["lost"] == 0


def test_rows_that_are_left_out_are_no_last_rows(stage: Stage) -> None:
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    options = ("-i", "0.2", *within(stage.netns))
    with (
        tracing(*options, "--min-bytes", "1500", command="life") as tracer,
        tracing(*options, command="life") as every,
    ):
        near = client.do("connect", client.address, server.address, listener.port)
        far, port = listener.accept(), client.do("local_port", near)
        for count in (1000, 2000):
            client.do("stream", near, 1000)
            assert server.do("receive", far, 1000) == 1000
            wait_until(
                lambda count=count: f"{count}: {every}",
                lambda count=count: tells(every, port, count),
            )
        wait_until(lambda: f"a row: {tracer}", lambda: rows_of(tracer, port, opened=True))
        first = rows_of(tracer, port, opened=True)[0]
        assert first["tx_bytes"] == first["tx_bytes_delta"] == 2000


def test_a_connection_that_several_have_open_is_one_row_a_look(stage: Stage) -> None:
    """Where iterators over maps are refused, the files of all processes are looked at."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    near = client.do("connect", client.address, server.address, listener.port)
    far, port = listener.accept(), client.do("local_port", near)
    children = [client.fork() for _ in range(3)]
    options = (*LOOKS["tp_btf-files"], "-i", "0.3", *within(stage.netns))
    with tracing(*options, command="life") as tracer:
        wait_until(
            lambda: f"three rows: {tracer}",
            lambda: len(rows_of(tracer, port, opened=True)) >= 3,
        )
        times = [row["ts_ns"] for row in rows_of(tracer, port, opened=True)]
        assert min(after - before for before, after in pairwise(times)) > 0.1e9
    for each in children:
        each.leave()
    client.do("close", near)
    server.do("close", far)


def tells(tracer: Tracer, port: int, sent: int) -> bool:
    return any(row["tx_bytes"] == sent for row in rows_of(tracer, port, opened=True))


def check_living(rows: list[Row], owner: Player, sent: int) -> None:
    assert rows[-1]["tx_bytes"] == sent
    assert {row["pid"] for row in rows} == {owner.pid}
    for row in rows[:-1]:
        assert (row["closed_by"], row["close_cause"], row["rst_reason"]) == (None, None, None)
    for before, after in pairwise(rows):
        assert after["tx_bytes_delta"] == after["tx_bytes"] - before["tx_bytes"] >= 0


def check_owner(row: Row, player: Player, source: str) -> None:
    path = inner(path_in(player.group, HIERARCHY), HIERARCHY)
    assert (row["pid"], row["cgroup"]) == (player.pid, path), row
    assert row["owner_source"] == source
