# SPDX-License-Identifier: BSD-2-Clause
"""A list that is printed at once: its columns are as wide as their widest text."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from cgnet.render import csv_rows
from cgnet.render.layout import Room, cells, choose, fit, share_out
from cgnet.render.table import SEPARATOR
from cgnet.render.text import cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Sequence[dict[str, Any]]

GAP = SEPARATOR * 2
RIGHT = frozenset({"pid", "netns"})
SHORT_ID = 12  # digits of a container id, as runtimes show it
# Columns that aren't cut, and the narrow widths of the others.
WHOLE = frozenset({"id", "pid", "netns", "runtime", "found", "qos"})
TIGHT, LEAST = 8, 16


def json_text(rows: Rows) -> str:
    """Return a JSON object a line."""
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def csv_text(rows: Rows, fields: Sequence[str], *, header: bool) -> str:
    """Return CSV with the same names and units as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(fields)
    writer.writerows([csv_rows.cell(row[field]) for field in fields] for row in rows)
    return text.getvalue()


def _rooms(names: Sequence[str], natural: Sequence[int]) -> list[Room]:
    return [
        Room(*[width] * 5)
        if name in WHOLE
        else Room(min(width, TIGHT), min(width, LEAST), *[width] * 3)
        for name, width in zip(names, natural, strict=True)
    ]


def table_text(
    rows: Rows,
    columns: dict[str, Callable[[dict[str, Any]], Any]],
    *,
    header: bool,
    width: int | None = None,
    first: Sequence[str] = (),
) -> str:
    """Return a table; ``columns`` map headers to functions from a row to a value.

    With a ``width`` no line is longer: columns are cut or left out; ``first`` names the most
    important ones, in this order.
    """
    names = list(columns)
    lines = [[cell(name, value(row)) for name, value in columns.items()] for row in rows]
    if header:
        lines.insert(0, [name.upper().replace("_", " ") for name in names])
    if not lines:
        return ""
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    shown = list(range(len(names)))
    if width is not None:
        rooms = _rooms(names, widths)
        order = [names.index(name) for name in dict.fromkeys((*first, *names)) if name in names]
        shown = choose(rooms, order, len(order), len(GAP), width)
        widths = share_out([rooms[index] for index in shown], len(GAP), width)
    return "".join(
        GAP.join(
            fit(line[index], cell_width, right=names[index] in RIGHT, cut=width is not None)
            for index, cell_width in zip(shown, widths, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )
