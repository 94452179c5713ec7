# SPDX-License-Identifier: BSD-2-Clause
"""A finding of ``cgnet why``: what is wrong, whose it is, how sure that is, and what to do."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SEVERITIES = ("error", "warning", "info")  # worst first
CONFIDENCES = ("certain", "likely", "possible")
WHO = (
    "container", "container_id", "image", "runtime", "pod", "pod_namespace", "unit", "cgroup",
    "cgroup_id", "hierarchy", "pid", "uid", "comm", "owner_source",
)  # fmt: skip
PEER = ("container", "pod", "cgroup", "pid", "comm")
MAX_NAMED = 3  # findings of one cause and owner, with destinations of their own
UNKNOWN = "an unknown owner"
WATCHED = re.compile(r"/cgnet-why-\d+$")  # the cgroup of a command that `why` runs


class Harm(IntEnum):
    """What connections suffered: the worst first."""

    FAILED = 0
    STALLED = 1
    SLOWED = 2
    NONE = 3


@dataclass(frozen=True)
class Finding:
    """A cause that was found for an owner's connections to one destination.

    ``count`` is the number of connections that it harmed, ``seconds`` how long they waited for it.
    """

    id: str
    severity: str
    confidence: str
    harm: Harm
    owner: dict[str, Any]
    peer: dict[str, Any]
    daddr: str | None
    dport: int | None
    count: int
    seconds: float
    text: str
    evidence: dict[str, Any]
    fix: str
    more: str

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two findings one: the cause, the owner and the destination."""
        return (*self.cause, self.daddr, self.dport)

    @property
    def cause(self) -> tuple[Any, ...]:
        """The cause and the owner."""
        return self.id, who(self.owner)

    @property
    def weight(self) -> tuple[Any, ...]:
        """The sort key of ranks: the most harmful cause is the least."""
        order = CONFIDENCES.index(self.confidence)
        amount = self.count if self.harm is Harm.FAILED else self.seconds
        return SEVERITIES.index(self.severity), self.harm, order, -amount, -self.count, self.id

    def row(self, rank: int) -> dict[str, Any]:
        """Return its fields as JSON values."""
        return {
            "id": self.id,
            "rank": rank,
            "severity": self.severity,
            "confidence": self.confidence,
            **{name: self.owner.get(name) for name in WHO},
            **{f"peer_{name}": self.peer.get(name) for name in PEER},
            "netns": self.owner.get("netns"),
            "daddr": self.daddr,
            "dport": self.dport,
            "count": self.count,
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "evidence": self.evidence,
            "fix": self.fix,
            "more": self.more,
        }


def who(row: dict[str, Any]) -> str:
    """Return an owner's name for people: the container, with its pod, else the unit or cgroup."""
    if WATCHED.search(row.get("cgroup") or ""):
        return "the command"
    if row.get("container"):
        return f"{row['pod']}/{row['container']}" if row.get("pod") else str(row["container"])
    return str(row.get("cgroup") or row.get("cgroup_id") or UNKNOWN)


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """Merge findings of one cause, owner and destination, and sort them: the worst first.

    Name at most MAX_NAMED destinations of one cause and owner; the last one tells how many more.
    """
    merged: dict[tuple[Any, ...], Finding] = {}
    for each in found:
        old = merged.get(each.key)
        merged[each.key] = _merge(old, each) if old else each
    by_cause: dict[tuple[Any, ...], list[Finding]] = defaultdict(list)
    for each in sorted(merged.values(), key=lambda one: one.weight):
        by_cause[each.cause].append(each)
    named: list[Finding] = []
    by_cause = _of_both_ends(by_cause)
    for several in by_cause.values():
        named += several[:MAX_NAMED]
        if others := several[MAX_NAMED:]:
            last, more = named[-1], sum(each.count for each in others)
            text = f"{last.text}; likewise {len(others)} more destinations ({more} connections)"
            evidence = last.evidence | {"destinations": len(others) + 1, "connections": more}
            named[-1] = replace(last, text=text, evidence=evidence)
    return sorted(named, key=lambda one: one.weight)


def _of_both_ends(
    found: dict[tuple[Any, ...], list[Finding]],
) -> dict[tuple[Any, ...], list[Finding]]:
    """Leave out what is found at both ends of the same connections: the heavier one stays."""
    kept: dict[tuple[Any, ...], list[Finding]] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for cause, several in found.items():
        for each in several:
            ends = frozenset({who(each.owner), who(each.peer)}) if each.peer else None
            if ends and seen.setdefault((each.id, ends, each.dport), cause[1]) != cause[1]:
                continue
            kept.setdefault(cause, []).append(each)
    return kept


def _merge(one: Finding, other: Finding) -> Finding:
    """Return one finding of two with the same cause, owner and destination."""
    better, worse = sorted((one, other), key=lambda each: each.weight)
    return replace(
        better,
        count=better.count + worse.count,
        seconds=better.seconds + worse.seconds,
        evidence=worse.evidence | better.evidence,
        peer=better.peer or worse.peer,
    )
