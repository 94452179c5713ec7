# SPDX-License-Identifier: BSD-2-Clause
"""The run time of programs under a load, by the kernel's statistics, and of empty ones beside."""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import tracer

from cgnet.kernel.program_stats import ProgramStats, stats_of
from cgnet.loader import Object
from cgnet.run.launch import CGROUP_PROGRAMS
from cgnet.run.reader import TICK_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cgnet.kernel.ring_buffer import Reader
    from cgnet.run.launch import Launch

T = TypeVar("T")

RING_BYTES = 4 << 20
# linux/bpf.h, enum bpf_cmd
BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID = 11, 13
HOOKS = {"tp_btf": "typed", "raw_tp": "raw"}  # and the suffix of programs on them


class Spent(NamedTuple):
    """Nanoseconds and runs of a program."""

    ns: int
    runs: int

    @property
    def each(self) -> float:
        """Nanoseconds of a run."""
        return self.ns / max(self.runs, 1)


class Counted(Protocol):
    """A program whose runs the kernel counts."""

    @property
    def name(self) -> str:
        """Its name, or its id."""

    def stats(self) -> ProgramStats:
        """Return the statistics until now."""


class Watched(NamedTuple, Generic[T]):
    """The cost of cgnet's programs and of the empty one after them, and the result of the load."""

    programs: dict[str, Spent]
    empty: Spent
    done: T

    def net(self, names: Iterable[str] | None = None) -> float:
        """Return the ns of these programs, or of all, minus as many empty runs."""
        chosen = self.programs if names is None else names
        found = [self.programs[name] for name in chosen if name in self.programs]
        return sum(each.ns - each.runs * self.empty.each for each in found)

    def runs(self) -> int:
        """Return the runs of all programs."""
        return sum(each.runs for each in self.programs.values())


@contextmanager
def reading(ring: Reader) -> Iterator[None]:
    """Empty the ring once a tick while the body runs."""
    end = Event()

    def read() -> None:
        while not end.wait(TICK_MS / 1000):
            ring.consume()

    reader = Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        end.set()
        reader.join()


def watch(programs: Iterable[Counted], work: Callable[[], T]) -> tuple[dict[str, Spent], T]:
    """Return the cost of programs during the work, by name, and the result of the work."""
    watched = list(programs)
    with tracer.bpf_stats():
        before = [each.stats() for each in watched]
        done = work()
        after = [each.stats() for each in watched]
    spent = [
        Spent(end.run_time_ns - begin.run_time_ns, end.run_count - begin.run_count)
        for begin, end in zip(before, after, strict=True)
    ]
    return dict(zip((each.name for each in watched), spent, strict=True)), done


@contextmanager
def empty_programs(*names: str) -> Iterator[list[Callable[[], Counted]]]:
    """Load programs of empty.bpf.c; yield for each a function that attaches it."""
    with Object(tracer.BUILD / "empty.bpf.o") as idle:
        idle.keep(set(names), set())
        idle.load()
        programs = {program.name: program for program in idle.programs}

        def attaching(name: str) -> Callable[[], Counted]:
            def attach() -> Counted:
                idle.attach(programs[name])
                return programs[name]

            return attach

        yield [attaching(name) for name in names]


def beside_empty(launch: Launch, hook: str, empty: str, work: Callable[[], T]) -> Watched[T]:
    """Run the programs of ``launch`` under a load, with a ring that is read as cgnet reads it.

    ``empty`` is the name of the empty programs, with ``{}`` for "first" or "empty", or the name of
    a single one that comes last.
    """
    kind = HOOKS[hook]
    names = [empty.format(each) for each in ("first", "empty")] if "{}" in empty else [empty]
    with ExitStack() as cleanup:
        idle = cleanup.enter_context(empty_programs(*(f"{name}_{kind}" for name in names)))
        for attach in idle[:-1]:
            attach()
        obj = cleanup.enter_context(launch.start(None, hook))
        launch.command.on_started(obj)
        cleanup.enter_context(reading(obj.ring("ring")))
        last = idle[-1]()
        ours = [each for each in obj.attached() if each.name not in CGROUP_PROGRAMS]
        spent, done = watch([*ours, last], work)
    return Watched({each.name: spent[each.name] for each in ours}, spent[last.name], done)


# -- programs of other tools


class Foreign(NamedTuple):
    """A program that another process loaded."""

    name: str
    fd: int

    def stats(self) -> ProgramStats:
        """Return the statistics until now."""
        return stats_of(self.fd)


def _ask(command: int, number: int) -> tuple[int, int]:
    """Return the result of bpf(2), and the id that it wrote next to the given one."""
    attributes = (ctypes.c_uint32 * 4)(number)
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.sizeof(attributes)
    result = libc.syscall(tracer.SYS_BPF[os.uname().machine], command, attributes, size)
    return result, attributes[1]


def loaded() -> list[int]:
    """Return the ids of all programs that are loaded on this host."""
    found = [0]
    while True:
        result, following = _ask(BPF_PROG_GET_NEXT_ID, found[-1])
        if result < 0:
            return found[1:]
        found.append(following)


@contextmanager
def foreign(numbers: Iterable[int]) -> Iterator[list[Foreign]]:
    """Open programs by their ids."""
    opened = [(number, _ask(BPF_PROG_GET_FD_BY_ID, number)[0]) for number in numbers]
    try:
        yield [Foreign(str(number), fd) for number, fd in opened if fd >= 0]
    finally:
        for _, fd in opened:
            if fd >= 0:
                os.close(fd)
