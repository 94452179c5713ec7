# SPDX-License-Identifier: BSD-2-Clause
"""A command's part of a run: its loaded programs, and the records, counts and losses of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.counting.counts import Counts
from cgnet.errors import UsageError
from cgnet.owners.listener_handovers import Handovers
from cgnet.records._layouts import OwnerSource
from cgnet.records.schema import CountSchema, Schema, kind_of, source_of
from cgnet.run.cgroup_watch import CGROUP_RECORDS
from cgnet.run.far_ends import FarEnds, NamedEnds, NoEnds
from cgnet.run.launch import Launch
from cgnet.run.losses import Losses

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from cgnet.filters.selection import Filters
    from cgnet.loader import Object
    from cgnet.records.schema import Clock
    from cgnet.run.command import Command, Options
    from cgnet.run.far_ends import PeerOptions
    from cgnet.run.owner_names import OwnerNames
    from cgnet.run.shared_ledger import SharedLedger


class Signal:
    """A command's programs, and what they emit or count."""

    obj: Object  # since load()

    def __init__(
        self, command: Command, options: Options, filters: Filters, names: OwnerNames, clock: Clock
    ) -> None:
        """Choose the fields of its rows. Loads nothing yet."""
        self.command = command
        self._options, self._filters, self.names = options, filters, names
        self.counts: Counts | None = None
        self.far_ends: FarEnds | None = None  # of rows that wait for them
        self.named_ends: NamedEnds | None = None
        self.schema: Schema | CountSchema
        if options.counting is None:
            command.conn_key = options.conn_key
            fields = command.fields(names.cgroups, names.runtimes)
            if options.peers:
                command.follows_peers = True
                self.named_ends = self._ends(options.peers)
                fields.append(self.named_ends.group())
            size = command.layouts[0].size
            self.schema = Schema(command.name, clock, fields, size, command.min_record_size)
        else:
            peer_of = None
            if options.peers and command.of_packets:
                raise UsageError("--peers: counts of packets tell no other end")
            if options.peers and options.counting.by_peer:
                naming = filters.hierarchies[0]
                self.named_ends = NamedEnds(options.peers, slice(0, 0), NoEnds(), names, naming)
                peer_of = self.named_ends.wanted_at
            args = (options.counting, filters, names.cgroups, names.runtimes)
            self.counts = Counts(*args, peer_of)
            self.schema = CountSchema(command.name, clock, self.counts.fields)
        self.losses = Losses()
        self._shared: SharedLedger | None = None
        self.unknown_owners = 0
        self.runs: dict[str, Any] = {}  # hook, transport, ledger, and stages that aren't seen

    def _ends(self, asked: PeerOptions) -> NamedEnds:
        """Return the other ends of the command's records."""
        naming = self._filters.hierarchies[0]
        self.far_ends = FarEnds(asked, self.command, self.names, naming)
        return self.far_ends

    def load(self, cleanup: ExitStack, stopped: Callable[[], bool]) -> list[str]:
        """Load and attach the programs; return remarks on the variant in use. Raises StoppedError.

        ``cleanup`` closes them.
        """
        options = self._options
        if self.counts and self.named_ends:
            self.named_ends.look(at_once=True)
            self.counts.begin()
        launch = Launch(
            self.command, self._filters, options.buffer, counting=options.counting, stopped=stopped
        )
        self.obj = cleanup.enter_context(launch.start(options.btf, options.hook, options.transport))
        if launch.follows_listeners:
            cleanup.callback(Handovers(self.obj, self._filters).close)
        self.runs = launch.runs
        if not self.far_ends:
            return launch.remarks
        found, remarks = self.command.open_before(self._filters, options.btf)
        if found:
            self.far_ends.know_before(found)
        return [*launch.remarks, *remarks]

    def share(self, session: SharedLedger) -> None:
        """Take the records of a session that is loaded."""
        self._shared, self.obj, self.runs = session, session.obj, session.runs
        self.losses = Losses(lambda _: session.lost(self.command))

    def read(self) -> list[bytes]:
        """Return the records that the kernel side has now."""
        return self._shared.read(self.command) if self._shared else self.obj.ring("ring").consume()

    def records(self, batch: list[bytes]) -> list[bytes]:
        """Return the records of a batch, and of earlier ones, to be printed now."""
        if self.counts and self.named_ends:
            self.named_ends.follow(changed=not CGROUP_RECORDS.isdisjoint(map(kind_of, batch)))
            self.named_ends.look()
        if self.far_ends:
            changed = not CGROUP_RECORDS.isdisjoint(map(kind_of, batch))
            batch = self.far_ends.take(batch, changed=changed)
            self.losses.add("pairs", self.far_ends.take_evicted())
        records = self.names.watch.pass_on(self.obj, batch)
        self.losses.add("names", self.names.watch.take_too_many())
        records = self.command.wanted(records)
        return self.far_ends.after_next_read(records) if self.far_ends else records

    def expired(self, *, ended: bool) -> list[bytes]:
        """Count what expired in the programs' maps, or return its records; everything if ``ended``."""
        if self.counts:
            self.counts.add(self.command.expired_values(self.obj, self._options, ended=ended))
            return []
        return self.command.expired(self.obj, self._options, ended=ended)

    def printing(self, records: list[bytes]) -> None:
        """Have the command process records while the host is as it was: its state may soon be gone."""
        self.unknown_owners += bytes(map(source_of, records)).count(OwnerSource.OWNER_UNKNOWN)
        self.command.on_rows(self.schema, records)
        if self.named_ends:
            self.named_ends.count(records)

    def collect(self) -> list[dict[str, Any]]:
        """Return the counts since the last call."""
        if not self.counts:
            return []
        if self.named_ends:
            self.named_ends.look(at_once=True)
        rows = self.counts.collect(self.obj)
        if self.named_ends:
            for row in rows:
                self.named_ends.add(row.get("peer_source"), row["count"])
        self.unknown_owners = self.counts.of_unknown_owners
        return rows

    @property
    def is_waiting(self) -> bool:
        """Whether records or counts wait, for names or for the other end."""
        waiting = (self.names.watch, self.counts, self.far_ends)
        return any(each and each.is_waiting for each in waiting)
