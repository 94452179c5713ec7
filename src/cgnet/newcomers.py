# SPDX-License-Identifier: BSD-2-Clause
"""Cgroups that are born and go while cgnet runs, and the records that wait for their names."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from cgnet._layouts import RecordKind, Undecided
from cgnet.cgroup_filter import cgroup_key
from cgnet.errors import NotYetKnownError
from cgnet.events import OWNER_PART, OWNER_UNDECIDED, cgroup_change, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cgnet.cgroups import CgroupNames
    from cgnet.filters import Filters
    from cgnet.loader import Object
    from cgnet.runtimes import Runtimes

# A removed cgroup's sockets live on, and its tasks may connect while they die.
FORGET_CGROUP_AFTER_S = 60.0
CGROUP_RECORDS = frozenset({RecordKind.RECORD_CGROUP_BORN, RecordKind.RECORD_CGROUP_GONE})


class Newcomers:
    """Follows cgroups, and lets records through once it is known whether they are wanted."""

    def __init__(
        self,
        filters: Filters,
        names: CgroupNames,
        runtimes: Runtimes,
        tell: Callable[[str], None],
    ) -> None:
        """``tell`` says a line to the person at the terminal."""
        self._filters = filters
        self._names = names
        self._runtimes = runtimes
        self._tell = tell
        self._leaving: deque[tuple[float, int, int]] = deque()
        self._waiting: list[bytes] = []
        self.births = 0

    @property
    def is_waiting(self) -> bool:
        """Whether some records wait for names."""
        return bool(self._waiting)

    def pass_on(self, obj: Object, batch: list[bytes]) -> list[bytes]:
        """Return the records that may be shown now. Names come first: they belong to records."""
        records = batch
        if not CGROUP_RECORDS.isdisjoint(map(kind_of, batch)):
            records = [raw for raw in batch if kind_of(raw) not in CGROUP_RECORDS]
            for raw in batch:
                if kind_of(raw) in CGROUP_RECORDS:
                    self._on_cgroup(obj, raw)
        if not self._filters.undecided:
            return records
        records, self._waiting = self._waiting + records, []
        return [raw for raw in records if not raw[OWNER_UNDECIDED] or self._is_wanted(obj, raw)]

    def _on_cgroup(self, obj: Object, raw: bytes) -> None:
        change = cgroup_change(raw)
        if change.is_cut:
            known = self._names.path(change.hierarchy, change.cgroup_id)
            change = change._replace(path=known or change.path)
        if change.path:
            self._names.remember(change.hierarchy, change.cgroup_id, change.path)
        if change.born:
            self.births += 1
            self._runtimes.of(change.path)  # its name is looked for before it does anything
            self._filters.cgroups.born(
                obj.map("selected_cgroups"),
                change.hierarchy,
                change.cgroup_id,
                change.path,
                self._tell,
            )
        elif change.marks or self._filters.undecided:  # it may have been marked meanwhile
            forget = time.monotonic() + FORGET_CGROUP_AFTER_S
            self._leaving.append((forget, change.hierarchy, change.cgroup_id))
            given = self._filters.cgroups.is_given(change.hierarchy, change.path)
            if given:
                self._tell(
                    f"--cgroup {given}: it was removed; the run goes on, also if it comes back"
                )

    def forget(self, obj: Object) -> None:
        """Forget the cgroups that went long ago."""
        now = time.monotonic()
        while self._leaving and self._leaving[0][0] <= now:
            _, hierarchy, cgroup = self._leaving.popleft()
            obj.map("selected_cgroups").discard(cgroup_key(hierarchy, cgroup))
            self._filters.named.forget(obj.map("named_cgroups"), cgroup)

    def _is_wanted(self, obj: Object, raw: bytes) -> bool:
        try:
            decided = self._filters.decide(raw[OWNER_PART], self._names, self._runtimes)
        except NotYetKnownError:
            self._waiting.append(raw)
            return False
        if raw[OWNER_UNDECIDED] & Undecided.UNDECIDED_NAME:
            self._filters.named.settle(
                obj.map("named_cgroups"), raw[OWNER_PART], self._names, self._runtimes
            )
        return decided is not None
