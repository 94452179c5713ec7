# SPDX-License-Identifier: BSD-2-Clause
"""Counts of the kernel side: two tables that take turns, and rows made from them.

Counterpart of count.bpf.h and histogram.bpf.h.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.counting.histograms import FIELDS as HISTOGRAM_FIELDS
from cgnet.counting.histograms import MICROSECONDS, Histogram
from cgnet.counting.keys import PEER_FIELDS, count_config
from cgnet.counting.tables import COUNTS, HISTOGRAMS, SUMS, read_sums
from cgnet.errors import NotYetKnownError
from cgnet.owners.record_fields import OWNER_FIELDS, owner_group
from cgnet.owners.runtimes import EXPECTED_S
from cgnet.records._layouts import COUNT_KEY, OwnerSource, number_in
from cgnet.records.schema import CAUSES, DROPPED_HERE, ROLES, flow_row, result_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cgnet.counting.histograms import Scale
    from cgnet.counting.keys import Key
    from cgnet.counting.tables import Tables
    from cgnet.filters.selection import Filters
    from cgnet.kernel.symbols import Symbols
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.peers import Peer
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import CountConfig

    # From an address to the other end that has had it since a time; None if that isn't wanted.
    PeerOf = Callable[[str, float], Peer | None]

OWNER_PART = COUNT_KEY.slice("owner")
FLOW_PART = COUNT_KEY.slice("flow")
SOURCE = COUNT_KEY.slice("owner.source").start
# Prefixes of fields that a table leaves out: of histograms, and of the other end.
HIDDEN = ("peer_", "total_", "min_", "avg_", "p50_error", "p90_error", "p99_error", "buckets")


class Counting(NamedTuple):
    """The settings of counting: keys, and the scale of histograms if there are any."""

    keys: list[Key]
    scale: Scale | None = None
    symbols: Symbols | None = None  # for names that only the kernel has
    stages: Mapping[int, str] | None = None  # of packets: values are nanoseconds then
    by_peer: bool = False  # by other ends, or of selected ones

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a value."""
        if not self.scale:
            return ("count",)
        if not self.stages:
            return HISTOGRAM_FIELDS
        return tuple(field.replace("_us", "_ns") for field in (*HISTOGRAM_FIELDS, "share"))

    @property
    def tables(self) -> Tables:
        """The tables that hold its values."""
        return HISTOGRAMS if self.scale else COUNTS

    def uses(self, tables: Tables) -> bool:
        """Return whether ``tables`` hold its values, or some of them."""
        return tables == (SUMS if self.stages and tables == SUMS else self.tables)

    def config(self) -> CountConfig:
        """Return the constants of counting."""
        made = count_config(self.keys, by_peer=self.by_peer)
        return self.scale.config(made) if self.scale else made

    def read(self, raw: bytes) -> int | Histogram:
        """Parse a value of the tables."""
        return Histogram.read(raw) if self.scale else number_in(raw)

    def told(self, value: int | Histogram) -> tuple[Any, ...]:
        """Return the fields of a value."""
        if not isinstance(value, Histogram):
            return (value,)
        told = value.values(self.scale or MICROSECONDS)
        return (*told, None) if self.stages else told


def _number(value: int | Histogram) -> int:
    return value.count if isinstance(value, Histogram) else value


@lru_cache(maxsize=8192)
def prefix(address: str, bits: int) -> str:
    """Return the network of an address with a prefix of this many bits."""
    longest = 128 if ":" in address else 32
    return str(ip_network((address, min(bits, longest)), strict=False))


def cut_path(path: str | None, depth: int | None) -> str | None:
    """Return the first ``depth`` components of a path."""
    if path is None or depth is None:
        return path
    return str(PurePosixPath("/", *PurePosixPath(path).parts[1 : depth + 1]))


