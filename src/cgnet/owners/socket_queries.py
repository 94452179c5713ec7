# SPDX-License-Identifier: BSD-2-Clause
"""Queries to the programs about open sockets. The counterpart of owner/socket_query.bpf.h.

An iterator answers them all at once, where the kernel has iterators. Otherwise each query takes a
few microseconds: it is written to a map, then this thread sets its name, which runs the program.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cgnet.owners.open_sockets import PROC
from cgnet.records._layouts import QUESTION, Question, number_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cgnet.loader import Map, Object
    from cgnet.owners.open_sockets import Sockets

log = logging.getLogger(__name__)

PROGRAM = "living_asked"
QUESTIONS, LEDGER = "question", "ledger_hash"  # maps
NAME_BYTES = 16  # linux/sched.h: TASK_COMM_LEN
AT_ONCE = 8  # answers: so many fit the smallest buffer, a page
FIRST = bytes(4)  # the key of the only entry


def can_ask(obj: Object) -> bool:
    """Return whether the program that answers is attached."""
    return any(program.name == PROGRAM for program in obj.attached())


class UniqueName:
    """A unique name for this thread: to set it runs the programs at that tracepoint."""

    def __init__(self, file: int) -> None:
        """``file`` is a descriptor of /proc/thread-self/comm."""
        self._file = file
        self._name = f"cgnet{secrets.token_hex(5)}".encode()
        first, second = self._name[:8], self._name[8:]
        self.words = number_in(first.ljust(8, b"\0")), number_in(second.ljust(8, b"\0"))

    def take(self) -> None:
        """Set the name."""
        os.write(self._file, self._name)


@contextmanager
def asking(questions: Map, size: int) -> Iterator[UniqueName]:
    """Yield a name for queries in a map of one entry; on exit, restore the name and end them.

    ``size`` is the entry's, in bytes. Raises OSError without /proc.
    """
    file = os.open("/proc/thread-self/comm", os.O_RDWR | os.O_CLOEXEC)
    try:
        before = os.read(file, NAME_BYTES).rstrip(b"\n")
        try:
            yield UniqueName(file)
        finally:
            questions.update(FIRST, bytes(size))
            os.write(file, before)
    finally:
        os.close(file)


class Voice:
    """Sends queries by setting the name of this thread."""

    def __init__(self, questions: Map, name: UniqueName) -> None:
        """Ask in ``questions``, under ``name``."""
        self._questions, self._name = questions, name

    def ask(self, address: int = 0, process: int = -1, fd: int = -1) -> None:
        """Query a socket of the ledger, or a file of the process whose directory is open."""
        self._questions.update(FIRST, Question(self._name.words, address, process, fd).pack())
        self._name.take()


@contextmanager
def _asking(obj: Object) -> Iterator[Voice]:
    """Yield a Voice, and restore the thread's name on exit."""
    questions = obj.map(QUESTIONS)
    with asking(questions, QUESTION.size) as name:
        yield Voice(questions, name)


def learn_open(obj: Object, sockets: Sockets, proc: Path = PROC) -> None:
    """Add the sockets that processes have open to the ledger, before their next use."""
    of_process: dict[int, list[int]] = defaultdict(list)
    for inode, place in sockets.places.items():
        if place is None and inode in sockets.holders:
            of_process[sockets.holders[inode]].append(sockets.descriptors[inode])
    with _asking(obj) as voice:
        for pid, fds in of_process.items():
            with suppress(OSError):  # it has exited
                folder = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    for fd in fds:
                        voice.ask(process=folder, fd=fd)
                finally:
                    os.close(folder)


def tell_open(obj: Object) -> Iterator[None]:
    """Query all sockets of the ledger, and yield whenever answers are to be read."""
    addresses = dict.fromkeys(obj.map(LEDGER).keys(8))  # others change the map: keys may repeat
    with _asking(obj) as voice:
        for number, address in enumerate(addresses, 1):
            voice.ask(address=number_in(address))
            if number % AT_ONCE == 0:
                yield
    yield
