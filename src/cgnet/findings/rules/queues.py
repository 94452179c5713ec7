# SPDX-License-Identifier: BSD-2-Clause
"""Accept queues that are full, and listeners that end with connections in their queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.finding import Finding, Harm, who
from cgnet.findings.rules.base import LIKELY, SURE, address_port, finding, more, plural, throttle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.watched import Row, Watched

ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound to


def full_listeners(w: Watched) -> list[Row]:
    """Return the listeners whose accept queue was full, and that dropped for it, or are full now."""
    return [
        each
        for each in w.listeners
        if each["fullest"] >= max(each["backlog"] or 0, 1)
        and (each["drops_grown"] or each["recv_q"] > (each["backlog"] or 0))
    ]


def _called(listener: Row, peers: list[Row]) -> str | None:
    """Return the address that a listener is called by, if it is one alone."""
    if listener["saddr"] not in ANY:
        return str(listener["saddr"])
    called = {row["daddr"] for row in peers}
    return called.pop() if len(called) == 1 else None


def accept_queue(w: Watched) -> Iterator[Finding]:
    """Listeners that accept too slowly."""
    for each in full_listeners(w):
        callers = [
            group
            for group in w.attempts
            if group.row["role"] == "client"
            and (group.row["result"] != "ok" or group.sums["syn_retrans"])
            and w.reaches(group.row, each)
        ]
        waiting = [
            row
            for row in w.pending
            if row["state"] == "SYN_SENT" and row["retrans"] and w.reaches(row, each)
        ]
        peers: list[Row] = [group.row for group in callers] + waiting
        if not w.selects(each, *peers):
            continue
        count = sum(group.count for group in callers) + len(waiting) or each["drops_grown"]
        seconds = sum(group.sums["latency_ns"] for group in callers) / 1e9
        where = address_port(each["saddr"], each["sport"])
        names = {who(row) for row in peers}
        called = next(iter(peers), {}) if len(names) == 1 else {}
        somaxconn = w.look.sysctl(each["netns"], "net/core/somaxconn")
        evidence: dict[str, Any] = {
            "queue": each["recv_q"], "fullest": each["fullest"], "backlog": each["backlog"],
            "drops": each["drops_grown"], "net.core.somaxconn": somaxconn and int(somaxconn),
        }  # fmt: skip
        cpu = w.cpu_limit(each)
        limit = somaxconn and (each["backlog"] or 0) >= int(somaxconn)
        yield finding(
            w, "accept-queue-full", each, peer=called, harm=Harm.FAILED, listener=where,
            fullest=each["fullest"], backlog=each["backlog"], cpu=throttle(cpu),
            drops=plural(each["drops_grown"], "connection request"),
            somaxconn=f" (and net.core.somaxconn, {somaxconn} there)" if limit else "",
            more=more("sockets --listeners", each), dport=each["sport"],
            daddr=_called(each, peers), count=count, seconds=seconds,
            evidence=evidence | (cpu or {}), confidence=SURE if each["drops_grown"] else LIKELY,
        )  # fmt: skip


RULES = (accept_queue,)
