# SPDX-License-Identifier: BSD-2-Clause
"""A run of ``cgnet why``: watch with all signals, look at open sockets, then judge."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cgnet.commands.connect.command import Connect
from cgnet.commands.drop.command import Drop
from cgnet.commands.drop.config import DropOptions
from cgnet.commands.life import Life
from cgnet.commands.retrans import Retrans
from cgnet.commands.sockets.load import load
from cgnet.commands.sockets.record import Shared
from cgnet.commands.sockets.record import groups as socket_groups
from cgnet.commands.why.report import Report
from cgnet.commands.why.tallies import tally_of
from cgnet.counting.sums import MAX_OWNERS, OTHER
from cgnet.errors import ExitStatus, StoppedError
from cgnet.filters.matching import Matcher
from cgnet.filters.peer_names import AddressNames, PeerFilter
from cgnet.filters.selection import Filters, Selection
from cgnet.findings import evidence
from cgnet.findings.connections import Connections
from cgnet.findings.finding import SEVERITIES
from cgnet.findings.rules import judge
from cgnet.findings.watched import Watched
from cgnet.kernel.symbols import Symbols
from cgnet.owners.peers import NAMES, Peer, container_name
from cgnet.records._layouts import SOCKET_EVENT, Role, SocketsConfig
from cgnet.records.schema import Clock, Schema
from cgnet.run import reader
from cgnet.run.far_ends import PeerOptions
from cgnet.run.output import said_if_slow, tell
from cgnet.run.signals import Signals, Source

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.commands.sockets.walk import Walk
    from cgnet.commands.why.child import Child
    from cgnet.counting.sums import OwnerSums
    from cgnet.findings.finding import Finding
    from cgnet.findings.tally import Tally
    from cgnet.findings.thresholds import Thresholds
    from cgnet.run.command import Options

GC_THRESHOLD = 100_000
LOOK_S = 1.0  # between two looks at open sockets, unless they take long
LOOK_SHARE = 10  # a look of 0.2 s is followed by 2 s without one
PROGRESS_S = 0.5
DRAIN_BATCHES = 64
CPU_FILES = 4096  # cgroups whose throttling is compared
BOTH = frozenset({Role.ROLE_CLIENT, Role.ROLE_SERVER})


class Session:
    """A run, from the options to the exit status."""

    def __init__(
        self, options: Options, sync_errors: str, fail_on: str | None, limits: Thresholds,
        child: Child | None = None, *, max_owners: int = MAX_OWNERS,
    ) -> None:  # fmt: skip
        """Check the options; ``child`` is a command to watch. Raises UsageError. Loads nothing yet."""
        peers = options.peers or PeerOptions()
        self._peers, self._names = PeerFilter(peers.wanted), peers.names or AddressNames({})
        options = options._replace(peers=None)  # they select findings, not records
        self._options, self._fail_on, self._child = options, fail_on, child
        self._limits = limits
        chosen = Filters(options.selection._replace(roles=BOTH))
        everybody = Filters(Selection(roles=BOTH, hierarchy=options.selection.hierarchy))
        self._everybody = everybody
        self._symbols = Symbols(options.btf)
        asked = DropOptions(btf=options.btf)
        connect = Connect(options.selection._replace(roles=BOTH), sync_errors)
        self._life = Life(options._replace(interval=LOOK_S), ttfb=True)  # of open connections, too
        self._clock = Clock()
        self._signals = Signals(
            [
                Source(connect, chosen),
                Source(self._life, chosen),
                Source(Retrans(), chosen),
                Source(Drop(self._symbols, asked), everybody),
            ],
            options,
            self._clock,
            max_owners,
        )
        self._max_owners = max_owners
        names = self._signals.names
        self._matcher = Matcher(chosen, names.runtimes)
        self._tallies: dict[str, Tally] = {
            each.command.name: tally_of(each.command.name, each.schema)  # type: ignore[arg-type]
            for each in self._signals.all
        }
        fields = socket_groups(names.cgroups, names.runtimes, Shared())
        self._sockets = Connections(
            Schema("sockets", self._clock, fields, SOCKET_EVENT.size), limits
        )
        self._stop = reader.Stop(options.duration)
        self._report = Report(
            options, self._clock, self._stop, quiet=bool(child), by_peer=bool(peers.wanted)
        )
        self._walk: Walk
        self._missed = 0
        self._began_ns = 0
        self._counters: dict[int, dict[str, int]] = {}
        self._throttled: dict[str, dict[str, int]] = {}
        self._sums: dict[int, OwnerSums] | None = None

    def run(self) -> ExitStatus:
        """Watch until the end, and print the findings. Raises CgnetError."""
        with ExitStack() as cleanup:
            cleanup.callback(self._report.close)
            cleanup.callback(self._signals.close)
            if self._child:
                cleanup.callback(self._child.close)
            wakeup = cleanup.enter_context(self._stop.on_signals())
            try:
                remarks = self._load(cleanup, wakeup)
            except StoppedError:
                if self._stop.requested:
                    return ExitStatus.DONE
                raise
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            self._begin(remarks)
            try:
                self._watch(wakeup)
                findings = self._judge()
            except BrokenPipeError:
                return ExitStatus.DONE
        self._report.raise_problem()
        return self._status(findings)

    def _status(self, findings: list[Finding]) -> ExitStatus:
        if self._fail_on:
            bad = SEVERITIES[: SEVERITIES.index(self._fail_on) + 1]
            if any(each.severity in bad for each in findings):
                return ExitStatus.FOUND
        if self._child and self._child.status:
            return self._child.status  # type: ignore[return-value]
        lost = sum(each.losses.total for each in self._signals.all)
        return ExitStatus.EVENTS_LOST if lost and self._options.strict else ExitStatus.DONE

    # -- start

    def _load(self, cleanup: ExitStack, wakeup: int) -> list[str]:
        with reader.interruptible(wakeup), said_if_slow("loading programs …"):
            remarks = self._signals.load(cleanup, lambda: self._stop.requested)
            loaded = load(self._everybody, SocketsConfig(), self._options.btf)
        cleanup.enter_context(loaded.obj)
        self._walk = loaded.walk
        self._walk_obj = loaded.obj
        return [*remarks, *loaded.remarks]

    def _begin(self, remarks: list[str]) -> None:
        note = self._everybody.hierarchies[0].note
        for line in dict.fromkeys([note, *remarks] if note else remarks):
            tell(line)
        found = {inode: evidence.counters(at) for inode, at in evidence.namespaces().items()}
        self._counters = {inode: each for inode, each in found.items() if each}
        self._throttled = self._cpu()
        self._signals.names.publish(self._walk_obj)
        self._look()
        self._tell_open()  # what they carried before isn't counted
        for _ in self._signals.read():  # signals begin one after the other: all count from now on
            pass
        self._began_ns = time.monotonic_ns()
        self._stop.start()
        if self._child:
            self._child.start()
        length = f" for {self._options.duration:g} s" if self._options.duration else ""
        tell(f"tracing why{length}; Ctrl-C ends it with what was seen until then")

    def _cpu(self) -> dict[str, dict[str, int]]:
        """Return the throttling of each cgroup that has a CPU limit."""
        found: dict[str, dict[str, int]] = {}
        for number, path in enumerate(self._signals.names.cgroups.paths()):
            if number >= CPU_FILES:
                break
            cpu = evidence.throttling(path)
            if cpu and (cpu["nr_periods"] or cpu["nr_throttled"]):
                found[path] = cpu
        return found

    # -- the watch

    def _watch(self, wakeup: int) -> None:
        next_look, next_progress = time.monotonic() + LOOK_S, 0.0
        for _ in reader.ticks(self._stop, wakeup, self._report.fd):
            self._read()
            now = time.monotonic()
            if now >= next_look:
                self._look()
                self._signals.follow()
                self._clock.adjust()
                took = time.monotonic() - now
                next_look = time.monotonic() + max(LOOK_S, LOOK_SHARE * took)
            if now >= next_progress:
                next_progress = now + PROGRESS_S
                self._report.progress(self._told())
            if self._child and self._child.ended():
                break
        self._tell_open()
        self._sums = self._signals.aggregates()
        self._signals.detach()
        for _ in range(DRAIN_BATCHES):
            if not self._read():
                break
        self._look()
        self._report.progress(None)

    def _told(self) -> str:
        seconds = (time.monotonic_ns() - self._began_ns) / 1e9
        whole = f" of {self._options.duration:g}" if self._options.duration else ""
        counts = {name: each.records for name, each in self._tallies.items()}
        return (
            f"watching, {seconds:.0f}{whole} s: {counts['connect']} attempts, {counts['life']} "
            f"ends, {counts['retrans']} resends, {counts['drop']} drops, {self._sockets.open()} "
            "connections open"
        )

    def _read(self) -> bool:
        """Take what the rings have; return whether there was anything."""
        anything = False
        for signal, records in self._signals.read():
            self._tallies[signal.command.name].add(records)
            anything = True
        return anything

    def _tell_open(self) -> None:
        """Have the lives of open connections told, as if they ended now."""
        signal = next(each for each in self._signals.all if each.command is self._life)
        for batch in self._life.on_interval(signal.obj):
            self._tallies[self._life.name].add(signal.records(batch))

    def _look(self) -> None:
        """Look at all open sockets."""
        self._walk.begin()
        batches = self._walk.records(listeners=True, connections=True)
        self._sockets.look(batches, time.monotonic_ns())
        self._missed += sum(self._walk.missed)

    # -- the end

    def _judge(self) -> list[Finding]:
        end_ns = time.monotonic_ns()
        lost: dict[str, int] = {}
        for signal, loss in self._signals.losses():
            tell(f"{signal.command.name}: {loss}")
        for each in self._signals.all:
            name = each.command.name
            lost[name] = each.losses.total + self._tallies[name].untold
        places: dict[int, Path] = evidence.namespaces()
        watched = Watched(
            {name: each.groups() for name, each in self._tallies.items()},
            self._sockets,
            evidence.Look(places, self._counters),
            self._matcher,
            seconds=(end_ns - self._began_ns) / 1e9,
            end_ns=end_ns,
            lost=lost,
            throttled=self._growth(),
            limits=self._limits,
        )
        findings = [each for each in judge(watched) if self._is_of_peers(each)]
        if self._sums and OTHER in self._sums:
            tell(
                f"more owners than {self._max_owners}: those beyond are summed up together, as other; "
                "--max-owners takes more"
            )
        self._report.findings(findings, watched)
        self._report.summary(
            findings,
            watched,
            self._signals,
            missed=self._missed + self._sockets.untold,
            sums=self._sums,
            child=self._child,
        )
        return findings

    def _is_of_peers(self, finding: Finding) -> bool:
        """Return whether --peer selects a finding, by either end."""
        named = Peer(NAMES, self._names.name(finding.daddr)) if finding.daddr else Peer()
        return self._peers.matches(_end(finding.owner), _end(finding.peer), named)

    def _growth(self) -> dict[str, dict[str, int]]:
        """Return by how much the throttling of cgroups grew, of those where it did."""
        found = {}
        for path, now in self._cpu().items():
            before = self._throttled.get(path, {})
            grown = {name: value - before.get(name, 0) for name, value in now.items()}
            if grown["nr_throttled"] > 0:
                found[path] = grown
        return found


def _end(row: dict[str, Any]) -> Peer:
    """Return an end of a connection, from the fields of its owner."""
    container, pod, cgroup = (row.get(name) for name in ("container", "pod", "cgroup"))
    name = container_name(container, pod) or cgroup
    return Peer(None, name, container, row.get("container_id"), pod, cgroup)
