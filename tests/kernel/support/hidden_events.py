# SPDX-License-Identifier: BSD-2-Clause
"""Events that no BPF program can see.

A hardened kernel may run no BPF program while certain tasks are current, and count nothing: seen on
a 6.18 with the threads of PID 1. Events of a softirq that interrupts such a task are lost to every
tracer. The kernel's own trace has them, so that a test knows the rows that can't come.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness import unique

from cgnet.kernel import tracefs

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGE = re.compile(
    r"inet_sock_set_state: .* sport=(\d+) dport=(\d+) .* oldstate=TCP_(\w+) newstate=TCP_(\w+)"
)
# Tracepoints that follow packets, and that softirqs hit during any task.
PACKETS = (
    "net/netif_receive_skb",
    "net/net_dev_start_xmit",
    "qdisc/qdisc_dequeue",
    "tcp/tcp_probe",
)
PACKET = re.compile(r"(netif_receive_skb|net_dev_start_xmit|qdisc_dequeue|tcp_probe): ")


class Change(NamedTuple):
    """A change of a socket's state."""

    sport: int
    dport: int
    old: str
    new: str

    def decides(self) -> bool:
        """Return whether it ends a connection attempt."""
        return self.old == "SYN_SENT" and self.new != "SYN_RECV"


class Witness:
    """Changes of TCP states, and packets, while a thread of PID 1 was current."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self._write("options/event-fork", "1")  # include their children
        self._write("set_event_pid", " ".join(task.name for task in Path("/proc/1/task").iterdir()))
        for event in ("sock/inet_sock_set_state", *PACKETS):
            if (self.instance / "events" / event).is_dir():
                self._write(f"events/{event}/enable", "1")

    def _write(self, name: str, value: str) -> None:
        (self.instance / name).write_text(value)

    def forget(self) -> None:
        """Clear the trace."""
        self._write("trace", "")

    def changes(self) -> list[Change]:
        """Return the changes since then."""
        return [
            Change(int(each[0]), int(each[1]), *each[2:]) for each in CHANGE.findall(self._read())
        ]

    def saw_more(self) -> bool:
        """Return whether there were any changes or packets since then."""
        text = self._read()
        return bool(CHANGE.search(text) or PACKET.search(text))

    def _read(self) -> str:
        return (self.instance / "trace").read_text(errors="replace")


@contextmanager
def watching() -> Iterator[Witness]:
    """Trace with a separate instance of tracefs, which is removed at the end."""
    with tracefs.directory() as directory:
        instance = directory / "instances" / unique()
        instance.mkdir()
        try:
            yield Witness(instance)
        finally:
            instance.rmdir()
