# SPDX-License-Identifier: BSD-2-Clause
"""The base class of subcommands, and the options that all of them have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cgnet.run.program_sets import ProgramSet

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.counting.counts import Counting
    from cgnet.filters.selection import Selection
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Layout, Packable
    from cgnet.records.fields import AnyGroup
    from cgnet.records.schema import CountSchema, Schema


class Command:
    """The base class of subcommands.

    A run calls ``config``, ``maps`` and ``program_sets`` to load, then ``on_started``; for each
    batch of records ``expired`` and ``on_rows``; after each interval ``on_rows`` with counts,
    ``notices`` and ``on_interval``; at the end ``expired``, ``notices`` and ``summary``.
    """

    name: ClassVar[str]
    object: ClassVar[str]
    """The name of its BPF objects."""
    layouts: ClassVar[tuple[Layout, ...]]
    """Of its records; the first is the whole record."""
    min_record_size: ClassVar[int | None] = None
    """Bytes of the shortest record, where their sizes differ."""
    draws_blocks: ClassVar[bool] = False
    """Whether people see its records as blocks of lines."""
    table: tuple[str, ...]
    wide: tuple[str, ...]
    first: tuple[str, ...] = ()
    """Of the table's columns: those that a narrow terminal keeps, the most important first."""
    then: tuple[str, ...] = ()
    """Those that come in as there is room, the most important first."""
    draws_milliseconds: bool = False
    """Whether histograms are drawn in them."""

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The fields that are columns, by type of output."""
        return {"table": self.table, "wide": self.wide, "first": self.first, "then": self.then}

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
        """Return the groups of a record's fields, in order."""
        raise NotImplementedError

    def config(self, chosen: ProgramSet) -> list[Packable]:  # noqa: ARG002 - a subclass looks
        """Return the constants that its objects have of its own subjects, for a set of programs."""
        return []

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return the entries of the command's own maps, by map name."""
        return {}

    def program_sets(self) -> list[ProgramSet]:
        """Return the sets of programs that can do the command's work, best first."""
        return [ProgramSet()]

    def on_started(self, obj: Object) -> None:
        """Run after everything is attached, before anything is printed."""

    def on_rows(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Process records, or rows of counts, that are being printed."""

    def on_interval(self, obj: Object) -> list[bytes]:  # noqa: ARG002
        """Have the programs emit open connections, at the start and after each interval.

        Return the records that were read meanwhile.
        """
        return []

    def was_open(self, record: bytes) -> bool:  # noqa: ARG002 - a subclass looks
        """Return whether a record is of a connection that was open at the start and still is."""
        return False

    def expired(self, obj: Object, options: Options, *, ended: bool) -> list[bytes]:  # noqa: ARG002
        """Remove expired entries from maps and return their records; all entries if ``ended``."""
        return []

    def notices(self) -> list[dict[str, Any]]:
        """Return additional records, with their ``type``: after an interval and at the end."""
        return []

    def notice_text(self, row: dict[str, Any]) -> str:
        """Return such a record as text for people."""
        raise NotImplementedError

    def summary(self, obj: Object) -> dict[str, int]:  # noqa: ARG002
        """Return the command's fields of the summary."""
        return {}


class Options(NamedTuple):
    """The options that every command has, documented in options/shared.py."""

    selection: Selection
    counting: Counting | None  # None: a row for each event
    interval: float | None
    output: str
    fields: list[str] | None
    no_header: bool
    duration: float | None
    limit: int | None
    buffer: int
    max_rate: int | None
    strict: bool
    btf: Path | None
    hook: str | None
    transport: str | None
