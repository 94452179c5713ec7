# SPDX-License-Identifier: BSD-2-Clause
"""Render records as text: tables for people, CSV and JSON for machines.

A renderer's methods return text to write, and have no output of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgnet.records.schema import CountSchema, Schema

FORMATS = ("table", "wide", "json", "csv")
# Fields for people, derived from others.
DERIVED = ("owner",)
OF_OWNER = frozenset({"container", "pod", "pod_namespace", "cgroup"})  # sources of ``owner``


def sources_of(fields: Sequence[str]) -> set[str]:
    """Return these fields, and those that ``owner`` is derived from."""
    return {*fields, *OF_OWNER, "cgroup_id"} if "owner" in fields else {*fields}


class Renderer:
    """Renders records as text. Parts that a format doesn't have are ""."""

    redraws = False  # whether rows of counts replace the last ones

    @property
    def left_out(self) -> list[str]:
        """The requested fields that the terminal has no room for."""
        return []

    def header(self) -> str:
        """Return the text before the first row."""
        return ""

    def begin(self) -> str:
        """Return the text that begins a file, before there are rows."""
        return self.header()

    def above(self, batch: list[Any]) -> str:  # noqa: ARG002 - few formats have it
        """Return the text above a batch, such as headers that have changed."""
        return ""

    def rows(self, batch: list[Any]) -> str:
        """Return the rows of a batch, each ended by a newline."""
        raise NotImplementedError

    def screen(self, batch: list[Any]) -> str:
        """Return the rows of a batch, in place of the last ones if it ``redraws``."""
        return self.rows(batch)

    def finish(self) -> str:
        """Return the text after the last row."""
        return ""

    def clear(self) -> str:
        """Return the sequence that clears the screen before rows replace the last ones."""
        return ""

    def notice(self, row: dict[str, Any]) -> str:  # noqa: ARG002 - not every format has them
        """Return a record about the run itself, or "" in formats that print it on stderr."""
        return ""


def with_owner(row: dict[str, Any]) -> dict[str, Any]:
    """Add ``owner``: the container, else the cgroup path, else the cgroup id."""
    cgroup_id = row.get("cgroup_id")
    container, pod = row.get("container"), row.get("pod")
    if container and pod:  # pods may share container names
        container = f"{pod}/{container}"
    found = container or row.get("cgroup")
    row["owner"] = found or (cgroup_id and f"cgroup {cgroup_id}")
    return row


def check_fields(fields: list[str], schema: Schema | CountSchema) -> list[str]:
    """Return the fields unchanged. Raises UsageError for an unknown one."""
    known = (*schema.fields, *DERIVED)
    for field in fields:
        if field not in known:
            near = did_you_mean(field, known)
            raise UsageError(f"--fields {field!r}: no such field{near}; one of: {', '.join(known)}")
    return fields


# Columns of counts on a narrow terminal: the keys follow the first column.
FIRST_OF_COUNTS = ("stage", "share", "count", "p99_ns")
LAST_OF_COUNTS = ("p50_ns", "max_ns", "p90_ns", "time")


def columns_of_counts(fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns for fields of counts: a single one for all fields of an owner."""
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
    """Return the renderer for ``-o kind``. Raises UsageError for unknown fields.

    ``columns`` are the command's: by kind, and the ``first`` and ``then`` columns for terminals,
    the most important first.
    """
    if fields is not None:
        check_fields(fields, schema)
    if kind == "json":
        from cgnet.render.json_lines import JsonLines  # noqa: PLC0415 - only if used

        return JsonLines(schema, fields)
    if kind == "folded":
        from cgnet.render.folded import Folded  # noqa: PLC0415

        return Folded()
    if kind == "csv":
        from cgnet.render.csv_rows import CsvRows  # noqa: PLC0415

        return CsvRows(schema, fields or list(schema.fields), header=header)
    from cgnet.render.table import Table  # noqa: PLC0415

    whole = kind == "wide"
    if fields is not None:  # no requested field is optional
        return Table(schema, fields, terminal=terminal, header=header, whole=whole)
    return Table(
        schema, list(columns[kind]), terminal=terminal, header=header, whole=whole,
        first=columns.get("first", ()), then=columns.get("then", ()),
    )  # fmt: skip


def make_blocks(schema: Schema, fields: list[str] | None, *, fitted: bool = False) -> Renderer:
    """Return the renderer of packets for people; ``fitted`` to the terminal. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: packets are shown whole; it goes with -o json and -o csv")
    from cgnet.render.blocks import Blocks  # noqa: PLC0415 - only if used

    return Blocks(schema, fitted=fitted)


def make_drawings(
    schema: CountSchema,
    fields: list[str] | None,
    *,
    geometric: bool,
    milliseconds: bool,
    terminal: bool,
    whole: bool = False,
) -> Renderer:
    """Return the renderer of histograms for people; ``whole``: uncut. Raises UsageError."""
    if fields is not None:
        raise UsageError("--fields: histograms are drawn whole; it goes with -o json and -o csv")
    from cgnet.render.histogram import Drawings  # noqa: PLC0415 - only if used

    return Drawings(
        schema, geometric=geometric, milliseconds=milliseconds, terminal=terminal, whole=whole
    )
