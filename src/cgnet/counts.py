# SPDX-License-Identifier: BSD-2-Clause
"""Counts that the kernel side keeps: ``--by``, two tables in turn, and rows of them.

The partner of count.bpf.h.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import lru_cache
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet._layouts import COUNT_KEY, OWNER, CountBy, OwnerSource
from cgnet.attribution import OWNER_FIELDS, owner_group
from cgnet.errors import NotYetKnownError, UsageError
from cgnet.events import ROLES, SERVICE, part_of, result_name
from cgnet.values import is_number, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgnet.cgroups import CgroupNames
    from cgnet.filters import Filters
    from cgnet.loader import Object
    from cgnet.runtimes import Runtimes

MOST_COUNTS = 65536  # of count.bpf.h
TABLES = ("counts_even", "counts_odd")
COUNT_BYTES = 8
OWNER_PART = part_of(COUNT_KEY, "owner")
FLOW_PART = part_of(COUNT_KEY, "flow")
SOURCE = OWNER_PART.start + part_of(OWNER, "source").start
# Inside struct flow.
SERVICE_PART = slice(0, SERVICE.part.stop - SERVICE.part.start)
SPORT_PART = slice(SERVICE_PART.stop, SERVICE_PART.stop + 2)
LONGEST_PREFIX = 128
DEEPEST = 4096  # linux/limits.h: PATH_MAX


class Key(NamedTuple):
    """One of the things that are counted by."""

    name: str
    size: int | None = None  # of a prefix in bits, or of a path in names

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that show it.

        Names of containers come again in each pod; who is in no container is shown by cgroup.
        """
        if self.name == "container":
            return ("container", "pod", "pod_namespace", "cgroup")
        return ("pod", "pod_namespace") if self.name == "pod" else (self.name,)


# Names, and the part of the kernel's key that they need.
KEYS: dict[str, CountBy] = {
    "container": CountBy.BY_CGROUP,
    "pod": CountBy.BY_CGROUP,
    "unit": CountBy.BY_CGROUP,
    "cgroup": CountBy.BY_CGROUP,
    "selected": CountBy.BY_SELECTED,
    "pid": CountBy.BY_PID,
    "comm": CountBy.BY_COMM,
    "uid": CountBy.BY_UID,
    "netns": CountBy.BY_NETNS,
    "saddr": CountBy.BY_SADDR,
    "daddr": CountBy.BY_DADDR,
    "sport": CountBy.BY_SPORT,
    "dport": CountBy.BY_DPORT,
    "role": CountBy.BY_ROLE,
    "result": CountBy.BY_RESULT,
}
SIZED = {"cgroup": "DEPTH", "saddr": "BITS", "daddr": "BITS"}


def _key(text: str) -> Key:
    name, slash, size = text.partition("/")
    known = ", ".join(f"{each}[/{SIZED[each]}]" if each in SIZED else each for each in KEYS)
    if name not in KEYS:
        raise UsageError(f"--by {text!r}: nothing to count by; one of: {known}")
    if not slash:
        return Key(name)
    if name not in SIZED or not is_number(size):
        raise UsageError(f"--by {text!r}: no number goes there; as in cgroup/2 or daddr/24")
    if name == "cgroup":  # no path has more names than bytes
        found = number(size, DEEPEST)
        return Key(name, DEEPEST if found is None else found)
    bits = number(size, LONGEST_PREFIX)
    if bits is None:
        raise UsageError(f"--by {text!r}: no prefix is longer than {LONGEST_PREFIX} bits")
    return Key(name, bits)


def read_by(values: Iterable[str]) -> list[Key]:
    """Read the values of ``--by``, lists separated by commas. Raises UsageError."""
    keys = [_key(text.strip()) for value in values for text in value.split(",")]
    for name, times in Counter(key.name for key in keys).items():
        if times > 1:
            raise UsageError(f"--by: {name} comes {times} times; once is enough")
    return keys


def constants(keys: list[Key]) -> dict[str, int]:
    """Return what struct config has of counting."""
    bits = 0
    for key in keys:
        bits |= KEYS[key.name]
    sizes = {key.name: LONGEST_PREFIX if key.size is None else key.size for key in keys}
    return {
        "count": 1,
        "count_by": bits,
        "saddr_bits": sizes.get("saddr", LONGEST_PREFIX),
        "daddr_bits": sizes.get("daddr", LONGEST_PREFIX),
    }


