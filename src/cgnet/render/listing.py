# SPDX-License-Identifier: BSD-2-Clause
"""A list that is printed at once: its columns are as wide as what stands in them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from cgnet.render import csv_rows
from cgnet.render.table import SEPARATOR, cells, fit
from cgnet.render.text import cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Sequence[dict[str, Any]]

GAP = SEPARATOR * 2
RIGHT = frozenset({"pid", "netns"})
SHORT_ID = 12  # digits of an id, as runtimes show it


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


def table_text(
    rows: Rows, columns: dict[str, Callable[[dict[str, Any]], Any]], *, header: bool
) -> str:
    """Return a table; ``columns`` make what stands under each header."""
    lines = [[cell(name, value(row)) for name, value in columns.items()] for row in rows]
    if header:
        lines.insert(0, [name.upper().replace("_", " ") for name in columns])
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    return "".join(
        GAP.join(
            fit(text, width, right=name in RIGHT, cut=False)
            for name, text, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )
