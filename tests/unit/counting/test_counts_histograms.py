# SPDX-License-Identifier: BSD-2-Clause
"""Histograms by key, as the kernel side makes them, read and told."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import pytest
from counting import NAMES, Kernel, Run
from fakes import u32
from histogram import Made
from hypothesis import given
from hypothesis import strategies as st
from records import Connect, no_runtimes

from cgnet.counting.counts import Counting, Counts
from cgnet.counting.histograms import FIELDS, MICROSECONDS, Scale, linear
from cgnet.counting.keys import Key, read_by
from cgnet.counting.tables import COUNTS, HISTOGRAMS, SUMS
from cgnet.filters.selection import Filters
from cgnet.records._layouts import HISTOGRAM, CountBy, OwnerSource, StageAt, SumsState

STEPS_OF_TEN = linear("0,100,10")
pytestmark = pytest.mark.usefixtures("mounted")


def begin(by: str, scale: Scale) -> Run:
    counting = Counting(read_by([by]) if by else [], scale)
    return Run(Kernel(HISTOGRAMS), Counts(counting, Filters(), NAMES, no_runtimes()))


def told(values: list[int], scale: Scale) -> dict[str, Any]:
    """Return what is told of values that fell into one histogram."""
    return dict(zip(FIELDS, Made(values, scale).read().values(scale), strict=True))


@pytest.mark.parametrize("scale", [MICROSECONDS, STEPS_OF_TEN], ids=["log2", "linear"])
def test_a_row_is_the_key_and_all_that_is_told_of_its_values(scale: Scale) -> None:
    begun = begin("dport", scale)
    assert begun.counts.fields == ("dport", *FIELDS)
    begun.kernel.measure(scale, [3, 50, 51], dport=80)
    begun.kernel.measure(scale, [7], dport=443)
    assert begun.counts.collect(begun.kernel) == [
        {"dport": 80, **told([3, 50, 51], scale)},
        {"dport": 443, **told([7], scale)},
    ]


def test_by_nothing_there_is_one_row_of_all() -> None:
    begun = begin("", MICROSECONDS)
    assert begun.counts.fields == FIELDS
    begun.kernel.measure(MICROSECONDS, [1, 2, 3], pid=1)
    begun.kernel.measure(MICROSECONDS, [9], pid=2)
    assert begun.counts.collect(begun.kernel) == [told([1, 2, 3, 9], MICROSECONDS)]


def test_keys_that_look_alike_are_one_histogram() -> None:
    begun = begin("cgroup/1", STEPS_OF_TEN)
    for cgroup, values in ((42, [1, 99]), (43, [55]), (44, [2, 3])):
        begun.kernel.measure(STEPS_OF_TEN, values, cgroup_id=cgroup)
    assert begun.counts.collect(begun.kernel) == [
        {"cgroup": "/docker", **told([1, 55, 99], STEPS_OF_TEN)},
        {"cgroup": "/", **told([2, 3], STEPS_OF_TEN)},
    ]


def test_values_of_unknown_owners_are_counted() -> None:
    begun = begin("pid", MICROSECONDS)
    begun.kernel.measure(MICROSECONDS, [1, 2], source=OwnerSource.OWNER_UNKNOWN)
    begun.kernel.measure(MICROSECONDS, [5])
    assert begun.rows("pid") == [(None, 2), (4711, 1)]
    assert begun.counts.of_unknown_owners == 2


@given(st.lists(st.dictionaries(st.integers(1, 3), st.lists(st.integers(0, 2000), min_size=1))))
def test_with_two_tables_in_turn_no_value_is_lost_or_told_twice(
    batches: list[dict[int, list[int]]],
) -> None:
    begun = begin("dport", MICROSECONDS)
    for batch in batches:
        for port, values in batch.items():
            begun.kernel.measure(MICROSECONDS, values, dport=port)
        found = {row.pop("dport"): row for row in begun.counts.collect(begun.kernel)}
        assert found == {port: told(values, MICROSECONDS) for port, values in batch.items()}
    assert begun.counts.collect(begun.kernel) == []


@given(st.lists(st.tuples(st.integers(40, 46), st.integers(0, 2000)), max_size=30))
def test_the_row_with_most_values_comes_first(measured: list[tuple[int, int]]) -> None:
    begun, by_path = begin("cgroup", MICROSECONDS), defaultdict[str | None, int](int)
    for cgroup, value in measured:
        begun.kernel.measure(MICROSECONDS, [value], cgroup_id=cgroup)
        by_path[NAMES.path(7, cgroup)] += 1
    rows = begun.rows("cgroup")
    assert dict(rows) == by_path
    assert [count for _, count in rows] == sorted(by_path.values(), reverse=True)


def test_a_histogram_has_tables_of_its_own() -> None:
    keys = read_by(["dport"])
    assert (Counting(keys).tables, Counting(keys, MICROSECONDS).tables) == (COUNTS, HISTOGRAMS)
    assert HISTOGRAMS.value_bytes == HISTOGRAM.size
    names = {*COUNTS.inner, COUNTS.outer, *HISTOGRAMS.inner, HISTOGRAMS.outer}
    assert len(names) == 6


@pytest.mark.parametrize(("scale", "kind"), [(None, 0), (MICROSECONDS, 1), (STEPS_OF_TEN, 1)])
def test_the_programs_are_told_the_keys_and_the_scale(scale: Scale | None, kind: int) -> None:
    made = Counting(read_by(["dport"]), scale).config()
    assert (made.enabled, made.by, made.histogram) == (1, CountBy.BY_DPORT, kind)


# -- of packets' stages: nanoseconds, and shares of the time


STAGES = {1: "queue", 2: "xmit", 3: "read"}


def stages_by(*names: str) -> Run:
    counting = Counting(
        [*read_by(names), Key("stage")] if names else [Key("stage")], MICROSECONDS, stages=STAGES
    )
    return Run(Kernel(HISTOGRAMS), Counts(counting, Filters(), NAMES, no_runtimes()))


def test_stages_have_nanoseconds_and_their_shares_of_the_time() -> None:
    begun = stages_by()
    begun.kernel.measure(MICROSECONDS, [10, 20], result=1)
    begun.kernel.measure(MICROSECONDS, [70], result=3)
    rows = begun.counts.collect(begun.kernel)
    assert [(row["stage"], row["count"], row["total_ns"], row["share"]) for row in rows] == [
        ("queue", 2, 30, 0.3),
        ("read", 1, 70, 0.7),
    ]
    assert not any(field.endswith("_us") for field in rows[0])


def summed_up(histograms: dict[int, list[int]], state: SumsState, **values: Any) -> bytes:
    """Make a place of a CPU's sums: what it has of a key, by stages."""
    head = int(state).to_bytes(8, sys.byteorder) + Connect(**values).count_key()
    return head + b"".join(
        Made(histograms.get(stage, []), MICROSECONDS).raw() for stage in range(StageAt.STAGE_COUNT)
    )


