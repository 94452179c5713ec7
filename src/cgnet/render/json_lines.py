# SPDX-License-Identifier: BSD-2-Clause
"""One JSON object a line.

Most fields of a record are those of an owner and a service that were seen before. The text of a group is
kept by the bytes that it was made from; only time, port and outcome are made anew.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cgnet.events import SCHEMA
from cgnet.render import with_owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.events import CountSchema, Group, Schema

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


def _formatted(group: Group) -> Callable[[tuple[Any, ...]], str]:
    template = ",".join(f'"{field}":%s' for field in group.fields)
    return lambda values: template % tuple([_value(value) for value in values])


def _plain(group: Group) -> Callable[[bytes], str]:
    format_, values, part = _formatted(group), group.values, group.part
    return lambda raw: format_(values(raw[part]))


def _remembered(group: Group) -> Callable[[bytes], str]:
    format_, part = _formatted(group), group.part
    texts: dict[bytes, str] = {}

    def text(raw: bytes) -> str:
        key = raw[part]
        found = texts.get(key)
        if found is None:
            values = group.values(key)
            found = format_(values)
            if len(texts) >= CACHED_TEXTS:
                texts.clear()
            if group.settled(values):
                texts[key] = found
        return found

    return text


class JsonLines:
    """The renderer for ``-o json``."""

    def __init__(self, schema: Schema | CountSchema, fields: list[str] | None) -> None:
        """All fields of ``schema``, or only ``fields`` in their order."""
        self._schema = schema
        self._fields = fields
        self._start = f'{{"schema":{SCHEMA},"type":{_string(schema.name)}'
        self._texts = [
            _remembered(group) if group.repeats else _plain(group) for group in schema.groups
        ]

    def header(self) -> str:
        """JSON lines have none."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        if self._fields is not None:
            return "".join(map(self._chosen, batch))
        start, texts = self._start, self._texts
        return "".join(
            [f"{','.join([start, *[text(raw) for text in texts]])}}}\n" for raw in batch]
        )

    def _chosen(self, raw: Any) -> str:
        row = with_owner(self._schema.row(raw))
        return _dump({field: row[field] for field in self._fields or ()}) + "\n"

    def clear(self) -> str:
        """Nothing is taken back."""
        return ""

    def notice(self, row: dict[str, Any]) -> str:
        """Return a record about the run as one more line."""
        return _dump(row) + "\n"
