# SPDX-License-Identifier: BSD-2-Clause
"""What a command is made of, and what was asked of it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cgnet._layouts import Layout, RecordKind
    from cgnet.cgroups import CgroupNames
    from cgnet.counts import Counting
    from cgnet.events import CountSchema, Schema
    from cgnet.filters import Selection
    from cgnet.groups import AnyGroup
    from cgnet.loader import Object
    from cgnet.runtimes import Runtimes


class Leftovers(Protocol):
    """Returns records of what nothing more was heard of; of all that is left when it has ``ended``."""

    def __call__(self, obj: Object, options: Options, *, ended: bool) -> list[bytes]:
        """Take them out of the object's maps."""


class Companion(Protocol):
    """What a command tells beside its rows: see session.py for when."""

    def begin(self, obj: Object) -> None:
        """Everything is attached, and nothing was told yet."""

    def see(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Look at what was just printed."""

    def records(self) -> list[dict[str, Any]]:
        """Return what there is to say after a print of counts, and at the end; ``type`` is set."""

    def text(self, row: dict[str, Any]) -> str:
        """Return such a record as it is said to people."""

    def summary(self, obj: Object) -> dict[str, int]:
        """Return what is added to the summary."""


class Command(NamedTuple):
    """What a subcommand is made of."""

    name: str
    object: str  # the name of its BPF objects
    layouts: tuple[Layout, ...]  # of its records; the first is the whole record
    record: RecordKind
    columns: dict[str, tuple[str, ...]]
    groups: Callable[[CgroupNames, Runtimes], list[AnyGroup]]
    companion: Companion | None = None
    living: Mapping[str, str] = MappingProxyType(
        {}
    )  # by map, if any: the program that tells what is open
    least: int | None = None  # bytes of the shortest record, where their sizes differ
    leftovers: Leftovers | None = None
    drawn: bool = False  # as blocks of lines, for people
    was_open: Callable[[bytes], bool] | None = None  # its record: since before the start, and still
    first: tuple[str, ...] = ()  # of the table's columns: what a narrow terminal keeps, and what
    then: tuple[str, ...] = ()  # comes in as there is room, the most important first


class Options(NamedTuple):
    """The options that every command has; options.py describes them."""

    selection: Selection
    counting: Counting | None  # None: a row for each event
    measures: dict[str, Any]  # what struct config has of the command's own options
    contents: dict[str, dict[bytes, bytes]]  # likewise: entries of maps
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
    devices: tuple[str, ...] = ()  # that are waited for