def test_what_cpus_have_summed_up_is_added_and_taken_out() -> None:
    begun = stages_by("dport")
    whole, places = SumsState.SUMS_OF_KEY, begun.kernel.map("sums_even")
    begun.kernel.measure(MICROSECONDS, [10], dport=80, result=1)
    for cpu, made in enumerate([
        summed_up({1: [20], 3: [70]}, whole, dport=80),
        summed_up({1: [5]}, whole, dport=80),
        summed_up({1: [7]}, whole, dport=443),
        summed_up({2: [9]}, SumsState.SUMS_FREE, dport=80),
    ]):  # fmt: skip
        places.update(u32(cpu), made)
    found = {
        (row["dport"], row["stage"]): (row["count"], row["total_ns"], row["min_ns"], row["max_ns"])
        for row in begun.counts.collect(begun.kernel)
    }
    assert found == {
        (80, "queue"): (3, 35, 5, 20),
        (80, "read"): (1, 70, 70, 70),
        (443, "queue"): (1, 7, 7, 7),
    }
    assert [place for place, left in places.entries.items() if not any(left)] == [
        *map(u32, range(3))
    ]
    assert begun.kernel.map("sums").entries == {
        bytes(4): begun.kernel.map("sums_odd").fd.to_bytes(4, sys.byteorder)
    }
    assert begun.counts.collect(begun.kernel) == []


def test_sums_are_of_stages_alone() -> None:
    by = read_by(["dport"])
    assert not Counting(by, MICROSECONDS).uses(SUMS)
    assert not Counting(by).uses(HISTOGRAMS)
    staged = Counting([*by, Key("stage")], MICROSECONDS, stages=STAGES)
    assert [staged.uses(each) for each in (COUNTS, HISTOGRAMS, SUMS)] == [False, True, True]


def test_shares_are_of_what_has_the_same_other_keys() -> None:
    begun = stages_by("dport")
    for dport, values in ((80, {1: [10], 2: [30]}), (443, {2: [5]})):
        for stage, measured in values.items():
            begun.kernel.measure(MICROSECONDS, measured, dport=dport, result=stage)
    rows = begun.counts.collect(begun.kernel)
    assert {(row["dport"], row["stage"]): row["share"] for row in rows} == {
        (80, "queue"): 0.25,
        (80, "xmit"): 0.75,
        (443, "xmit"): 1.0,
    }


def test_stages_come_in_the_order_of_the_way() -> None:
    begun = stages_by()
    for stage in (3, 1, 2):
        begun.kernel.measure(MICROSECONDS, [stage] * stage, result=stage)
    assert [row["stage"] for row in begun.counts.collect(begun.kernel)] == ["queue", "xmit", "read"]


def test_a_line_of_a_table_has_what_fits_it() -> None:
    shown = stages_by("container").counts.shown
    assert shown == (
        "container", "pod", "pod_namespace", "cgroup", "stage", "count", "p50_ns", "p90_ns", "p99_ns",
        "max_ns", "share",
    )  # fmt: skip
