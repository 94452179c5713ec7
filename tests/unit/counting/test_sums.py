# SPDX-License-Identifier: BSD-2-Clause
"""Sums by owner: what the kernel side's bytes mean, and how intervals are added up."""

from __future__ import annotations

from collections import Counter

from cgnet.counting.histograms import Histogram
from cgnet.counting.sums import BLANK, NOTHING, OwnerSums, Queue
from cgnet.records._layouts import CGNET_BUCKETS, OWNER_SUMS


def histogram(*values: int, bucket: int) -> tuple[int, ...]:
    """Return struct sums_histogram of values in one bucket."""
    buckets = [0] * CGNET_BUCKETS
    buckets[bucket] = len(values)
    return sum(values), len(values), min(values), max(values), 0, tuple(buckets)


def raw(
    queue: tuple[int, int, int] = (0, 0, 0), tx_bytes: int = 700, turns: int = 2,
    greatest_turn_us: int = 800,
) -> bytes:  # fmt: skip
    return OWNER_SUMS.pack((
        3, 4, tx_bytes, 50, 10, 20, 1, 2, 3, turns, 900, greatest_turn_us, 0,
        (0, 5, 1), (0, 0, 2), (0, 0, 0, 0, 0, 9), *queue,
        histogram(10, 30, bucket=7), histogram(100, bucket=12),
    ))  # fmt: skip


def test_sums_are_read() -> None:
    sums = OwnerSums.read(raw(queue=(5, 128, 77)))
    assert (sums.established, sums.accepts, sums.tx_bytes, sums.rx_bytes) == (3, 4, 700, 50)
    assert (sums.tx_segs, sums.rx_segs) == (10, 20)
    assert (sums.busy_ticks, sums.rwnd_ticks, sums.sndbuf_ticks) == (1, 2, 3)
    assert (sums.turns, sums.turns_us, sums.greatest_turn_us) == (2, 900, 800)
    assert (sums.closes, sums.resends, sums.drops) == ({1: 5, 2: 1}, {2: 2}, {5: 9})
    assert sums.queue == Queue(5, 128, 77)
    assert (sums.latency.count, sums.latency.total, sums.latency.least) == (2, 40, 10)
    assert sums.latency.greatest == 30
    assert sums.latency.buckets[7] == 2
    assert sums.rtt.buckets[12] == sums.rtt.count == 1


def test_an_owner_of_whom_nothing_is_known_has_no_queue_and_no_extremes() -> None:
    sums = OwnerSums.read(BLANK)
    assert sums.queue is None
    assert same(sums.latency, NOTHING)
    assert not sums.closes


def test_intervals_add_up() -> None:
    first, second = (
        OwnerSums.read(raw((5, 128, 77))),
        OwnerSums.read(raw(tx_bytes=1, greatest_turn_us=3)),
    )
    first.failures[111] = 2
    second.failures[111] = 1
    second.drop_reasons[3] = 4
    both = first + second
    assert (both.established, both.tx_bytes) == (6, 701)
    assert (both.turns, both.turns_us, both.greatest_turn_us) == (4, 1800, 800)
    assert both.failures == {111: 3}
    assert both.drop_reasons == Counter({3: 4})
    assert both.closes == {1: 10, 2: 2}
    assert both.latency.buckets[7] == 4
    assert (both.latency.least, both.latency.greatest) == (10, 30)
    assert both.queue == Queue(5, 128, 77)  # the last that was seen
    assert same((both + OwnerSums()).latency, both.latency)


def same(one: Histogram, other: Histogram) -> bool:
    names = Histogram.__slots__
    return [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
