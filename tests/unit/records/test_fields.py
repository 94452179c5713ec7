# SPDX-License-Identifier: BSD-2-Clause
"""Parts of records, and lines and rows that are made of them: of every command."""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import EPOCH_NS, MEMORY, Connect, Names, fixed_clock, no_runtimes, record_of, renderer

from cgnet.commands import connlat, life, retrans, rtt
from cgnet.commands.drop import command as drop
from cgnet.commands.drop.record import drop_groups
from cgnet.commands.trace import command as trace
from cgnet.commands.trace.record import COUNT_AT, LEAST, trace_group
from cgnet.kernel.symbols import Symbols
from cgnet.records._layouts import DROP_EVENT, TRACE_EVENT, DropClass, RecordKind
from cgnet.records.conn_id import PUBLIC_KEY, conn_id_field
from cgnet.records.fields import FieldGroup, NumberField, RecordSlicer
from cgnet.records.schema import FLOW_PART, OUTCOME_PART, Schema, flow_row
from cgnet.render.json_lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgnet.owners.runtimes import Known
    from cgnet.records.fields import AnyField

NAMES = Names({(MEMORY, 42): "/docker/web"})
DROP_CLASS = DROP_EVENT.slice("drop.drop_class").start
NSEC_PER_SEC = 1_000_000_000


class NoNamespaces:
    """Knows no container of a network namespace."""

    def name(self, _inode: int) -> None:
        return None


def anonymous() -> Symbols:
    """Return symbols of a kernel that tells none."""
    symbols = Symbols()
    vars(symbols).update(drop_reasons={}, _rst_reasons={})
    symbols.code = lambda address: f"f+{address % 5:#x}"  # type: ignore[method-assign]
    return symbols


def schemas() -> dict[str, tuple[Schema, int]]:
    """Return the schema of each command, and the size of its whole record."""
    names: Any = NAMES
    symbols = anonymous()
    found = {}
    for command in (connlat.COMMAND, rtt.COMMAND, retrans.COMMAND):
        groups: Sequence[AnyField] = command.fields(names, no_runtimes())
        found[command.name] = groups, command.layouts[0].size, None
    found["life"] = (
        life.Life(symbols=symbols).fields(names, no_runtimes()),
        life.COMMAND.layouts[0].size,
        None,
    )
    shared = found["rtt"][0][:4]
    conn_id = conn_id_field(drop.COMMAND.packet_end, PUBLIC_KEY)
    found["drop"] = [*shared, *drop_groups(symbols), conn_id], DROP_EVENT.size, None
    traces: Any = NoNamespaces()
    conn_id = conn_id_field(trace.COMMAND.packet_end, PUBLIC_KEY)
    found["trace"] = [*shared, trace_group(symbols, traces), conn_id], TRACE_EVENT.size, LEAST
    return {
        name: (Schema(name, fixed_clock(), groups, size, least), size)
        for name, (groups, size, least) in found.items()
    }


def some_records(name: str, size: int, number: int) -> list[bytes]:
    """Return random records; few owners, addresses and marks, so that many come again."""
    chance = random.Random(name)
    made = []
    for _ in range(number):
        tail = bytearray(size - OUTCOME_PART.start)
        for _ in range(chance.randrange(40)):
            tail[chance.randrange(len(tail))] = chance.choice([0, 1, 2, 3, 255])
        record = Connect(
            ts_ns=chance.randrange(10**12),
            pid=chance.randrange(3),
            netns=chance.randrange(2),
            family=chance.choice([4, 6]),
            dport=chance.randrange(1 << 16),
            sport=chance.randrange(1 << 16),
        )
        raw = bytearray(record_of(RecordKind.RECORD_LIFE, bytes(tail), record))
        if name == "drop":
            raw[DROP_CLASS] = chance.choice(list(DropClass))
            raw[DROP_CLASS + 1] = chance.randrange(25)  # frames
        if name == "trace":
            raw[COUNT_AT] = chance.randrange(17)
            raw = raw[: LEAST + raw[COUNT_AT] * 40]
        made.append(bytes(raw))
    return chance.choices(made, k=2 * number)


