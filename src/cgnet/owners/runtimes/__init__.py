# SPDX-License-Identifier: BSD-2-Clause
"""Containers, pods and units of cgroups, from the state of the host's runtimes.

``Runtimes.of`` never blocks: it returns current knowledge, and whether more is expected soon. A
thread looks up cgroups that are asked for the first time, and retries for a while without a result,
because a runtime may write its state after it created the cgroup.

Users with a delegated part of the cgroup tree may create any number of cgroups that look like
containers'. So the thread takes all due lookups at once and compares them with a list of the
runtimes' containers, which makes the others cheap. Unconfirmed cgroups are kept apart from
confirmed ones.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.owners.cgroup_paths import HEX_ID, Candidate, Facts, parts_of, place
from cgnet.owners.runtimes import files, state
from cgnet.owners.runtimes.found import Found, is_there
from cgnet.owners.runtimes.sockets import TIMEOUT_S, Sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.owners.cgroup_paths import Place
    from cgnet.owners.cgroups import Hierarchy

log = logging.getLogger("cgnet")  # its name is the prefix of messages to users

ROOT = Path("/")
PROC = Path("/proc")
EXPECTED_S = 2.0  # more may come for so long: records of a new cgroup may wait for it
FIRST_RETRY_S = 0.05
LEARN_S = 0.2  # extra time for a start
AGAIN_S = 30.0  # then a negative answer is looked up again, if still requested
ANY = ""  # the id of a candidate whose path shows nothing
BY_PATH = "path"  # the source if no runtime confirms a container
CHECK_S = 1.0
PAUSES, PAUSE_S = 2.0, 0.05  # after a batch: multiple of its duration; maximum in seconds
MAX_AT_ONCE = 4096  # lookups between two checks for newly due ones


class Known(NamedTuple):
    """Current knowledge about a cgroup.

    ``expected``: more is expected soon, at most until ``until`` of the clock. ``is_final``: the
    answer is final, and may be cached. ``inside`` has the containers, innermost first, but weakly
    confirmed ones last: they may be the others' own. ``facts`` describes the first of them.
    """

    facts: Facts
    inside: tuple[Found, ...]
    ids: tuple[str, ...]
    place: Place
    expected: bool
    is_final: bool
    until: float = 0.0


class _Entry:
    """A candidate, the result of its lookup, and the state of its retries."""

    __slots__ = ("candidate", "dropped", "found", "made", "pod_uid", "tries", "waiting", "wanted")

    def __init__(self, candidate: Candidate, pod_uid: str | None, now: float) -> None:
        self.candidate = candidate
        self.pod_uid = pod_uid
        self.made = now
        self.tries = 0
        self.waiting = False  # in the queue
        self.dropped = False  # no longer looked up
        self.wanted = False  # in a record
        self.found: Found | None = None

    def complete(self) -> bool:
        """Return whether there is nothing more to find."""
        if not self.candidate.id:  # the lists have the answer
            return self.tries > 0
        return self.found is not None and self.found.complete and not self.is_weak()

    def is_weak(self) -> bool:
        """Return whether only the owner of the cgroup's directory indicates a container."""
        return (
            self.found is not None and self.found.source == BY_PATH and not self.candidate.by_place
        )

    def expected(self, now: float) -> bool:
        """Return whether more may come soon."""
        return not self.complete() and now - self.made < EXPECTED_S


def _make_room(kept: dict[str, Any], limit: int) -> None:
    """Drop the oldest entries, to make room for another one."""
    while len(kept) >= limit:
        kept.pop(next(iter(kept)), None)


