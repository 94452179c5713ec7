# SPDX-License-Identifier: BSD-2-Clause
"""A run of ``cgnet sockets``: one listing, or one at each interval."""

from __future__ import annotations

import gc
import select
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cgnet.commands.sockets.counting import LISTEN, Ports
from cgnet.commands.sockets.ends import END_PART, OpenEnds
from cgnet.commands.sockets.history import History
from cgnet.commands.sockets.load import load
from cgnet.commands.sockets.record import AGE_PART, INODE_PART, SHARED_PART, STATE_PART, with_part
from cgnet.counting.counts import HIDDEN
from cgnet.errors import ExitStatus, NotYetKnownError, StoppedError
from cgnet.filters.selection import Filters
from cgnet.records._layouts import SOCKET_EVENT, OwnerSource
from cgnet.records.schema import (
    OWNER_PART,
    OWNER_UNDECIDED,
    Clock,
    CountSchema,
    source_of,
)
from cgnet.render import with_owner
from cgnet.run import reader
from cgnet.run.far_ends import NamedEnds
from cgnet.run.output import Patience, tell
from cgnet.run.owner_names import OwnerNames
from cgnet.run.printer import Printer
from cgnet.run.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.commands.sockets.command import Sockets
    from cgnet.commands.sockets.counting import States
    from cgnet.commands.sockets.load import Loaded
    from cgnet.commands.sockets.walk import Walk
    from cgnet.records.schema import Schema
    from cgnet.run.command import Options
    from cgnet.run.far_ends import PeerOptions

MAX_SORTED = 262_144  # records that wait to be sorted: some 80 MB
HOLDERS_PART = SOCKET_EVENT.slice("socket.holders")
SEVERAL = 2
SORTED_IN_PARTS = (
    f"more than {MAX_SORTED} sockets: they are sorted in parts of so many, which bounds the memory"
)
GC_THRESHOLD = 100_000


class Sums(NamedTuple):
    """How the printer shows rows that are sums: as those of counts, and not as drawings."""

    shown: tuple[str, ...]
    draws: bool = False
    geometric: bool = False


class Listing(Signal):
    """The sockets of a listing, or the sums of them."""

    command: Sockets

    def __init__(
        self, command: Sockets, options: Options, filters: Filters, names: OwnerNames, clock: Clock
    ) -> None:
        """Choose the fields of its rows. Loads nothing yet."""
        self.open_ends = OpenEnds()
        super().__init__(command, options, filters, names, clock)
        self.whole = cast("Schema", self.schema)
        given = [each.text for each in filters.cgroups.given]
        self.sums: States | Ports | None = command.sums(self.whole, given)
        self.walk: Walk  # since the start
        if self.sums:
            self.schema = CountSchema(command.name, clock, self.sums.fields)
            shown = tuple(field for field in self.sums.fields if not field.startswith(HIDDEN))
            self.counts = cast("Any", Sums(shown))

    def _ends(self, asked: PeerOptions) -> NamedEnds:
        """Return the other ends of sockets."""
        return NamedEnds(asked, END_PART, self.open_ends, self.names, self._filters.hierarchies[0])

    def collect(self) -> list[dict[str, Any]]:
        """Return the sums of the last listing."""
        if not self.sums:
            return []
        if isinstance(self.sums, Ports):
            self.sums.begin(self.walk.namespaces)
        return self.sums.take()


