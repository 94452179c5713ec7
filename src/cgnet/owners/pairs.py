# SPDX-License-Identifier: BSD-2-Clause
"""The other ends of connections whose both ends are sockets of this host.

The counterpart of peer/making.bpf.h.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from cgnet.records._layouts import IDENTITY, PAIR_EVENT, RecordKind
from cgnet.records.schema import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgnet.owners.pairs_before import PairsBefore

MAX_PAIRS = 131072  # connections that are open
MAX_ENDED = 16384  # ends whose other end has ended: its row comes soon, or is filtered out
MAX_OWNERS = 8192
LINGERS_S = 4.0  # a packet that nothing else is seen of has its row that long after its connection
IDENTITY_PART = PAIR_EVENT.slice("identity")
LOCAL_PART, REMOTE_PART = PAIR_EVENT.slice("local"), PAIR_EVENT.slice("remote")
HALF = IDENTITY.size // 2
NONE = bytes(IDENTITY.size)
NO_OWNER = bytes(REMOTE_PART.stop - REMOTE_PART.start)


def seen_from_there(identity: bytes) -> bytes:
    """Return struct identity as the other end has it."""
    return identity[HALF:] + identity[:HALF]


class Pairs:
    """Owners (struct owner) of other ends, by struct identity as the end itself has it.

    ``evicted`` is the number of open connections that were forgotten for lack of room; ``before``
    are those that were open at the start.
    """

    def __init__(self) -> None:
        """Begin with no pairs."""
        self.evicted = 0
        self.before: PairsBefore | None = None
        self._over: deque[tuple[float, bytes]] = (
            deque()
        )  # ends that were closed, and until when known
        self._open: dict[bytes, bytes] = {}
        self._ended: dict[bytes, bytes] = {}
        self._owners: dict[bytes, bytes] = {}  # one object for equal ones

    def take(self, batch: list[bytes]) -> list[bytes]:
        """Learn the pairs in a batch of records; return the others."""
        while self._over and self._over[0][0] < time.monotonic():
            self.end([self._over.popleft()[1]])
        others = [raw for raw in batch if kind_of(raw) != RecordKind.RECORD_PAIR]
        if len(others) < len(batch):
            for raw in batch:
                if kind_of(raw) == RecordKind.RECORD_PAIR:
                    self._learn(raw)
        return others

    def _learn(self, raw: bytes) -> None:
        identity = raw[IDENTITY_PART]
        if identity == NONE:
            return
        there = seen_from_there(identity)
        local, remote = self._one(raw[LOCAL_PART]), self._one(raw[REMOTE_PART])
        if local == remote == NO_OWNER:
            self._over.append((time.monotonic() + LINGERS_S, identity))
            return
        if remote == NO_OWNER:  # a new owner of this end
            for known in (self._open, self._ended):
                if there in known:
                    known[there] = local
            return
        if identity in self._open or there in self._open:  # which of them?
            self._open.pop(identity, None)
            self._open.pop(there, None)
            self.evicted += 1
            return
        self._open[identity], self._open[there] = remote, local
        while len(self._open) > 2 * MAX_PAIRS:
            if self._over:
                self.end([self._over.popleft()[1]])
                continue
            oldest = next(iter(self._open))
            for each in (oldest, seen_from_there(oldest)):
                self._open.pop(each, None)
            self.evicted += 1

    def _one(self, owner: bytes) -> bytes:
        if len(self._owners) >= MAX_OWNERS:
            self._owners.clear()
        return self._owners.setdefault(owner, owner)

    def other(self, identity: bytes) -> bytes | None:
        """Return the owner of the other end; None if no socket here is known to be it."""
        known = self._open.get(identity) or self._ended.get(identity)
        return known or (self.before.other(identity) if self.before else None)

    def end(self, identities: Iterable[bytes]) -> None:
        """Forget ends whose last rows were made."""
        for identity in identities:
            there = seen_from_there(identity)
            self._open.pop(identity, None)
            self._ended.pop(identity, None)
            if (owner := self._open.pop(there, None)) is not None:
                self._ended[there] = owner
        while len(self._ended) > MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))
