# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import HOSTILE_COMMS, MEMORY, Connect, Names, connect_schema, connects, renderer

from cgnet.records._layouts import OwnerSource

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
PATHS = {(MEMORY, 42): '/docker/a,b "c"\n\x1b[31m\u202e'}
FORMULA_STARTS = ("=", "+", "-", "@")


def read(text: str) -> list[list[str]]:
    """Return the cells as a reader of CSV sees them."""
    return list(csv.reader(io.StringIO(text, newline="")))


def test_the_header_has_the_names_of_json() -> None:
    shown = renderer("csv", Names())
    assert read(shown.header()) == [list(connect_schema(Names()).fields)]


def test_chosen_fields_are_the_columns_in_their_order() -> None:
    shown = renderer("csv", Names(), ["dport", "owner", "comm"])
    assert shown.header() == "dport,owner,comm\n"
    assert shown.rows([Connect(comm=b"wget").raw()]) == "443,cgroup 42,wget\n"


def test_no_header_leaves_it_out() -> None:
    shown = renderer("csv", Names(), header=False)
    assert shown.header() == ""
    assert len(read(shown.rows([Connect().raw()]))) == 1


def test_a_whole_line_has_the_units_of_json() -> None:
    text = renderer("csv", Names({(MEMORY, 42): "/docker/web"})).rows([Connect(mapped=1).raw()])
    assert text == (
        "2,connect,2026-03-01T12:34:56.789012Z,0,4711,1000,curl,memory,/docker/web,42,,,,,,,,,"
        "learned,4026531840,4,true,10.0.0.1,10.0.0.2,443,51000,client,ESTABLISHED,ok,1234,0,\n"
    )


def test_null_is_an_empty_cell() -> None:
    raw = Connect(source=OwnerSource.OWNER_UNKNOWN, latency_ns=0).raw()
    text = renderer("csv", Names(), ["pid", "owner", "latency_us", "result"]).rows([raw])
    assert text == ",,,ok\n"


@given(st.lists(connects() | connects(cgroup_id=42, hierarchy=MEMORY), min_size=1, max_size=5))
def test_each_record_is_one_line_of_safe_cells(records: list[Connect]) -> None:
    names = Names(PATHS)
    text = renderer("csv", names).rows([record.raw() for record in records])
    rows = read(text)
    assert text.count("\n") == len(rows) == len(records)
    assert {len(row) for row in rows} == {len(connect_schema(names).fields)}
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if any(unicodedata.category(c) in UNSAFE for c in cell)]
    assert not [cell for cell in cells if cell.startswith(FORMULA_STARTS)]


@given(connects())
def test_numbers_read_back_as_those_of_the_row(record: Connect) -> None:
    row = connect_schema(Names()).row(record.raw())
    fields = [field for field, value in row.items() if type(value) is int]
    (cells,) = read(renderer("csv", Names(), fields).rows([record.raw()]))
    assert [int(cell) for cell in cells] == [row[field] for field in fields]


@pytest.mark.parametrize("comm", HOSTILE_COMMS)
def test_a_cell_that_a_spreadsheet_would_run_is_quoted_and_no_other(comm: bytes) -> None:
    ((cell,),) = read(renderer("csv", Names(), ["comm"]).rows([Connect(comm=comm).raw()]))
    assert cell.startswith("'") == comm.startswith((b"=", b"+", b"-", b"@"))


@pytest.mark.parametrize(
    ("comm", "cell"),
    [
        (b"=cmd|' /C calc'!", "'=cmd|' /C calc'!"),
        (b"a,b;c", "a,b;c"),
        (b"\"'`\\", "\"'`\\"),
        (b"a\nb", "a\\nb"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        ("\u202eevil".encode(), "\\u202eevil"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"", ""),
    ],
)
def test_a_comm_reads_back_as_it_is_shown(comm: bytes, cell: str) -> None:
    text = renderer("csv", Names(), ["comm", "pid"]).rows([Connect(comm=comm).raw()])
    assert read(text) == [[cell, "4711"]]


def test_what_is_about_the_run_goes_elsewhere() -> None:
    assert renderer("csv", Names()).notice({"type": "summary"}) == ""
