# SPDX-License-Identifier: BSD-2-Clause
"""Listeners that are open before the programs are, for hooks without socket storage.

The partner of inbound.bpf.h. /proc/PID/net/tcp tells who listens where by the socket's inode, and
/proc/PID/fd who has that inode open (proc(5)).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet._layouts import LISTENER_KEY, LISTENING, OwnerSource, Undecided
from cgnet.errors import LibbpfError
from cgnet.processes import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.filters import Filters
    from cgnet.loader import Map
    from cgnet.processes import Facts

PROC = Path("/proc")
LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN
LOCAL, STATE, INODE = 1, 3, 9  # columns of /proc/PID/net/tcp
V4_MAPPED = b"\0" * 10 + b"\xff\xff"


class Place(NamedTuple):
    """Where a socket listens."""

    netns: int  # inode
    port: int
    address: bytes  # 16 bytes, IPv4 as mapped; zeros: any

    def key(self) -> bytes:
        """Return struct listener_key."""
        return LISTENER_KEY.packed.pack(self.netns, self.port, 0, self.address)


def _place(netns: int, local: str) -> Place:
    """Read ``0100007F:1F90``: words of an address in the host's byte order, and the port."""
    text, port = local.split(":")
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = struct.pack(f"={len(words)}I", *words)
    if len(words) == 1:
        address = V4_MAPPED + address if any(address) else bytes(16)
    return Place(netns, int(port, 16), address)


def _listening(process: Path, netns: int) -> Iterator[tuple[int, Place]]:
    """Yield (inode, place) of what listens in the namespace of a process."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (process / "net" / name).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[STATE] == LISTEN:
                    yield int(columns[INODE]), _place(netns, columns[LOCAL])


def _sockets(process: Path) -> Iterator[int]:
    """Yield the inodes of the sockets that a process has open."""
    for fd in (process / "fd").iterdir():
        with suppress(OSError):
            target = str(fd.readlink())
            if target.startswith("socket:["):
                yield int(target[len("socket:[") : -1])


def find(proc: Path = PROC) -> dict[Place, list[int | None]]:
    """Return for each place the processes that listen there, one for each socket.

    None stands for a socket whose process isn't found. The first process that has a socket is taken: it
    is the one that opened it, as a rule.
    """
    places: dict[int, Place] = {}
    holders: dict[int, int] = {}
    seen: set[int] = set()
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            netns = (process / "ns/net").stat().st_ino
            if netns not in seen:
                places |= _listening(process, netns)
                seen.add(netns)
            for inode in _sockets(process):
                holders.setdefault(inode, int(process.name))
    found: dict[Place, list[int | None]] = defaultdict(list)
    for inode, place in places.items():
        found[place].append(holders.get(inode))
    return found


def seed(listeners: Map, filters: Filters) -> None:
    """Write what is open into the map. What the programs have learnt meanwhile stays."""
    for place, pids in find().items():
        owners = {pid: _facts(pid, filters) for pid in pids}
        owner = next(iter(owners.values())) if len(owners) == 1 else None
        if not _is_known(listeners, place):
            listeners.update(place.key(), _pack(owner, filters, len(pids)))


def _facts(pid: int | None, filters: Filters) -> Facts | None:
    with suppress(OSError):
        return facts(pid, filters.hierarchies) if pid else None
    return None


def _is_known(listeners: Map, place: Place) -> bool:
    try:
        listeners.lookup(place.key(), LISTENING.size)
    except LibbpfError:
        return False
    return True


def _pack(owner: Facts | None, filters: Filters, sockets: int) -> bytes:
    wanted, given = filters.wants(owner)
    if owner is None:
        return LISTENING.packed.pack(0, 0, 0, 0, 0, 0, 0, b"", wanted, sockets)
    naming = filters.hierarchies[0].id
    source, pid = OwnerSource.OWNER_SEEDED, owner.process.pid
    undecided = Undecided.UNDECIDED_NAME if filters.named.use else 0
    fields = (owner.cgroup_id(), naming, source, undecided, given, pid, owner.uid, owner.comm)
    return LISTENING.packed.pack(*fields, wanted, sockets)
