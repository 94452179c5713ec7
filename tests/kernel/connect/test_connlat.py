# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connlat``: how long it took to connect, and never how long it took to fail."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from compare import inner, totals
from delay_line import LEFT, RIGHT, delay_line
from harness import HIERARCHY, in_netns, run, tracing, unused_port, wait_until
from owner_lab import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delay_line import Line
    from harness import Row, Tracer
    from owner_lab import Player, Stage

DELAY_S, ROUND_TRIP_US = 0.011, 22_000
WIDTH = 2_000  # of the bucket that follows it
MANY = 400


class Far:
    """A client, and a server that it reaches over a line."""

    def __init__(self, stage: Stage, line: Line) -> None:
        self.line = line
        self.client, self.server = stage.player(stage.a), stage.player(stage.b)
        self.client.do("enter", line.left)
        self.server.do("enter", line.right)
        self.listener = Server(self.server, address=RIGHT[4])
        self.to = RIGHT[4], self.listener.port
        self.group = path_of(self.client)

    def refused(self) -> None:
        with pytest.raises(AssertionError, match="ConnectionRefused"):
            self.client.do("connect", "", self.to[0], 1)

    def wait_for_losses(self, count: int) -> None:
        wait_until("lost packets", lambda: self.line.lose(1) >= count)


def path_of(player: Player) -> Path:
    return next(path for path in player.group.paths if path.is_relative_to(HIERARCHY))


@pytest.fixture
def far(stage: Stage) -> Iterator[Far]:
    with delay_line(DELAY_S) as line:
        in_netns(line.left, "sysctl", "-qw", "net.ipv4.tcp_syn_retries=1")
        yield Far(stage, line)


def test_a_lost_syn_explains_itself(hook: str, far: Far) -> None:
    with tracing("--hook", hook, "--cgroup", str(far.group), command="connlat") as tracer:
        far.client.do("connect", "", *far.to)
        lost = far.line.lose(1)
        far.client.begin("connect", "", *far.to)
        far.wait_for_losses(lost + 1)
        far.line.lose(0)
        far.client.finish()
        far.refused()
        tracer.wait_for(3)
        direct, late, refused = tracer.stop()
    assert (direct["result"], direct["syn_retrans"]) == ("ok", 0)
    assert ROUND_TRIP_US <= direct["latency_us"] < 1_000_000
    assert (late["result"], late["syn_retrans"]) == ("ok", 1)
    assert 1_000_000 + ROUND_TRIP_US <= late["latency_us"] < 2_000_000
    assert (refused["result"], refused["tcp_state"]) == ("ECONNREFUSED", "SYN_SENT")
    for row in (direct, late, refused):
        assert (row["type"], row["role"], row["pid"]) == ("connlat", "client", far.client.pid)
        assert (row["saddr"], row["daddr"]) == (LEFT[4], RIGHT[4])
        assert row["cgroup"] == inner(far.group, HIERARCHY)


def test_full_backlog(stage: Stage) -> None:
    """A SYN that is dropped because nobody accepts comes again after a second."""
    client, server = stage.player(stage.a), stage.player(stage.b)
    listener = Server(server)
    server.do("backlog", listener.fd, 0)
    to = server.address, listener.port
    cgroup = ("--cgroup", str(path_of(client)))
    with (
        tracing(*cgroup, command="connlat") as tracer,
        tracing(*cgroup, "--min-ms", "900", command="connlat") as slow,
    ):
        client.do("connect", "", *to)
        before = overflows(server)
        client.begin("connect", "", *to)
        wait_until("a SYN that is dropped", lambda: overflows(server) > before)
        listener.accept()
        client.finish()
        tracer.wait_for(2)
        rows = tracer.stop()
        assert [row["syn_retrans"] for row in rows] == [0, 1]
        assert rows[0]["latency_us"] < 900_000 <= rows[1]["latency_us"]
        assert [row["sport"] for row in slow.stop()] == [rows[1]["sport"]]


