# SPDX-License-Identifier: BSD-2-Clause
"""CSV with a header, with the same names and units as JSON."""

from __future__ import annotations

import csv
import io
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cgnet.render import Renderer, sources_of, with_owner
from cgnet.render.text import safe

if TYPE_CHECKING:
    from cgnet.records.schema import CountSchema, Schema

FORMULA_STARTS = ("=", "+", "-", "@")


def cell(value: Any) -> str:
    """Return a value as a cell; text that a spreadsheet would take for a formula is quoted."""
    if value is None:
        return ""
    kind = type(value)  # faster than isinstance(), and rows have many numbers
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is dict or kind is list:
        value = json.dumps(value)
    return _text(value) if isinstance(value, str) else str(value)


@lru_cache(maxsize=8192)  # names and addresses recur
def _text(value: str) -> str:
    text = safe(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


class CsvRows(Renderer):
    """The renderer for ``-o csv``."""

    def __init__(self, schema: Schema | CountSchema, fields: list[str], *, header: bool) -> None:
        """Show ``fields``, in this order."""
        self._schema = schema.only(sources_of(fields))
        self._fields = fields
        self._header = header

    def _lines(self, rows: list[list[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def header(self) -> str:
        """Return the names of the fields."""
        return self._lines([self._fields]) if self._header else ""

    def rows(self, batch: list[Any]) -> str:
        """Return a line for each record."""
        rows = map(with_owner, self._schema.rows(batch))
        return self._lines([[cell(row[field]) for field in self._fields] for row in rows])
