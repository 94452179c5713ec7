# SPDX-License-Identifier: BSD-2-Clause
"""What a command is made of, and what was asked of it."""

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
    from cgnet.records._layouts import Layout
    from cgnet.records.fields import AnyGroup
    from cgnet.records.schema import CountSchema, Schema


class Command:
    """What a subcommand is made of. A subclass overrides what is special about it.

    A run calls ``config``, ``maps`` and ``program_sets`` to load, then ``on_started``; for each batch
    of records ``expired`` and ``on_rows``; after each interval ``on_rows`` with counts, ``notices`` and
    ``on_interval``; at the end ``expired``, ``notices`` and ``summary``.
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
        """The fields that are columns, by kind of output."""
        return {"table": self.table, "wide": self.wide, "first": self.first, "then": self.then}

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
        """Return the groups of a record's fields, in order."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Return the members of struct config that its own options set."""
        return {}

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return entries of its own maps, by the map's name."""
        return {}

    def program_sets(self) -> list[ProgramSet]:
        """Return the sets of programs that do its work, the best first."""
        return [ProgramSet()]

    def on_started(self, obj: Object) -> None:
        """Act once everything is attached, and nothing was printed yet."""

    def on_rows(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Look at records, or rows of counts, that are being printed."""

    def on_interval(self, obj: Object) -> list[bytes]:  # noqa: ARG002
        """Have the kernel side emit what is open, at the start and after each interval.

        Return the records that were read meanwhile.
        """
        return []

    def was_open(self, record: bytes) -> bool:  # noqa: ARG002 - a subclass looks
        """Tell whether a record is of something that was open before the start, and is."""
        return False

    def expired(self, obj: Object, options: Options, *, ended: bool) -> list[bytes]:  # noqa: ARG002
        """Take records of what nothing was heard of for long out of maps; all, if it has ``ended``."""
        return []

    def notices(self) -> list[dict[str, Any]]:
        """Return records beside its rows, with their ``type``: after an interval and at the end."""
        return []

    def notice_text(self, row: dict[str, Any]) -> str:
        """Return such a record as people see it."""
        raise NotImplementedError

    def summary(self, obj: Object) -> dict[str, int]:  # noqa: ARG002
        """Return what it adds to the summary."""
        return {}


class Options(NamedTuple):
    """The options that every command has; options/shared.py describes them."""

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
