# SPDX-License-Identifier: BSD-2-Clause
"""Several signals over one ledger: one object, a ring for each kind of record.

Counterpart of bpf/session.bpf.c, for typed programs alone: verifiers of raw ones would walk all
signals in each program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.counting.histograms import MICROSECONDS
from cgnet.counting.sums import MAX_OWNERS, Sums
from cgnet.errors import UnsupportedError
from cgnet.kernel import variants
from cgnet.owners.listener_handovers import Handovers
from cgnet.records._layouts import (
    OWNER_SUMS,
    SUM_KEY,
    CountConfig,
    LostWhere,
    RingNumber,
    SessionConfig,
    SessionSignal,
)
from cgnet.run.command import Command
from cgnet.run.launch import Launch
from cgnet.run.losses import counters, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack

    from cgnet.counting.sums import OwnerSums
    from cgnet.filters.selection import Filters
    from cgnet.kernel.variants import Job, Variant
    from cgnet.loader import Object
    from cgnet.records._layouts import Layout, Packable
    from cgnet.run.command import Options

RING_NAMES = {
    RingNumber.RING_EVENTS: "ring",
    RingNumber.RING_CONNECTS: "ring_connects",
    RingNumber.RING_FAILURES: "ring_failures",
    RingNumber.RING_SAMPLES: "ring_samples",
    RingNumber.RING_LIVES: "ring_lives",
    RingNumber.RING_DROPS: "ring_drops",
    RingNumber.RING_RESENDS: "ring_resends",
}
ATTEMPTS = SessionSignal.SIGNAL_CONNECT | SessionSignal.SIGNAL_ACCEPT
# The rings of signals, and losses elsewhere that are only theirs.
RINGS_OF: dict[int, tuple[RingNumber, ...]] = {
    ATTEMPTS: (RingNumber.RING_CONNECTS, RingNumber.RING_FAILURES),
    SessionSignal.SIGNAL_RTT: (RingNumber.RING_SAMPLES,),
    SessionSignal.SIGNAL_LIFE: (RingNumber.RING_LIVES,),
    SessionSignal.SIGNAL_DROP: (RingNumber.RING_DROPS,),
    SessionSignal.SIGNAL_RETRANS: (RingNumber.RING_RESENDS,),
}
LOST_BY: dict[LostWhere, int] = {
    LostWhere.LOST_RING: ATTEMPTS,  # errors before a SYN
    LostWhere.LOST_CONNECT_CALLS: ATTEMPTS,
    LostWhere.LOST_ENDS: SessionSignal.SIGNAL_LIFE,
}
EVENT_RING_BYTES = 1 << 20
UNUSED_RING_BYTES = 4096
# Programs of signals that no other one needs.
PROGRAMS: dict[int, frozenset[str]] = {
    SessionSignal.SIGNAL_CONNECT: frozenset({"trace_error"}),
    SessionSignal.SIGNAL_RTT | SessionSignal.SIGNAL_TURNS: frozenset({"probe"}),
    SessionSignal.SIGNAL_LIFE: frozenset({"receive_reset", "send_reset"}),
    SessionSignal.SIGNAL_DROP: frozenset({"dropped", "syn_drop", "syn_seed"}),
    SessionSignal.SIGNAL_RETRANS: frozenset({"retransmit", "retransmit_synack"}),
}


ITERATORS = {"open_stored": "ledger", "open_slots": "ledger_slots", "open_files": None}


class Part(NamedTuple):
    """A command whose events a session has: told one by one, summed up by owner, or both."""

    command: Command
    of_everybody: bool = False  # no filter on owners and flows applies
    rows: bool = True
    sums: bool = False


OBJECT = "session"


class _Together(Command):
    """The programs of several commands in one object."""

    name = object = OBJECT
    functions = "connect"

    def __init__(self, parts: Sequence[Part], options: Options, sums: Sums) -> None:
        self._commands = [each.command for each in parts]
        layouts = {each.name: each for part in self._commands for each in part.layouts}
        self._buffer, self._btf, self._sums = options.buffer, options.btf, sums
        self._rows = _bits(each.command for each in parts if each.rows)
        self._summed = _bits(each.command for each in parts if each.sums)
        if self._summed:
            layouts |= {each.name: each for each in (OWNER_SUMS, SUM_KEY)}
            self._summed |= SessionSignal.SIGNAL_QUEUES
        self.layouts = tuple(layouts.values())  # type: ignore[misc]
        self._everybody = _bits(each.command for each in parts if each.of_everybody)

    @property
    def layouts_at_functions(self) -> tuple[Layout, ...]:
        """Of the records of attempts: nobody else has programs at functions."""
        return self._commands[0].layouts

    def needed(self) -> list[Job]:
        """Return the jobs of all commands, with typed programs."""
        jobs = {job.name: job for each in self._commands for job in each.needed()}
        jobs[variants.HOOK.name] = variants.HOOK.only(variants.TYPED)
        jobs[variants.OWNERS.name] = variants.OWNERS
        if self._summed:
            told = variants.LIVING.name in jobs  # it needs the same iterators
            carried = variants.CARRIED.without_remarks() if told else variants.CARRIED
            jobs[carried.name] = carried
        return list(jobs.values())

    def config(self, chosen: list[Variant]) -> list[Packable]:
        """Return the constants of all commands, and what of their signals is wanted."""
        config = {each.layout.name: each for part in self._commands for each in part.config(chosen)}
        wanted = SessionConfig(self._rows, self._summed, self._everybody)
        return [*config.values(), MICROSECONDS.config(CountConfig()), wanted]

    def maps(self) -> dict[str, dict[bytes, bytes]]:
        """Return the entries of the commands' maps."""
        found = self._sums.entries() if self._summed else {}
        for each in self._commands:
            found |= each.maps()
        return found

    def left_out(self) -> frozenset[str]:
        """Return the programs of signals that nobody wants, and what a command leaves out of its own."""
        unwanted = (
            names for signal, names in PROGRAMS.items() if not signal & (self._rows | self._summed)
        )
        return frozenset[str]().union(*unwanted, *(each.left_out() for each in self._commands))

    def remarks(self) -> list[str]:
        """Return the remarks of all commands."""
        return list(dict.fromkeys(line for each in self._commands for line in each.remarks()))

    def prepare(self, obj: Object) -> None:
        """Size the rings, and the tables of sums."""
        self._sums.prepare(obj, self._btf, used=bool(self._summed))
        obj.resize("ring", EVENT_RING_BYTES)
        for signals, rings in RINGS_OF.items():
            for each in rings:
                wanted = signals & self._rows
                obj.resize(RING_NAMES[each], self._buffer if wanted else UNUSED_RING_BYTES)


