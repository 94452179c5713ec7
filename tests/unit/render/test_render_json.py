# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import HOSTILE_COMMS, MEMORY, Connect, Names, connect_schema, connects, renderer

from cgnet.errors import UsageError
from cgnet.render import with_owner

PATHS = {(MEMORY, 42): '/docker/"\\\n\u202eé漢'}


def parsed(text: str) -> list[Any]:
    """Return the values of JSON lines; every line must be one."""
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


@given(st.lists(connects() | connects(cgroup_id=42), max_size=5))
def test_each_line_is_the_row_of_its_record(records: list[Connect]) -> None:
    names = Names(PATHS)
    batch = [record.raw() for record in records]
    expected = list(connect_schema(names).rows(batch))
    shown = renderer("json", names)
    assert parsed(shown.rows(batch)) == expected
    assert parsed(shown.rows(batch)) == expected


@given(connects())
def test_a_line_has_the_rows_fields_in_order(record: Connect) -> None:
    names = Names(PATHS)
    (line,) = parsed(renderer("json", names).rows([record.raw()]))
    assert list(line) == list(connect_schema(names).fields)


def test_a_line_is_ascii_without_spaces() -> None:
    text = renderer("json", Names(PATHS)).rows([Connect(comm="é".encode()).raw()])
    assert text.isascii()
    assert ": " not in text


def test_what_was_rendered_before_does_not_change_a_line() -> None:
    names = Names(PATHS)
    shown, schema = renderer("json", names), connect_schema(names)
    chance = random.Random(1)
    some = [
        Connect(
            pid=chance.randrange(3),
            cgroup_id=chance.choice([41, 42]),
            source=chance.randrange(2),
            comm=chance.choice(HOSTILE_COMMS),
            saddr=bytes([10, 0, 0, chance.randrange(2), *bytes(12)]),
            family=chance.choice([4, 6]),
            mapped=chance.randrange(2),
            netns=chance.randrange(2),
            dport=chance.choice([80, 443]),
            sport=chance.randrange(3),
            latency_ns=chance.choice([0, chance.randrange(10**9)]),
            result=chance.choice([0, -1, 111]),
            ts_ns=chance.randrange(10**12),
        ).raw()
        for _ in range(5000)
    ]
    assert parsed(shown.rows(some)) == list(schema.rows(some))


def test_more_owners_and_services_than_are_remembered_keep_their_own_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgnet.records.fields.MAX_CACHED", 3)
    names = Names(PATHS)
    shown = renderer("json", names)
    batch = [Connect(pid=i % 7, dport=i % 5, sport=i % 11).raw() for i in range(200)]
    assert parsed(shown.rows(batch)) == list(connect_schema(names).rows(batch))


def test_a_cgroups_name_that_is_learnt_later_is_shown_from_then_on() -> None:
    names = Names()
    shown, raw = renderer("json", names), Connect(cgroup_id=43).raw()
    shown.rows([raw])
    names.paths[MEMORY, 43] = "/docker/late"
    (line,) = parsed(shown.rows([raw]))
    assert line["cgroup"] == "/docker/late"


@pytest.mark.parametrize("comm", HOSTILE_COMMS)
@pytest.mark.parametrize("fields", [None, ["comm"]])
def test_a_hostile_comm_comes_back_as_its_text(comm: bytes, fields: list[str] | None) -> None:
    (line,) = parsed(renderer("json", Names(), fields).rows([Connect(comm=comm).raw()]))
    assert line["comm"] == comm.decode(errors="backslashreplace")


def test_a_hostile_path_comes_back_as_its_text() -> None:
    (line,) = parsed(renderer("json", Names(PATHS)).rows([Connect().raw()]))
    assert line["cgroup"] == PATHS[MEMORY, 42]


def test_ids_are_strings_for_readers_whose_numbers_are_doubles() -> None:
    (line,) = parsed(renderer("json", Names()).rows([Connect(cgroup_id=(1 << 64) - 1).raw()]))
    assert line["cgroup_id"] == "18446744073709551615"


@given(st.permutations(["comm", "schema", "owner", "dport", "latency_us", "cgroup_id"]))
def test_chosen_fields_keep_their_order(fields: list[str]) -> None:
    (line,) = parsed(renderer("json", Names(PATHS), fields).rows([Connect().raw()]))
    assert list(line) == fields


@given(connects())
def test_chosen_fields_have_the_rows_values(record: Connect) -> None:
    names = Names(PATHS)
    row = connect_schema(names).row(record.raw())
    fields = list(row)[::-1]
    (line,) = parsed(renderer("json", names, fields).rows([record.raw()]))
    assert line == row


def test_a_field_that_no_record_has_is_refused_and_the_others_named() -> None:
    with pytest.raises(UsageError, match=r"'nosuch': no such field; one of: schema, type, .*owner"):
        renderer("json", Names(), ["pid", "nosuch"])


def test_there_is_no_header() -> None:
    assert renderer("json", Names()).header() == ""


def test_a_notice_is_one_more_line() -> None:
    row = {"schema": 2, "type": "lost", "count": 3, "where": "ring"}
    assert renderer("json", Names(), ["pid"]).notice(row) == (
        '{"schema":2,"type":"lost","count":3,"where":"ring"}\n'
    )


def test_an_empty_batch_is_no_text() -> None:
    assert renderer("json", Names()).rows([]) == ""


@pytest.mark.parametrize(
    ("container", "cgroup", "cgroup_id", "owner"),
    [
        ("web", "/docker/x", "42", "web"),
        (None, "/docker/x", "42", "/docker/x"),
        (None, None, "42", "cgroup 42"),
        (None, None, None, None),
    ],
)
def test_the_owner_is_the_most_telling_name_that_is_known(
    container: str | None, cgroup: str | None, cgroup_id: str | None, owner: str | None
) -> None:
    row = {"container": container, "cgroup": cgroup, "cgroup_id": cgroup_id}
    assert with_owner(row)["owner"] == owner
