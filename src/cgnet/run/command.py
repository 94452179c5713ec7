# SPDX-License-Identifier: BSD-2-Clause
"""The base class of subcommands, and the options that all of them have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cgnet.records.conn_id import PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cgnet.counting.counts import Counting
    from cgnet.filters.selection import Filters, Selection
    from cgnet.kernel.variants import Job, Variant
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Layout, Packable
    from cgnet.records.fields import AnyField
    from cgnet.records.schema import CountSchema, Schema
    from cgnet.run.far_ends import PeerOptions


class Command:
    """The base class of subcommands.

    A run calls ``needed``, ``config`` and ``maps`` to load, then ``on_started``; for each
    batch of records ``expired``, ``wanted`` and ``on_rows``; after each interval ``on_rows`` with
    counts, ``notices`` and ``on_interval``; at the end ``expired``, ``notices`` and ``summary``.
    """

    name: ClassVar[str]
    object: ClassVar[str]
    """The name of its BPF objects."""
    functions: ClassVar[str] = ""
    """The name of its objects at functions, if it is another one."""
    signals: int = 0
    """What it shows of a session, as bits of SessionSignal; 0: nothing."""
    jobs: ClassVar[tuple[Job, ...]]
    """The jobs of its programs, as ``cgnet doctor`` shows them."""
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
    identity: ClassVar[slice] = slice(0, 0)
    """The part of its records that is struct identity, if they have it."""
    role: ClassVar[slice] = slice(0, 0)
    """The part that is enum role, if its records may be of connections from before the start."""
    packet_end: ClassVar[slice] = slice(0, 0)
    """The part that is struct packet_end, if its records are about packets."""
    tells_ends: ClassVar[bool] = True
    """Whether the programs tell when a connection ends; else its records do."""
    follows_peers: bool = False
    """Whether this run names other ends."""
    conn_key: bytes = PUBLIC_KEY
    """The key of ``conn_id``."""
    draws_milliseconds: bool = False
    """Whether histograms are drawn in them."""

    @property
    def layouts_at_functions(self) -> tuple[Layout, ...]:
        """Of the records of its programs at functions."""
        return self.layouts

    @property
    def of_packets(self) -> bool:
        """Whether its records are about packets, whose source may be the other end."""
        return self.packet_end != slice(0, 0)

    @property
    def end_part(self) -> slice:
        """The part of a record by which an end of a connection is known."""
        return self.packet_end if self.of_packets else self.identity

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The fields that are columns, by type of output."""
        shown = {"table": self.table, "wide": self.wide, "first": self.first, "then": self.then}
        return (
            {kind: with_peer(fields) for kind, fields in shown.items()}
            if self.follows_peers
            else shown
        )

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        raise NotImplementedError

    def config(self, chosen: list[Variant]) -> list[Packable]:  # noqa: ARG002 - a subclass looks
        """Return the constants that its objects have of its own subjects, for these variants."""
        return []

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return the entries of the command's own maps, by map name."""
        return {}

    def needed(self) -> list[Job]:
        """Return the jobs that this run needs done. Raises UnsupportedError."""
        return [*self.jobs, *self.stages()]

    def stages(self) -> list[Job]:
        """Return a job for each stage of packets that is a kernel function. Raises CgnetError."""
        return []

    def left_out(self) -> frozenset[str]:
        """Return the names of programs that this run doesn't need, whatever the variants are."""
        return frozenset()

    def remarks(self) -> list[str]:
        """Return remarks for the user on what these options don't show."""
        return []

    def open_before(
        self, _filters: Filters, _btf: Path | None
    ) -> tuple[Iterable[tuple[bytes, bytes]], list[str]]:
        """Return struct flow of open ends, and the owners of their other ends; and remarks."""
        return (), []

    def prepare(self, obj: Object) -> None:
        """Size its own maps before they are created."""

    def on_started(self, obj: Object) -> None:
        """Run after everything is attached, before anything is printed."""

    def on_rows(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Process records, or rows of counts, that are being printed."""

    def on_interval(self, obj: Object) -> Iterable[list[bytes]]:  # noqa: ARG002
        """Yield the records of what is open, in batches: at the start, and after each interval."""
        return ()

    def wanted(self, records: list[bytes]) -> list[bytes]:
        """Return the records to print, of those that the programs emitted."""
        return records

    def is_end(self, raw: bytes) -> bool:  # noqa: ARG002
        """Return whether a record is the last one of its connection's end."""
        return False

    def expired(self, obj: Object, options: Options, *, ended: bool) -> list[bytes]:  # noqa: ARG002
        """Remove expired entries from maps and return their records; all entries if ``ended``."""
        return []

    def expired_values(
        self, obj: Object, options: Options, *, ended: bool  # noqa: ARG002
    ) -> Iterable[tuple[bytes, int]]:  # fmt: skip
        """Remove expired entries where a run counts: return (struct count_key, value) of each."""
        return ()

    def notices(self) -> list[dict[str, Any]]:
        """Return additional records, with their ``type``: after an interval and at the end."""
        return []

    def notice_text(self, row: dict[str, Any]) -> str:
        """Return such a record as text for people."""
        raise NotImplementedError

    def summary(self, obj: Object) -> Mapping[str, int | dict[str, int]]:  # noqa: ARG002
        """Return the command's fields of the summary: numbers, or numbers by name."""
        return {}


def with_peer(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return columns with the other end's name after its address."""
    return tuple(
        each for field in fields for each in ((field, "peer") if field == "daddr" else (field,))
    )


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
    conn_key: bytes = PUBLIC_KEY
    peers: PeerOptions | None = None


SIDE_UNKNOWN = (
    "connections from before the start aren't shown with --role: which side they are isn't known"
)


def remarks_on_roles(options: Options | None) -> list[str]:
    """Return the remark of a command that follows connections, if it shows a single role."""
    return [SIDE_UNKNOWN] if options and len(options.selection.roles) == 1 else []
