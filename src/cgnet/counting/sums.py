# SPDX-License-Identifier: BSD-2-Clause
"""Sums by owner: what each owner's connections did, as the kernel side adds it up.

Counterpart of bpf/sums/owner_sums.bpf.h. Two tables of each kind take turns, so that reading them loses
nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple, Self

from cgnet.counting.histograms import Histogram
from cgnet.kernel.btf import KERNEL_BTF, has_type
from cgnet.records._layouts import (
    CGNET_BUCKETS,
    CGNET_OTHER_OWNERS,
    OWNER_SUMS,
    SUM_KEY,
    SUMS_HISTOGRAM,
    SumKey,
    SumKind,
    number_in,
    u32,
    u64,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.loader import Map, Object

MAX_OWNERS = 10_000
OTHER = CGNET_OTHER_OWNERS  # stands for a cgroup: all owners beyond the limit
COUNTED = 65536  # entries of a table of counts by number
OWNERS, OWNER_TABLES = "owner_sums", ("owner_sums_even", "owner_sums_odd")
COUNTS, NUMBER_TABLES = "number_sums", ("number_sums_even", "number_sums_odd")
ALLOCATOR = "bpf_mem_alloc"  # in BTF where programs may allocate
KEY_BYTES, COUNT_BYTES = 8, 8
NOTHING = Histogram(0, 0, 2**32 - 1, 0, (0,) * CGNET_BUCKETS)
NUMBERS = (
    "established", "accepts", "tx_bytes", "rx_bytes", "tx_segs", "rx_segs", "busy_ticks", "rwnd_ticks",
    "sndbuf_ticks", "turns", "turns_us",
)  # fmt: skip
UNSUMMED = frozenset({"greatest_turn_us", "queue"})
NUMBERS_PART = OWNER_SUMS.slice("established", "turns_us")
QUEUE_PART = OWNER_SUMS.slice("queue", "queue_drops")
_NUMBERS, _QUEUE = (
    OWNER_SUMS.part("established", "turns_us"), OWNER_SUMS.part("queue", "queue_drops"),
)  # fmt: skip
BLANK_HISTOGRAM = SUMS_HISTOGRAM.pack((0, 0, 2**32 - 1, 0, 0, ()))
BLANK = bytes(OWNER_SUMS.slice("latency").start) + 2 * BLANK_HISTOGRAM


class Queue(NamedTuple):
    """An accept queue: connections in it, its limit, and what it has dropped since it listens."""

    length: int
    limit: int
    drops: int

    @property
    def fullness(self) -> float:
        """The share of the limit that is taken."""
        return self.length / (self.limit + 1)


@dataclass
class OwnerSums:
    """What an owner's connections did. Bytes are payload; ticks are the kernel's."""

    established: int = 0  # attempts that succeeded
    accepts: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_segs: int = 0
    rx_segs: int = 0
    busy_ticks: int = 0
    rwnd_ticks: int = 0
    sndbuf_ticks: int = 0
    turns: int = 0  # of servers: from the last byte of a request to the first byte of the answer
    turns_us: int = 0
    greatest_turn_us: int = 0
    failures: Counter[int] = field(default_factory=Counter)  # attempts, by errno or AttemptResult
    closes: Counter[int] = field(default_factory=Counter)  # by CloseCause
    resends: Counter[int] = field(default_factory=Counter)  # segments, by RetransCause
    drops: Counter[int] = field(default_factory=Counter)  # by DropClass
    drop_reasons: Counter[int] = field(default_factory=Counter)  # by the kernel's number
    latency: Histogram = NOTHING  # of attempts that succeeded, in microseconds
    rtt: Histogram = NOTHING
    queue: Queue | None = None  # the fullest accept queue, when it was looked at

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Parse struct owner_sums."""
        length, limit, drops = _QUEUE.unpack(raw[QUEUE_PART])
        return cls(
            **dict(zip(NUMBERS, _NUMBERS.unpack(raw[NUMBERS_PART]), strict=True)),
            greatest_turn_us=number_in(raw[OWNER_SUMS.slice("greatest_turn_us")]),
            closes=_counter(raw, "closes"),
            resends=_counter(raw, "resends"),
            drops=_counter(raw, "drops"),
            latency=_histogram(raw, "latency"),
            rtt=_histogram(raw, "rtt"),
            queue=Queue(length, limit, drops) if limit else None,
        )

    def __add__(self, later: OwnerSums) -> OwnerSums:
        """Return the sums of both. A queue has no sum: the later one counts."""
        names = [each.name for each in fields(self) if each.name not in UNSUMMED]
        added = {name: getattr(self, name) + getattr(later, name) for name in names}
        greatest = max(self.greatest_turn_us, later.greatest_turn_us)
        return OwnerSums(**added, greatest_turn_us=greatest, queue=later.queue or self.queue)


