# SPDX-License-Identifier: BSD-2-Clause
"""Owners of network namespaces: the only container, or pod, in each.

The counterpart of owner/guess.bpf.h, for sockets without an observed owner, and packets without a
socket.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import defaultdict
from contextlib import suppress
from socket import AF_INET, inet_pton
from typing import TYPE_CHECKING, Any

from cgnet.errors import LibbpfError
from cgnet.owners.cgroup_paths import place
from cgnet.owners.cgroups import cgroup_id
from cgnet.owners.netns import cookie_of
from cgnet.owners.runtimes import PROC
from cgnet.owners.runtimes.listing import row_of
from cgnet.records._layouts import DeviceAddress, NetnsOwner, u32, u64

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.loader import Map
    from cgnet.owners.cgroups import Hierarchy
    from cgnet.owners.runtimes import Runtimes

log = logging.getLogger(__name__)

Row = dict[str, Any]
INODE_BYTES = 4
AGAIN_S, LOOKS = 1.0, 4
SPENT_S = 0.01  # per second, in the thread that reads the ring
MAX_NEW = 16384  # cgroups with looks left
# The maps.
NETNS_OWNERS, ADDRESS_OWNERS, IN_CONTAINERS = "netns_owners", "address_owners", "container_cgroups"
LOOPBACK6 = bytes(15) + b"\1"


def owner_among(rows: list[Row]) -> Row | None:
    """Return the container that stands for those of one namespace; None if they are unrelated.

    A pod's sandbox and sidecars are one owner: the only container stands for it, else the sandbox.
    """
    working = [row for row in rows if not row["sandbox"]]
    if len(working) == 1:
        return working[0]
    pods = {(row["pod_namespace"], row["pod"], row["pod_uid"]) for row in rows}
    if len(pods) != 1 or next(iter(pods)) == (None, None, None):
        return None
    return next((row for row in rows if row["sandbox"]), None)


class Containers:
    """The confirmed containers, and the owners of their network namespaces.

    A walk over the whole tree takes half a second with 10,000 cgroups. So containers are looked at
    one by one, and only those that a runtime confirms.
    """

    def __init__(self, runtimes: Runtimes, hierarchy: Hierarchy, proc: Path = PROC) -> None:
        """``hierarchy`` names owners; ``proc`` has the processes."""
        self._runtimes, self._hierarchy, self._proc = runtimes, hierarchy, proc
        self.rows: dict[str, Row] = {}  # by cgroup

    def look(self, cgroup: str) -> Row | None:
        """Update a cgroup's row, and return it if the cgroup is a container's with a process."""
        path = self._hierarchy.outer_path(cgroup)
        row = row_of(self._hierarchy, path, self._proc, self._runtimes.of(cgroup))
        if row and row["found"] and row["netns"]:
            self.rows[cgroup] = row
            return row
        self.rows.pop(cgroup, None)
        return None

    def by_namespace(self) -> dict[int, Row]:
        """Return the owner of each network namespace, by inode. The host's own has no owner."""
        rows: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows.values():
            rows[row["netns"]].append(row)
        for process in ("1", "self"):  # the host's own; cgnet's, if the first isn't accessible
            with suppress(OSError):
                rows.pop((self._proc / process / "ns/net").stat().st_ino, None)
        owners = {inode: owner_among(each) for inode, each in rows.items()}
        return {inode: owner for inode, owner in owners.items() if owner}


class NetnsNames:
    """Names of the containers that own network namespaces."""

    def __init__(self, runtimes: Runtimes, hierarchy: Hierarchy, proc: Path = PROC) -> None:
        """``hierarchy`` names owners."""
        self._runtimes = runtimes
        self._containers = Containers(runtimes, hierarchy, proc)
        self._names: dict[int, str | None] = {}
        self._next = 0.0

    def name(self, inode: int) -> str | None:
        """Return the owning container's name, or None. New containers are looked for on demand."""
        if inode and inode not in self._names and time.monotonic() >= self._next:
            self._next = time.monotonic() + AGAIN_S
            for cgroup in self._runtimes.confirmed():
                if cgroup not in self._containers.rows:
                    self._containers.look(cgroup)
            owners = self._containers.by_namespace()
            self._names |= {each: row["container"] for each, row in owners.items()}
            self._names.setdefault(inode, None)
        return self._names.get(inode)


def addresses_of(process: Path) -> Iterator[bytes]:
    """Yield struct device_address of a process's network namespace, without loopback's.

    IPv4 addresses are the local host routes in fib_trie; IPv6 addresses are in if_inet6.
    """
    with suppress(OSError):
        last = ""
        for line in (process / "net/fib_trie").read_text().splitlines():
            if line.strip().startswith("|--"):
                last = line.split()[1]
            elif line.strip() == "/32 host LOCAL" and not last.startswith("127."):
                yield _address(4, inet_pton(AF_INET, last))
    with suppress(OSError):
        for line in (process / "net/if_inet6").read_text().splitlines():
            packed = bytes.fromhex(line.split()[0])
            if packed != LOOPBACK6:
                yield _address(6, packed)


def _address(family: int, packed: bytes) -> bytes:
    return DeviceAddress(packed, family).pack()