class Counts:
    """The two tables of a loaded object, and the rows made from them."""

    def __init__(
        self, counting: Counting, filters: Filters, names: CgroupNames, runtimes: Runtimes,
        peer_of: PeerOf | None = None,
    ) -> None:  # fmt: skip
        """Take the settings, and sources of owners' and other ends' names."""
        self.keys = counting.keys
        self._counting = counting
        self._filters = filters
        self._names, self._runtimes = names, runtimes
        self._owner = owner_group(names, runtimes).values
        self._peer_of = peer_of
        self._began = time.monotonic()  # the interval that is being counted
        self._since: dict[bytes, float] = {}  # when counts began that wait for names
        self._in_use = 0
        self._waiting: dict[bytes, Any] = {}  # for names, or for the next rows
        self._ends: dict[bytes, float] = {}  # when each is counted without names
        self.of_unknown_owners = 0

    def begin(self) -> None:
        """Begin the first interval, before the programs count."""
        self._began = time.monotonic()

    @property
    def _key_fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for key in self.keys for field in key.fields))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row, after those of every record."""
        return (*self._key_fields, *self._counting.fields)

    @property
    def shown(self) -> tuple[str, ...]:
        """The fields that a table shows: those that fit a line."""
        return tuple(field for field in self.fields if not field.startswith(HIDDEN))

    @property
    def draws(self) -> bool:
        """Whether the counts are histograms to draw."""
        return self._counting.scale is not None and not self._counting.stages

    @property
    def geometric(self) -> bool:
        """Whether the counts are histograms of geometric buckets."""
        return self._counting.scale is not None and self._counting.scale.is_geometric

    @property
    def is_waiting(self) -> bool:
        """Whether some counts wait for names."""
        return bool(self._waiting)

    def _swap(self, obj: Object) -> Iterator[tuple[bytes, Any]]:
        """Switch to the other tables, and empty the old ones."""
        tables, in_use = self._counting.tables, self._in_use
        self._in_use = 1 - in_use
        old = tables.swap(obj, in_use)
        for key in list(old.keys(COUNT_KEY.size)):
            yield key, self._counting.read(old.lookup(key, tables.value_bytes))
            old.discard(key)
        if self._counting.uses(SUMS) and obj.has_map(SUMS.outer):  # only typed programs have sums
            yield from read_sums(SUMS.swap(obj, in_use))

    def add(self, values: Iterable[tuple[bytes, int]]) -> None:
        """Add values that no program counts, as (struct count_key, value), to the next rows."""
        scale = self._counting.scale or MICROSECONDS
        for key, value in values:
            one = Histogram.of(value, scale)
            self._waiting[key] = self._waiting[key] + one if key in self._waiting else one

    def collect(self, obj: Object) -> list[dict[str, Any]]:
        """Return the rows since the last call, the highest count first.

        Counts of a new cgroup wait for a later call until its names are known.
        """
        totals: dict[tuple[Any, ...], Any] = {}
        keys, since = self._waiting, self._since
        self._waiting, self._since = {}, {}
        began, self._began = self._began, time.monotonic()
        self._obj = obj
        for key, value in self._swap(obj):
            keys[key] = keys[key] + value if key in keys else value
        ends, self._ends = self._ends, {}
        for key, value in keys.items():
            try:
                named = self._values(
                    key, since.get(key, began), finally_=ends.get(key, math.inf) <= time.monotonic()
                )
            except NotYetKnownError:
                self._waiting[key] = value
                self._since[key] = since.get(key, began)
                self._ends[key] = ends.get(key, time.monotonic() + EXPECTED_S)
                continue
            if named is not None:
                totals[named] = totals[named] + value if named in totals else value
                if key[SOURCE] == OwnerSource.OWNER_UNKNOWN:
                    self.of_unknown_owners += _number(value)
        ordered = sorted(totals.items(), key=lambda item: (-_number(item[1]), str(item[0])))
        rows = [
            dict(zip(self.fields, (*named, *self._counting.told(value)), strict=True))
            for named, value in ordered
        ]
        return self._with_shares(rows) if self._counting.stages else rows

    def _with_shares(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add each stage's share of time among rows with equal other keys, and sort by stage."""
        others = [field for field in self._key_fields if field != "stage"]
        sums: dict[tuple[Any, ...], int] = {}
        for row in rows:
            key = tuple(row[field] for field in others)
            sums[key] = sums.get(key, 0) + row["total_ns"]
        for row in rows:
            whole = sums[tuple(row[field] for field in others)]
            row["share"] = round(row["total_ns"] / whole, 4) if whole else 0.0
        order = list((self._counting.stages or {}).values())
        rank = {key: place for place, key in enumerate(sums)}
        rows.sort(key=lambda row: (rank[tuple(row[f] for f in others)], order.index(row["stage"])))
        return rows

    def _values(self, raw: bytes, began: float, *, finally_: bool) -> tuple[Any, ...] | None:
        """Return the field values of a kernel's key, of counts since a time of the monotonic clock.

        None if its owner, or the other end, isn't wanted. Raises NotYetKnownError if that will be
        known soon, unless ``finally_``.
        """
        *flat, role, result, location = COUNT_KEY.packed.unpack(raw)
        _, _, _, undecided, given, *_ = flat
        row = dict(zip(OWNER_FIELDS, self._owner(raw[OWNER_PART]), strict=True))
        if undecided:
            decided = self._filters.decide(
                raw[OWNER_PART], self._names, self._runtimes, finally_=finally_
            )
            if decided is None:
                return None
            given = decided or given  # a path of another hierarchy may have selected it
        row |= flow_row(raw[FLOW_PART])
        if not self._add_peer(row, began):
            return None
        row |= {
            "role": ROLES.get(role),
            "result": result_name(result),
            "cause": CAUSES.get(result),
            "dropped_here": DROPPED_HERE.get(location),
            "selected": self._filters.cgroups.given[given - 1].text if given else None,
        }
        if self._counting.symbols:
            row |= self._drop(self._counting.symbols, result, location)
        if self._counting.stages:
            row["stage"] = self._counting.stages.get(result)
        cgroup = next((key for key in self.keys if key.name == "cgroup"), None)
        if cgroup:
            row["cgroup"] = cut_path(row["cgroup"], cgroup.size)
        elif row["container"]:
            row["cgroup"] = None
        for key in self.keys:
            if key.name in ("saddr", "daddr") and key.size is not None:
                row[key.name] = prefix(row[key.name], key.size)
        return tuple(row[field] for field in self._key_fields)

    def _add_peer(self, row: dict[str, Any], began: float) -> bool:
        """Add the fields of the other end; return whether it is wanted."""
        if not self._peer_of:
            return True
        peer = self._peer_of(row["daddr"], began)
        if peer is None:
            return False
        found = (peer.container, peer.pod, peer.cgroup, peer.source)
        row |= zip(PEER_FIELDS, (peer.name or row["daddr"], *found), strict=True)
        return True

    def _drop(self, symbols: Symbols, reason: int, location: int) -> dict[str, Any]:
        """Return the names of a drop's reason, location and stack."""
        stack: tuple[str, ...] = ()
        if any(key.name == "stack" for key in self.keys):
            stack = symbols.stack(self._obj.map("stacks"), location)
            where = stack[0] if stack else None
        else:
            where = symbols.code(location) if location else None
        return {
            "reason": symbols.drop_reason(reason & 0xFFFFFFFF),
            "location": where,
            "stack": stack,
        }