class Runtimes:
    """Looks up the containers of cgroups, and caches the answers.

    Files are below ``root`` and processes in ``proc``: the host's own, or their mounts in the
    container that cgnet runs in.
    """

    LIMIT = 16384  # cgroups, of confirmed and of other ones; the oldest of each are dropped first

    def __init__(
        self,
        root: Path = ROOT,
        proc: Path = PROC,
        *,
        hierarchy: Hierarchy | None = None,
        timeout: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout``, in seconds, is for a daemon's answer.

        ``hierarchy`` is for the owners of cgroups' directories; without it, no path alone is
        enough.
        """
        self._hierarchy = hierarchy
        self._places: dict[str, Candidate] = {}  # from state, for other paths
        self._has_places, self._next_check = False, -math.inf
        self._root = root
        self._proc = proc
        self._clock = clock
        self._sockets = Sockets(root, timeout)
        self._entries: dict[str, _Entry] = {}  # unconfirmed
        self._confirmed: dict[str, _Entry] = {}
        self._news: deque[str] = deque(maxlen=self.LIMIT)
        self._complained = False
        self._settled: dict[str, Known] = {}
        self._queue: list[tuple[float, int, _Entry]] = []
        self._order = 0
        self._change = Condition()
        self._thread: Thread | None = None
        self._closed = False

    # -- queries

    def of(self, path: str) -> Known:
        """Return current knowledge about a cgroup by its path in any hierarchy. It never blocks."""
        if (kept := self._settled.get(path)) is not None:
            return kept
        where = self._where(path)
        entries = self._expect(where, path)
        now = self._clock()
        for entry in entries:
            entry.wanted = True
        known = self._known(where, entries, now)
        if known.is_final:
            self._settle(path, known)
        return known

    def _settle(self, path: str, known: Known) -> None:
        with self._change:
            _make_room(self._settled, self.LIMIT)
            self._settled[path] = known

    def expect(self, path: str) -> None:
        """Start to look for the container of a new cgroup, before it does anything."""
        kept = self._settled.get(path)
        if kept and not kept.inside:  # the previous cgroup of this path was another one
            with self._change:
                self._settled.pop(path, None)
        self._expect(self._where(path), path)

    def _where(self, path: str) -> Place:
        """Return the parsed path, with the candidates that the lists add."""
        where = place(path)
        if not self._places:
            return where
        parts = parts_of(path)
        above = [f"/{'/'.join(parts[:depth])}" for depth in range(1, len(parts) + 1)]
        found = [self._places[each] for each in above if each in self._places]
        nested = sorted({*where.candidates, *found}, key=lambda each: len(each.cgroup))
        return where._replace(candidates=tuple(nested))

    def _expect(self, where: Place, path: str) -> list[_Entry]:
        entries = [self._entry(each, where.pod_uid) for each in where.candidates]
        if not entries and self._may_be_in_a_list():
            entries = [self._entry(Candidate(ANY, None, path), None)]
        now = self._clock()
        for entry in entries:
            if not entry.waiting and not entry.complete() and self._is_due(entry, now):
                self._enqueue(entry, now)
        return entries

    def _may_be_in_a_list(self) -> bool:
        """Return whether a runtime here may have cgroups with any path."""
        now = self._clock()
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            self._has_places = state.has_places(self._root)
        return self._has_places

    def find(self, path: str, present: state.Present | None = None) -> Known:
        """Return all that can be found about a cgroup now. It may block for a daemon's time-out.

        ``present`` saves reading the lists again for each of many cgroups.
        """
        self._places = (present or self.present()).places
        where = self._where(path)
        entries = [self._entry(each, where.pod_uid) for each in where.candidates]
        for entry in entries:
            if not entry.complete():
                self._look_up(entry, present)
        return self._known(where, entries, self._clock())

    def present(self) -> state.Present:
        """Return the current lists of the runtimes' containers."""
        return state.Present(self._root)

    def learn(self, paths: Iterable[str]) -> None:
        """Look up existing cgroups' containers, for LEARN_S at most; the thread does the rest."""
        until = self._clock() + LEARN_S
        present = self.present()
        self._places = present.places
        for path in paths:
            where = self._where(path)
            found = where.candidates
            is_worth_it = any(each.by_place or present.may_have(each.id) for each in found)
            if is_worth_it and self._clock() < until:
                self.find(path, present)
            if found:
                self.of(path)
            else:
                self._settle(path, self._known(where, [], 0.0))

    def confirmed(self) -> list[str]:
        """Return the cgroups that are containers, oldest first; some may have been removed."""
        with self._change:
            weak = [place for place, entry in self._entries.items() if entry.found]
            return [*self._confirmed, *weak]

    def news(self) -> list[str]:
        """Return the cgroups confirmed since the last call."""
        found = []
        while self._news:
            found.append(self._news.popleft())
        return found

    def gone(self, path: str) -> None:
        """Stop looking up a cgroup that was removed, unless it is in a record."""
        entry = self._entries.get(path)
        if entry and not entry.wanted:
            with self._change:
                self._entries.pop(path, None)
            entry.dropped = True

    def close(self) -> None:
        """Stop the thread; its current lookup may take until the time-out."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread:
            self._thread.join(2 * TIMEOUT_S)

    def _known(self, where: Place, entries: list[_Entry], now: float) -> Known:
        found_in = [entry for entry in reversed(entries) if entry.found]
        found_in.sort(key=_Entry.is_weak)
        confirmed = tuple(entry.found for entry in found_in if entry.found)
        ids = tuple(entry.candidate.id for entry in found_in)
        facts = Facts(unit=where.unit)
        if confirmed:
            found = confirmed[0]
            facts = Facts(
                found.name, ids[0], found.image, found.runtime, found.pod, found.pod_namespace,
                where.unit, found.labels,
            )  # fmt: skip
        innermost = entries[-1] if entries else None
        expected = innermost is not None and innermost.expected(now)
        is_final = innermost is None or innermost.complete()
        until = innermost.made + EXPECTED_S if innermost and expected else 0.0
        return Known(facts, confirmed, ids, where, expected, is_final, until)

    def _entry(self, candidate: Candidate, pod_uid: str | None) -> _Entry:
        place = candidate.cgroup
        found = self._confirmed.get(place) or self._entries.get(place)
        if found is None:
            found = _Entry(candidate, pod_uid, self._clock())
            with self._change:
                if len(self._entries) >= self.LIMIT:
                    self._entries.pop(next(iter(self._entries))).dropped = True
                self._entries[place] = found
        return found

    def _keep(self, entry: _Entry, found: Found) -> None:
        """Keep confirmed containers apart from cgroups that anybody may create."""
        with self._change:
            place = entry.candidate.cgroup
            entry.found = found
            if not entry.is_weak():
                self._entries.pop(place, None)
                _make_room(self._confirmed, self.LIMIT)
                self._confirmed[place] = entry
                self._news.append(place)

    # -- lookups

    @staticmethod
    def _is_due(entry: _Entry, now: float) -> bool:
        return not entry.tries or now - entry.made > AGAIN_S

    def _enqueue(self, entry: _Entry, due: float) -> None:
        with self._change:
            if self._closed:
                return
            if entry.tries and due - entry.made > AGAIN_S:
                entry.made, entry.tries = due - EXPECTED_S, 1  # once more, with no record waiting
            entry.waiting = True
            self._order += 1
            heapq.heappush(self._queue, (due, self._order, entry))
            if self._thread is None:
                self._thread = Thread(target=self._work, name="runtimes", daemon=True)
                self._thread.start()
            self._change.notify()

    def _due(self) -> list[_Entry]:
        """Wait for due entries, and return them all; none once closed."""
        with self._change:
            while not self._closed:
                if not self._queue:
                    self._change.wait()
                    continue
                now = self._clock()
                found = []
                while self._queue and self._queue[0][0] <= now:
                    found.append(heapq.heappop(self._queue)[2])
                if found:
                    return found
                self._change.wait(self._queue[0][0] - now)
        return []

    def _work(self) -> None:
        while due := self._due():
            begin = self._clock()
            present = self.present()
            self._places = present.places
            # Entries that a runtime has come first: the others may take a query to a daemon.
            due.sort(key=lambda entry: not present.may_have(entry.candidate.id))
            for number, entry in enumerate(due):
                if number % MAX_AT_ONCE == MAX_AT_ONCE - 1 and self._is_more_due():
                    self._put_back(due[number:])
                    break
                self._look_again(entry, present)
            time.sleep(min(PAUSES * (self._clock() - begin), PAUSE_S))

    def _is_more_due(self) -> bool:
        with self._change:
            return bool(self._queue) and self._queue[0][0] <= self._clock()

    def _put_back(self, entries: list[_Entry]) -> None:
        """Queue entries again, behind newer ones, which are compared with a new list first."""
        for entry in entries:
            self._enqueue(entry, self._clock())

    def _look_again(self, entry: _Entry, present: state.Present) -> None:
        """Look an entry up once, and queue it again if more is expected."""
        if entry.candidate.id == ANY:
            self._look_in_list(entry, present)
            return
        if not entry.dropped and not self._closed:
            self._look_up(entry, present)
        entry.waiting = False
        now = self._clock()
        if entry.expected(now) and not entry.dropped:
            self._enqueue(entry, now + FIRST_RETRY_S * 2 ** (entry.tries - 1))

    def _look_in_list(self, entry: _Entry, present: state.Present) -> None:
        """Look up the container of a cgroup whose path shows nothing."""
        path = entry.candidate.cgroup
        entry.tries += 1
        entry.waiting = False
        where = self._where(path)
        for candidate in where.candidates:
            found = self._entry(candidate, where.pod_uid)
            if not found.waiting and not found.complete():
                found.waiting = True
                self._look_again(found, present)
        with self._change:
            if self._entries.get(path) is entry:
                del self._entries[path]
        if not where.candidates:
            self._settle(path, self._known(where, [], 0.0))
        self._news.append(path)

    def _look_up(self, entry: _Entry, present: state.Present | None = None) -> None:
        """Look an entry up once. Invalid state, whatever it is, costs only the names in it."""
        try:
            found = self._search(entry, present)
        except Exception as error:
            found = None
            if not self._complained:
                self._complained = True
                log.error(  # noqa: TRY400 - a message for users
                    "what is known of container %s can't be read (%s); others are looked up",
                    entry.candidate.id[:12], type(error).__name__,
                )  # fmt: skip
                log.debug("the look-up failed", exc_info=True)
        entry.tries += 1
        if found:
            self._keep(entry, found)

    def _search(self, entry: _Entry, present: state.Present | None) -> Found | None:
        """Search the files first, then ask the daemons."""
        candidate, in_pod = entry.candidate, entry.pod_uid is not None
        if candidate.by_place:
            name = candidate.id if candidate.runtime else None
            return Found(candidate.runtime, BY_PATH, name=name)
        found = None
        if present is None or present.may_have(candidate.id):
            found = state.look_up(self._root, candidate.id, in_pod=in_pod, cgroup=candidate.cgroup)
        if found is None or not found.complete:
            runtime = found.runtime if found else candidate.runtime
            told = self._sockets.look_up(runtime, candidate.id, in_pod=in_pod)
            found = found.better(told) if found else told
        if not found:
            return self._by_owner(entry)
        if not is_there(found, candidate, self._proc):
            return None
        if entry.pod_uid and not found.pod:
            namespace, pod = state.pod_by_logs(self._root, entry.pod_uid)
            found = found._replace(pod_namespace=namespace, pod=pod)
        return found

    def _by_owner(self, entry: _Entry) -> Found | None:
        """Accept a cgroup named like a container's, if only root can have created it."""
        candidate = entry.candidate
        if entry.is_weak():
            return entry.found
        looks_so = candidate.runtime is not None or entry.pod_uid is not None
        if not looks_so or not HEX_ID.fullmatch(candidate.id) or self._hierarchy is None:
            return None
        path = self._hierarchy.outer_path(candidate.cgroup)
        with suppress(OSError):
            while path.is_relative_to(self._hierarchy.mount):
                if path.stat().st_uid != files.OWNER:
                    return None
                path = path.parent
            return Found(candidate.runtime, BY_PATH)
        return None
