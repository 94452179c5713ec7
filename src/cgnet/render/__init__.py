# SPDX-License-Identifier: BSD-2-Clause
"""From records to text: a table for people, CSV and JSON for machines.

A renderer's methods return text to write, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgnet.records.schema import CountSchema, Schema

FORMATS = ("table", "wide", "json", "csv")
# Fields that no record has, made from others for people.
DERIVED = ("owner",)
OF_OWNER = frozenset({"container", "pod", "pod_namespace", "cgroup"})  # what it is made from


class Renderer:
    """Makes text of records. What a format doesn't have is no text."""

    redraws = False  # whether rows of counts take the place of the last ones

    @property
    def left_out(self) -> list[str]:
        """The fields that were asked for, and that the terminal has no room for."""
        return []

    def header(self) -> str:
        """Return what comes before the first row."""
        return ""

    def begin(self) -> str:
        """Return what is written to a file before there are rows."""
        return self.header()

    def above(self, batch: list[Any]) -> str:  # noqa: ARG002 - few formats have it
        """Return what is written above a batch, such as headers that have changed."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return the rows of a batch, each ended by a newline."""
        raise NotImplementedError

    def screen(self, batch: list[Any]) -> str:
        """Return the rows of a batch, in place of the last ones if it ``redraws``."""
        return self.rows(batch)

    def finish(self) -> str:
        """Return what is written after the last row."""
        return ""

    def clear(self) -> str:
        """Return what makes room for rows that take the place of the last ones."""
        return ""

    def notice(self, row: dict[str, Any]) -> str:  # noqa: ARG002 - not every format has them
        """Return a record about the run itself, or nothing where it goes to stderr."""
        return ""


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
            near = did_you_mean(field, known)
            raise UsageError(f"--fields {field!r}: no such field{near}; one of: {', '.join(known)}")
    return fields


# Of counts, what a narrow terminal keeps: what they are by comes behind the first group.
FIRST_OF_COUNTS = ("stage", "share", "count", "p99_ns")
LAST_OF_COUNTS = ("p50_ns", "max_ns", "p90_ns", "time")


def columns_of_counts(fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns for fields of counts: one for all that names an owner."""
    names = ("owner" if field in OF_OWNER else field for field in fields)
    shown = tuple(dict.fromkeys(("time", *names)))
    keys = [name for name in shown if name not in (*FIRST_OF_COUNTS, *LAST_OF_COUNTS)]
    order = (*FIRST_OF_COUNTS[:1], *keys, *FIRST_OF_COUNTS[1:], *LAST_OF_COUNTS)
    first = tuple(name for name in order if name in shown)
    return {"table": shown, "wide": shown, "first": first}


def make_renderer(
    kind: str,
    schema: Schema | CountSchema,
    fields: list[str] | None,
    columns: dict[str, tuple[str, ...]],
    *,
    terminal: bool,
    header: bool,
) -> Renderer:
    """Make the renderer for ``-o kind``.

    ``columns`` are the command's: for table and wide, and of those for a narrow terminal the ``first``
    ones, and what ``then`` follows.
    """
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

    whole = kind == "wide"
    if fields is not None:  # all of them matter
        return Table(schema, fields, terminal=terminal, header=header, whole=whole)
    return Table(
        schema, list(columns[kind]), terminal=terminal, header=header, whole=whole,
        first=columns.get("first", ()), then=columns.get("then", ()),
    )  # fmt: skip


def make_blocks(schema: Schema, fields: list[str] | None, *, fitted: bool = False) -> Renderer:
    """Make the renderer of packets for people; ``fitted`` to the terminal's line. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: packets are shown whole; it goes with -o json and -o csv")
    from cgnet.render.blocks import Blocks  # noqa: PLC0415 - only what is used

    return Blocks(schema, fitted=fitted)


def make_drawings(
    schema: CountSchema,
    fields: list[str] | None,
    *,
    milliseconds: bool,
    terminal: bool,
    whole: bool = False,
) -> Renderer:
    """Make the renderer of histograms for people; ``whole``: nothing is cut. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: histograms are drawn whole; it goes with -o json and -o csv")
    from cgnet.render.histogram import Drawings  # noqa: PLC0415 - only what is used

    return Drawings(schema, milliseconds=milliseconds, terminal=terminal, whole=whole)
