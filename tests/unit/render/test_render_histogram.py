# SPDX-License-Identifier: BSD-2-Clause
"""Histograms as people see them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from histogram import Made
from hypothesis import given
from hypothesis import strategies as st
from records import fixed_clock

from cgnet.counting.histograms import FIELDS, MICROSECONDS, Scale, linear
from cgnet.errors import UsageError
from cgnet.records.schema import CountSchema
from cgnet.render import make_drawings, make_renderer
from cgnet.render.histogram import BAR, bar

pytestmark = pytest.mark.usefixtures("utc")

FULL = "█" * BAR
KEYS = ("container", "pod", "cgroup", "dport")
SCHEMA = CountSchema("rtt", fixed_clock(), (*KEYS, *FIELDS))
HEAD = {"schema": 2, "type": "rtt", "time": "2026-03-01T12:34:56.789012Z", "ts_ns": 0}


def row(values: list[int], scale: Scale = MICROSECONDS, **keys: Any) -> dict[str, Any]:
    told = Made(values, scale).read().values(scale)
    return {**HEAD, **keys, **dict(zip(FIELDS, told, strict=True))}


def drawn(*rows: dict[str, Any], geometric: bool = True, milliseconds: bool = False) -> str:
    made = make_drawings(
        SCHEMA, None, geometric=geometric, milliseconds=milliseconds, terminal=False
    )
    return made.rows(list(rows))


def test_a_drawing_has_time_key_numbers_and_a_bar_for_each_bucket() -> None:
    text = drawn(row([200] * 80 + [300] * 20 + [1500], container="web", pod=None, dport=443))
    assert text == (
        "12:34:56.789 container=web dport=443\n"
        "  101 samples, min 200 µs, avg 233 µs, p50 202 µs ±3 µs, p90 303 µs ±13 µs, "
        "p99 303 µs ±13 µs, max 1.50 ms\n"
        f"   122 µs … 244 µs            80 {FULL}\n"
        f"   244 µs … 488 µs            20 {'█' * 10}\n"
        "   488 µs … 977 µs             0\n"
        "   977 µs … 1.95 ms            1 ▌\n"
        "\n"
    )


def test_in_milliseconds_all_bounds_and_numbers_are() -> None:
    text = drawn(
        row([1000, 1500, 250_000], linear("1000,3000,1000")), geometric=False, milliseconds=True
    )
    assert text == (
        "12:34:56.789\n"
        "  3 samples, min 1 ms, avg 84.167 ms, p50 1.499 ms ±0.5 ms, p90 126.5 ms ±123.5 ms, "
        "p99 126.5 ms ±123.5 ms, max 250 ms\n"
        f"      1 ms … 2 ms                2 {FULL}\n"
        "      2 ms … 3 ms                0\n"
        f"      3 ms … 250.001 ms          1 {'█' * 20}\n"
        "\n"
    )


def test_an_exact_percentile_has_no_error_beside_it() -> None:
    assert "p50 3 µs, p90 3 µs, p99 3 µs" in drawn(row([3, 3]))


def test_rows_are_one_drawing_below_the_other() -> None:
    one, other = row([1], dport=80), row([2], dport=443)
    assert drawn(one, other) == drawn(one) + drawn(other)


def test_without_rows_nothing_is_drawn() -> None:
    assert drawn() == ""


def test_counts_have_thousands_apart() -> None:
    text = drawn({**row([1]), "count": 1_234_567, "buckets": [[1, 2, 1_234_567]]}, geometric=False)
    assert "1,234,567 samples" in text
    assert f"     1 µs … 2 µs       1,234,567 {FULL}\n" in text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_strangers_text_stays_in_its_line(name: str) -> None:
    text = drawn(row([1], container=name, cgroup=f"/{name}"))
    plain = drawn(row([1], container="web"))
    assert text.count("\n") == plain.count("\n")
    kinds = {unicodedata.category(char) for char in text.replace("\n", "")}
    assert kinds & {"Cc", "Cf", "Zl", "Zp"} == set()


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_bar_is_as_long_as_its_share_and_what_isnt_nothing_is_seen(count: int, most: int) -> None:
    count = min(count, most)
    text = bar(count, most)
    assert bool(text) == bool(count)
    eighths = 8 * text.count("█") + " ▏▎▍▌▋▊▉".index(text.replace("█", "") or " ")
    assert abs(eighths - 8 * BAR * count / most) <= 0.5 or eighths == 1
    assert len(text) <= BAR


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (0, 7, ""), (1, 10**9, "▏"), (7, 7, FULL), (1, 2, "█" * 20), (1, 320, "▏"), (9, 320, "█▏"),
        (0, 0, ""),
    ],
)  # fmt: skip
def test_bars(count: int, most: int, expected: str) -> None:
    assert bar(count, most) == expected


def test_on_a_terminal_drawings_take_the_place_of_the_last_ones() -> None:
    made = make_drawings(SCHEMA, None, geometric=True, milliseconds=False, terminal=True)
    assert (made.clear(), made.header(), made.notice(HEAD)) == ("\x1b[H\x1b[2J", "", "")
    assert (
        make_drawings(SCHEMA, None, geometric=True, milliseconds=False, terminal=False).clear()
        == ""
    )


def test_fields_are_refused_where_all_is_drawn() -> None:
    with pytest.raises(UsageError, match=r"^--fields: histograms are drawn whole"):
        make_drawings(SCHEMA, ["count"], geometric=True, milliseconds=False, terminal=False)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_for_machines_a_histogram_is_a_row_like_any(kind: str) -> None:
    import csv
    import json

    keys = dict.fromkeys(KEYS)
    found = row([1, 5, 6], **keys)
    made = make_renderer(kind, SCHEMA, list(SCHEMA.fields), {}, terminal=False, header=False)
    text = made.rows([dict(found)])
    if kind == "json":
        told = json.loads(text)
        assert {name: told[name] for name in FIELDS} == {name: found[name] for name in FIELDS}
        return
    (cells,) = csv.reader([text])
    values = dict(zip(SCHEMA.fields, cells, strict=True))
    assert json.loads(values["buckets"]) == found["buckets"]
    assert values["p99_us"] == str(found["p99_us"])
