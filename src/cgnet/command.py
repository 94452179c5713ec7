# SPDX-License-Identifier: BSD-2-Clause
"""What a command is made of, and what was asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cgnet._layouts import Layout, RecordKind
    from cgnet.cgroups import CgroupNames
    from cgnet.counts import Key
    from cgnet.events import Group
    from cgnet.filters import Selection
    from cgnet.runtimes import Runtimes


class Command(NamedTuple):
    """What a subcommand is made of."""

    name: str
    object: str  # of _bpf/, without its suffix
    layouts: tuple[Layout, ...]  # of its records; the first is the whole record
    record: RecordKind
    columns: dict[str, tuple[str, ...]]
    groups: Callable[[CgroupNames, Runtimes], list[Group]]


class Options(NamedTuple):
    """The options that every command has; options.py describes them."""

    selection: Selection
    counts: list[Key] | None  # what to count by; None: a row for each event
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
