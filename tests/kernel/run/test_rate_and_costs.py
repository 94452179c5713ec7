# SPDX-License-Identifier: BSD-2-Clause
"""--max-rate leaves out rows and counts them; -v tells what the programs cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import CGNET, run, tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
RATE = 5
NS = 1_000_000_000


@pytest.fixture(params=["0", "1"])
def stats(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the kernel measures its programs."""
    before = STATS.read_text()
    STATS.write_text(request.param)
    try:
        yield request.param == "1"
    finally:
        STATS.write_text(before)


def test_max_rate(group: Path, port: int) -> None:
    """Rows come evenly over a time longer than two seconds; no second has more than the rate."""
    with tracing("--max-rate", str(RATE), "--cgroup", str(group)) as tracer:
        made = 0
        while len(tracer.rows()) < 3 * RATE:
            made += len(run("connect", "127.0.0.1", port, 20, cgroups=(group,)))
        rows = tracer.stop()
        (summary,) = tracer.rows("summary")
        lost = tracer.rows("lost")
    times = [row["ts_ns"] for row in rows]
    tick = 0.1 * NS  # between an event and its row
    for first, beyond in zip(times, times[RATE:], strict=False):
        assert beyond - first > NS - 2 * tick, [each - times[0] for each in times]
    assert {row["where"] for row in lost} == {"rate"}
    assert sum(row["count"] for row in lost) == summary["lost"] == made - len(rows)
    assert summary["records"] == len(rows)
    assert any("lost" in line and "--max-rate" in line for line in tracer.said)


def test_max_rate_that_is_not_reached_loses_nothing(group: Path, port: int) -> None:
    with tracing("--max-rate", "1000000", "--strict", "--cgroup", str(group)) as tracer:
        made = run("connect", "127.0.0.1", port, 500, cgroups=(group,))
        assert len(tracer.stop()) == len(made)


def test_max_rate_with_strict_exits_with_5(group: Path, port: int) -> None:
    with tracing("--max-rate", "1", "--strict", "--cgroup", str(group)) as tracer:
        run("connect", "127.0.0.1", port, 20, cgroups=(group,))
        tracer.process.terminate()
        assert tracer.process.wait() == 5


def test_max_rate_leaves_counts_alone(group: Path) -> None:
    options = ["-c", "--by", "dport", "--max-rate", "1", "--cgroup", str(group)]
    with tracing(*options) as tracer:
        run("flows", *(f"||127.0.0.1|{number}" for number in range(1, 30)), cgroups=(group,))
        rows = tracer.stop()
    assert len(rows) == 29


def test_verbose_tells_the_runs_of_each_program(
    hook: str, group: Path, port: int, stats: bool
) -> None:
    with tracing("--hook", hook, "--cgroup", str(group), program=(CGNET, "-v")) as tracer:
        made = run("connect", "127.0.0.1", port, 50, cgroups=(group,))
        tracer.wait_for(len(made))
        tracer.stop()
    said = "".join(tracer.said)
    found = dict(re.findall(r"(\w+): (\d+) runs, \d+ ns each", said))
    assert bool(found) == stats, said[-500:]
    if stats:
        assert int(found["client"]) >= 100
        assert "client_again" in found
