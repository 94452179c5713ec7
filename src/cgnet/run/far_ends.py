# SPDX-License-Identifier: BSD-2-Clause
"""A run's knowledge of other ends: rows wait for them, and are selected by them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cgnet.filters.peer_names import AddressNames, PeerFilter
from cgnet.owners.address_owners import AddressOwners
from cgnet.owners.pairs import Pairs
from cgnet.owners.pairs_before import PairsBefore
from cgnet.owners.peers import SOURCES, Peers
from cgnet.owners.runtimes import EXPECTED_S
from cgnet.records.schema import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cgnet.owners.cgroups import Hierarchy
    from cgnet.owners.peers import Ends, Peer
    from cgnet.records.fields import FieldGroup
    from cgnet.run.command import Command
    from cgnet.run.owner_names import OwnerNames

UNKNOWN = "unknown"


class PeerOptions(NamedTuple):
    """The values of ``--peer`` and ``--names``."""

    wanted: tuple[str, ...] = ()
    names: AddressNames | None = None


class NoEnds:
    """Knows no end by its socket."""

    def other(self, _key: bytes) -> None:
        """Return None."""


class NamedEnds:
    """Names the other ends of records, selects records by them, and counts them by their source."""

    def __init__(
        self, options: PeerOptions, key: slice, ends: Ends, names: OwnerNames, naming: Hierarchy,
        *, of_packets: bool = False,
    ) -> None:  # fmt: skip
        """Know other ends by ``ends``, addresses and --names. Raises UsageError.

        ``key`` is the part of a record that ``ends`` knows an end by; ``naming`` is the hierarchy
        that names owners. ``of_packets``: addresses are a packet's, and ``key`` is struct packet_end.
        """
        self._key = key
        self.filter = PeerFilter(options.wanted)
        self._addresses = AddressOwners(names.runtimes, naming)
        named = (options.names or AddressNames({})).name
        args = (ends, self._addresses, named, names.cgroups, names.runtimes)
        self._peers = Peers(*args, of_packets=of_packets)
        self._counts = dict.fromkeys((*SOURCES, UNKNOWN), 0)

    def group(self) -> FieldGroup:
        """Return the group of the fields."""
        return self._peers.group(self._key)

    def follow(self, *, changed: bool) -> None:
        """Begin a batch of records; ``changed``: cgroups may have come or gone."""
        self._addresses.follow(changed=changed)

    def look(self, *, at_once: bool = False) -> None:
        """Look who has which address, if that is due; ``at_once``: also if it was just looked."""
        self._addresses.look(at_once=at_once)

    def wanted_at(self, remote: str, began: float) -> Peer | None:
        """Return the other end that has had an address since a monotonic time; None: not selected."""
        peer = self._peers.at(remote, began)
        return peer if self.filter.matches(peer) else None

    def of(self, raw: bytes) -> Peer:
        """Return the other end of a record's connection."""
        addresses = b"".join(raw[part] for part in (ADDRESSES.part, *ADDRESSES.more))
        return self._peers.of(raw[self._key], addresses)

    def count(self, rows: Sequence[bytes]) -> None:
        """Count rows that are printed, by the source of their peers."""
        for raw in rows:
            self.add(self.of(raw).source, 1)

    def add(self, source: str | None, number: int) -> None:
        """Count connections, or what else rows count, by the source of their peer."""
        self._counts[source or UNKNOWN] += number

    @property
    def summary(self) -> dict[str, dict[str, int]]:
        """The field of the summary: rows by the source of their peers."""
        return {"peers": dict(self._counts)}


class FarEnds(NamedEnds):
    """The other ends of a command's records, which wait for them."""

    def __init__(
        self, options: PeerOptions, command: Command, names: OwnerNames, naming: Hierarchy
    ) -> None:
        """``naming`` is the hierarchy that names owners. Raises UsageError."""
        self._command, self._runtimes = command, names.runtimes
        self._pairs = Pairs()
        super().__init__(
            options, command.end_part, self._pairs, names, naming, of_packets=command.of_packets
        )
        self._held: list[bytes] = []  # for the next read of the ring
        self._unnamed: list[tuple[float, bytes]] = []  # until when, for names
        self._deadlines: dict[bytes, float] = {}  # of those that waited for names
        self._ended: list[bytes] = []  # identities whose last row is being printed

    def know_before(self, found: Iterable[tuple[bytes, bytes]]) -> None:
        """Take struct flow of the ends that are open now, and the owners of their other ends."""
        command = self._command
        args = (command.end_part, command.role)
        self._pairs.before = PairsBefore(found, *args, of_packets=command.of_packets)

    def take(self, batch: list[bytes], *, changed: bool) -> list[bytes]:
        """Learn from a batch of what the programs emitted; return its rows.

        ``changed``: it has cgroups that came or went.
        """
        self._pairs.end(self._ended)
        self._ended.clear()
        self.follow(changed=changed)
        return self._pairs.take(batch)

    def after_next_read(self, rows: list[bytes]) -> list[bytes]:
        """Return the rows of the last call: what met them came in this batch."""
        if before := self._pairs.before:
            rows = list(map(before.mark, rows))
        held, self._held = self._held, rows
        wanted = [*self._named_by_now(), *held] if self._unnamed else held
        if self.filter.use:
            wanted = [raw for raw in wanted if self._is_wanted(raw)]
        part = self._command.end_part
        self._ended += [raw[part] for raw in wanted if self._command.is_end(raw)]
        return wanted

    @property
    def is_waiting(self) -> bool:
        """Whether some rows wait."""
        return bool(self._held or self._unnamed)

    def _named_by_now(self) -> list[bytes]:
        """Return the rows that waited for names; those that go on waiting are put back."""
        waiting, self._unnamed = self._unnamed, []
        self._deadlines = {raw: until for until, raw in waiting}
        return [raw for _, raw in waiting]

    def _is_wanted(self, raw: bytes) -> bool:
        """Return whether a row is wanted now; one whose peer's name is expected is kept."""
        peer = self.of(raw)
        now = time.monotonic()
        until = self._deadlines.pop(raw, now + EXPECTED_S)
        if peer.cgroup and self._runtimes.of(peer.cgroup).expected and now < until:
            self._unnamed.append((until, raw))
            return False
        return self.filter.matches(peer)

    def take_evicted(self) -> int:
        """Return how many open pairs were forgotten, since the last call, for lack of room."""
        found, self._pairs.evicted = self._pairs.evicted, 0
        return found
