# SPDX-License-Identifier: BSD-2-Clause
"""An oracle for bpf/filter: its decisions in Python, on the bytes of filters/selection.py."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from fakes import FakeObject, u32

from cgnet.filters.cgroup import cgroup_key
from cgnet.records._layouts import CGROUP_MARK, CgroupMarks

if TYPE_CHECKING:
    from cgnet.filters.selection import Filters

UNDECIDED = int(CgroupMarks.CGROUP_UNDECIDED)
OWNER_FILTERS = ("cgroup", "pid", "comm", "uid")


class Event(NamedTuple):
    """The owner, ends and result of an attempt. ``path`` is None for an unknown owner."""

    path: str | None
    uid: int
    comm: str
    saddr: str
    daddr: str
    sport: int
    dport: int
    result: int


class Selecting:
    """Evaluates filters as the kernel side does."""

    def __init__(self, made: Filters, ids: dict[str, int], later: list[str]) -> None:
        """Fill the maps; the cgroups of ``later`` are created after that, parents first."""
        self.made, self.ids, self.later, self.obj = made, ids, later, FakeObject()
        self.hierarchy = made.hierarchies[0].id
        made.fill(self.obj)
        self.config = made.config()._asdict()
        self.marks = self.obj.entries("selected_cgroups")
        for path in later:  # cgroup_mkdir
            marks, given = self.mark(str(PurePosixPath(path).parent))
            marks |= UNDECIDED * self.config["undecided"]
            if marks:
                self.marks[self.key(path)] = CGROUP_MARK.packed.pack(marks, given)

    def key(self, path: str) -> bytes:
        return cgroup_key(self.hierarchy, self.ids[path])

    def mark(self, path: str) -> tuple[int, int]:
        marks, given = CGROUP_MARK.packed.unpack(self.marks.get(self.key(path), bytes(8)))
        return marks, given

    def catch_up(self) -> None:
        """Notify user space of the new cgroups."""
        selected, created = self.obj.map("selected_cgroups"), self.made.cgroups.created
        for path in self.later:
            created(selected, self.hierarchy, self.ids[path], path, print)

    def passes(self, use: int, matched: int) -> bool:
        return not matched & 2 and (not use & 1 or bool(matched & 1))

    def hash_passes(self, name: str, key: bytes) -> bool:
        value = self.obj.entries(f"selected_{name}s").get(key, bytes(4))
        return self.passes(self.config[f"by_{name}"], int.from_bytes(value, sys.byteorder))

    def cgroup_passes(self, path: str) -> bool:
        use, marks = self.config["by_cgroup"], self.mark(path)[0]
        if not marks & UNDECIDED or marks & 2:
            return self.passes(use, marks)
        undecided = 2 if self.passes(use, marks) else 1
        return self.made.cgroups.decide(undecided, self.hierarchy, path) is not None

    def owner_passes(self, event: Event) -> bool:
        if event.path is None:
            return not any(self.config[f"by_{name}"] & 1 for name in OWNER_FILTERS)
        comm = event.comm.encode().ljust(16, b"\0")
        here = self.hash_passes("comm", comm) and self.hash_passes("uid", u32(event.uid))
        return here and self.cgroup_passes(event.path)

    def in_list(self, number: int, address: str) -> bool:
        """Look for the longest prefix in the trie."""
        found = (0, b"")
        packed = ip_address(address)
        bits = bits_of(bytes([number, packed.version]) + packed.packed.ljust(16, b"\0"))
        for key, value in self.obj.entries("selected_addresses").items():
            length = int.from_bytes(key[:4], sys.byteorder)
            if bits.startswith(bits_of(key[4:22])[:length]):
                found = max(found, (length, value))
        return found[0] > 0

    def side_passes(self, side: int, event: Event) -> bool:
        ends = (slice(0, 1), slice(1, 2), slice(0, 2))[side]
        use, addresses = self.config["by_address"][side], (event.saddr, event.daddr)[ends]
        lists = [flag for flag in (1, 2) if use & flag]
        matched = [f for f in lists if any(self.in_list(2 * side + f - 1, a) for a in addresses)]
        port_use, flags = self.config["by_port"][side], 0
        for port in (event.sport, event.dport)[ends] if port_use else ():
            flags |= self.obj.entries("selected_ports")[u32(0)][port] >> 2 * side & 3
        return self.passes(use, sum(matched)) and self.passes(port_use, flags)

    def selects(self, event: Event) -> bool:
        flow = all(self.side_passes(side, event) for side in range(3))
        word, bit = divmod(event.result + 1, 64)
        result = not self.config["by_result"] or self.config["results"][word] >> bit & 1
        return self.owner_passes(event) and flow and bool(result)


def bits_of(raw: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in raw)
