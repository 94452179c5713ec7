# SPDX-License-Identifier: BSD-2-Clause
"""Two tables of the kernel side that take turns, so that reading them loses no counts.

Counterpart of count.bpf.h, histogram.bpf.h and count/percpu_histograms.bpf.h.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cgnet.counting.histograms import Histogram
from cgnet.records._layouts import (
    CGNET_SUMS_EACH,
    COUNT_KEY,
    HISTOGRAM,
    SUMS_HEAD,
    StageAt,
    SumsState,
    number_in,
    u32,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.loader import Map, Object

HASH, ARRAY = 1, 2  # linux/bpf.h, enum bpf_map_type
RESULT = COUNT_KEY.slice("result")
STATE, KEY = SUMS_HEAD.slice("state"), SUMS_HEAD.slice("key")


class Tables(NamedTuple):
    """Two tables of the kernel side; a map of maps holds the one in use."""

    outer: str
    inner: tuple[str, str]
    value_bytes: int
    entries: int  # of each, if they are used
    kind: int = HASH
    key_bytes: int = COUNT_KEY.size

    def prepare(self, obj: Object, *, used: bool) -> None:
        """Set the maps' sizes before loading: ``entries`` if ``used``, else one."""
        if not obj.has_map(self.outer):
            return
        entries = self.entries if used else 1
        for table in self.inner:
            obj.resize(table, entries)
        obj.resize_inner(self.outer, (self.kind, self.key_bytes, self.value_bytes, entries))

    def swap(self, obj: Object, in_use: int) -> Map:
        """Switch to the other table; return the old one, which no program writes to any more."""
        other = obj.map(self.inner[1 - in_use]).fd
        obj.map(self.outer).update(bytes(4), u32(other))
        return obj.map(self.inner[in_use])


COUNTS = Tables("counts", ("counts_even", "counts_odd"), 8, 65536)  # of count.bpf.h
HISTOGRAMS = Tables(  # of histogram.bpf.h
    "histograms", ("histograms_even", "histograms_odd"), HISTOGRAM.size, 4096
)
SUMS = Tables(
    "sums",
    ("sums_even", "sums_odd"),
    SUMS_HEAD.size + StageAt.STAGE_COUNT * HISTOGRAM.size,
    CGNET_SUMS_EACH * os.sysconf("SC_NPROCESSORS_CONF"),
    ARRAY,
    4,
)


def read_sums(table: Map) -> Iterator[tuple[bytes, Histogram]]:
    """Take the sums of each CPU; yield each stage's key, as in a hash, and histogram."""
    for index in list(table.keys(SUMS.key_bytes)):
        raw = table.lookup(index, SUMS.value_bytes)
        if number_in(raw[STATE]) != SumsState.SUMS_OF_KEY:
            continue
        table.update(index, bytes(SUMS.value_bytes))
        for stage in range(StageAt.STAGE_COUNT):
            histogram = Histogram.read(
                raw[SUMS_HEAD.size + stage * HISTOGRAM.size :][: HISTOGRAM.size]
            )
            if histogram.count:
                key = bytearray(raw[KEY])
                key[RESULT] = u32(stage)
                yield bytes(key), histogram
