# SPDX-License-Identifier: BSD-2-Clause
"""A fake kernel side that counts, and the rows read from it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from fakes import FakeObject
from histogram import Made
from records import MEMORY, Connect, Names

from cgnet.counting.tables import COUNTS

if TYPE_CHECKING:
    from cgnet.counting.counts import Counts
    from cgnet.counting.histograms import Scale
    from cgnet.counting.tables import Tables

PATHS = {42: "/docker/web", 43: "/docker/db/x", 44: "/", 45: "/docker/web/inner"}
NAMED = 1  # the made-up hierarchy of --cgroup
NAMES = Names({(each, number): path for number, path in PATHS.items() for each in (MEMORY, NAMED)})


class Kernel(FakeObject):
    """Counts into the table that the map of maps holds, as the kernel side does."""

    def __init__(self, tables: Tables = COUNTS) -> None:
        super().__init__()
        self.tables = tables
        self.in_use = self.map(tables.inner[0])
        self.map(tables.outer).update = self.swap  # type: ignore[method-assign]
        self.values: dict[bytes, list[int]] = {}

    def has_map(self, _name: str) -> bool:
        return True

    def swap(self, key: bytes, value: bytes) -> None:
        assert key == bytes(4)
        tables = {self.map(name).fd: self.map(name) for name in self.tables.inner}
        self.in_use = tables[int.from_bytes(value, sys.byteorder)]
        self.values = {}

    def count(self, number: int, **values: Any) -> None:
        key = Connect(**values).count_key()
        before = self.in_use.entries.get(key, bytes(8))
        more = int.from_bytes(before, sys.byteorder) + number
        self.in_use.update(key, more.to_bytes(8, sys.byteorder))

    def measure(self, scale: Scale, measured: list[int], **values: Any) -> None:
        """Add values to the histogram of a key."""
        key = Connect(**values).count_key()
        self.values[key] = self.values.get(key, []) + measured
        self.in_use.update(key, Made(self.values[key], scale).raw())


class Run(NamedTuple):
    """A fake kernel side and its reader."""

    kernel: Kernel
    counts: Counts

    def rows(self, *fields: str) -> list[tuple[Any, ...]]:
        found = self.counts.collect(self.kernel)
        assert all(tuple(row) == self.counts.fields for row in found)
        return [tuple(row[field] for field in (*fields, "count")) for row in found]
