# SPDX-License-Identifier: BSD-2-Clause
"""Current owners of listeners. The counterpart of listeners.bpf.h.

A listener changes its owner without an event from the kernel: at fork and exit, through a unix
socket, at exec. The programs detect that the owner they know no longer has it, and treat it as
unknown; here, a thread finds the new owner and writes it to their maps.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.owners.open_sockets import NOWHERE, PROC, SOCKET, pack_holder
from cgnet.owners.processes import COMM_BYTES, facts
from cgnet.records import _layouts
from cgnet.records._layouts import (
    HOLDER,
    LISTENER_FD,
    TCP_LISTENER,
    Descriptor,
    number_in,
    u64,
)

if TYPE_CHECKING:
    from cgnet.filters.selection import Filters
    from cgnet.loader import Object
    from cgnet.owners.processes import Facts

log = logging.getLogger(__name__)

ITERATOR = "ledger_listeners"
LISTENERS, LISTENING = "listeners", "listening"  # maps: by place, by inode
LOOK_EVERY_S = 0.1
SHARE = 100  # CPU time: 1/SHARE at most is for checks of owners, another 1/SHARE for scans of files
AT, PLACE = TCP_LISTENER.slice("at"), TCP_LISTENER.slice("place")
WANTED = TCP_LISTENER.slice("holder.wanted")
ACCEPT = {"x86_64": ("43", "288"), "aarch64": ("202", "242")}  # system calls: accept, accept4
EVENTPOLL = "anon_inode:[eventpoll]"


class Opened(NamedTuple):
    """A process that has a listener open."""

    pid: int
    fd: int
    at: bytes  # struct descriptor


class Owner(NamedTuple):
    """The owner of a listener, as the programs know it."""

    value: bytes  # struct tcp_listener
    pid: int  # 0: unknown
    comm: bytes
    fd: int  # -1: unknown

    @classmethod
    def of(cls, value: bytes) -> Owner:
        """Unpack struct tcp_listener."""
        owner = _layouts.Owner.unpack(value)
        return cls(value, owner.pid, owner.comm, Descriptor.unpack(value, AT.start).fd)


def from_kernel(told: bytes) -> dict[int, list[Opened]]:
    """Parse the iterator's output: the processes that have each listener open, by inode."""
    found: dict[int, list[Opened]] = defaultdict(list)
    for inode, pid, _, *at in LISTENER_FD.packed.iter_unpack(told):
        descriptor = Descriptor(*at)
        found[inode].append(Opened(pid, descriptor.fd, descriptor.pack()))
    return found


def from_proc(inodes: set[int]) -> dict[int, list[Opened]]:
    """Return the same from /proc, for these listeners; it takes some microseconds per file."""
    found: dict[int, list[Opened]] = defaultdict(list)
    for pid in filter(str.isdecimal, os.listdir(PROC)):  # noqa: PTH208 - of many processes
        for inode, fd in open_sockets(int(pid)):
            if inode in inodes:
                found[inode].append(Opened(int(pid), fd, Descriptor(fd=fd).pack()))
    return found


def open_sockets(pid: int) -> list[tuple[int, int]]:
    """Return (inode, fd) of a process's open sockets; none if they aren't accessible."""
    place = PROC / f"{pid}/fd"
    found = []
    with suppress(OSError):
        for fd in place.iterdir():
            with suppress(OSError):
                target = os.readlink(fd)  # noqa: PTH115 - of many
                if target.startswith(SOCKET):
                    found.append((int(target[len(SOCKET) : -1]), int(fd.name)))
    return found


def has_open(pid: int, fd: int, inode: int) -> bool | None:
    """Return whether a process has a socket open at a descriptor; None if not accessible."""
    try:
        return str((PROC / f"{pid}/fd/{fd}").readlink()) == f"{SOCKET}{inode}]"
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EPERM) else False