class Told:
    """A map of the kernel side, and the entries written to it."""

    def __init__(self, name: str, map_: Map) -> None:
        """``name`` is for messages."""
        self._name = name
        self._map = map_
        self._entries: dict[bytes, bytes] = {}

    def tell(self, found: dict[bytes, bytes]) -> None:
        """Write new entries and delete missing ones. Entries without room are left out.

        Raises LibbpfError.
        """
        for key in self._entries.keys() - found.keys():
            self._map.discard(key)
            del self._entries[key]
        for key, value in found.items():
            if self._entries.get(key) != value:
                try:
                    self._map.update(key, value)
                except LibbpfError as error:
                    if error.errno != errno.E2BIG:
                        raise
                    log.warning("too many %s: the owners of some aren't told", self._name)
                    break
                self._entries[key] = value


class InContainers:
    """A map of the kernel side: the cgroups that, by their paths, are in containers.

    The kernel side adds each new cgroup, until its path is known.
    """

    def __init__(self, hierarchy: Hierarchy, cgroups: Map) -> None:
        """``hierarchy`` names owners."""
        self._hierarchy, self._map = hierarchy, cgroups

    def made(self, cgroup: str, number: int | None) -> None:
        """Keep a cgroup that is in a container; ``number`` is its id, None if it was there before."""
        with suppress(OSError, LibbpfError):  # it is gone, or the map is full
            if place(cgroup).candidates:
                number = number or cgroup_id(self._hierarchy.outer_path(cgroup))
                self._map.update(u64(number), b"\1")
            elif number:
                self._map.discard(u64(number))

    def gone(self, number: int) -> None:
        """Delete a removed cgroup."""
        self._map.discard(u64(number))


class NetnsOwners:
    """Updates the kernel side's maps of namespaces, and of their addresses if given.

    A container's processes and its runtime's state appear after its cgroup, and its addresses after
    those: so a new cgroup is looked at LOOKS times. Existing ones take turns afterwards.
    """

    def __init__(
        self,
        runtimes: Runtimes,
        hierarchy: Hierarchy,
        owners: Map,
        addresses: Map | None = None,
        *,
        in_containers: Map | None = None,
        proc: Path = PROC,
    ) -> None:
        """``hierarchy`` names owners; ``proc`` has the processes."""
        self._runtimes = runtimes
        self._containers = Containers(runtimes, hierarchy, proc)
        self._in_containers = InContainers(hierarchy, in_containers) if in_containers else None
        self._owners = Told("network namespaces", owners)
        self._addresses = Told("addresses", addresses) if addresses else None
        self._proc = proc
        self._left: dict[str, int] = {}  # looks left, by cgroup
        self._cookies: dict[str, int] = {}  # of network namespaces, by cgroup
        self._found: dict[str, frozenset[bytes]] = {}  # addresses, by cgroup
        self._changed = False
        self._next = 0.0

    def made(self, cgroup: str, number: int | None = None) -> None:
        """Schedule looks at a cgroup; ``number`` is the id of one that is new."""
        if self._in_containers:
            self._in_containers.made(cgroup, number)
        candidates = place(cgroup).candidates
        if candidates and candidates[-1].cgroup == cgroup:
            if len(self._left) >= MAX_NEW:
                del self._left[next(iter(self._left))]
            self._left[cgroup] = LOOKS

    def gone(self, cgroup: str, number: int) -> None:
        """Drop a removed cgroup."""
        if self._in_containers:
            self._in_containers.gone(number)
        self._left.pop(cgroup, None)
        if self._containers.rows.pop(cgroup, None):
            self._changed = True

    def follow(self, spent: float = SPENT_S) -> None:
        """Look at new cgroups and at some of the others, and update the maps.

        It takes about ``spent`` seconds at most; the rest is left to the next call.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + AGAIN_S
        confirmed = set(self._runtimes.confirmed()) if self._left else set()
        for cgroup in list(self._left):
            if cgroup in confirmed:
                if time.monotonic() > now + spent:
                    break
                self._look(cgroup)
            self._left[cgroup] -= 1
            if not self._left[cgroup]:
                del self._left[cgroup]
        for cgroup in list(self._containers.rows):
            if time.monotonic() > now + spent:
                break
            self._look(cgroup)
        if self._changed:
            self._changed = False
            self._tell()

    def _look(self, cgroup: str) -> None:
        before = self._containers.rows.pop(cgroup, None)  # reinserted as the last one
        row = self._containers.look(cgroup)
        key = ("netns", "pid", "cgroup_id", "sandbox", "pod")
        same = before and row and all(before[field] == row[field] for field in key)
        if row and not same:
            self._cookies[cgroup] = cookie_of(self._process(row) / "ns/net")
        addresses = frozenset(addresses_of(self._process(row)) if row and self._addresses else ())
        if not same or addresses != self._found.get(cgroup):
            self._changed |= bool(before or row)
        self._found[cgroup] = addresses

    def _tell(self) -> None:
        rows = self._containers.rows
        for kept in (self._cookies, self._found):
            for cgroup in kept.keys() - rows.keys():
                del kept[cgroup]
        found = self._containers.by_namespace()
        namespaces = {}
        for inode, row in found.items():
            value = NetnsOwner(self._cookies[row["cgroup"]], int(row["cgroup_id"])).pack()
            namespaces[u32(inode)] = value
        self._owners.tell(namespaces)
        if self._addresses:
            self._addresses.tell(self._by_address(found))

    def _process(self, row: Row) -> Path:
        return self._proc / str(row["pid"])

    def _by_address(self, found: dict[int, Row]) -> dict[bytes, bytes]:
        """Return cgroup ids by address, for addresses that only one namespace has."""
        cgroups: dict[bytes, set[int]] = defaultdict(set)
        for row in found.values():
            for address in self._found[row["cgroup"]]:
                cgroups[address].add(int(row["cgroup_id"]))
        return {address: u64(each.pop()) for address, each in cgroups.items() if len(each) == 1}
