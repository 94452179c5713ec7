# SPDX-License-Identifier: BSD-2-Clause
"""Additional output of ``cgnet drop``: the number of benign drops, and advice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cgnet.findings import evidence
from cgnet.findings.advice import Seen, advise
from cgnet.findings.causes import cause_of
from cgnet.findings.drop_reasons import BY_REASON, CLASSES
from cgnet.records._layouts import DROP_EVENT, number_in

if TYPE_CHECKING:
    from cgnet.loader import Object
    from cgnet.records.schema import CountSchema, Schema

BENIGN_MAP = "benign_drops"
SEED_PROGRAM = "syn_seed"  # of --syn-drops
MOST = 100  # kinds between two prints; others aren't explained
UNKNOWN = "unknown owner"
SYN, ACK = 0x02, 0x10
# Reasons whose evidence may be gone when advice is printed: programs at a cgroup, open sockets.
EARLY = ("SOCKET_FILTER", "BPF_CGROUP_EGRESS")
EARLY_UNLESS_SYN = ("NO_SOCKET", "TCP_FLAGS")


# What makes a kind: drops of one owner, in one namespace, for one reason and of one class, at one
# device, for sockets in one state.
KIND = (
    DROP_EVENT.slice("owner.cgroup_id"),
    DROP_EVENT.slice("flow.netns"),
    DROP_EVENT.slice("drop.reason"),
    DROP_EVENT.slice("drop.dev"),
    DROP_EVENT.slice("drop.drop_class"),
    DROP_EVENT.slice("drop.tcp_state"),
)
PORT = DROP_EVENT.slice("flow.dport")
FLAGS = DROP_EVENT.slice("drop.tcp_flags").start


def _kind_of_record(raw: bytes) -> tuple[Any, ...]:
    """Return the kind of a record; a SYN's port distinguishes the services that it is for."""
    flags = raw[FLAGS] & (SYN | ACK)
    port = raw[PORT] if flags == SYN else b""
    return (*(raw[part] for part in KIND), port, flags == SYN | ACK)


def _kind_of_row(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("container", "pod", "cgroup", "netns", "reason", "dport")
    return tuple(row.get(name) for name in names)


class Diagnosis:
    """Advice on drops, and the number of benign drops."""

    def __init__(self, *, explain: bool) -> None:
        """``explain``: with advice."""
        self._explain = explain
        self._start: dict[int, dict[str, int]] = {}
        self._last: dict[int, dict[str, int]] = {}
        # By kind: the last record or row, the number of drops, and early advice on the first one.
        self._seen: dict[Any, list[Any]] = {}
        self._look = evidence.Look({}, {})
        self._alike: Counter[tuple[Any, ...]] = Counter()  # number of namespaces
        self._schema: Schema | CountSchema | None = None

    def begin(self, obj: Object) -> None:
        """Find existing listeners, and save the counters at the start."""
        obj.iterate_if_loaded(SEED_PROGRAM)
        if self._explain:
            found = {inode: evidence.counters(at) for inode, at in evidence.namespaces().items()}
            self._start = {inode: each for inode, each in found.items() if each}
            self._last = dict(self._start)
            self._look = evidence.Look({}, self._start, self._last)

    def see(self, schema: Schema | CountSchema, rows: list[Any]) -> None:
        """Remember the kinds of drops that are printed."""
        if not self._explain:
            return
        self._schema = schema
        for row in rows:
            counted = isinstance(row, dict)
            kind = _kind_of_row(row) if counted else _kind_of_record(row)
            count = row["count"] if counted else 1
            known = self._seen.get(kind)
            if known:
                known[:2] = row, known[1] + count
            elif len(self._seen) < MOST:
                self._seen[kind] = [row, count, self._look_early(_seen(schema.row(row), 1))]

    def _look_early(self, seen: Seen) -> tuple[str, dict[str, Any]] | None:
        """Return advice whose evidence may be gone when it is printed; None without evidence."""
        if seen.reason in EARLY or (seen.reason in EARLY_UNLESS_SYN and seen.tcp_flags != "S"):
            self._look.places = self._look.places or evidence.namespaces()
            advice = advise(seen, self._look)
            return advice if advice and advice[1] else None
        return None

    def records(self) -> list[dict[str, Any]]:
        """Return advice on the drops since the last call."""
        if not self._seen or not self._schema:
            return []
        look = self._look
        look.places = evidence.namespaces()
        found = []
        for raw, count, early in self._seen.values():
            row = self._schema.row(raw)
            seen = _seen(row, count)
            advice = early or advise(seen, look)
            if advice:
                place = look.place(seen.netns).name
                found.append(_record(row, seen, place, *advice))
        self._seen.clear()
        places = {(*_who(record), record["netns"]) for record in found}
        self._alike = Counter(who[:-1] for who in places)
        self._look = evidence.Look({}, self._start, self._last)
        return sorted(found, key=lambda record: -record["count"])

    def text(self, row: dict[str, Any]) -> str:
        """Return advice as text for people."""
        reason, whose = _who(row)
        if whose == UNKNOWN or self._alike[reason, whose] > 1:  # lines would read the same
            whose += f" in {row['netns_name']}"
        told = ", ".join(
            f"{name} {value:+}"
            if name[0].isupper() or name.startswith("conntrack_")
            else f"{name} {value}"
            for name, value in row["evidence"].items()
            if isinstance(value, int)
        )
        return f"{row['count']} {reason}, {whose}: {row['text']}{told and f' ({told})'}"

    def summary(self, obj: Object) -> dict[str, int]:
        """Return the number of benign drops, which aren't shown."""
        raw = obj.map(BENIGN_MAP).lookup(bytes(4), 8)
        return {"benign": number_in(raw)}


_NOTHING = {"reason": None, "netns": 0}


def _seen(row: dict[str, Any], count: int) -> Seen:
    kind = row.get("reason_class")
    if kind is None and row.get("reason") in BY_REASON:  # rows of counts have none
        kind = CLASSES[BY_REASON[row["reason"]]]
    known = {name: row[name] for name in Seen._fields if row.get(name) is not None}
    return Seen(**_NOTHING | known | {"drops": count, "reason_class": kind})


def _who(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return the reason and the owner, with which lines for people begin."""
    return row["reason"], row["container"] or row["cgroup"] or UNKNOWN


def _record(
    row: dict[str, Any], seen: Seen, place: str, text: str, found: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "advice",
        "id": cause_of(row),
        "reason": seen.reason,
        "reason_class": seen.reason_class,
        "container": seen.container,
        "pod": row.get("pod"),
        "cgroup": seen.cgroup,
        "netns": seen.netns,
        "netns_name": place,
        "count": seen.drops,
        "text": text,
        "evidence": found,
    }
