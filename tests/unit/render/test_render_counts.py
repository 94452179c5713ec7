# SPDX-License-Identifier: BSD-2-Clause
"""Rows of counts, in each format."""

from __future__ import annotations

import csv
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import fixed_clock

from cgnet.errors import UsageError
from cgnet.records.schema import CountSchema
from cgnet.render import make_renderer

if TYPE_CHECKING:
    from cgnet.render import Renderer

pytestmark = pytest.mark.usefixtures("utc")

FIELDS = ("container", "cgroup", "selected", "result", "count")
COLUMNS = ("time", "owner", "selected", "result", "count")
ROW: dict[str, Any] = {
    "schema": 2,
    "type": "connect",
    "time": "2026-03-01T12:34:56.789012Z",
    "ts_ns": 0,
    "container": None,
    "cgroup": "/docker/web",
    "selected": "/docker/*",
    "result": "ok",
    "count": 12,
}


def renderer(kind: str, *, terminal: bool = False, fields: list[str] | None = None) -> Renderer:
    schema = CountSchema("connect", fixed_clock(), FIELDS)
    if kind == "json":  # as a run does
        fields = fields or list(schema.fields)
    columns = {"table": COLUMNS, "wide": COLUMNS}
    return make_renderer(kind, schema, fields, columns, terminal=terminal, header=True)


@pytest.mark.parametrize("kind", ["table", "wide"])
def test_a_table_has_the_owner_and_the_count(kind: str) -> None:
    shown = renderer(kind)
    assert shown.header() + shown.rows([dict(ROW)]) == (
        "TIME         CONTAINER/CGROUP         SELECTED                 RESULT            COUNT\n"
        "12:34:56.789 /docker/web              /docker/*                ok                   12\n"
    )


def test_json_has_the_fields_in_order() -> None:
    text = renderer("json").rows([dict(ROW), ROW | {"cgroup": None, "count": 1}])
    first, second = map(json.loads, text.splitlines())
    assert list(first.items()) == list(ROW.items())
    assert (second["cgroup"], second["count"]) == (None, 1)


def test_csv_has_the_names_of_json() -> None:
    shown = renderer("csv")
    header, row = csv.reader((shown.header() + shown.rows([dict(ROW)])).splitlines())
    assert header == list(ROW)
    assert row == ["" if value is None else str(value) for value in ROW.values()]


@pytest.mark.parametrize("kind", ["table", "json", "csv"])
def test_chosen_fields_are_shown_alone(kind: str) -> None:
    text = renderer(kind, fields=["count", "owner"]).rows([dict(ROW)])
    expected = {"table": "        12 /docker/web\n", "csv": "12,/docker/web\n"}
    assert text == expected.get(kind, '{"count":12,"owner":"/docker/web"}\n')


def test_a_field_that_was_not_counted_by_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--fields 'pid': no such field; one of: schema, .*count"):
        renderer("table", fields=["pid"])


@given(st.text(), st.text())
def test_a_strangers_text_stays_in_its_line_and_cell(cgroup: str, selected: str) -> None:
    row = ROW | {"cgroup": f"/{cgroup}", "selected": selected}
    for kind in ("table", "json", "csv"):
        assert renderer(kind).rows([dict(row)]).count("\n") == 1
    (cells,) = csv.reader([renderer("csv").rows([dict(row)])])
    assert len(cells) == len(ROW)


@pytest.mark.parametrize("kind", ["table", "wide"])
def test_on_a_terminal_counts_take_the_place_of_the_last_ones(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((100, 24)))
    assert renderer(kind, terminal=True).clear() == "\x1b[H\x1b[2J"
    assert renderer(kind).clear() == ""


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_for_machines_nothing_is_taken_back(kind: str) -> None:
    assert renderer(kind, terminal=True).clear() == ""


def test_two_paths_share_the_room_of_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: os.terminal_size((80, 24)))
    long = ROW | {"cgroup": "/a" * 40, "selected": "/b" * 40}
    line = renderer("table", terminal=True).rows([long]).rstrip("\n")
    assert len(line) <= 80
    assert line.count("…") == 2
    assert line.endswith(" 12")
