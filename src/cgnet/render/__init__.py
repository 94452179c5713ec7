# SPDX-License-Identifier: BSD-2-Clause
"""From records to text: a table for people, CSV and JSON for machines.

A renderer has ``header()``, ``rows(batch)`` and ``notice(row)``, which return text to write, and nothing
else; ``notice`` is for records about the run itself (``lost``, ``summary``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cgnet.errors import UsageError

if TYPE_CHECKING:
    from cgnet.events import CountSchema, Schema

FORMATS = ("table", "wide", "json", "csv")
# Fields that no record has, made from others for people.
DERIVED = ("owner",)


class Renderer(Protocol):
    """Makes text of records."""

    def header(self) -> str:
        """Return what comes before the first row."""

    def rows(self, batch: list[Any]) -> str:
        """Return the rows of a batch, each ended by a newline."""

    def clear(self) -> str:
        """Return what makes room for rows that take the place of the last ones."""

    def notice(self, row: dict[str, Any]) -> str:
        """Return a record about the run itself, or nothing where it goes to stderr."""


def with_owner(row: dict[str, Any]) -> dict[str, Any]:
    """Add the derived fields: ``owner`` is the container, else the cgroup, else what is known."""
    cgroup_id = row.get("cgroup_id")
    container, pod = row.get("container"), row.get("pod")
    if container and pod:  # names of containers come again in each pod
        container = f"{pod}/{container}"
    found = container or row.get("cgroup")
    row["owner"] = found or (cgroup_id and f"cgroup {cgroup_id}")
    return row


def check_fields(fields: list[str], schema: Schema | CountSchema) -> list[str]:
    """Return the fields as they are. Raises UsageError for one that no record has."""
    known = (*schema.fields, *DERIVED)
    for field in fields:
        if field not in known:
            raise UsageError(f"--fields {field!r}: no such field; one of: {', '.join(known)}")
    return fields


def make_renderer(
    kind: str,
    schema: Schema | CountSchema,
    fields: list[str] | None,
    columns: dict[str, tuple[str, ...]],
    *,
    terminal: bool,
    header: bool,
) -> Renderer:
    """Make the renderer for ``-o kind``; ``columns`` are the command's, for table and wide."""
    if fields is not None:
        check_fields(fields, schema)
    if kind == "json":
        from cgnet.render.json_lines import JsonLines  # noqa: PLC0415 - only what is used

        return JsonLines(schema, fields)
    if kind == "folded":
        from cgnet.render.folded import Folded  # noqa: PLC0415

        return Folded()
    if kind == "csv":
        from cgnet.render.csv_rows import CsvRows  # noqa: PLC0415

        return CsvRows(schema, fields or list(schema.fields), header=header)
    from cgnet.render.table import Table  # noqa: PLC0415

    return Table(schema, fields or list(columns[kind]), terminal=terminal, header=header)


def make_blocks(schema: Schema, fields: list[str] | None) -> Renderer:
    """Make the renderer of packets for people. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: packets are shown whole; it goes with -o json and -o csv")
    from cgnet.render.blocks import Blocks  # noqa: PLC0415 - only what is used

    return Blocks(schema)


def make_drawings(
    schema: CountSchema, fields: list[str] | None, *, milliseconds: bool, terminal: bool
) -> Renderer:
    """Make the renderer of histograms for people. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: histograms are drawn whole; it goes with -o json and -o csv")
    from cgnet.render.histogram import Drawings  # noqa: PLC0415 - only what is used

    return Drawings(schema, milliseconds=milliseconds, terminal=terminal)
