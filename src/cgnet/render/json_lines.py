# SPDX-License-Identifier: BSD-2-Clause
"""One JSON object a line.

A batch is rendered column by column, and put into its lines by one format operation. Most fields of a
record are those of an owner and of addresses that were seen before: the text of such a group is kept by
the bytes that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from cgnet.events import SCHEMA
from cgnet.groups import Group, Moment
from cgnet.render import with_owner

if TYPE_CHECKING:
    from cgnet.events import CountSchema, Schema
    from cgnet.groups import AnyGroup

_Column = Callable[[Sequence[Any]], Iterable[object]]

CACHED_TEXTS = 8192  # of each group, some 4 MB; then it begins anew
_string = json.encoder.encode_basestring_ascii


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _value(value: Any) -> str:
    """Return a value as JSON: what json.dumps says, sooner for what is common."""
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is str:
        return _string(value)
    return "null" if value is None else _dump(value)


class _Texts(dict[Any, str]):
    """The texts of a group by the parts that they were made from."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._template = _template(group)
        self._passing: list[Any] = []

    def __missing__(self, taken: Any) -> str:
        values = self._group.values_of(taken)
        text = self._template % tuple(map(_value, values))
        if len(self) >= CACHED_TEXTS:
            self.clear()
        self[taken] = text
        if not (self._group.repeats and self._group.settled(values)):
            self._passing.append(taken)
        return text

    def settle(self) -> None:
        """Forget what may be another text the next time."""
        for taken in self._passing:
            self.pop(taken, None)
        self._passing.clear()


def _template(group: AnyGroup, value: str = "%s") -> str:
    return ",".join(f'"{field}":{value}' for field in group.fields)


def _piece(group: AnyGroup) -> tuple[str, _Column, _Texts | None]:
    """Return a group's place in a line, what fills it of what was taken, and what that keeps."""
    if isinstance(group, Group):
        texts = _Texts(group)
        return "%s", partial(map, texts.__getitem__), texts
    if isinstance(group, Moment):
        return _template(group, '"%s"'), group.texts, None
    per, null = group.per, group.null
    if per == 1 and null is None:
        return _template(group), lambda numbers: numbers, None

    def measures(numbers: Sequence[int]) -> list[object]:
        return ["null" if number == null else number // per for number in numbers]

    return _template(group), measures, None


class JsonLines:
    """The renderer for ``-o json``."""

    def __init__(self, schema: Schema | CountSchema, fields: list[str] | None) -> None:
        """All fields of ``schema``, or only ``fields`` in their order."""
        self._schema = schema
        self._fields = fields
        pieces = [_piece(group) for group in schema.groups]
        self._kept = [kept for _, _, kept in pieces if kept is not None]
        self._columns = [column for _, column, _ in pieces]
        start = f'{{"schema":{SCHEMA},"type":{_string(schema.name)}'.replace("%", "%%")
        self._line = ",".join([start, *[template for template, _, _ in pieces]]) + "}\n"

    def header(self) -> str:
        """JSON lines have none."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        if self._fields is not None:
            return "".join(map(self._chosen, batch))
        taken = self._schema.parts.columns(batch)
        made = [make(column) for make, column in zip(self._columns, taken, strict=True)]
        text = self._line * len(batch) % tuple(chain.from_iterable(zip(*made, strict=True)))
        for kept in self._kept:
            kept.settle()
        return text

    def _chosen(self, raw: Any) -> str:
        row = with_owner(self._schema.row(raw))
        return _dump({field: row[field] for field in self._fields or ()}) + "\n"

    def clear(self) -> str:
        """Nothing is taken back."""
        return ""

    def notice(self, row: dict[str, Any]) -> str:
        """Return a record about the run as one more line."""
        return _dump(row) + "\n"
