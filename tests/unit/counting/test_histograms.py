# SPDX-License-Identifier: BSD-2-Clause
"""What is told of a histogram, against the values that it was made of."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import pytest
from histogram import Made, bucket_of
from hypothesis import example, given
from hypothesis import strategies as st

from cgnet.counting.histograms import (
    FIELDS,
    LARGEST,
    MICROSECONDS,
    NANOSECONDS,
    PERCENTILES,
    STEPS,
    Histogram,
    Scale,
    linear,
)
from cgnet.errors import UsageError
from cgnet.records._layouts import CGNET_BUCKETS, HISTOGRAM, CountConfig

EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 1000, 15625, 10**6, 2**31, 2**32, 2**33 - 1, 2**40, 2**53)
US = st.sampled_from(EDGES) | st.integers(0, 10_000) | st.integers(0, 2**40)
LISTS = st.lists(US, min_size=1, max_size=60)


@st.composite
def linears(draw: st.DrawFn) -> Scale:
    """Return scales as --linear makes them."""
    low, step = draw(st.integers(0, 5000)), draw(st.integers(1, 500))
    high = low + draw(st.integers(1, step * STEPS))
    return linear(f"{low},{high},{step}")


SCALES = st.sampled_from([MICROSECONDS, NANOSECONDS]) | linears()


def found_in_kernel(value: int, scale: Scale) -> int:
    """Return the bucket that bucket_of() of histogram.bpf.h finds."""
    bucket, step = 0, CGNET_BUCKETS // 2
    while step:
        bucket += (value >= scale.starts[bucket + step - 1]) * step
        step //= 2
    return bucket


@given(US, SCALES)
@example(2**62, MICROSECONDS)
@example(15625, MICROSECONDS)
@example(15626, MICROSECONDS)
@example(0, linear("0,10,1"))
@example(10, linear("0,10,1"))
def test_the_kernel_finds_the_bucket_whose_edges_enclose_a_value(value: int, scale: Scale) -> None:
    assert found_in_kernel(value, scale) == bucket_of(value, scale)


@given(SCALES)
def test_no_scale_has_more_buckets_than_there_are(scale: Scale) -> None:
    assert len(scale.edges) < CGNET_BUCKETS
    assert len(scale.starts) == CGNET_BUCKETS
    assert list(scale.edges) == sorted(set(scale.edges))


@pytest.mark.parametrize(
    ("scale", "per_second"), [(MICROSECONDS, 10**6), (NANOSECONDS, 10**9)], ids=["µs", "ns"]
)
def test_geometric_edges_are_eighths_of_powers_of_two_of_a_second(
    scale: Scale, per_second: int
) -> None:
    eighths = [8 * math.log2(edge / per_second) for edge in scale.edges]
    assert eighths == pytest.approx([eighths[0] + number for number in range(255)], abs=1e-9)
    assert eighths[0] == pytest.approx(round(eighths[0]), abs=1e-9)
    assert float(per_second) in scale.edges


@pytest.mark.parametrize("value", EDGES)
@pytest.mark.parametrize(
    "scale", [MICROSECONDS, linear("0,4,1"), linear("3,1000,100")], ids=["µs", "by 1", "by 100"]
)
def test_of_one_value_all_is_exact(value: int, scale: Scale) -> None:
    told = dict(zip(FIELDS, Made([value], scale).read().values(scale), strict=True))
    shown = told.pop("buckets")
    names = ("total", "min", "avg", *(f"p{percent}" for percent in PERCENTILES), "max")
    errors = {f"p{percent}_error_us": 0 for percent in PERCENTILES}
    assert told == {"count": 1, **dict.fromkeys((f"{name}_us" for name in names), value), **errors}
    ((low, high, count),) = shown
    within = low < value <= high if scale.is_geometric and value else low <= value < high
    assert (within, count) == (True, 1)


@given(LISTS, SCALES)
def test_a_percentile_is_as_far_from_the_true_one_as_it_says_or_less(
    values: list[int], scale: Scale
) -> None:
    made = Made(values, scale).read()
    ordered = sorted(values)
    for percent in PERCENTILES:
        found, error = made.percentile(percent, scale)
        true = ordered[-(-len(values) * percent // 100) - 1]
        assert abs(found - true) <= error


@given(st.lists(st.integers(20, 3 * 10**9), min_size=1))
def test_a_geometric_percentile_is_wrong_by_44_in_1000_and_by_rounding_at_most(
    values: list[int],
) -> None:
    made, ordered = Made(values, MICROSECONDS).read(), sorted(values)
    for percent in PERCENTILES:
        found, _ = made.percentile(percent, MICROSECONDS)
        true = ordered[-(-len(values) * percent // 100) - 1]
        assert abs(found - true) <= true * 0.0443 + 1


@given(LISTS, LISTS, SCALES)
def test_the_sum_of_two_is_the_histogram_of_both(
    some: list[int], more: list[int], scale: Scale
) -> None:
    both = Made(some, scale).read() + Made(more, scale).read()
    together = Made(some + more, scale).read()
    for name in Histogram.__slots__:
        assert getattr(both, name) == getattr(together, name)


@given(LISTS, SCALES)
def test_the_buckets_have_every_value_once_and_no_gap(values: list[int], scale: Scale) -> None:
    rows = Made(values, scale).read().shown(scale)
    assert sum(each for _, _, each in rows) == len(values)
    assert [high for _, high, _ in rows[:-1]] == [low for low, _, _ in rows[1:]]
    assert rows[0][2]
    assert rows[-1][2]


@given(LISTS)
def test_a_geometric_bucket_includes_its_upper_edge_alone(values: list[int]) -> None:
    for low, high, count in Made(values, MICROSECONDS).read().shown(MICROSECONDS):
        assert count == sum(low < value <= high or low == value == 0 for value in values)


def test_each_step_of_a_linear_scale_is_a_row_and_what_is_beyond_has_its_own() -> None:
    scale = linear("10,35,10")
    rows = Made([3, 10, 19, 31, 39, 40, 1000], scale).read().shown(scale)
    assert rows == [[0, 10, 1], [10, 20, 2], [20, 30, 0], [30, 40, 2], [40, 1001, 2]]


def test_nothing_is_shown_of_no_values() -> None:
    assert Made([], MICROSECONDS).read().shown(MICROSECONDS) == []


def test_the_average_is_rounded() -> None:
    told = Made([1, 2, 2], MICROSECONDS).read().values(MICROSECONDS)
    assert dict(zip(FIELDS, told, strict=True))["avg_us"] == 2


@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_size_are_no_histogram(change: int) -> None:
    with pytest.raises(struct.error):
        Histogram.read(bytes(HISTOGRAM.size + change))


@pytest.mark.parametrize(
    ("text", "low", "step", "steps"),
    [
        ("0,1000,50", 0, 50, 20),
        ("0,1,1", 0, 1, 1),
        ("10,25,10", 10, 10, 2),  # the last step may end above HIGH
        ("0,254,1", 0, 1, 254),
        ("0,2147483647,2147483647", 0, LARGEST, 1),
        ("0" * 5000 + "1,9,1", 1, 1, 8),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.usefixtures("mounted")
def test_a_linear_scale_is_low_high_and_step(text: str, low: int, step: int, steps: int) -> None:
    scale = linear(text)
    edges = tuple(low + step * number for number in range(steps + 1))
    assert scale == Scale(edges, is_geometric=False)
    assert scale.starts[: len(edges)] == edges
    assert scale.config(CountConfig(by=1)) == CountConfig(
        by=1, histogram=1, bucket_starts=scale.starts
    )
    assert all(high - low == step for low, high in pairwise(scale.edges))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        *((text, "as in 0,1000,50") for text in ("", "1", "0,10", "0,10,1,1", "0,10,x", "-1,9,1")),
        *((text, "as in 0,1000,50") for text in ("0,10,1.5", "0, 10,1", "0,\u0661,1", ",,")),
        *((text, "as in 0,1000,50") for text in ("0,2147483648,9", "0,9,1" + "0" * 5000)),
        *((text, "above LOW") for text in ("10,10,1", "11,10,1", "0,10,0", "0,0,0")),
        *((text, "at most 254") for text in ("0,255,1", "0,2147483647,1")),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_no_linear_scale_is_quoted_with_the_accepted_form(text: str, form: str) -> None:
    with pytest.raises(UsageError) as raised:
        linear(text)
    assert str(raised.value).startswith(f"--linear {text!r}: ")
    assert form in str(raised.value)


@given(st.text(st.sampled_from("0123456789,- x")))
def test_any_text_is_a_scale_or_refused(text: str) -> None:
    try:
        scale = linear(text)
    except UsageError:
        return
    assert 2 <= len(scale.edges) <= STEPS + 1