def overflows(player: Player) -> int:
    """Return how often a listener of the player's namespace had no room."""
    lines = Path(f"/proc/{player.pid}/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(dict(zip(names, values, strict=True))["ListenOverflows"])


def test_failures_are_no_latencies(hook: str, far: Far) -> None:
    cgroup = ("--hook", hook, "--cgroup", str(far.group))
    with ExitStack() as stack:

        def trace(*options: str) -> Tracer:
            return stack.enter_context(tracing(*cgroup, *options, command="connlat"))

        every = trace()
        fine, all_of_them = (
            trace("--hist"),
            trace("--hist", "--result", "!aborted", "--by", "result"),
        )
        timed_out = trace("--hist", "--result", "ETIMEDOUT")
        for _ in range(5):
            far.client.do("connect", "", *far.to)
            far.refused()
        far.line.lose(1)
        with pytest.raises(AssertionError, match="TimeoutError"):
            far.client.do("connect", "", *far.to)
        every.wait_for(11)
        made = Counter(row["result"] for row in every.stop())
        assert made == {"ok": 5, "ECONNREFUSED": 5, "ETIMEDOUT": 1}
        (row,) = fine.stop()
        assert row["count"] == 5
        assert ROUND_TRIP_US <= row["min_us"] <= row["max_us"] < 1_000_000
        assert totals(all_of_them.stop(), "result") == {(key,): n for key, n in made.items()}
        (row,) = timed_out.stop()
        assert row["count"] == 1
        assert row["min_us"] == row["max_us"] == row["p50_us"] > 1_000_000
        assert row["p50_error_us"] == 0


def test_thresholds(hook: str, far: Far, group: Path, port: int) -> None:
    """Only what took this long, and it counts as well."""
    options = ("--hook", hook, "--netns", f"/run/netns/{far.line.left}")
    near = ("--hook", hook, "--cgroup", str(group))
    with ExitStack() as stack:

        def trace(*options: str) -> Tracer:
            return stack.enter_context(tracing(*options, command="connlat"))

        shown, hidden = trace(*options, "--min-us", "20000"), trace(*options, "--min-ms", "800")
        local = trace(*near, "--min-ms", "800")
        counted = trace(*options, "--hist", "--min-ms", "20.5")
        for _ in range(3):
            far.client.do("connect", "", *far.to)
        far.refused()
        run("connect", "127.0.0.1", port, 20, cgroups=(group,))
        shown.wait_for(4)
        assert [row["result"] for row in shown.stop()] == ["ok", "ok", "ok", "ECONNREFUSED"]
        assert hidden.stop() == local.stop() == []
        assert counted.stop()[0]["count"] == 3


def test_histograms_of_a_known_delay(hook: str, far: Far) -> None:
    """The rows' values, as well as two tracers that look at different moments can agree."""
    cgroup = ("--hook", hook, "--cgroup", str(far.group))
    with (
        tracing(*cgroup, command="connlat") as every,
        tracing(*cgroup, "--hist", command="connlat") as geometric,
        tracing(*cgroup, "--hist", "--linear", "21000,30000,500", command="connlat") as linear,
    ):
        for _ in range(60):
            far.client.do("close", far.client.do("connect", "", *far.to))
        every.wait_for(60)
        values = sorted(row["latency_us"] for row in every.stop())
        for tracer, width in ((geometric, WIDTH), (linear, 500)):
            (row,) = tracer.stop()
            check_histogram(row, values)
            assert row["p50_error_us"] <= width // 2
            assert abs(row["p50_us"] - ROUND_TRIP_US) <= width + values[30] - ROUND_TRIP_US


def check_histogram(row: Row, values: list[int], apart_us: int = 200) -> None:
    """``values`` are what another tracer saw."""
    count = len(values)
    assert row["count"] == count == sum(bucket[2] for bucket in row["buckets"])
    assert row["min_us"] <= row["avg_us"] <= row["max_us"]
    for percent in (50, 90):
        true = values[-(-count * percent // 100) - 1]
        told, error = row[f"p{percent}_us"], row[f"p{percent}_error_us"]
        assert abs(told - true) <= error + apart_us, (percent, true, row)


def test_counts(group: Path, port: int) -> None:
    """In one print and in many, by each key, as many as were made."""
    keys = ("cgroup", "daddr/24,dport", "pid", "role,result", "container")
    cgroup = ("--cgroup", str(group))
    refusing = unused_port()
    with ExitStack() as stack:

        def trace(*options: str) -> Tracer:
            return stack.enter_context(tracing(*cgroup, "--hist", *options, command="connlat"))

        tracers = {by: trace("--by", by) for by in keys}
        often, raw = trace("-i", "0.2"), trace("--hook", "raw_tp")
        for number in (1, 2, 3):
            made = run("connect", "127.0.0.1", port, MANY, cgroups=(group,))
            run("connect", "127.0.0.1", refusing, 20, cgroups=(group,))
            wait_until(
                lambda number=number: f"{number} in prints: {often}",
                lambda number=number: printed(often) == number * MANY,
            )
        expected = {
            "cgroup": {(inner(group, HIERARCHY),): 3 * MANY},
            "daddr/24,dport": {("127.0.0.0/24", port): 3 * MANY},
            "role,result": {("client", "ok"): 3 * MANY},
            "container": {(None, inner(group, HIERARCHY)): 3 * MANY},
        }
        for by, tracer in tracers.items():
            rows = tracer.stop()
            for row in rows:
                assert row["count"] == sum(bucket[2] for bucket in row["buckets"])
            if by == "pid":
                assert [row["count"] for row in rows] == [MANY] * 3
                assert made[0]["pid"] in {row["pid"] for row in rows}
                continue
            names = ("container", "cgroup") if by == "container" else fields(by)
            assert totals(rows, *names) == expected[by]
        often.stop()
        assert printed(often) == 3 * MANY
        assert len(often.rows()) >= 3
        assert raw.stop()[0]["count"] == 3 * MANY


def fields(by: str) -> list[str]:
    return [name.partition("/")[0] for name in by.split(",")]


def printed(tracer: Tracer) -> int:
    return sum(row["count"] for row in tracer.rows())


def test_drawing(group: Path, port: int) -> None:
    with tracing("--hist", "--cgroup", str(group), output="table", command="connlat") as tracer:
        run("connect", "127.0.0.1", port, 10, cgroups=(group,))
        tracer.stop()
        text = "".join(tracer.lines)
        assert "10 samples" in text
        assert "█" in text
