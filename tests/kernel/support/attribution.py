# SPDX-License-Identifier: BSD-2-Clause
"""The ledger of all sockets in use: attribution.bpf.c compiled, loaded and read."""

from __future__ import annotations

import shlex
import socket
import struct
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from harness import ROOT, need, wait_until

from cgnet.errors import LibbpfError
from cgnet.filters.selection import Filters, Selection
from cgnet.kernel.variants import SOCKETS
from cgnet.records._layouts import HEAD, LostWhere, OwnerSource
from cgnet.run.command import Command
from cgnet.run.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from owner_lab import Claim, Group

    from cgnet.loader import Object

SOURCE = ROOT / "tests/kernel/support/attribution.bpf.c"
SHARED_PORT = 7777  # as there
SEEN = struct.Struct("=QQ16sIHBBBB6x")
HOOKS = ("new", "state", "established", "close", "probe", "retransmit", "reset", "destroy")
COUNT = struct.Struct("=Q")
RING = 1 << 20
HOLDER_SIZE, RANKS = 48, 3
HOLDERS = 32  # their offset in struct ledger_entry
ENTRY_SIZE = HOLDERS + RANKS * HOLDER_SIZE + 8  # and the listener's inode


def build(directory: Path) -> Path:
    """Compile the two objects like those of bpf/ in the Makefile; return their folder."""
    make = [need("make"), "-s", "-C", str(ROOT), "-f", "-", "flags"]
    for way in ("typed", "raw"):
        rule = f'include Makefile\nflags:\n\t@echo "$(BPF_CLANG) $(BPF_{way.upper()})"\n'
        flags = subprocess.run(make, input=rule, check=True, capture_output=True, text=True).stdout
        target = directory / f"attribution.{way}.bpf.o"
        command = [*shlex.split(flags), "-Ibpf", "-c", str(SOURCE), "-o", str(target)]
        subprocess.run(command, check=True, cwd=ROOT)
    return directory


Owner = tuple[int, int, str]  # cgroup, PID, source


class Seen(NamedTuple):
    """Equal events, and their owner according to the ledger."""

    cgroup: int
    current: int
    address: str
    pid: int
    peer: int
    hook: str
    source: str
    wanted: bool
    stale: bool
    events: int


class Probe:
    """The attached programs."""

    def __init__(self, obj: Object, hook: str, hierarchy: str) -> None:
        self.obj, self.hook, self.hierarchy = obj, hook, hierarchy

    def rows(self) -> list[Seen]:
        """Return all rows."""
        seen = self.obj.map("seen")
        assert self._counter("unseen") == 0
        return [_seen(key, seen.lookup(key, COUNT.size)) for key in list(seen.keys(SEEN.size))]

    def of(self, address: str, hook: str = "") -> list[Seen]:
        """Return the rows of an address."""
        return [row for row in self.rows() if row.address == address and hook in ("", row.hook)]

    def owners(self, address: str, peer: int = 0) -> set[Owner]:
        """Return the owners of an address's events."""
        rows = [row for row in self.of(address) if row.peer == peer]
        return {(row.cgroup, row.pid, row.source) for row in rows}

    def forget(self) -> None:
        """Discard all rows."""
        seen = self.obj.map("seen")
        for key in list(seen.keys(SEEN.size)):
            seen.discard(key)

    def wait_for(self, address: str, hook: str) -> list[Seen]:
        """Wait for an event of this kind; return all of them."""
        found: list[Seen] = wait_until(f"{hook} of {address}", lambda: self.of(address, hook))
        return found

    def _counter(self, name: str, index: int = 0) -> int:
        value = self.obj.map(name).lookup(index.to_bytes(4, sys.byteorder), COUNT.size)
        return int(COUNT.unpack(value)[0])

    def lost(self) -> int:
        """Return the number of sockets for which the ledger had no room."""
        return self._counter("lost", LostWhere.LOST_LEDGER)

    def entries(self, *groups: Group) -> int:
        """Count the entries by address of sockets that these cgroups own."""
        ids = {group.id(self.hierarchy) for group in groups}
        ledger, found = self.obj.map("ledger_hash"), 0
        for key in list(ledger.keys(8)):
            try:
                entry = ledger.lookup(key, ENTRY_SIZE)
            except LibbpfError:  # deleted meanwhile
                continue
            at = range(HOLDERS, ENTRY_SIZE, HOLDER_SIZE)
            owners = {COUNT.unpack_from(entry, holder)[0] for holder in at}
            found += bool(owners & ids)
        return found