@lru_cache(maxsize=8192)
def _prefix(address: str, bits: int) -> str:
    longest = 128 if ":" in address else 32
    return str(ip_network((address, min(bits, longest)), strict=False))


def _cut(path: str | None, depth: int | None) -> str | None:
    """Return the first ``depth`` names of a path."""
    if path is None or depth is None:
        return path
    return str(PurePosixPath("/", *PurePosixPath(path).parts[1 : depth + 1]))


class Counts:
    """The two tables of a running object, and what is read from them."""

    def __init__(
        self, keys: list[Key], filters: Filters, names: CgroupNames, runtimes: Runtimes
    ) -> None:
        """Name what is counted by ``keys``."""
        self.keys = keys
        self._filters = filters
        self._names, self._runtimes = names, runtimes
        self._owner = owner_group(names, runtimes).values
        self._in_use = 0
        self._waiting: Counter[bytes] = Counter()  # for names
        self.of_unknown_owners = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row, after those that every record has."""
        names = dict.fromkeys(field for key in self.keys for field in key.fields)
        return (*names, "count")

    @property
    def is_waiting(self) -> bool:
        """Whether some counts wait for names."""
        return bool(self._waiting)

    def _swap(self, obj: Object) -> Iterator[tuple[bytes, int]]:
        """Put the other table into use, and empty the old one. Nobody writes to it any more."""
        old = obj.map(TABLES[self._in_use])
        self._in_use = 1 - self._in_use
        other = obj.map(TABLES[self._in_use]).fd
        obj.map("counts").update(bytes(4), other.to_bytes(4, sys.byteorder))
        for key in list(old.keys(COUNT_KEY.size)):
            yield key, int.from_bytes(old.lookup(key, COUNT_BYTES), sys.byteorder)
            old.discard(key)

    def collect(self, obj: Object) -> list[dict[str, Any]]:
        """Return the increments since the last time, the greatest first.

        What belongs to a new cgroup whose names aren't known yet comes the next time.
        """
        totals: Counter[tuple[Any, ...]] = Counter()
        keys = self._waiting
        self._waiting = Counter()
        for key, count in self._swap(obj):
            keys[key] += count
        for key, count in keys.items():
            try:
                values = self._values(key)
            except NotYetKnownError:
                self._waiting[key] = count
                continue
            if values is not None:
                totals[values] += count
                self.of_unknown_owners += count * (key[SOURCE] == OwnerSource.OWNER_UNKNOWN)
        ordered = sorted(totals.items(), key=lambda item: (-item[1], str(item[0])))
        return [dict(zip(self.fields, (*values, n), strict=True)) for values, n in ordered]

    def _values(self, raw: bytes) -> tuple[Any, ...] | None:
        """Return the values of a kernel's key; None if its owner turns out to be unwanted."""
        *flat, role, result = COUNT_KEY.packed.unpack(raw)
        _, _, _, undecided, given, *_ = flat
        row = dict(zip(OWNER_FIELDS, self._owner(raw[OWNER_PART]), strict=True))
        if undecided:
            decided = self._filters.decide(raw[OWNER_PART], self._names, self._runtimes)
            if decided is None:
                return None
            given = decided or given  # a path of another hierarchy may have selected it
        row |= dict(zip(SERVICE.fields, SERVICE.values(raw[FLOW_PART][SERVICE_PART]), strict=True))
        row |= {
            "sport": int.from_bytes(raw[FLOW_PART][SPORT_PART], sys.byteorder),
            "role": ROLES.get(role),
            "result": result_name(result),
            "selected": self._filters.cgroups.given[given - 1].text if given else None,
        }
        cgroup = next((key for key in self.keys if key.name == "cgroup"), None)
        if cgroup:
            row["cgroup"] = _cut(row["cgroup"], cgroup.size)
        elif row["container"]:
            row["cgroup"] = None
        for key in self.keys:
            if key.name in ("saddr", "daddr") and key.size is not None:
                row[key.name] = _prefix(row[key.name], key.size)
        return tuple(row[field] for field in self.fields[:-1])
