# SPDX-License-Identifier: BSD-2-Clause
"""Sockets opened before the programs were attached, for hooks without socket storage.

The kernel side is bpf/owner/listeners.bpf.h and bpf/owner/open_sockets.bpf.h. /proc/PID/net/tcp
lists the sockets of a network namespace by inode, and /proc/PID/fd has the open files of each
process (proc(5)).
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.owners.processes import facts, is_in_namespace
from cgnet.records._layouts import (
    HOLDER,
    Descriptor,
    ListenerKey,
    OwnerSource,
    Undecided,
    u64,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.filters.selection import Filters
    from cgnet.loader import Map
    from cgnet.owners.processes import Facts

log = logging.getLogger(__name__)

PROC = Path("/proc")
LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN
# A descriptor that the programs can't check: the kernel's addresses and its number are unknown.
NOWHERE = Descriptor(fd=-1).pack()
LOCAL, STATE, INODE = 1, 3, 9  # columns of /proc/PID/net/tcp
V4_MAPPED = b"\0" * 10 + b"\xff\xff"
SOCKET = "socket:["


class Place(NamedTuple):
    """The address at which a socket listens."""

    netns: int  # inode
    port: int
    address: bytes  # 16 bytes, IPv4 as mapped; zeros: any

    def key(self) -> bytes:
        """Return struct listener_key."""
        return ListenerKey(self.netns, self.port, address=self.address).pack()


class Sockets(NamedTuple):
    """The open TCP sockets by inode: the place of each listener, else None, and their owners."""

    places: dict[int, Place | None]
    holders: dict[int, int]  # PIDs
    descriptors: dict[int, int]  # fds of that process


def _place(netns: int, local: str) -> Place:
    """Parse ``0100007F:1F90``: 32-bit words of an address in host byte order, and the port."""
    text, port = local.split(":")
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = struct.pack(f"={len(words)}I", *words)
    if len(words) == 1:
        address = V4_MAPPED + address if any(address) else bytes(16)
    return Place(netns, int(port, 16), address)


def _in_namespace(process: Path, netns: int) -> Iterator[tuple[int, Place | None]]:
    """Yield (inode, place) of the sockets in a process's network namespace."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (process / "net" / name).read_text().splitlines()[1:]:
                columns = line.split()
                listens = columns[STATE] == LISTEN
                yield int(columns[INODE]), _place(netns, columns[LOCAL]) if listens else None


def _open_in(process: Path) -> Iterator[tuple[int, int]]:
    """Yield (inode, fd) of a process's open sockets. Raises OSError."""
    place = f"{process}/fd"
    for fd in os.listdir(place):  # noqa: PTH208 - three times as fast, for a hundred thousand
        with suppress(OSError):
            target = os.readlink(f"{place}/{fd}")  # noqa: PTH115
            if target.startswith(SOCKET):
                yield int(target[len(SOCKET) : -1]), int(fd)


def find(proc: Path = PROC) -> Sockets:
    """Return the open TCP sockets.

    The first process that has a socket is its owner: as a rule, that process opened it.
    """
    found = Sockets({}, {}, {})
    seen: set[int] = set()
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            netns = (process / "ns/net").stat().st_ino
            if netns not in seen and (process / "net/tcp").exists():  # it hasn't exited meanwhile
                found.places.update(_in_namespace(process, netns))
                seen.add(netns)
            for inode, fd in _open_in(process):
                if inode not in found.holders:
                    found.holders[inode], found.descriptors[inode] = int(process.name), fd
    found.places.pop(0, None)  # without a file: time-wait, orphans, children before accept()
    return found


def listening(sockets: Sockets) -> dict[Place, list[int]]:
    """Return the inodes of the sockets that listen at each place."""
    found: dict[Place, list[int]] = defaultdict(list)
    for inode, place in sockets.places.items():
        if place:
            found[place].append(inode)
    return found


def seed_listeners(by_place: Map, by_inode: Map, sockets: Sockets, filters: Filters) -> None:
    """Write the listeners to the maps. Entries that the programs wrote meanwhile stay."""
    for place, inodes in listening(sockets).items():
        pids = {inode: sockets.holders.get(inode) for inode in inodes}
        owners = {pid: _facts(pid, filters) for pid in pids.values()}
        for inode, pid in pids.items():
            key = u64(inode)
            value = pack_holder(owners[pid], filters, 1) + _pack_rest(inode, place)
            _write_blank(by_inode, key, value)
        owner = next(iter(owners.values())) if len(owners) == 1 else None
        only = inodes[0] if len(inodes) == 1 else 0
        value = pack_holder(owner, filters, len(inodes)) + _pack_rest(only, place)
        _write_blank(by_place, place.key(), value)


def seed_sockets(seeds: Map, sockets: Sockets, filters: Filters) -> None:
    """Write the owners of sockets to the map, by inode, as far as there is room."""
    packed: dict[int, bytes] = {}
    for inode in sockets.places:
        pid = sockets.holders.get(inode)
        if pid is None:
            continue
        if pid not in packed:
            owner = _facts(pid, filters)
            packed[pid] = pack_holder(owner, filters, 1) if owner else b""
        if not packed[pid]:
            continue
        try:
            seeds.update(u64(inode), packed[pid])
        except LibbpfError as error:
            if error.errno != errno.E2BIG:
                raise
            log.warning(
                "too many sockets are open: the owners of some aren't known before they read"
            )
            return


def _facts(pid: int | None, filters: Filters) -> Facts | None:
    with suppress(OSError):
        return facts(pid, filters.hierarchies) if pid else None
    return None


def _write_blank(listeners: Map, key: bytes, value: bytes) -> None:
    try:
        listeners.lookup(key, len(value))
    except LibbpfError:
        listeners.update(key, value)


def _pack_rest(inode: int, place: Place) -> bytes:
    """Return the part of struct tcp_listener after the holder."""
    return NOWHERE + u64(inode) + place.key()


def pack_holder(owner: Facts | None, filters: Filters, sockets: int) -> bytes:
    """Return struct holder of an owner found in /proc; ``owner`` is None if unknown."""
    wanted, given = filters.wants(owner)
    if owner is None:
        return HOLDER.packed.pack(0, 0, 0, 0, 0, 0, 0, b"", wanted, 0, sockets)
    naming = filters.hierarchies[0].id
    source, pid = OwnerSource.OWNER_SEEDED, owner.process.pid
    if is_in_namespace():
        pid = 0  # its PID on the host is unknown here
    undecided = Undecided.UNDECIDED_NAME if filters.named.use else 0
    fields = (owner.cgroup_id(), naming, source, undecided, given, pid, owner.uid, owner.comm)
    return HOLDER.packed.pack(*fields, wanted, 0, sockets)
