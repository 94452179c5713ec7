# SPDX-License-Identifier: BSD-2-Clause
"""Lost records and events, by location: growth of the kernel side's counters."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cgnet.records._layouts import LostWhere, number_in, u32

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.loader import Object

ADVICE = {
    "ring": "the ring buffer was full; filter more, or give a larger --buffer",
    "ledger": "sockets that could not be kept track of: too many at once",
    "selected_cgroups": "more new cgroups than the filter holds",
    "cgroup_names": "names of new cgroups, the ring buffer was full",
    "connect_calls": "calls of connect() that --sync-errors could not keep",
    "counts": "events of more keys than a table holds; count by less, or filter more",
    "packets": "packets that could not be followed: too many on their way at once",
    "names": "records of more new cgroups than may wait for their names",
    "peers": "other ends: more connections were made at once than are followed, or a full ring buffer",
    "pairs": "other ends of connections that are open: more than cgnet keeps",
    "ends": "connections whose end the kernel hid from BPF programs, as hardened kernels do of PID 1",
    "rate": "rows above --max-rate",
    "output": "rows that standard output didn't take any more",
}


Place = TypeVar("Place", bound=IntEnum)


class Loss(NamedTuple):
    """Records or events lost since the last check."""

    where: str
    number: int

    def __str__(self) -> str:
        """Return the loss as text for people."""
        return f"lost {self.number} ({self.where}): {ADVICE[self.where]}"


class Losses:
    """Totals of losses, by location."""

    def __init__(self, count: Callable[[Object], dict[str, int]] | None = None) -> None:
        """Begin with no losses. ``count`` returns those of an object until now, by location."""
        self._count = count or _counts
        self._totals: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    @property
    def total(self) -> int:
        """All losses of this run."""
        return sum(self._totals.values())

    def add(self, where: str, number: int) -> None:
        """Count records that user space dropped."""
        self._left_out[where] = self._left_out.get(where, 0) + number

    def look(self, obj: Object) -> list[Loss]:
        """Return the losses since the last call."""
        counts = self._count(obj) | self._left_out
        found = [Loss(where, count - self._totals.get(where, 0)) for where, count in counts.items()]
        grown = [loss for loss in found if loss.number > 0]
        for loss in grown:
            self._totals[loss.where] = self._totals.get(loss.where, 0) + loss.number
        return grown


def counters(obj: Object, name: str, places: type[Place]) -> dict[Place, int]:
    """Return the values of an array of counters; the last one of ``places`` is their number."""
    array, counted = obj.map(name), list(places)[:-1]
    return {each: number_in(array.lookup(u32(each), 8)) for each in counted}


def place_of(where: LostWhere) -> str:
    """Return a location's name."""
    return where.name.removeprefix("LOST_").lower()


def _counts(obj: Object) -> dict[str, int]:
    return {place_of(each): number for each, number in counters(obj, "lost", LostWhere).items()}