def _bits(commands: Iterable[Command]) -> int:
    return sum({each.signals for each in commands})


class SharedLedger:
    """A session: the programs of several commands over one ledger."""

    obj: Object  # since load()

    def __init__(
        self,
        parts: Sequence[Part],
        filters: Filters,
        options: Options,
        max_owners: int = MAX_OWNERS,
    ) -> None:
        """Load nothing yet. ``options.buffer`` is the size of each signal's ring.

        The first part's command gets the changes of cgroups; it is the one of attempts if there is one.
        """
        self._sums = Sums(max_owners)
        self._together = _Together(parts, options, self._sums)
        self._filters, self._options = filters, options
        self._commands = [each.command for each in parts]
        self.runs: dict[str, Any] = {}

    def load(self, cleanup: ExitStack, stopped: Callable[[], bool]) -> list[str]:
        """Load and attach the programs; return remarks. ``cleanup`` closes them.

        Raises UnsupportedError where this kernel takes them side by side alone; StoppedError.
        """
        options = self._options
        if options.hook == variants.RAW or options.transport not in (None, "ring"):
            raise UnsupportedError("programs over one ledger are typed, and write to ring buffers")
        launch = Launch(self._together, self._filters, options.buffer, stopped=stopped)
        self.obj = cleanup.enter_context(launch.start(options.btf))
        if launch.follows_listeners:
            cleanup.callback(Handovers(self.obj, self._filters).close)
        self.runs = launch.runs
        self._look_at_open()  # what they carried before isn't counted
        return launch.remarks

    def _look_at_open(self) -> None:
        for program, elements in ITERATORS.items():
            self.obj.iterate_if_loaded(program, elements)

    def aggregates(self) -> dict[int, OwnerSums]:
        """Return the sums since the last call, by cgroup, also of what is open. Raises LibbpfError.

        With filters by cgroup or name, they have the cgroups that were created since the start and that
        only ``Filters.decide`` can decide about.
        """
        self._look_at_open()
        return self._sums.read(self.obj)

    def read(self, command: Command) -> list[bytes]:
        """Return what the rings have of a command's records now."""
        return [raw for name in self._rings(command) for raw in self.obj.ring(name).consume()]

    def lost(self, command: Command) -> dict[str, int]:
        """Return what a command's signals lost until now, by place.

        What the ledger, or the filters, had no room for is a loss of each.
        """
        everywhere = counters(self.obj, "lost", LostWhere)
        mine = {
            where: number for where, number in everywhere.items()
            if LOST_BY.get(where, command.signals) & command.signals
        }  # fmt: skip
        found = {place_of(where): number for where, number in mine.items()}
        rings = counters(self.obj, "rings_lost", RingNumber)
        in_rings = sum(rings[each] for each in _rings_of(command))
        found["ring"] = found.get("ring", 0) + in_rings
        return found

    def _rings(self, command: Command) -> list[str]:
        numbers = _rings_of(command)
        if command is self._commands[0]:
            numbers = [RingNumber.RING_EVENTS, *numbers]
        return [RING_NAMES[each] for each in numbers]


def _rings_of(command: Command) -> list[RingNumber]:
    return [
        each for signals, rings in RINGS_OF.items() if signals & command.signals for each in rings
    ]