@pytest.mark.parametrize("name", ["connlat", "rtt", "life", "retrans", "drop", "trace"])
def test_a_line_of_each_command_is_its_row(name: str) -> None:
    schema, size = schemas()[name]
    shown = JsonLines(schema, None)
    batch = some_records(name, size, 300)
    for part in (batch[:1], batch):
        lines = [json.loads(line) for line in shown.rows(part).splitlines()]
        assert lines == list(schema.rows(part))
        assert [list(line) for line in lines] == [list(schema.fields)] * len(part)


@pytest.mark.parametrize("name", ["connlat", "rtt", "life", "retrans", "drop", "trace"])
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_of_another_size_make_no_line(name: str, change: int) -> None:
    schema, size = schemas()[name]
    wrong = bytes(size + 1) if change > 0 else bytes(LEAST - 1 if name == "trace" else size - 1)
    with pytest.raises(struct.error):
        JsonLines(schema, None).rows([wrong])


def test_drop_and_the_others_have_the_groups_that_are_tested() -> None:
    names: Any = NAMES
    command = drop.Drop(anonymous())
    fields = [group.fields for group in command.fields(names, no_runtimes())]
    assert fields == [group.fields for group in schemas()["drop"][0].groups[2:]]


def test_parts_that_overlap_are_refused_and_named() -> None:
    def nothing(part: bytes) -> tuple[Any, ...]:
        return (part,)

    whole = FieldGroup(("whole",), slice(0, 8), nothing, repeats=True)
    with pytest.raises(ValueError, match=r"\('half',\): parts of a record overlap"):
        RecordSlicer([whole, NumberField("half", slice(4, 8))], 8, 8)


@pytest.mark.parametrize(
    ("number", "per", "null", "value"),
    [(0, 1, None, 0), (0, 1000, 0, None), (999, 1000, 0, 0), (1999, 1000, 0, 1), (7, 1, 7, None)],
)
def test_a_number_in_its_unit_or_null(
    number: int, per: int, null: int | None, value: int | None
) -> None:
    assert list(NumberField("x", slice(0, 4), per, null).of([number, 3000], None)) == [
        value,
        3000 // per,
    ]


@given(st.lists(st.integers(0, 1 << 62) | st.integers(0, 4 * NSEC_PER_SEC), max_size=8))
def test_times_of_many_records_are_those_of_each(moments: list[int]) -> None:
    clock = fixed_clock()
    assert clock.texts(moments) == [fixed_clock().text(each) for each in moments]


def test_the_time_of_day_is_that_of_the_last_adjustment() -> None:
    clock = fixed_clock()
    before = clock.text(0)
    clock.offset_ns = EPOCH_NS + NSEC_PER_SEC
    assert (before, clock.text(0)) == ("2026-03-01T12:34:56.789012Z", "2026-03-01T12:34:57.789012Z")


def test_an_owner_that_may_be_known_better_soon_is_asked_for_once_in_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    runtimes = no_runtimes()
    known: Known = runtimes.of("/docker/web")

    def of(path: str) -> Known:
        asked.append(path)
        return known._replace(is_final=False)

    monkeypatch.setattr(type(runtimes), "of", lambda _self, path: of(path))
    shown = renderer("json", NAMES)
    batch = [Connect(sport=port).raw() for port in range(100)]
    shown.rows(batch)
    once = len(asked)
    assert 0 < once <= 2  # its values, and whether they are final
    shown.rows(batch)
    assert len(asked) == 2 * once


def test_a_flow_of_a_count_has_the_fields_of_a_record() -> None:
    raw = Connect(family=6, mapped=1).raw()
    schema = schemas()["connlat"][0]
    flow = flow_row(raw[FLOW_PART])
    assert flow.items() <= schema.row(raw).items()
    assert set(flow) == {"netns", "family", "mapped", "saddr", "daddr", "dport", "sport"}


def test_what_is_learnt_of_an_owner_while_its_record_is_decoded_is_shown_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtimes = no_runtimes()
    known: Known = runtimes.of("/docker/web")
    learnt = known._replace(facts=known.facts._replace(container="web"))
    answers = iter([known._replace(is_final=False)])  # then it is final
    monkeypatch.setattr(type(runtimes), "of", lambda _self, _path: next(answers, learnt))
    shown = renderer("json", NAMES)
    found = [json.loads(shown.rows([Connect().raw()]))["container"] for _ in range(2)]
    assert found == [None, "web"]
