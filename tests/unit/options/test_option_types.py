# SPDX-License-Identifier: BSD-2-Clause
"""How the values of options are read."""

from __future__ import annotations

from fractions import Fraction

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgnet.options.types import (
    MAX_SPAN_NS,
    FieldList,
    OneOf,
    Seconds,
    Size,
    Span,
    a_number,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4K", 4096),
        ("4k", 4096),
        ("4096", 4096),
        ("4097", 8192),
        ("5000", 8192),
        ("3K", 4096),
        ("4M", 4 << 20),
        ("3m", 4 << 20),
        ("1G", 1 << 30),
        ("1073741824", 1 << 30),
    ],
)
def test_a_size_is_rounded_up_to_a_power_of_two(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "0",
        "0K",
        "9999G",
        "K",
        "1.5M",
        "4KB",
        "4 K",
        " 4K",
        "0x1000",
        "٤K",
        "1073741825",
    ],
)
def test_what_is_no_size_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(click.BadParameter) as raised:
        Size().convert(text, None, None)
    assert repr(text) in raised.value.message


@given(st.text() | st.from_regex(r"\A[0-9]{1,12}[KMGkmg]?\Z"))
@example("9" * 5000)
@example("9" * 5000 + "K")
def test_any_text_is_a_power_of_two_in_range_or_refused(text: str) -> None:
    try:
        size = Size().convert(text, None, None)
    except click.BadParameter:
        return
    assert 4096 <= size <= 1 << 30
    assert size.bit_count() == 1


@pytest.mark.parametrize(
    ("text", "names"), [("pid", ["pid"]), ("pid,comm", ["pid", "comm"]), (" b , a ", ["b", "a"])]
)
def test_fields_are_names_separated_by_commas(text: str, names: list[str]) -> None:
    assert FieldList().convert(text, None, None) == names


@pytest.mark.parametrize("text", ["", ",", "a,", ",a", "a,,b", " "])
def test_an_empty_field_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="empty name"):
        FieldList().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("20ms", 20_000_000),
        ("500us", 500_000),
        ("500\u00b5s", 500_000),
        ("1.5s", 1_500_000_000),
        ("0s", 0),
        ("5m", 300 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("0.5us", 500),
        ("007ms", 7_000_000),
        ("0.000000001s", 1),
        ("1000000000s", MAX_SPAN_NS),
    ],
)
def test_a_span_is_nanoseconds(text: str, ns: int) -> None:
    assert Span().convert(text, None, None) == ns


@pytest.mark.parametrize(
    "text",
    [
        "", "20", "ms", "20 ms", " 20ms", "20ms ", "-1ms", "+1ms", ".5s", "5.s", "1e3ms", "1d", "1ns",
        "20MS", "1,5s", "\u0662ms", "1.0000000001s", "nan", "infs", "9" * 5000 + "s",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_span_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(
        click.BadParameter, match=r"is no time; give a number with us, ms or s"
    ) as raised:
        Span().convert(text, None, None)
    assert repr(text) in raised.value.message


@pytest.mark.parametrize("text", ["1000000001s", "999999999999s", "999999999999.999999999s"])
def test_a_span_that_the_kernel_side_cant_hold_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="too long; give 1000000000s at most"):
        Span().convert(text, None, None)


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(["us", "\u00b5s", "ms", "s"]))
def test_a_span_is_what_its_text_says(whole: int, thousandths: int, unit: str) -> None:
    factor = {"ms": 10**6, "s": 10**9}.get(unit, 1000)
    expected = (whole + Fraction(thousandths, 1000)) * factor
    assert Span().convert(f"{whole}.{thousandths:03d}{unit}", None, None) == expected


@given(st.text() | st.from_regex(r"\A[0-9.]{1,14}(us|ms|s)\Z"))
def test_any_text_is_a_span_that_fits_or_refused(text: str) -> None:
    try:
        found = Span().convert(text, None, None)
    except click.BadParameter:
        return
    assert 0 <= found < 2**63


@pytest.mark.parametrize("kind", [Span(), Size()])
def test_a_default_that_is_a_number_already_stays(kind: click.ParamType) -> None:
    assert kind.convert(4096, None, None) == 4096


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30), ("30s", 30), ("0.5", 0.5), ("0.5s", 0.5), ("500ms", 0.5), ("5m", 300), ("1h", 3600),
        ("1.5h", 5400), ("1e3", 1000), ("inf", float("inf")),
    ],
)  # fmt: skip
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "soon", "5 mins", "1d", "1h30m", "nan", "5M", "9" * 5000 + "x"]
)
def test_what_is_no_duration_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time; give seconds") as raised:
        Seconds().convert(text, None, None)
    assert repr(text) in raised.value.message


@given(st.text() | st.from_regex(r"\A[0-9.]{1,14}(ms|s|m|h)?\Z"))
def test_any_text_is_a_duration_in_range_or_refused(text: str) -> None:
    try:
        found = Seconds(min=0.1).convert(text, None, None)
    except click.BadParameter:
        return
    assert found >= 0.1


def test_a_word_that_is_none_of_some_is_told_with_the_nearest() -> None:
    with pytest.raises(click.BadParameter, match=r"'tabel' is not one of .* .did you mean table\?"):
        OneOf(["table", "wide"]).convert("tabel", None, None)
    with pytest.raises(click.BadParameter) as raised:
        OneOf(["table", "wide"]).convert("x", None, None)
    assert "did you mean" not in raised.value.message


def test_what_is_not_a_number_is_refused() -> None:
    context = click.Context(click.Command("x"))
    option = click.Option(["--duration"])
    assert [a_number(context, option, value) for value in (None, 0.0, 2.5)] == [None, 0.0, 2.5]
    with pytest.raises(click.BadParameter, match="nan is not a number"):
        a_number(context, option, float("nan"))
