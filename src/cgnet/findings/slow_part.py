# SPDX-License-Identifier: BSD-2-Clause
"""The verdict of ``cgnet trace --summary``: the part of the path that takes most of the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.records.packet import NETFILTER
from cgnet.render import with_owner
from cgnet.render.text import duration_ns, safe

if TYPE_CHECKING:
    from cgnet.counting.counts import Counting
    from cgnet.loader import Object


class Part(NamedTuple):
    """Stages that wait for the same cause."""

    name: str
    text: str
    stages: frozenset[str]


PARTS = (
    Part("application", "the application is late to read", frozenset({"app_read"})),
    Part(
        "hole",
        "data waits for what is missing before it: lost, or late on its way",
        frozenset({"in_order"}),
    ),
    Part(
        "nagle",
        "small writes wait for an acknowledgement (Nagle's algorithm: TCP_NODELAY, or larger writes)",
        frozenset({"nagle"}),
    ),
    Part(
        "window",
        "what is written waits for a window: the network, or the receiver, takes less",
        frozenset({"window"}),
    ),
    Part(
        "answer",
        "the application has read a request, and hasn't answered yet",
        frozenset({"answer"}),
    ),
    Part("qdisc", "a queueing discipline holds packets back", frozenset({"qdisc_dequeue"})),
    Part("softirq", "the receiving softirq is late", frozenset({"netif_receive"})),
    Part("netfilter", "rules of the firewall", frozenset(NETFILTER)),
    Part("retransmission", "lost packets, until they are sent again", frozenset({"retransmit"})),
    Part("socket", "TCP's backlog, while a process has the socket", frozenset({"tcp_receive"})),
)
STACK = Part("stack", "the stack itself", frozenset())
# Data waits for a window while other data is delayed: that delay is reported as the cause, if it
# takes at least this share of the wait.
WINDOW = "window"
CAUSE = 1 / 20
SEND_QUEUE = "send_queue"  # waits in it that the kernel doesn't report
# A write waits for room in the send buffer while its data is queued: no kernel reports it.
BLOCKED_WRITE = "blocked_write"
SEND_HOOK = "trace_sock_send_length"
OWNER = frozenset({"container", "pod", "pod_namespace", "cgroup"})  # fields shown as ``owner``
# Without netfilter's own stages, its time is part of these.
OVER_NETFILTER = frozenset({"dev_queue", "tcp_receive", "drop", "consume"})


def part_of_stage(stage: str, *, netfilter: bool) -> Part:
    """Return the part of a stage; ``netfilter``: its hooks are stages of their own."""
    found = next((part for part in PARTS if stage in part.stages), STACK)
    return STACK if found.name == "socket" and not netfilter else found


def _slowest(times: dict[Part, int]) -> Part:
    """Return the part that takes most of the time, or the cause if that is a wait for a window."""
    slowest = max(times, key=lambda part: times[part])
    others = {part: time for part, time in times.items() if part.name != WINDOW}
    if slowest.name != WINDOW or not others:
        return slowest
    cause = max(others, key=lambda part: others[part])
    return cause if cause != STACK and others[cause] >= times[slowest] * CAUSE else slowest


class SlowParts:
    """The verdicts of ``cgnet trace --summary``, by group of its rows."""

    def __init__(self, counting: Counting) -> None:
        """Take the keys of ``counting``."""
        fields = (field for key in counting.keys for field in key.fields)
        self._keys = [field for field in dict.fromkeys(fields) if field != "stage"]
        self._netfilter = False  # whether its hooks are stages of their own
        self._send_queue = False  # whether waits in it are reported
        self._rows: list[dict[str, Any]] = []

    def begin(self, obj: Object) -> None:
        """Find the stages that the attached programs report."""
        names = [each.name for each in obj.attached()]
        self._netfilter = any(name.startswith("netfilter__") for name in names)
        self._send_queue = any(name.startswith(SEND_HOOK) for name in names)

    def see(self, rows: list[dict[str, Any]]) -> None:
        """Remember printed rows."""
        self._rows += rows

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each group that was printed since the last call."""
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self._rows:
            groups.setdefault(tuple(row[name] for name in self._keys), []).append(row)
        self._rows = []
        return [self._record(rows) for rows in groups.values()]

    def _record(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        times: dict[Part, int] = {}
        for row in rows:
            part = part_of_stage(row["stage"], netfilter=self._netfilter)
            times[part] = times.get(part, 0) + row["total_ns"]
        slowest = _slowest(times)
        of_part = [
            row for row in rows if part_of_stage(row["stage"], netfilter=self._netfilter) == slowest
        ]
        stage = max(of_part, key=lambda row: row["total_ns"])
        whole = sum(times.values())
        text = slowest.text
        if slowest is STACK and stage["stage"] in OVER_NETFILTER and not self._netfilter:
            text += ", or netfilter, which isn't told apart here"
        if not self._send_queue:
            text += "; waits in the sender's queue are not seen here"
        return {
            "type": "slow_part",
            **{name: rows[0][name] for name in self._keys},
            "part": slowest.name,
            "share": round(times[slowest] / whole, 4) if whole else 0.0,
            "stage": stage["stage"],
            "p99_ns": stage["p99_ns"],
            "not_covered": [BLOCKED_WRITE] if self._send_queue else [BLOCKED_WRITE, SEND_QUEUE],
            "text": text,
        }

    def text(self, row: dict[str, Any]) -> str:
        """Return such a record as text for people."""
        shown = with_owner(dict(row))
        names = dict.fromkeys("owner" if name in OWNER else name for name in self._keys)
        values = [safe(str(shown[name])) for name in names if shown[name] is not None]
        whose = " ".join(values) or ("unknown" if names else "all packets")
        return (
            f"{whose}: {row['share']:.0%} of the time: {row['text']} ({row['stage']}, p99 "
            f"{duration_ns(row['p99_ns'])})"
        )
