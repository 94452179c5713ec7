# SPDX-License-Identifier: BSD-2-Clause
"""What no BPF program can see.

A hardened kernel may run no BPF program while certain tasks are current, and count nothing: seen on a
6.18 with the threads of PID 1. What a softirq brings while such a task is interrupted is lost to
every tracer. The kernel's own trace has it, and tells a test which row can't come.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness import unique

from cgnet import tracefs

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGE = re.compile(
    r"inet_sock_set_state: .* sport=(\d+) dport=(\d+) .* oldstate=TCP_(\w+) newstate=TCP_(\w+)"
)


class Change(NamedTuple):
    """A change of a socket's state."""

    sport: int
    dport: int
    old: str
    new: str

    def decides(self) -> bool:
        """Tell whether it ends an attempt to connect."""
        return self.old == "SYN_SENT" and self.new != "SYN_RECV"


class Witness:
    """Changes of TCP states that came while a thread of PID 1 was current."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self._write("options/event-fork", "1")  # their children are as they are
        self._write("set_event_pid", " ".join(task.name for task in Path("/proc/1/task").iterdir()))
        self._write("events/sock/inet_sock_set_state/enable", "1")

    def _write(self, name: str, value: str) -> None:
        (self.instance / name).write_text(value)

    def forget(self) -> None:
        """Begin anew."""
        self._write("trace", "")

    def changes(self) -> list[Change]:
        """Return what came since."""
        text = (self.instance / "trace").read_text(errors="replace")
        return [Change(int(each[0]), int(each[1]), *each[2:]) for each in CHANGE.findall(text)]


@contextmanager
def watching() -> Iterator[Witness]:
    """Watch with an instance of tracefs of its own, which is removed at the end."""
    with tracefs.directory() as directory:
        instance = directory / "instances" / unique()
        instance.mkdir()
        try:
            yield Witness(instance)
        finally:
            instance.rmdir()