class Session:
    """A run, from the options to the exit status."""

    def __init__(self, command: Sockets, options: Options) -> None:
        """Check the options. Raises UsageError. Loads nothing yet."""
        self._command, self._options = command, options
        self._filters = Filters(options.selection)
        self._names = OwnerNames(self._filters)
        self._clock = Clock()
        self._stop = reader.Stop(options.duration)
        self._listing = Listing(command, options, self._filters, self._names, self._clock)
        patience = Patience(self._stop.reached, lambda: self._stop.insisted)
        self._printer = Printer(self._listing, options, patience)
        self._history = History()
        self._sort_keys: dict[bytes, str] = {}
        self._said_parts = False

    def run(self) -> ExitStatus:
        """List until the end. Raises CgnetError."""
        options = self._options
        with ExitStack() as cleanup:
            for each in (self._printer, self._names):
                cleanup.callback(each.close)
            signals = cleanup.enter_context(self._stop.on_signals())
            try:
                with reader.interruptible(signals):
                    constants = self._command.constants(repeats=bool(options.interval))
                    loaded = load(self._filters, constants, options.btf)
            except StoppedError:
                if self._stop.requested:
                    return ExitStatus.DONE
                raise
            cleanup.enter_context(loaded.obj)
            self._listing.obj, self._listing.walk = loaded.obj, loaded.walk
            self._listing.runs = loaded.runs
            self._begin(loaded)
            try:
                self._printer.begin()
                self._repeat(loaded, signals)
                self._printer.finish()
                self._printer.summary()
            except BrokenPipeError:
                return ExitStatus.DONE
        self._printer.raise_problem()
        strict = self._options.strict and self._command.missed + self._listing.losses.total
        return ExitStatus.EVENTS_LOST if strict else ExitStatus.DONE

    def _begin(self, loaded: Loaded) -> None:
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        note = self._filters.hierarchies[0].note
        for line in [note, *loaded.remarks] if note else loaded.remarks:
            tell(line)
        self._stop.start()

    # -- listings

    def _repeat(self, loaded: Loaded, signals: int) -> None:
        interval = self._options.interval
        due = time.monotonic()
        self._list(loaded)
        if interval:  # the first listing is complete
            tell(f"tracing {self._command.name}; Ctrl-C ends it")
        while interval and not self._is_full and not self._printer.problem:
            due = max(due + interval, time.monotonic())
            self._wait(signals, due)
            if self._stop.reached():
                return
            self._clock.adjust()
            self._list(loaded)

    @property
    def _is_full(self) -> bool:
        limit = self._options.limit
        return limit is not None and self._printer.records >= limit

    def _wait(self, signals: int, due: float) -> None:
        """Wait for the next listing."""
        poller = select.poll()
        poller.register(signals, select.POLLIN)
        poller.register(self._printer.fd, 0)
        while (left := due - time.monotonic()) > 0 and not self._stop.reached():
            ready = dict(poller.poll(left * 1000 + 1))
            if ready.get(self._printer.fd, 0) & (select.POLLERR | select.POLLHUP):
                raise BrokenPipeError

    def _list(self, loaded: Loaded) -> None:
        self._names.publish(loaded.obj)
        self._filters.cgroups.fill(loaded.obj.map("selected_cgroups"))
        self._names.say_absent(waits=bool(self._options.interval))
        loaded.walk.begin()
        self._command.namespaces = len(loaded.walk.namespaces)
        self._command.shared.begin()
        sharers = loaded.walk.sharers()
        self._history.begin()
        self._find_ends(loaded.walk)
        waiting: list[bytes] = []
        for records in self._records(loaded, sharers):
            if self._listing.sums:
                self._listing.sums.add(records)
                self._count(records)
                continue
            waiting += records
            if len(waiting) >= MAX_SORTED:
                self._say_parts()
                self._print(waiting)
                waiting = []
        self._history.end()
        self._command.missed += sum(loaded.walk.missed)
        self._printer.counts()
        self._print(waiting)

    def _find_ends(self, walk: Walk) -> None:
        """Find which sockets are ends of one connection: of all, whatever is shown."""
        if not (ends := self._listing.named_ends) or self._command.listeners_alone:
            return
        ends.follow(changed=True)
        batches = walk.records(listeners=False, connections=True, everything=True)
        self._listing.open_ends.learn(raw for batch in batches for raw in batch)

    def _count(self, records: list[bytes]) -> None:
        """Count what the summary tells of sockets that are shown, or summed up."""
        unknown = bytes(map(source_of, records)).count(OwnerSource.OWNER_UNKNOWN)
        self._listing.unknown_owners += unknown
        if ends := self._listing.named_ends:
            ends.count([raw for raw in records if raw[STATE_PART.start] != LISTEN])

    def _say_parts(self) -> None:
        if not self._said_parts:
            self._said_parts = True
            tell(SORTED_IN_PARTS)

    def _records(self, loaded: Loaded, sharers: dict[int, list[bytes]]) -> Iterator[list[bytes]]:
        """Yield the wanted records, complete."""
        numbers: dict[int, int] = {}
        alone = self._command.listeners_alone
        for batch in loaded.walk.records(listeners=True, connections=not alone):
            records = [raw for raw in batch if not raw[OWNER_UNDECIDED] or self._is_wanted(raw)]
            for index, raw in enumerate(records):
                if sharers and int.from_bytes(raw[HOLDERS_PART], sys.byteorder) >= SEVERAL:
                    inode = int.from_bytes(raw[INODE_PART], sys.byteorder)
                    if inode not in numbers:
                        numbers[inode] = self._command.shared.add(sharers.get(inode, []))
                    records[index] = with_part(raw, SHARED_PART, numbers[inode])
            if (ends := self._listing.named_ends) and ends.filter.use:
                records = [raw for raw in records if ends.filter.matches(ends.of(raw))]
            if self._options.interval:
                records = list(map(self._history.tell, records))
            yield records

    def _is_wanted(self, raw: bytes) -> bool:
        """Decide about an owner that is newer than the marks of the filters."""
        names = self._names
        try:
            decided = self._filters.decide(
                raw[OWNER_PART], names.cgroups, names.runtimes, finally_=True
            )
        except NotYetKnownError:
            return False
        return decided is not None

    # -- output

    def _sort_key(self, raw: bytes) -> tuple[str, int, int]:
        owner = raw[OWNER_PART]
        name = self._sort_keys.get(owner)
        if name is None:
            row = with_owner(self._listing.whole.row(raw))
            name = self._sort_keys[owner] = row["owner"] or "\U0010ffff"  # unknown ones last
        return name, raw[STATE_PART.start], int.from_bytes(raw[AGE_PART], sys.byteorder)

    def _print(self, records: list[bytes]) -> None:
        self._sort_keys.clear()
        records.sort(key=self._sort_key)
        limit = self._options.limit
        if limit is not None:
            records = records[: max(0, limit - self._printer.records)]
        self._count(records)
        self._printer.rows(records)
