# SPDX-License-Identifier: BSD-2-Clause
"""Which container, pod and unit a cgroup belongs to, by what the host's runtimes say.

``Runtimes.of`` never waits: it tells what is known now, and whether more is to be expected soon. A
thread looks up what is asked for the first time, and looks again for a while where there is
nothing yet, because a runtime may write its state after it made the cgroup.
"""

from __future__ import annotations

import heapq
import time
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.containers import Facts, place
from cgnet.runtimes import state
from cgnet.runtimes.found import Found, is_there
from cgnet.runtimes.sockets import TIMEOUT_S, Sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.containers import Candidate, Place

ROOT = Path("/")
PROC = Path("/proc")
EXPECTED_S = 2.0  # so long more may come: what records of a new cgroup may wait
FIRST_RETRY_S = 0.05
LEARN_S = 0.2  # that a start may take longer
AGAIN_S = 30.0  # after that a "no" is asked again, if anybody still wants to know


class Known(NamedTuple):
    """What is known of a cgroup now.

    ``expected``: more is to be expected soon. ``settled``: the answer will stay what it is, and may be
    kept. ``inside`` has the confirmed containers, the innermost first, which is what ``facts`` tells.
    """

    facts: Facts
    inside: tuple[Found, ...]
    ids: tuple[str, ...]
    place: Place
    expected: bool
    settled: bool


class _Entry:
    """A candidate, what was found of it, and when it is looked for again."""

    __slots__ = ("candidate", "found", "made", "pod_uid", "tries", "waiting")

    def __init__(self, candidate: Candidate, pod_uid: str | None, now: float) -> None:
        self.candidate = candidate
        self.pod_uid = pod_uid
        self.made = now
        self.tries = 0
        self.waiting = False  # in the queue
        self.found: Found | None = None

    def complete(self) -> bool:
        """Tell whether there is nothing more to find."""
        return self.found is not None and self.found.complete

    def expected(self, now: float) -> bool:
        """Tell whether more may come soon."""
        return not self.complete() and now - self.made < EXPECTED_S


def _make_room(kept: dict[str, Any], limit: int) -> None:
    """Forget the oldest, so that one more may be kept."""
    while len(kept) >= limit:
        del kept[next(iter(kept))]


class Runtimes:
    """Looks up cgroups' containers, and keeps the answers.

    The files are found below ``root`` and processes in ``proc``: a host's own, or as they are mounted
    in the container that cgnet runs in.
    """

    LIMIT = 16384  # cgroups; the oldest are forgotten first

    def __init__(
        self,
        root: Path = ROOT,
        proc: Path = PROC,
        *,
        timeout: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout``, in seconds, is for an answer of a daemon."""
        self._root = root
        self._proc = proc
        self._clock = clock
        self._sockets = Sockets(root, timeout)
        self._entries: dict[str, _Entry] = {}
        self._settled: dict[str, Known] = {}
        self._queue: list[tuple[float, int, _Entry]] = []
        self._order = 0
        self._change = Condition()
        self._thread: Thread | None = None
        self._closed = False

    # -- asking

    def of(self, path: str) -> Known:
        """Return what is known of a cgroup, by its path inside any hierarchy. It never waits."""
        if (kept := self._settled.get(path)) is not None:
            return kept
        where = place(path)
        entries = [self._entry(each, where.pod_uid) for each in where.candidates]
        now = self._clock()
        for entry in entries:
            if not entry.waiting and not entry.complete() and self._is_due(entry, now):
                self._enqueue(entry, now)
        known = self._known(where, entries, now)
        if known.settled:
            _make_room(self._settled, self.LIMIT)
            self._settled[path] = known
        return known

    def find(self, path: str) -> Known:
        """Return what can be found out of a cgroup now. It may wait for a daemon's time-out."""
        where = place(path)
        entries = [self._entry(each, where.pod_uid) for each in where.candidates]
        for entry in entries:
            if not entry.complete():
                self._look_up(entry)
        return self._known(where, entries, self._clock())

    def learn(self, paths: Iterable[str]) -> None:
        """Look up the containers among cgroups that are there, LEARN_S at most; then as ``of`` does."""
        until = self._clock() + LEARN_S
        for path in paths:
            if place(path).candidates and self._clock() < until:
                self.find(path)
            self.of(path)

    def close(self) -> None:
        """End the thread; what it is doing may take until the time-out."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread:
            self._thread.join(2 * TIMEOUT_S)

    def _known(self, where: Place, entries: list[_Entry], now: float) -> Known:
        inside = [(entry, entry.found) for entry in reversed(entries)]
        confirmed = tuple(found for _, found in inside if found)
        ids = tuple(entry.candidate.id for entry, found in inside if found)
        facts = Facts(unit=where.unit)
        if confirmed:
            found = confirmed[0]
            facts = Facts(
                found.name, ids[0], found.image, found.runtime, found.pod, found.pod_namespace,
                where.unit, found.labels,
            )  # fmt: skip
        innermost = entries[-1] if entries else None
        expected = innermost is not None and innermost.expected(now)
        settled = innermost is None or innermost.complete()
        return Known(facts, confirmed, ids, where, expected, settled)

    def _entry(self, candidate: Candidate, pod_uid: str | None) -> _Entry:
        found = self._entries.get(candidate.cgroup)
        if found is None:
            with self._change:
                _make_room(self._entries, self.LIMIT)
                found = _Entry(candidate, pod_uid, self._clock())
                self._entries[candidate.cgroup] = found
        return found

    # -- looking

    @staticmethod
    def _is_due(entry: _Entry, now: float) -> bool:
        return not entry.tries or now - entry.made > AGAIN_S

    def _enqueue(self, entry: _Entry, due: float) -> None:
        with self._change:
            if self._closed:
                return
            if entry.tries and due - entry.made > AGAIN_S:
                entry.made, entry.tries = due - EXPECTED_S, 1  # once more, and nobody waits for it
            entry.waiting = True
            self._order += 1
            heapq.heappush(self._queue, (due, self._order, entry))
            if self._thread is None:
                self._thread = Thread(target=self._work, name="runtimes", daemon=True)
                self._thread.start()
            self._change.notify()

    def _next(self) -> _Entry | None:
        """Wait for the next entry that is due; None at the end."""
        with self._change:
            while not self._closed:
                if not self._queue:
                    self._change.wait()
                    continue
                rest = self._queue[0][0] - self._clock()
                if rest <= 0:
                    return heapq.heappop(self._queue)[2]
                self._change.wait(rest)
        return None

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            self._look_up(entry)
            entry.waiting = False
            now = self._clock()
            if entry.expected(now):
                self._enqueue(entry, now + FIRST_RETRY_S * 2 ** (entry.tries - 1))

    def _look_up(self, entry: _Entry) -> None:
        """Look once, in files first."""
        candidate, in_pod = entry.candidate, entry.pod_uid is not None
        if candidate.by_place:
            entry.found = Found(
                candidate.runtime, "path", name=candidate.id if candidate.runtime else None
            )
            entry.tries += 1
            return
        found = state.look_up(self._root, candidate.id, in_pod=in_pod)
        if found is None or not found.complete:
            runtime = found.runtime if found else candidate.runtime
            told = self._sockets.look_up(runtime, candidate.id, in_pod=in_pod)
            found = found.better(told) if found else told
        if found and is_there(found, candidate, self._proc):
            if entry.pod_uid and not found.pod:
                namespace, pod = state.pod_by_logs(self._root, entry.pod_uid)
                found = found._replace(pod_namespace=namespace, pod=pod)
            entry.found = found
        entry.tries += 1