def _counter(raw: bytes, member: str) -> Counter[int]:
    values = OWNER_SUMS.part(member).unpack(raw[OWNER_SUMS.slice(member)])
    return Counter({number: value for number, value in enumerate(values) if value})


def _histogram(raw: bytes, member: str) -> Histogram:
    total, count, least, greatest, _, *buckets = SUMS_HISTOGRAM.packed.unpack(
        raw[OWNER_SUMS.slice(member)]
    )
    return Histogram(count, total, least, greatest, tuple(buckets))


class Sums:
    """The tables of the kernel side."""

    def __init__(self, max_owners: int = MAX_OWNERS) -> None:
        """Give each of ``max_owners`` owners sums of its own; all others have common ones, OTHER."""
        self._max_owners = max_owners
        self._in_use = 0

    def prepare(self, obj: Object, btf: Path | None, *, used: bool) -> None:
        """Before loading: set the maps' sizes, and whether entries are allocated at need."""
        owners = self._max_owners if used else 1
        sizes = {"known_owners": owners, **dict.fromkeys(NUMBER_TABLES, COUNTED if used else 1)}
        for name, size in {**sizes, **dict.fromkeys(OWNER_TABLES, owners + 1)}.items():
            obj.resize(name, size)
        if not has_type(ALLOCATOR, btf or KERNEL_BTF):
            for outer, tables in ((OWNERS, OWNER_TABLES), (COUNTS, NUMBER_TABLES)):
                obj.preallocate(outer, tables)

    def entries(self) -> dict[str, dict[bytes, bytes]]:
        """Return the entries of both tables before programs are attached: the sums of other owners."""
        return {name: {u64(OTHER): BLANK} for name in OWNER_TABLES}

    def read(self, obj: Object) -> dict[int, OwnerSums]:
        """Return the sums since the last call, by cgroup. Raises LibbpfError."""
        self._swap(obj, COUNTS, NUMBER_TABLES)
        counts = obj.map(NUMBER_TABLES[self._in_use])
        self._swap(obj, OWNERS, OWNER_TABLES)
        owners = obj.map(OWNER_TABLES[self._in_use])
        self._in_use = 1 - self._in_use
        found = {number_in(key): OwnerSums.read(raw) for key, raw in _take(owners)}
        for cgroup, kind, number, count in _numbers(counts):
            its = found.setdefault(cgroup, OwnerSums())
            member = its.failures if kind == SumKind.SUM_FAILURES else its.drop_reasons
            member[number] += count
        return found

    def _swap(self, obj: Object, outer: str, tables: tuple[str, str]) -> None:
        obj.map(outer).update(u32(0), u32(obj.map(tables[1 - self._in_use]).fd))


def _take(table: Map) -> Iterator[tuple[bytes, bytes]]:
    """Yield and remove the entries of a table that no program writes to; OTHER's stays, blank."""
    for key in list(table.keys(KEY_BYTES)):
        raw = table.lookup(key, OWNER_SUMS.size)
        if number_in(key) == OTHER:
            table.update(key, BLANK)
        else:
            table.discard(key)
        if raw != BLANK:
            yield key, raw


def _numbers(table: Map) -> Iterator[tuple[int, int, int, int]]:
    """Yield and remove counts: cgroup, kind, number, count."""
    for key in list(table.keys(SUM_KEY.size)):
        cgroup, kind, number = SumKey.unpack(key)
        signed = number - 2**32 if kind == SumKind.SUM_FAILURES and number >= 2**31 else number
        yield cgroup, kind, signed, number_in(table.lookup(key, COUNT_BYTES))
        table.discard(key)
