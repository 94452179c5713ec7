# SPDX-License-Identifier: BSD-2-Clause
"""Listings of the kernel's sockets, by the programs of sockets.bpf.c.

A program answers when this thread takes the name in a query: see sockets/query.bpf.h. Nothing is
attached to events of the host, and nothing is lost: an answer that has no room continues in the
next one.
"""

from __future__ import annotations

import errno
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.kernel.ticks import ticks_a_second
from cgnet.owners import open_sockets
from cgnet.owners.processes import facts
from cgnet.owners.socket_queries import FIRST, asking
from cgnet.records._layouts import (
    CGNET_LISTED,
    CGNET_NAMESPACES,
    OWNER,
    SHARER_KEY,
    SOCKET_EVENT,
    SOCKET_NETNS,
    SOCKET_QUERY,
    SocketNetns,
    WalkedTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.filters.selection import Filters
    from cgnet.loader import Object

HOLDERS = "holders"
QUERY, LISTED, NAMESPACES, HELD, SHARERS = "query", "listed", "namespaces", "held", "sharers"
PORT_OWNERS, NO_ROOM = "port_owners", "no_room"
NO_ROOM_HELD, NO_ROOM_PORTS = 0, 2  # enum no_room: its numbers are in the order of Missed
NO_ROOMS = 4
FILES = Path("/proc/sys/fs/file-nr")
MIN_HELD, MAX_HELD, MAX_PORTS = 4096, 1 << 22, 1 << 16  # entries
MAX_NAMESPACES = 1 << 20
REST = struct.Struct("=4I")  # of struct held_socket, after the holder
USED, BUCKET, COUNT, STRAYED = (
    SOCKET_QUERY.slice(name) for name in ("used", "bucket", "count", "strayed")
)


class Table(NamedTuple):
    """A table of sockets, in the kernel's memory, which namespaces may share."""

    kind: WalkedTable
    address: int
    buckets: int


class Missed(NamedTuple):
    """What a listing missed."""

    chains: int  # that changed while they were walked
    holders: int  # sockets whose processes found no room
    sharers: int  # further processes of sockets
    ports: int  # listeners that tell whose the remains of connections at their port are
    queues: int  # listeners whose queues aren't followed


def room_for_held() -> int:
    """Return how many sockets processes may have open: no more than there are open files."""
    try:
        files = int(FILES.read_text().split()[0])
    except (OSError, ValueError):
        return MAX_HELD >> 5
    return min(MIN_HELD + files + files // 2, MAX_HELD)


def _number(raw: bytes, part: slice) -> int:
    return int.from_bytes(raw[part], sys.byteorder)


class Walk:
    """Lists sockets, as often as wanted."""

    def __init__(self, obj: Object, filters: Filters, *, by_files: bool) -> None:
        """``by_files``: the iterator over files finds holders, else /proc does."""
        self._obj, self._filters, self._by_files = obj, filters, by_files
        self._listing = 0
        self._hz = ticks_a_second()
        self._strayed = self._not_held = 0
        self._before = [0] * NO_ROOMS  # entries without room, in earlier listings
        self.namespaces: list[SocketNetns] = []

    def begin(self) -> None:
        """Begin a listing: find the namespaces, and the processes that have sockets open."""
        self._listing += 1
        self._strayed = self._not_held = 0
        before, self._before = self._before, self._no_room()
        if self._listing > 1 and before[NO_ROOM_PORTS] < self._before[NO_ROOM_PORTS]:
            self._purge()
        self.namespaces = list(self._find_namespaces())
        self._find_holders()
        if self._listing > 1 and self._no_room()[NO_ROOM_HELD] > self._before[NO_ROOM_HELD]:
            self._purge()
            self._before = self._no_room()
            self._find_holders()

    def _no_room(self) -> list[int]:
        counts = self._obj.map(NO_ROOM)
        return [
            int.from_bytes(counts.lookup(number.to_bytes(4, sys.byteorder), 8), sys.byteorder)
            for number in range(NO_ROOMS)
        ]

    def _purge(self) -> None:
        """Delete the entries of earlier listings."""
        for name, size in ((HELD, 8), (SHARERS, SHARER_KEY.size), (PORT_OWNERS, 8)):
            entries = self._obj.map(name)
            for key in list(entries.keys(size)):
                entries.discard(key)

    @property
    def missed(self) -> Missed:
        """What this listing missed."""
        held, *others = map(int.__sub__, self._no_room(), self._before)
        return Missed(self._strayed, held + self._not_held, *others)

    def _query(
        self, words: tuple[int, int], table: Table, *, hide: bool = False, everything: bool = False
    ) -> bytes:
        return SOCKET_QUERY.packed.pack(
            *words, table.address, 0, 0, table.kind, 0, table.buckets, 0, 0, self._listing,
            self._hz, int(hide), 0, int(everything),
        )  # fmt: skip

    def _answers(
        self, table: Table, room: int, *, hide: bool = False, everything: bool = False
    ) -> Iterator[int]:
        """Yield the number of results whenever there is no more room, and at the end."""
        query = self._obj.map(QUERY)
        with asking(query, SOCKET_QUERY.size) as name:
            query.update(FIRST, self._query(name.words, table, hide=hide, everything=everything))
            while True:
                name.take()
                raw = query.lookup(FIRST, SOCKET_QUERY.size)
                used = _number(raw, USED)
                done = _number(raw, BUCKET) >= _number(raw, COUNT)
                if used >= room or done:
                    yield used
                    query.update(FIRST, raw[: USED.start] + bytes(4) + raw[USED.stop :])
                if done:
                    self._strayed += _number(raw, STRAYED)
                    return

    def _find_namespaces(self) -> Iterator[SocketNetns]:
        seen: set[int] = set()
        ring = Table(WalkedTable.WALK_NAMESPACES, 0, 1)
        for used in self._answers(ring, CGNET_NAMESPACES):
            raw = self._obj.map(NAMESPACES).lookup(FIRST, CGNET_NAMESPACES * SOCKET_NETNS.size)
            for at in range(0, used * SOCKET_NETNS.size, SOCKET_NETNS.size):
                found = SocketNetns(*SOCKET_NETNS.packed.unpack_from(raw, at))
                if found.address in seen or len(seen) >= MAX_NAMESPACES:
                    return  # the first one ended meanwhile, and the ring has no begin any more
                seen.add(found.address)
                yield found

    def _find_holders(self) -> None:
        query = self._obj.map(QUERY)
        empty = Table(WalkedTable.WALK_LISTENERS, 0, 0)
        query.update(FIRST, self._query((0, 0), empty))
        if self._by_files:
            program = next(each for each in self._obj.programs if each.name == HOLDERS)
            for _ in self._obj.iterate(program):
                pass
            return
        self._hold(open_sockets.find().holders)

    def _hold(self, holders: dict[int, int]) -> None:
        """Write the owners of sockets, PIDs by inode, as the iterator over files does."""
        owners: dict[int, bytes] = {}
        held = self._obj.map(HELD)
        for inode, pid in holders.items():
            if pid not in owners:
                owner = None
                with suppress(OSError):  # it has exited
                    owner = facts(pid, self._filters.hierarchies)
                owners[pid] = open_sockets.pack_holder(owner, self._filters, 1)
            value = owners[pid] + REST.pack(self._listing, 1, pid, 0)
            try:
                held.update(inode.to_bytes(8, sys.byteorder), value)
            except LibbpfError as error:
                if error.errno != errno.E2BIG:
                    raise
                self._not_held += 1

    def tables(self, *, listeners: bool, connections: bool) -> list[Table]:
        """Return the tables to walk: those of listeners come first."""
        found: dict[Table, None] = {}
        for wanted, kind, table, mask in (
            (listeners, WalkedTable.WALK_LISTENERS, "lhash2", "lhash2_mask"),
            (connections, WalkedTable.WALK_CONNECTIONS, "ehash", "ehash_mask"),
        ):
            for each in self.namespaces if wanted else ():
                if getattr(each, table):
                    found[Table(kind, getattr(each, table), getattr(each, mask) + 1)] = None
        return list(found)

    def records(
        self, *, listeners: bool, connections: bool, everything: bool = False
    ) -> Iterator[list[bytes]]:
        """Yield struct socket_event of sockets that pass the filters, in the kernel's order.

        Listeners are walked in any case: what no process holds may belong to theirs.
        ``everything``: also of sockets that the filters leave out.
        """
        size = SOCKET_EVENT.size
        listed = self._obj.map(LISTED)
        for table in self.tables(listeners=True, connections=connections):
            hide = table.kind == WalkedTable.WALK_LISTENERS and not listeners
            for used in self._answers(table, CGNET_LISTED, hide=hide, everything=everything):
                if used:
                    raw = listed.lookup(FIRST, CGNET_LISTED * size)
                    yield [raw[at : at + size] for at in range(0, used * size, size)]

    def sharers(self) -> dict[int, list[bytes]]:
        """Return struct owner of all processes that share a socket, by its file's inode."""
        found: dict[int, list[bytes]] = {}
        entries = self._obj.map(SHARERS)
        for key in entries.keys(SHARER_KEY.size):
            inode, _, listing = SHARER_KEY.packed.unpack(key)
            if listing == self._listing:
                found.setdefault(inode, []).append(entries.lookup(key, OWNER.size))
        return found
