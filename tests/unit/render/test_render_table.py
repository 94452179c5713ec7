# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import os
import re
import shutil
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import HOSTILE_COMMS, MEMORY, Connect, Names, connects, packed_address, renderer

from cgnet.records._layouts import OwnerSource
from cgnet.render.table import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    Columns = Callable[[int], None]

pytestmark = pytest.mark.usefixtures("utc")

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HEX = "0123456789abcdef" * 2
NAMES = Names(
    {
        (MEMORY, 42): "/docker/web",
        (MEMORY, 43): f"/docker/{HEX}",
        (MEMORY, 44): "/" + "漢字" * 20,
        (MEMORY, 45): "/" + "e\u0301" * 40,
    }
)
RECORDS = [
    Connect(),
    Connect(ts_ns=1_500_000_000, source=OwnerSource.OWNER_UNKNOWN, result=111),
    Connect(
        cgroup_id=43,
        comm=b"",
        family=6,
        saddr=packed_address("2001:db8::1"),
        daddr=packed_address("2001:db8:1:2:3:4:5:6"),
        result=-1,
        latency_ns=2_000_000_000,
        syn_retrans=1,
    ),
    Connect(comm=b"\x1b[31m\n", latency_ns=0, result=101),
]
BATCH = [record.raw() for record in RECORDS]
TABLE = """\
TIME         CONTAINER/CGROUP                             PID COMM            SOURCE          DESTINATION           PORT RESULT       LATENCY RETRANS
12:34:56.789 /docker/web                                 4711 curl            10.0.0.1        10.0.0.2               443 ok           1.23 ms       0
12:34:58.289 -                                              - -               10.0.0.1        10.0.0.2               443 ECONNREFUSED 1.23 ms       0
12:34:56.789 /docker/0123456789abcdef0123456789abcdef    4711 ""              2001:db8::1     2001:db8:1:2:3:4:5:6   443 aborted       2.00 s       1
12:34:56.789 /docker/web                                 4711 \\x1b[31m\\n      10.0.0.1        10.0.0.2               443 ENETUNREACH        -       0
"""  # noqa: E501 - as it is on the screen


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes: the test's own reckoning."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Columns:
    """Give the terminal a width. It has no colours, unless a test asks for them."""
    for name in ("FORCE_COLOR", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")

    def set_width(width: int) -> None:
        monkeypatch.setattr(
            shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((width, 24))
        )

    return set_width


@pytest.fixture
def colours(columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    columns(140)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_the_table_in_a_pipe_is_this_text() -> None:
    shown = renderer("table", NAMES)
    assert (shown.begin() + shown.above(BATCH) + shown.rows(BATCH)).split("\n") == TABLE.split("\n")


def test_no_header_leaves_it_out() -> None:
    assert renderer("table", NAMES, header=False).header() == ""


def test_wide_shows_ports_users_and_the_owners_source() -> None:
    header = renderer("wide", NAMES).header().split()
    assert {"SPORT", "UID", "NETNS", "CGROUP", "FROM"} <= set(header)
    assert set(renderer("table", NAMES).header().split()) <= set(header)


def test_chosen_fields_are_the_columns_in_their_order() -> None:
    shown = renderer("table", NAMES, ["sport", "owner", "owner_source", "tcp_state", "dport"])
    assert shown.header() + shown.rows(BATCH[:1]) == (
        "SPORT CONTAINER/CGROUP         OWNER FROM STATE        PORT\n"
        "51000 /docker/web              learned    ESTABLISHED   443\n"
    )


def test_in_a_pipe_nothing_is_cut() -> None:
    text = renderer("table", NAMES).rows(BATCH)
    assert f"/docker/{HEX}" in text
    assert "…" not in text


@given(st.lists(connects() | connects(hierarchy=MEMORY, cgroup_id=44), max_size=4))
def test_each_record_is_one_line_without_unsafe_characters(records: list[Connect]) -> None:
    for kind in ("table", "wide"):
        text = renderer(kind, NAMES).rows([record.raw() for record in records])
        assert text.count("\n") == len(records)
        shown = text.replace("\n", "")
        assert not [char for char in shown if unicodedata.category(char) in UNSAFE]


@pytest.mark.parametrize("comm", HOSTILE_COMMS)
def test_a_hostile_comm_leaves_the_next_column_in_its_place(comm: bytes) -> None:
    shown = renderer("table", NAMES, ["comm", "dport"])
    first, second = shown.rows([Connect(comm=comm).raw(), Connect().raw()]).splitlines()
    assert second.split() == ["curl", "443"]
    assert first.endswith(" 443")
    assert cells(first) == cells(second)


def test_on_a_terminal_paths_and_addresses_lose_their_middle(columns: Columns) -> None:
    columns(80)
    shown = renderer("table", NAMES, terminal=True)
    lines = (shown.header() + shown.rows(BATCH)).splitlines()
    assert lines[3].split() == [
        "12:34:56.789", "/docker/012…456789abcdef", "2001:db…3:4:5:6", "443", "aborted", "2.00", "s",
    ]  # fmt: skip
    assert {cells(line) for line in lines} == {80}


def test_a_wide_terminal_gives_its_room_to_the_path(columns: Columns) -> None:
    columns(160)
    text = renderer("table", NAMES, terminal=True).rows(BATCH)
    assert f"/docker/{HEX}" in text
    assert "…" not in text


@pytest.mark.parametrize("width", [80, 81, 110, 120, 121, 130, 160])
def test_wide_characters_leave_the_next_column_in_its_place(columns: Columns, width: int) -> None:
    columns(width)
    shown = renderer("table", NAMES, terminal=True)
    rows = shown.rows([Connect(cgroup_id=each).raw() for each in (42, 43, 44, 45)]).splitlines()
    places = [cells(row[: row.index("10.0.0.2")]) for row in rows]
    assert places == [places[0]] * 4


@given(
    st.text(st.sampled_from("ab/漢字Ａé"), max_size=40),
    st.integers(12, 30),
    st.booleans(),
)
def test_a_cut_text_takes_exactly_its_width(text: str, width: int, right: bool) -> None:
    assert cells(fit(text, width, right=right, cut=True)) == width


@given(st.text(st.sampled_from("ab/e\u0301"), max_size=40), st.integers(12, 30))
def test_a_cut_text_with_combining_characters_takes_exactly_its_width(
    text: str, width: int
) -> None:
    assert cells(fit(text, width, right=False, cut=True)) == width


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=31))
def test_a_cut_text_keeps_both_ends(text: str) -> None:
    start, end = fit(text, 30, right=False, cut=True).split("…")
    assert text.startswith(start)
    assert text.endswith(end)
    assert abs(len(start) - len(end)) <= 1


