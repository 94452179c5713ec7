# SPDX-License-Identifier: BSD-2-Clause
"""Whose a network namespace is: the one container's, or pod's, that lives in it.

The partner of fallback.bpf.h: for sockets that nobody was seen to use, and packets without a socket.
"""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections import defaultdict
from contextlib import suppress
from socket import AF_INET, inet_pton
from typing import TYPE_CHECKING, Any

from cgnet._layouts import DEVICE_ADDRESS, NETNS_OWNER
from cgnet.errors import LibbpfError
from cgnet.netns import cookie_of
from cgnet.runtimes import PROC
from cgnet.runtimes.listing import containers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.cgroups import Hierarchy
    from cgnet.loader import Map
    from cgnet.runtimes import Runtimes

log = logging.getLogger(__name__)

Row = dict[str, Any]
INODE_BYTES = 4
AGAIN_S, LOOKS = 1.0, 4
NETNS_OWNERS, ADDRESS_OWNERS = "netns_owners", "address_owners"  # the maps
LOOPBACK6 = bytes(15) + b"\1"


def owner_among(rows: list[Row]) -> Row | None:
    """Return the container that stands for those of one namespace, or None if they are strangers.

    A pod's sandbox and sidecars are one owner: the only container stands for it, else the sandbox.
    """
    working = [row for row in rows if not row["sandbox"]]
    if len(working) == 1:
        return working[0]
    pods = {(row["pod_namespace"], row["pod"], row["pod_uid"]) for row in rows}
    if len(pods) != 1 or next(iter(pods)) == (None, None, None):
        return None
    return next((row for row in rows if row["sandbox"]), None)


def by_namespace(runtimes: Runtimes, hierarchy: Hierarchy, proc: Path = PROC) -> dict[int, Row]:
    """Return whose each network namespace is, by its inode. The host's own is nobody's."""
    rows: dict[int, list[Row]] = defaultdict(list)
    for row in containers(hierarchy, proc, runtimes.of):
        if row["found"] and row["netns"]:
            rows[row["netns"]].append(row)
    for process in ("1", "self"):  # the host's own; cgnet's, where the first one isn't ours to see
        with suppress(OSError):
            rows.pop((proc / process / "ns/net").stat().st_ino, None)
    owners = {inode: owner_among(each) for inode, each in rows.items()}
    return {inode: owner for inode, owner in owners.items() if owner}


class NetnsNames:
    """Names of the containers that network namespaces belong to."""

    def __init__(self, runtimes: Runtimes, hierarchy: Hierarchy, proc: Path = PROC) -> None:
        """``hierarchy`` names owners."""
        self._where = runtimes, hierarchy, proc
        self._names: dict[int, str | None] = {}
        self._next = 0.0

    def name(self, inode: int) -> str | None:
        """Return the container's name, None of a namespace that isn't one's. New ones are looked for."""
        if inode and inode not in self._names and time.monotonic() >= self._next:
            self._next = time.monotonic() + AGAIN_S
            self._names |= {
                each: row["container"] for each, row in by_namespace(*self._where).items()
            }
            self._names.setdefault(inode, None)
        return self._names.get(inode)


def addresses_of(process: Path) -> Iterator[bytes]:
    """Yield the addresses of a process's network namespace, without loopback's: struct device_address.

    The host's own routes in fib_trie are IPv4's; if_inet6 has IPv6's.
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
    return DEVICE_ADDRESS.packed.pack(packed.ljust(16, b"\0"), family, bytes(3))


class Told:
    """A map of the kernel side, and what was written into it."""

    def __init__(self, name: str, map_: Map) -> None:
        """``name`` is for people."""
        self._name = name
        self._map = map_
        self._entries: dict[bytes, bytes] = {}

    def tell(self, found: dict[bytes, bytes]) -> None:
        """Write what is new, and take back what isn't there any more. What has no room is left out."""
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


class NetnsOwners:
    """Keeps the kernel side's maps of namespaces, and of their addresses where that is wanted."""

    def __init__(
        self,
        runtimes: Runtimes,
        hierarchy: Hierarchy,
        owners: Map,
        addresses: Map | None = None,
        proc: Path = PROC,
    ) -> None:
        """``hierarchy`` names owners; processes are found in ``proc``."""
        self._runtimes = runtimes
        self._hierarchy = hierarchy
        self._owners = Told("network namespaces", owners)
        self._addresses = Told("addresses", addresses) if addresses else None
        self._proc = proc
        self._births = -1
        self._looks = 0
        self._next = 0.0

    def find(self) -> dict[int, Row]:
        """Return the container by namespace, as far as it is known now."""
        return by_namespace(self._runtimes, self._hierarchy, self._proc)

    def follow(self, births: int) -> None:
        """Look again after cgroups were born; ``births`` is how many were.

        A container's processes and its runtime's state come after its cgroup, and no look waits for
        what a runtime has to say: so there are some.
        """
        now = time.monotonic()
        if births != self._births:
            self._births, self._looks = births, LOOKS
        if self._looks and now >= self._next:
            self._looks -= 1
            self._next = now + AGAIN_S
            self.fill()

    def fill(self) -> None:
        """Tell what is there now."""
        found = self.find()
        namespaces = {}
        for inode, row in found.items():
            cookie = cookie_of(self._process(row) / "ns/net")
            value = NETNS_OWNER.packed.pack(cookie, int(row["cgroup_id"]))
            namespaces[inode.to_bytes(INODE_BYTES, sys.byteorder)] = value
        self._owners.tell(namespaces)
        if self._addresses:
            self._addresses.tell(self._by_address(found))

    def _process(self, row: Row) -> Path:
        return self._proc / str(row["pid"])

    def _by_address(self, found: dict[int, Row]) -> dict[bytes, bytes]:
        """Return cgroups by address, of those that one namespace alone has."""
        cgroups: dict[bytes, set[int]] = defaultdict(set)
        for row in found.values():
            for address in set(addresses_of(self._process(row))):
                cgroups[address].add(int(row["cgroup_id"]))
        return {
            address: each.pop().to_bytes(8, sys.byteorder)
            for address, each in cgroups.items()
            if len(each) == 1
        }
