# SPDX-License-Identifier: BSD-2-Clause
"""The containers that addresses belong to: the only one, in the only namespace that has the address."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cgnet.owners.netns import NAMED, inside
from cgnet.owners.netns_owners import Containers, addresses_of
from cgnet.owners.runtimes import PROC
from cgnet.records._layouts import DeviceAddress
from cgnet.records.schema import address

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.owners.cgroups import Hierarchy
    from cgnet.owners.runtimes import Runtimes

Row = dict[str, Any]
MIN_S, MAX_S = 0.2, 1.0  # between two looks
MAX_SHARE = 0.1  # share of it that walks over the namespaces may take


class AddressOwners:
    """Knows the addresses of all network namespaces as of a moment ago.

    An address may pass to another container within moments. So the owner is asked again, each time,
    whether it still has the address; and while cgroups come that weren't looked at, nobody is named.
    """

    def __init__(self, runtimes: Runtimes, hierarchy: Hierarchy, proc: Path = PROC) -> None:
        """``hierarchy`` names owners."""
        self._runtimes, self._proc = runtimes, proc
        self._containers = Containers(runtimes, hierarchy, proc)
        self._owners: dict[str, Row] = {}
        self._places: dict[str, int] = {}  # inodes of the only namespaces that have the addresses
        self._since: dict[str, float] = {}  # when each was seen there, with no other owner since
        self._checked: dict[str, bool] = {}  # in this batch
        self._next = self._old = 0.0  # times of the monotonic clock
        self._is_stale = True

    def of(self, remote: str) -> Row | None:
        """Return the row of the container that has an address; None if it isn't the only one."""
        self._refresh()
        if self._is_stale or (row := self._owners.get(remote)) is None:
            return None
        if remote not in self._checked:
            held = map(_text, addresses_of(self._proc / str(row["pid"])))
            self._checked[remote] = remote in held and self._is_there(row)
        return row if self._checked[remote] else None

    def throughout(self, remote: str, began: float) -> Row | None:
        """Return the row of the only container that has had an address since a monotonic time."""
        row = self.of(remote)
        return row if row and self._since[remote] <= began else None

    def _is_there(self, row: Row) -> bool:
        """Return whether the container's process is still in its namespace and its cgroup."""
        process = self._proc / str(row["pid"])
        with suppress(OSError):
            same = (process / "ns/net").stat().st_ino == row["netns"]
            return same and self._containers.look(row["cgroup"]) is not None
        return False

    def follow(self, *, changed: bool) -> None:
        """Begin a batch of records; ``changed``: cgroups came or went with it."""
        self._checked.clear()
        self._is_stale |= changed

    def look(self, *, at_once: bool = False) -> None:
        """Look at all namespaces if that is due; ``at_once``: also if it was just looked."""
        if at_once:
            self._next = self._old = 0.0
        self._refresh()

    def _refresh(self) -> None:
        """Look at all namespaces if that is due, and was long enough ago."""
        now = time.monotonic()
        if now < self._next or not (self._is_stale or now >= self._old):
            return
        self._is_stale = False
        self._look()
        took = time.monotonic() - now
        self._next = now + max(MIN_S, took / MAX_SHARE)
        self._old = now + MAX_S

    def _look(self) -> None:
        for cgroup in self._runtimes.confirmed():
            self._containers.look(cgroup)
        owners = self._containers.by_namespace()
        found: dict[str, set[int]] = defaultdict(set)
        for inode, place in self._namespaces().items():
            for text in self._addresses(place):
                found[text].add(inode)
        places = {text: next(iter(inodes)) for text, inodes in found.items() if len(inodes) == 1}
        known = {text: owners[inode] for text, inode in places.items() if inode in owners}
        stays = {
            text
            for text, inode in places.items()
            if self._places.get(text) == inode
            and _may_be_same(self._owners.get(text), known.get(text))
        }
        now = time.monotonic()
        self._since = {text: self._since[text] if text in stays else now for text in places}
        self._places, self._owners = places, known

    def _namespaces(self) -> dict[int, Path]:
        """Return a file of each namespace, by inode: of a process, or a name without one."""
        found: dict[int, Path] = {}
        for place in (*self._proc.glob("[0-9]*/ns/net"), *NAMED.glob("*")):
            with suppress(OSError):
                found.setdefault(place.stat().st_ino, place)
        return found

    def _addresses(self, place: Path) -> list[str]:
        """Return a namespace's addresses, but those that each may have."""
        if place.is_relative_to(self._proc):
            raw = list(addresses_of(place.parents[1]))
        else:
            raw = inside(place, partial(_own_addresses, self._proc)) or []
        return [text for text in map(_text, raw) if not _is_local(text)]


def _may_be_same(before: Row | None, now: Row | None) -> bool:
    """Return whether two owners of a namespace may be one: a container's name is known after a while."""
    names = ("cgroup", "netns", "container_id")
    return before is None or (now is not None and all(before[name] == now[name] for name in names))


def _own_addresses(proc: Path) -> list[bytes]:
    return list(addresses_of(proc / "thread-self"))


def _text(raw: bytes) -> str:
    told = DeviceAddress.unpack(raw)
    return address(told.family, told.address)


def _is_local(text: str) -> bool:
    found = ip_address(text)
    return found.is_loopback or found.is_link_local
