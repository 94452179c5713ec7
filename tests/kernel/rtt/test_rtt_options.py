# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet rtt``: what it counts by, in which buckets, and what it leaves out."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness import HIERARCHY, tracing, wait_until
from measured import (
    ALL,
    HOOKS,
    at_distance,
    both_hooks,
    check_histogram,
    last_samples,
    on_loopback,
    path_in,
    rows_of,
    shown,
)
from owner_lab import Server

if TYPE_CHECKING:
    from harness import Row, Tracer
    from owner_lab import Stage

KEYS = {
    "role": lambda row: (row["role"],),
    "cgroup": lambda row: (row["cgroup"],),
    "cgroup/1,dport": lambda row: (f"/{row['cgroup'].split('/')[1]}", row["dport"]),
    "daddr/24,pid,comm": lambda row: (near_network(row["daddr"]), row["pid"], row["comm"]),
    "container,saddr,sport": lambda row: (None, None, None, row["cgroup"], row["saddr"], row["sport"]),
    "netns,uid,daddr": lambda row: (row["netns"], row["uid"], row["daddr"]),
}  # fmt: skip


def near_network(address: str) -> str:
    return f"{address.rpartition('.')[0]}.0/24"


def test_what_histograms_are_made_by(stage: Stage) -> None:
    cgroups = [str(path_in(each, HIERARCHY)) for each in (stage.a, stage.b)]
    chosen = ("--cgroup", cgroups[0], "--cgroup", cgroups[1])
    ends = on_loopback(stage)
    noise = Server(stage.player(stage.c))
    with ExitStack() as stack:

        def trace(*options: str) -> Tracer:
            return stack.enter_context(tracing(*options, *chosen, command="rtt"))

        every = trace(*ALL)
        tracers = {by: trace("--by", by, "--hook", HOOKS[i % 2]) for i, by in enumerate(KEYS)}
        selected = trace("--by", "selected", "-i", "0.2")
        linear = trace("--linear", "20,100,10")
        for number in (1, 2, 3):
            near, far, _ = ends.connect()
            ends.ping(near, far, 50)
            ends.close(near, far)
            noise.talk(stage.player(stage.c), 2, 3)
            wait_until(
                lambda number=number: f"{number} in each print: {selected}",
                lambda number=number: sums_of(selected) == dict.fromkeys(cgroups, number * 52),
            )
        rows = every.stop()
        for by, tracer in tracers.items():
            of: dict[tuple[object, ...], list[int]] = {}
            for row in rows:
                of.setdefault(KEYS[by](row), []).append(row["rtt_us"])
            told = {key_of(row): row for row in tracer.stop()}
            assert told.keys() == of.keys()
            for key, row in told.items():
                check_histogram(row, of[key])
        selected.stop()
        assert sums_of(selected) == dict.fromkeys(cgroups, 3 * 52)
        assert len(selected.rows()) >= 3 * len(cgroups)
        check_linear(linear.stop()[0], [row["rtt_us"] for row in rows])


def key_of(row: Row) -> tuple[object, ...]:
    """Return the fields between those of every record and the numbers."""
    names = list(row)
    return tuple(row[name] for name in names[names.index("ts_ns") + 1 : names.index("count")])


def sums_of(tracer: Tracer) -> Counter[str]:
    sums: Counter[str] = Counter()
    for row in tracer.rows():
        sums[row["selected"]] += row["count"]
    return sums


def check_linear(row: Row, values: list[int]) -> None:
    assert sum(bucket[2] for bucket in row["buckets"]) == row["count"] == len(values)
    for low, high, there in row["buckets"]:
        assert there == sum(low <= value < high for value in values), row
        assert (low, high) == (0, 20) or low == 100 or (high - low == 10 and low % 10 == 0)


def test_options(hook: str, stage: Stage) -> None:
    ends = on_loopback(stage)
    cgroup = ("--hook", hook, "--cgroup", str(path_in(stage.a, HIERARCHY)))
    with ExitStack() as stack:

        def trace(*options: str, output: str = "json") -> Tracer:
            return stack.enter_context(tracing(*options, *cgroup, output=output, command="rtt"))

        every, later = trace(*ALL), trace(*ALL, "--no-handshake")
        slow, smoothed = trace("--slower", "10s"), trace("--srtt")
        server = trace("--role", "server")
        drawn = trace("--ms", output="table")
        near, far, port = ends.connect()
        ends.ping(near, far, 50)
        ends.close(near, far)
        wait_until("the FIN's", lambda: len(rows_of(every, port)) == 52)
        rows = every.stop()
        assert [row["handshake"] for row in rows] == [True] + 51 * [False]
        assert shown(later.stop()) == shown(rows[1:])
        assert slow.stop() == server.stop() == []
        check_histogram(smoothed.stop()[0], [row["srtt_us"] for row in rows])
        drawn.stop()
        assert "52 samples" in "".join(drawn.lines)
        assert " ms " in "".join(drawn.lines)
        assert "█" in "".join(drawn.lines)


def test_slow_ones(stage: Stage) -> None:
    """Those of a line among those of loopback."""
    near_by = on_loopback(stage)
    with at_distance(stage) as ends, both_hooks("--slower", "20ms") as tracers:
        for each in (near_by, ends):
            near, far, port = each.connect()
            each.ping(near, far, 10)
            each.close(near, far)
        for tracer in tracers.values():
            rows = last_samples(tracer, port)
            assert len(rows) == 2 * 12
            pids = {near_by.client.pid, near_by.server.pid}
            assert not [row for row in tracer.rows() if row["pid"] in pids]
