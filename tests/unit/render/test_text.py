# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgnet.render.text import cell, duration, local_time, safe

UNITS = {"µs": 1, "ms": 1000, "s": 1_000_000}
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# From here on, seconds have five figures.
HOURS = 9_999_000_000
every_text = st.text() | st.lists(st.integers(0, 0x10FFFF).map(chr)).map("".join)


def microseconds(text: str) -> float:
    """Return what a duration's text says."""
    number, unit = text.split(" ")
    return float(number) * UNITS[unit]


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 µs"),
        (1, "1 µs"),
        (999, "999 µs"),
        (1000, "1.00 ms"),
        (9_994, "9.99 ms"),
        (9_996, "10.0 ms"),
        (99_940, "99.9 ms"),
        (99_960, "100 ms"),
        (999_400, "999 ms"),
        (999_600, "1.00 s"),
        (999_999, "1.00 s"),
        (1_000_000, "1.00 s"),
        (9_999_999, "10.0 s"),
        (59_000_000, "59.0 s"),
        (60_000_000, "60.0 s"),
        (999_900_000, "1000 s"),
        (3_600_000_000, "3600 s"),
        (36_000_000_000, "36000 s"),
    ],
)
def test_a_duration_has_three_figures_and_the_unit_that_fits(us: int, text: str) -> None:
    assert duration(us) == text


@given(st.integers(0, HOURS))
@example(9_995)
@example(9_996)
@example(99_951)
@example(999_501)
@example(9_995_001)
@example(99_950_001)
@example(999_500_001)
def test_a_durations_number_has_at_most_four_characters(us: int) -> None:
    number, unit = duration(us).split(" ")
    assert len(number) <= 4, duration(us)
    assert unit == "s" or float(number) < 1000, duration(us)


@given(st.integers(0, 10 * HOURS), st.integers(0, 10 * HOURS))
def test_a_longer_duration_never_reads_as_a_shorter_one(one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert microseconds(duration(short)) <= microseconds(duration(long))


@given(st.integers(1, 1 << 64))
def test_a_durations_text_is_right_to_half_a_percent(us: int) -> None:
    assert abs(microseconds(duration(us)) - us) <= us * 0.00501


@given(every_text)
@example("\x1b[31m\x9b\u202e\u2066\u200d\ufeff\u2028\u2029\ud800\U000e0001")
def test_safe_text_has_no_character_that_moves_a_cursor_or_reorders(name: str) -> None:
    assert not [char for char in safe(name) if unicodedata.category(char) in UNSAFE]


@given(every_text)
def test_safe_text_stays_as_it_is(name: str) -> None:
    assert safe(safe(name)) == safe(name)


@given(st.text(st.characters(exclude_categories=sorted(UNSAFE))))
def test_harmless_text_stays_as_it_is(name: str) -> None:
    assert safe(name) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("curl", "curl"),
        ("naïve 漢字", "naïve 漢字"),
        ("[/red]", "[/red]"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\0", "a\\nb\\tc\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_unsafe_characters_are_escaped(name: str, text: str) -> None:
    assert safe(name) == text


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("pid", None, "-"),
        ("latency_us", None, "-"),
        ("mapped", True, "yes"),
        ("mapped", False, "no"),
        ("syn_retrans", 0, "0"),
        ("latency_us", 1234, "1.23 ms"),
        ("comm", "", '""'),
        ("comm", "a\nb", "a\\nb"),
        ("labels", {"app": "we\nb", "tier": "1"}, "app=we\\nb,tier=1"),
        ("labels", {}, "-"),
        ("p50_ns", 999, "999 ns"),
        ("p50_ns", 1_000, "1.00 µs"),
        ("p50_ns", 9_994, "9.99 µs"),
        ("p50_ns", 45_678, "45.7 µs"),
        ("p50_ns", 123_456, "123 µs"),
        ("p50_ns", 2_500_000, "2.50 ms"),
        ("ts_ns", 2_500_000, "2500000"),
        ("share", 0.0714, "7.1%"),
        ("stack", ["a+0x1", "b+0x2 [m]"], "a+0x1 < b+0x2 [m]"),
        ("stack", [], "-"),
    ],
)
def test_a_value_as_it_stands_in_a_table(field: str, value: object, text: str) -> None:
    assert cell(field, value) == text


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(
    ("ts_ns", "text"),
    [(0, "00:00:00.000"), (999_999, "00:00:00.000"), (3_723_004_999_999, "01:02:03.004")],
)
def test_a_time_of_day_is_cut_to_the_millisecond(ts_ns: int, text: str) -> None:
    assert local_time(ts_ns, 0) == text
