# SPDX-License-Identifier: BSD-2-Clause
"""One JSON object a line.

A batch is rendered column by column, and formatted into lines by one operation. Most fields of a
record are those of owners and addresses that were seen before: the text of such a group is cached
by the bytes that it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from cgnet.records.fields import FieldGroup, TextField, TimestampField, ValueCache
from cgnet.records.schema import SCHEMA
from cgnet.render import Renderer, sources_of, with_owner

if TYPE_CHECKING:
    from cgnet.records.fields import AnyField
    from cgnet.records.schema import CountSchema, Schema

_Column = Callable[[Sequence[Any]], Iterable[object]]

_string = json.encoder.encode_basestring_ascii


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _value(value: Any) -> str:
    """Return a value as JSON: as json.dumps does, but faster for common types."""
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is str:
        return _string(value)
    return "null" if value is None else _dump(value)


def _template(group: AnyField, value: str = "%s") -> str:
    return ",".join(f'"{field}":{value}' for field in group.fields)


def _piece(group: AnyField) -> tuple[str, _Column]:
    """Return a group's template in a line, and a function from records' slices to its values."""
    if isinstance(group, FieldGroup):
        template = _template(group)
        texts = ValueCache(group, lambda values: template % tuple(map(_value, values)))
        return "%s", texts.of
    if isinstance(group, TimestampField):
        return _template(group, '"%s"'), group.texts
    if isinstance(group, TextField):
        return _template(group), lambda column: map(_value, group.texts(column))
    return _template(group), partial(group.of, null="null")


class JsonLines(Renderer):
    """The renderer for ``-o json``."""

    def __init__(self, schema: Schema | CountSchema, fields: list[str] | None) -> None:
        """Show all fields of ``schema``, or ``fields`` in this order."""
        self._schema = schema if fields is None else schema.only(sources_of(fields))
        self._fields = fields
        pieces = [_piece(group) for group in schema.groups]
        self._columns = [column for _, column in pieces]
        start = f'{{"schema":{SCHEMA},"type":{_string(schema.name)}'.replace("%", "%%")
        self._line = ",".join([start, *[template for template, _ in pieces]]) + "}\n"

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        if self._fields is not None:
            return "".join(map(self._chosen, self._schema.rows(batch)))
        taken = self._schema.parts.columns(batch)
        made = [make(column) for make, column in zip(self._columns, taken, strict=True)]
        return self._line * len(batch) % tuple(chain.from_iterable(zip(*made, strict=True)))

    def _chosen(self, row: dict[str, Any]) -> str:
        row = with_owner(row)
        return _dump({field: row[field] for field in self._fields or ()}) + "\n"

    def notice(self, row: dict[str, Any]) -> str:
        """Return a record about the run as another line."""
        return _dump(row) + "\n"
