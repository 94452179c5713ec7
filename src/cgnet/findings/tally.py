# SPDX-License-Identifier: BSD-2-Clause
"""Records of a signal, summed up by what they have in common: bounded memory, no decoding."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cgnet.records.schema import Schema

MAX_GROUPS = 8192
MAX_IDS = 1024  # of one group


@dataclass(frozen=True)
class Group:
    """Records that are alike. ``row`` is the last one; ``ids`` tell apart what they are of."""

    row: dict[str, Any]
    count: int
    sums: dict[str, int]
    most: dict[str, int]
    ids: frozenset[int]
    first_ns: int
    last_ns: int


class _Seen:
    """The sums of a group, while records come."""

    __slots__ = ("count", "first", "ids", "last", "most", "sums")

    def __init__(self, raw: bytes, numbers: int) -> None:
        self.first = self.last = raw
        self.count = 0
        self.sums = [0] * numbers
        self.most = [0] * numbers
        self.ids: set[int] = set()


class Tally:
    """Groups of a signal's records. ``untold`` counts records of groups that found no room."""

    def __init__(
        self,
        schema: Schema,
        key: Callable[[bytes], Any],
        numbers: Mapping[str, slice],
        ident: slice,
        measures: Mapping[str, Callable[[bytes], int]] | None = None,
    ) -> None:
        """``key`` returns what the records of a group have in common, from a record's bytes.

        ``numbers`` are summed up, as are ``measures`` of records; ``ident`` is the slice of the number
        that tells records apart.
        """
        self._schema, self._key = schema, key
        self._numbers, self._ident = dict(numbers), ident
        self._measures = dict(measures or {})
        self._names = [*self._numbers, *self._measures]
        self._seen: dict[Any, _Seen] = {}
        self.records = 0
        self.untold = 0

    def add(self, batch: Iterable[bytes]) -> None:
        """Add records."""
        parts = list(self._numbers.values())
        measures = list(enumerate(self._measures.values(), len(parts)))
        ident, order = self._ident, sys.byteorder
        for raw in batch:
            self.records += 1
            key = self._key(raw)
            seen = self._seen.get(key)
            if seen is None:
                if len(self._seen) >= MAX_GROUPS:
                    self.untold += 1
                    continue
                seen = self._seen[key] = _Seen(raw, len(self._names))
            seen.count += 1
            seen.last = raw
            for index, part in enumerate(parts):
                number = int.from_bytes(raw[part], order)
                seen.sums[index] += number
                seen.most[index] = max(seen.most[index], number)
            for index, measure in measures:
                number = measure(raw)
                seen.sums[index] += number
                seen.most[index] = max(seen.most[index], number)
            if len(seen.ids) < MAX_IDS:
                seen.ids.add(int.from_bytes(raw[ident], order))

    def groups(self) -> list[Group]:
        """Return the groups, decoded."""
        found = []
        for seen in self._seen.values():
            row = self._schema.row(seen.last)
            first = row if seen.count == 1 else self._schema.row(seen.first)
            sums = dict(zip(self._names, seen.sums, strict=True))
            most = dict(zip(self._names, seen.most, strict=True))
            ids = frozenset(seen.ids)
            found.append(Group(row, seen.count, sums, most, ids, first["ts_ns"], row["ts_ns"]))
        return found