@given(st.text(), st.integers(1, 30))
def test_a_text_that_may_not_be_cut_is_all_there(text: str, width: int) -> None:
    assert fit(text, width, right=False, cut=False).startswith(text)
    assert fit(text, width, right=True, cut=False).endswith(text)


@pytest.mark.usefixtures("colours")
def test_a_terminal_gets_colours_and_the_same_text() -> None:
    shown = renderer("table", NAMES, terminal=True)
    text = shown.header() + shown.rows(BATCH)
    for escape in ("\x1b[1m", "\x1b[32mok", "\x1b[31mECONNREFUSED", "\x1b[33maborted"):
        assert escape in text
    assert set(re.findall(r"\x1b[^m]*m", text)) <= {f"\x1b[{n}m" for n in (0, 1, 2, 31, 32, 33, 36)}


@pytest.mark.usefixtures("colours")
def test_colours_leave_every_column_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = renderer("table", NAMES, terminal=True)
    text = re.sub(r"\x1b\[\d*m", "", shown.header() + shown.rows(BATCH))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = renderer("table", NAMES, terminal=True)
    expected = (plain.header() + plain.rows(BATCH)).splitlines()
    assert [line.rstrip() for line in text.splitlines()] == expected


@pytest.mark.usefixtures("colours")
@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_a_dumb_terminal_get_no_escape(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    if name == "TERM":
        monkeypatch.delenv("FORCE_COLOR")
    shown = renderer("table", NAMES, terminal=True)
    assert "\x1b" not in shown.header() + shown.rows(BATCH)


@pytest.mark.usefixtures("colours")
def test_the_markup_of_rich_in_a_name_is_text() -> None:
    names = Names({(MEMORY, 42): "/[red]a[/red]:smile:"})
    assert "/[red]a[/red]:smile:" in renderer("table", names, terminal=True).rows(BATCH)


@pytest.mark.usefixtures("colours")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(connects())
def test_with_colours_each_record_is_one_line(record: Connect) -> None:
    text = renderer("wide", NAMES, terminal=True).rows([record.raw()])
    plain = re.sub(r"\x1b\[\d+m", "", text.removesuffix("\n"))
    assert not [char for char in plain if unicodedata.category(char) in UNSAFE]


def test_what_is_about_the_run_goes_elsewhere() -> None:
    assert renderer("table", NAMES).notice({"type": "summary"}) == ""