def _seen(key: bytes, value: bytes) -> Seen:
    cgroup, current, packed, pid, peer, hook, source, wanted, stale = SEEN.unpack(key)
    if any(packed[4:]):
        address = socket.inet_ntop(socket.AF_INET6, packed)
    else:
        address = socket.inet_ntoa(packed[:4])
    told = OwnerSource(source).name.removeprefix("OWNER_").lower()
    count = COUNT.unpack(value)[0]
    return Seen(
        cgroup, current, address, pid, peer, HOOKS[hook - 1], told, bool(wanted), bool(stale), count
    )


class Attribution(Command):
    """The programs of attribution.bpf.c."""

    object = "attribution"
    jobs = SOCKETS
    layouts = (HEAD,)


@contextmanager
def probing(
    folder: Path, hook: str, hierarchy: str, selection: Selection | None = None
) -> Iterator[Probe]:
    """Run the programs, after seeding them with all open sockets."""
    filters = Filters((selection or Selection())._replace(hierarchy=hierarchy))
    launch = Launch(Attribution(), filters, RING)
    launch.folder = folder
    with launch.start(None, hook) as obj:
        yield Probe(obj, hook, hierarchy)


class Verdict(NamedTuple):
    """The number of events of one kind, and of those with a wrong owner."""

    events: int
    wrong: int
    unknown: int
    wrong_by_current: int


class Audit:
    """A comparison of the rows of addresses with the owners claimed for them."""

    def __init__(self, probe: Probe, claims: Mapping[str, list[Claim]]) -> None:
        self.hierarchy = probe.hierarchy
        self.claims = claims
        self.rows = [row for row in probe.rows() if row.address in claims]
        self.silent = claims.keys() - {row.address for row in self.rows}
        self.errors = [row for row in self.rows if row.stale or not self._claim(row)]

    def _claim(self, row: Seen) -> Claim | None:
        for claim in self.claims[row.address]:
            known = row.source in claim.sources and row.pid in claim.pids
            if known and row.cgroup == claim.group.id(self.hierarchy):
                return claim
        return None

    def table(self) -> dict[str, Verdict]:
        """Return the verdict on each hook, and on all."""
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            groups = {claim.group.id(self.hierarchy) for claim in self.claims[row.address]}
            claim = self._claim(row)
            truth = {claim.group.id(self.hierarchy)} if claim else groups
            for hook in (row.hook, "all"):
                counts[hook, "events"] += row.events
                counts[hook, "unknown"] += row.events * (row.source == "unknown")
                counts[hook, "wrong"] += row.events * (not claim and row.source != "unknown")
                counts[hook, "current"] += row.events * (row.current not in truth)
        names = ("events", "wrong", "unknown", "current")
        return {
            hook: Verdict(*(counts[hook, name] for name in names))
            for hook in (*HOOKS, "all")
            if counts[hook, "events"]
        }

    def __str__(self) -> str:
        lines = ["hook           events  wrong  unknown  wrong if the current task were taken"]
        for hook, verdict in self.table().items():
            share = 100 * verdict.wrong_by_current / verdict.events
            lines.append(
                f"{hook:<12} {verdict.events:>8} {verdict.wrong:>6} {verdict.unknown:>8} "
                f"{verdict.wrong_by_current:>9} ({share:.0f} %)"
            )
        return "\n".join(lines)

    def check(self) -> int:
        """Assert that all owners are right; return the number of events."""
        assert not self.silent
        assert not self.errors, f"{self}\n" + "\n".join(map(str, self.errors[:20]))
        print(f"\n{self}")
        return self.table()["all"].events
