# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet rtt``: what it shows is what the kernel measured, no more and no less."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest
from compare import inner
from harness import HIERARCHY, tracing
from measured import (
    ROUND_TRIP_US,
    at_distance,
    both_hooks,
    check_histogram,
    last_samples,
    measured,
    on_loopback,
    path_in,
    shown,
    the_kernels_own,
)
from rtt_callback import build

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Row
    from measured import Ends
    from owner_lab import Stage

BUCKET = (20_263, 24_097)  # two buckets: the one that ROUND_TRIP_US falls into, and the next
WIDTH = BUCKET[1] - BUCKET[0]
ROUNDS = 40


@pytest.fixture(scope="session")
def callback_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bpf"))


@pytest.mark.parametrize("loss", [0, 0.03])
@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
def test_each_sample_of_the_kernel(
    stage: Stage, callback_object: Path, congestion: str, loss: float
) -> None:
    """The kernel calls back once for each round trip: with one segment at a time for each sample."""
    with (
        the_kernels_own(callback_object, stage) as callbacks,
        at_distance(stage) as ends,
        both_hooks(*ends.options()) as tracers,
    ):
        near, far, port = ends.connect(congestion, loss)
        ends.ping(near, far, ROUNDS)
        ends.close(near, far)
        for tracer in tracers.values():
            rows = last_samples(tracer, port)
            later = [row for row in rows if not row["handshake"]]
            own = measured(callbacks, port)
            assert shown(later) == own
            assert sum(own.values()) == 2 * ROUNDS + 2
            check_first(rows)
            check_ends(rows, ends, stage)
            assert BUCKET[0] <= median(row["rtt_us"] for row in later) < BUCKET[1]
            assert min(row["rtt_us"] for row in later) >= ROUND_TRIP_US


def check_first(rows: list[Row]) -> None:
    first = [row for row in rows if row["handshake"]]
    assert sorted(row["role"] for row in first) == ["client", "server"]
    for row in first:
        assert row["tcp_state"] == "ESTABLISHED"
        assert row["rtt_us"] == row["srtt_us"] >= ROUND_TRIP_US


def check_ends(rows: list[Row], ends: Ends, stage: Stage) -> None:
    owners = {(row["role"], row["pid"], row["cgroup"]) for row in rows}
    assert owners == {
        ("client", ends.client.pid, inner(path_in(stage.a, HIERARCHY), HIERARCHY)),
        ("server", ends.server.pid, inner(path_in(stage.b, HIERARCHY), HIERARCHY)),
    }


@pytest.mark.parametrize("loss", [0, 0.03])
@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
def test_much_data(stage: Stage, callback_object: Path, congestion: str, loss: float) -> None:
    """Every value that the kernel told is there; who only receives has none; histograms are right."""
    size = 500_000 if loss else 1_500_000
    cgroup = str(path_in(stage.a, HIERARCHY))
    with (
        the_kernels_own(callback_object, stage) as callbacks,
        at_distance(stage) as ends,
        both_hooks(*ends.options()) as tracers,
        both_hooks("--cgroup", cgroup) as histograms,
    ):
        near, far, port = ends.connect(congestion, loss)
        ends.stream(near, far, size)
        ends.ping(near, far, 1)  # what was sent before has been acknowledged
        acknowledged = ends.client.do("segments_received", near)
        ends.close(near, far)
        for hook, tracer in tracers.items():
            rows = last_samples(tracer, port)
            later = [row for row in rows if not row["handshake"]]
            assert not measured(callbacks, port) - shown(later)
            senders = [row for row in later if row["role"] == "client"]
            assert 0.9 * acknowledged < len(senders) <= acknowledged + 2 or loss
            answers = [row["tcp_state"] for row in later if row["role"] == "server"]
            assert answers == ["ESTABLISHED", "LAST_ACK"]  # of the ping, and of the FIN
            (histogram,) = histograms[hook].stop()
            values = [row["rtt_us"] for row in rows if row["role"] == "client"]
            check_histogram(histogram, values)
            assert BUCKET[0] <= histogram["p50_us"] < BUCKET[1] + WIDTH, histogram


def test_what_was_open_before(hook: str, stage: Stage, callback_object: Path) -> None:
    """The first look at it tells nothing; what comes then is as with others, but for the role."""
    with the_kernels_own(callback_object, stage) as callbacks:
        ends = on_loopback(stage)
        near, far, port = ends.connect()
        ends.ping(near, far, 20)
        before = measured(callbacks, port)
        with tracing("--hook", hook, *ends.options(), command="rtt") as tracer:
            ends.ping(near, far, 20)
            ends.close(near, far)
            rows = last_samples(tracer, port)
        new = measured(callbacks, port) - before
        assert {row["role"] for row in rows} == {None}
        assert {row["pid"] for row in rows} == {ends.client.pid, ends.server.pid}
        assert not any(row["handshake"] for row in rows)
        # What the last segment before the start brought shows with the first one after it: nothing.
        assert not shown(rows) - new
        assert sum(new.values()) - 2 <= len(rows)
