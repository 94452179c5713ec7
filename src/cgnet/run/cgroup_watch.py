# SPDX-License-Identifier: BSD-2-Clause
"""Follow cgroups created and removed during a run, and hold records until their names are known."""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cgnet.errors import NotYetKnownError
from cgnet.filters.cgroup import cgroup_key
from cgnet.owners.cgroup_paths import place
from cgnet.owners.runtimes import EXPECTED_S
from cgnet.records._layouts import Owner, RecordKind, Undecided
from cgnet.records.schema import (
    CGROUP_PART,
    OWNER_PART,
    OWNER_UNDECIDED,
    cgroup_change,
    kind_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.filters.selection import Filters
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records.schema import CgroupChange

# A removed cgroup's sockets live on, and its tasks may connect while they exit.
FORGET_CGROUP_AFTER_S = 60.0
MAX_HELD = 65536  # records; above it, the oldest are decided without names
MAX_LEAVING = 65536  # removed cgroups; above it, the oldest are forgotten sooner
CGROUP_RECORDS = frozenset(
    {
        RecordKind.RECORD_CGROUP_CREATED,
        RecordKind.RECORD_CGROUP_REMOVED,
        RecordKind.RECORD_CGROUP_RENAMED,
    }
)


class Held(NamedTuple):
    """The records of a cgroup that wait for its names."""

    path: str
    records: list[bytes]

    def is_in(self, places: set[str]) -> bool:
        """Return whether the cgroup, or that of a container it may belong to, is in ``places``."""
        return self.path in places or any(
            each.cgroup in places for each in place(self.path).candidates
        )


class Follower(Protocol):
    """Receives the paths and ids of cgroups that are created and removed."""

    def made(self, cgroup: str, number: int) -> None:
        """Handle the creation of a cgroup."""

    def gone(self, cgroup: str, number: int) -> None:
        """Handle the removal of a cgroup."""


class CgroupWatch:
    """Follows cgroups, and passes records on once the filters can decide about them."""

    def __init__(
        self,
        filters: Filters,
        names: CgroupNames,
        runtimes: Runtimes,
        tell: Callable[[str], None],
    ) -> None:
        """``tell`` prints a line on standard error."""
        self._filters = filters
        self._names = names
        self._runtimes = runtimes
        self._tell = tell
        self._leaving: deque[tuple[float, Object, int, int]] = deque()
        self._held: dict[bytes, Held] = {}  # by cgroup
        self._ends: list[tuple[float, bytes]] = []  # a heap: when to decide, by cgroup
        self._number = 0
        self._followers: dict[Object, tuple[int, Follower]] = {}
        self._too_many = 0  # records that were dropped before their names were known

    def tell_changes(self, obj: Object, hierarchy: int, follower: Follower) -> None:
        """Pass changes of a hierarchy's cgroups that ``obj`` tells to ``follower`` from now on."""
        self._followers[obj] = hierarchy, follower

    @property
    def is_waiting(self) -> bool:
        """Whether some records wait for names."""
        return bool(self._held)

    def pass_on(self, obj: Object, batch: list[bytes]) -> list[bytes]:
        """Return the records that may be printed now. Changes of cgroups are handled first."""
        records = batch
        if not CGROUP_RECORDS.isdisjoint(map(kind_of, batch)):
            records = [raw for raw in batch if kind_of(raw) not in CGROUP_RECORDS]
            for raw in batch:
                if kind_of(raw) in CGROUP_RECORDS:
                    self._on_cgroup(obj, raw)
        if not self._filters.undecided:
            return records
        passed = self._release(obj)
        passed += [raw for raw in records if not raw[OWNER_UNDECIDED] or self._is_wanted(obj, raw)]
        while self._number > MAX_HELD:
            passed += self._decide_oldest(obj)
        return passed

    def _release(self, obj: Object) -> list[bytes]:
        """Return the wanted records of cgroups whose wait expired or whose names are known now."""
        passed: list[bytes] = []
        while self._ends and self._ends[0][0] <= time.monotonic():
            passed += self._decide(obj, heapq.heappop(self._ends)[1])
        if news := set(self._runtimes.news()):
            for cgroup in [cgroup for cgroup, held in self._held.items() if held.is_in(news)]:
                passed += self._decide(obj, cgroup, finally_=False)
        return passed

    def _decide_oldest(self, obj: Object) -> list[bytes]:
        before = self._number
        passed = self._decide(obj, heapq.heappop(self._ends)[1])
        self._too_many += before - self._number - len(passed)
        return passed

    def take_too_many(self) -> int:
        """Return how many records were dropped, since the last call, for lack of names."""
        found, self._too_many = self._too_many, 0
        return found

    def _decide(self, obj: Object, cgroup: bytes, *, finally_: bool = True) -> list[bytes]:
        """Return the wanted records of a cgroup, or none if it has to wait for its names."""
        held = self._held.get(cgroup)
        if not held:
            return []
        try:
            wanted = [raw for raw in held.records if self._decided(obj, raw, finally_=finally_)]
        except NotYetKnownError:
            return []
        self._number -= len(self._held.pop(cgroup).records)
        return wanted

    def _on_cgroup(self, obj: Object, raw: bytes) -> None:
        change = cgroup_change(raw)
        if change.is_cut:
            known = self._names.path(change.hierarchy, change.cgroup_id)
            change = change._replace(path=known or change.path)
        if change.kind == RecordKind.RECORD_CGROUP_RENAMED:
            self._on_renamed(obj, change)
            return
        if change.path:
            self._names.remember(change.hierarchy, change.cgroup_id, change.path)
        created = change.kind == RecordKind.RECORD_CGROUP_CREATED
        if follower := self._follower_of(obj, change.hierarchy):
            (follower.made if created else follower.gone)(change.path, change.cgroup_id)
        if created:
            self._on_created(obj, change)
        else:
            self._on_removed(obj, change)

    def _follower_of(self, obj: Object, hierarchy: int) -> Follower | None:
        followed, follower = self._followers.get(obj, (None, None))
        return follower if followed == hierarchy else None

    def _on_created(self, obj: Object, change: CgroupChange) -> None:
        self._runtimes.expect(change.path)
        self._filters.cgroups.created(
            obj.map("selected_cgroups"),
            change.hierarchy,
            change.cgroup_id,
            change.path,
            self._tell,
        )

    def _on_removed(self, obj: Object, change: CgroupChange) -> None:
        self._runtimes.gone(change.path)
        if change.marks or self._filters.undecided:  # it may have been marked meanwhile
            forget = time.monotonic() + FORGET_CGROUP_AFTER_S
            self._leaving.append((forget, obj, change.hierarchy, change.cgroup_id))
            given = self._filters.cgroups.is_given(change.hierarchy, change.path)
            if given:
                self._tell(
                    f"--cgroup {given}: it was removed; the run goes on, also if it comes back"
                )

    def _on_renamed(self, obj: Object, change: CgroupChange) -> None:
        old = self._names.rename(change.hierarchy, change.cgroup_id, change.path)
        if follower := self._follower_of(obj, change.hierarchy):
            if old:
                follower.gone(old, change.cgroup_id)
            follower.made(change.path, change.cgroup_id)
        self._runtimes.expect(change.path)
        self._filters.named.forget(obj.map("named_cgroups"), change.cgroup_id)
        self._filters.cgroups.renamed(
            obj.map("selected_cgroups"), change.hierarchy, change.path, self._tell
        )

    def forget(self) -> None:
        """Forget the cgroups that were removed long ago, and former names of others."""
        self._names.tidy()
        now = time.monotonic()
        while self._leaving and (self._leaving[0][0] <= now or len(self._leaving) > MAX_LEAVING):
            _, obj, hierarchy, cgroup = self._leaving.popleft()
            obj.map("selected_cgroups").discard(cgroup_key(hierarchy, cgroup))
            self._filters.named.forget(obj.map("named_cgroups"), cgroup)

    def _is_wanted(self, obj: Object, raw: bytes) -> bool:
        held = self._held.get(raw[CGROUP_PART])
        if held is None:
            try:
                return self._decided(obj, raw)
            except NotYetKnownError as error:
                held = self._hold(raw, error.until)
        held.records.append(raw)
        self._number += 1
        return False

    def _hold(self, raw: bytes, until: float) -> Held:
        """Create the queue for a cgroup's records."""
        owner = Owner.unpack(raw, OWNER_PART.start)
        held = Held(self._names.path(owner.hierarchy, owner.cgroup_id) or "", [])
        self._held[raw[CGROUP_PART]] = held
        end = min(until, time.monotonic() + EXPECTED_S)
        heapq.heappush(self._ends, (end, raw[CGROUP_PART]))
        return held

    def _decided(self, obj: Object, raw: bytes, *, finally_: bool = False) -> bool:
        """Return whether a record is wanted. Raises NotYetKnownError."""
        owner = raw[OWNER_PART]
        decided = self._filters.decide(owner, self._names, self._runtimes, finally_=finally_)
        if raw[OWNER_UNDECIDED] & Undecided.UNDECIDED_NAME:
            self._filters.named.settle(obj.map("named_cgroups"), owner, self._names, self._runtimes)
        return decided is not None