def waits(opened: Opened, inode: int) -> bool:
    """Return whether a process waits for connections: in accept(), or by epoll."""
    place = PROC / str(opened.pid)
    with suppress(OSError):
        for task in (place / "task").iterdir():
            call = (task / "syscall").read_text().split()
            if call[0] in ACCEPT.get(os.uname().machine, ()) and int(call[1], 16) == opened.fd:
                return True
    with suppress(OSError):
        return any(
            f"ino:{inode:x} " in f"{(place / 'fdinfo' / fd.name).read_text()} "
            for fd in (place / "fd").iterdir()
            if str(fd.readlink()) == EVENTPOLL
        )
    return False


class Handovers:
    """Writes changed owners of listeners to the programs' maps. Close it before their object."""

    def __init__(self, obj: Object, filters: Filters) -> None:
        self._obj = obj
        self._filters = filters
        self._stop = Event()
        self._pause = 0.0  # seconds
        self._next_pass = 0.0
        self._used_by_pass = 0.0  # seconds of CPU, for the scan of the last look
        self._failed = False
        self._thread = Thread(target=self._work, name="handovers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._pause):
            begin = time.thread_time()
            try:
                self.look()
                self._failed = False
            except (LibbpfError, OSError) as error:
                if not self._failed:
                    log.warning(
                        "cannot look who has the listening sockets (%s); one that is handed on is "
                        "of an unknown owner until that works",
                        error,
                    )
                self._failed = True
            self._rest(begin)

    def _rest(self, begin: float) -> None:
        used = time.thread_time() - begin - self._used_by_pass
        self._pause = max(LOOK_EVERY_S, SHARE * used)

    def look(self) -> None:
        """Check the listeners' owners, and write changes. Raises LibbpfError, OSError."""
        self._used_by_pass = 0.0
        owners = self._owners()
        right = [self._is_right(inode, owner) for inode, owner in owners.items()]
        if all(right) and (not owners or time.monotonic() < self._next_pass):
            return
        begin = time.thread_time()
        found = self._find(set(owners))
        for inode, owner in owners.items():
            self._settle(inode, owner, found.get(inode, []))
        self._used_by_pass = time.thread_time() - begin
        self._next_pass = time.monotonic() + SHARE * self._used_by_pass

    def _owners(self) -> dict[int, Owner]:
        """Return the owners that the programs know, by inode."""
        listening = self._obj.map(LISTENING)
        found = {}
        for key in list(listening.keys(8)):
            with suppress(LibbpfError):  # closed meanwhile
                value = listening.lookup(key, TCP_LISTENER.size)
                found[number_in(key)] = Owner.of(value)
        return found

    def _is_right(self, inode: int, owner: Owner) -> bool:
        """Return whether the owner has it as far as visible, or none is known."""
        if not owner.pid or has_open(owner.pid, owner.fd, inode) is not False:
            return self._is_named_so(owner)
        return False

    @staticmethod
    def _is_named_so(owner: Owner) -> bool:
        if not owner.pid:
            return True
        with suppress(OSError):
            return _comm(owner.pid) == owner.comm
        return False

    def _find(self, inodes: set[int]) -> dict[int, list[Opened]]:
        told = self._obj.iterate_if_loaded(ITERATOR)
        return from_proc(inodes) if told is None else from_kernel(told)

    def _settle(self, inode: int, owner: Owner, found: list[Opened]) -> None:
        """Write the owner of a listener if it differs from the one that the programs know."""
        chosen = self._choose(inode, owner, found)
        if chosen is None:
            if owner.pid:
                self._tell(inode, owner, None, NOWHERE)
            return
        with suppress(OSError):  # it has exited: the next look finds another one
            if chosen.pid != owner.pid:
                self._tell(inode, owner, facts(chosen.pid, self._filters.hierarchies), chosen.at)
            elif chosen.fd != owner.fd or _comm(chosen.pid) != owner.comm:
                self._rename(inode, owner, chosen)

    def _choose(self, inode: int, owner: Owner, found: list[Opened]) -> Opened | None:
        """Return the owner among the processes that have a listener open.

        The previous owner stays if it still has it. Of several processes in one cgroup it is the
        one that started first, and of several cgroups the one that waits for connections; None if
        that isn't visible.
        """
        groups: dict[Any, list[tuple[int, Opened]]] = defaultdict(list)
        for each in found:
            with suppress(OSError):
                known = facts(each.pid, self._filters.hierarchies[:1])
                groups[known.paths].append((known.process.start, each))
        if len(groups) > 1:
            waiting = {
                paths: group
                for paths, group in groups.items()
                if any(waits(each, inode) for _, each in group)
            }
            groups = waiting if len(waiting) == 1 else groups
        among = [each for group in groups.values() for each in group]
        same = [each for _, each in among if each.pid == owner.pid]
        if same:
            return same[0]
        return min(among)[1] if len(groups) == 1 else None

    # -- updates of the maps

    def _tell(self, inode: int, owner: Owner, new: Facts | None, at: bytes) -> None:
        holder = pack_holder(new, self._filters, 1)
        self._write(inode, owner, holder, at)
        log.info("listener %d is %s's now, was %d's", inode, new and new.process.pid, owner.pid)

    def _rename(self, inode: int, owner: Owner, opened: Opened) -> None:
        """Update the name: the process is the same, and so are its user and its cgroup."""
        holder = bytearray(owner.value[: HOLDER.size])
        comm = _comm(opened.pid)
        holder[HOLDER.slice("owner.comm")] = comm
        if self._filters.comms.use:
            wanted, _ = self._filters.wants(facts(opened.pid, self._filters.hierarchies))
            holder[WANTED] = wanted.to_bytes(WANTED.stop - WANTED.start, sys.byteorder)
        at = opened.at
        if not Descriptor.unpack(at).task:  # the programs' own descriptor has more members
            at = Descriptor.unpack(owner.value, AT.start)._replace(fd=opened.fd).pack()
        self._write(inode, owner, bytes(holder), at)

    def _write(self, inode: int, owner: Owner, holder: bytes, at: bytes) -> None:
        value = owner.value
        kept = holder[: WANTED.stop] + value[WANTED.stop : HOLDER.size]
        value = kept + at + value[AT.stop :]
        if self._obj.map(LISTENING).replace(u64(inode), value):
            self._write_place(value)

    def _write_place(self, value: bytes) -> None:
        """Update the entry of the place. If several listen there, it has their common owner."""
        listeners = self._obj.map(LISTENERS)
        place = value[PLACE]
        try:
            before = listeners.lookup(place, TCP_LISTENER.size)
        except LibbpfError:
            return
        own = before[AT.stop : PLACE.start]
        alone, sockets = (number_in(before[HOLDER.slice(each)]) for each in ("alone", "sockets"))
        if own != value[AT.stop : PLACE.start]:
            if alone:
                return
            value = self._in_common(place, value)
        kept = value[: WANTED.stop] + before[WANTED.stop : HOLDER.size]
        listeners.replace(place, kept + value[AT] + before[AT.stop :])
        log.debug("%d listen at that place", sockets)

    def _in_common(self, place: bytes, value: bytes) -> bytes:
        """Return a value for all listeners at a place, of unknown owner unless they share it."""
        there = [each.value for each in self._owners().values() if each.value[PLACE] == place]
        owners = {(each[:8], Owner.of(each).pid) for each in there}
        if len(owners) == 1:
            return value
        return pack_holder(None, self._filters, 1) + NOWHERE + value[AT.stop :]


def _comm(pid: int) -> bytes:
    """Return a process's name as the kernel stores it, zero-padded. Raises OSError."""
    name = Path(f"{PROC}/{pid}/comm").read_bytes().removesuffix(b"\n")
    return name[: COMM_BYTES - 1].ljust(COMM_BYTES, b"\0")
