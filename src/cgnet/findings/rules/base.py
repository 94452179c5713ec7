# SPDX-License-Identifier: BSD-2-Clause
"""What the rules of ``cgnet why`` share: how a finding is made, and the causes of drops."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cgnet.findings.advice import Seen, advise
from cgnet.findings.drop_reasons import BY_REASON, CLASSES
from cgnet.findings.finding import WATCHED, Finding, Harm, who
from cgnet.findings.sentences import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgnet.findings.connections import Connection
    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

SURE, LIKELY, POSSIBLE = "certain", "likely", "possible"
LOOPBACK = ("127.", "::1")
LIMITED = 0.3  # share of the time


def address_port(address: str | None, port: int | None) -> str:
    """Return an address and a port as text: 10.0.0.1:80, [fd00::1]:80."""
    shown = f"[{address}]" if address and ":" in address else address
    return f"{shown}:{port}" if port is not None else str(shown)


def select_owner(row: Row) -> str:
    """Return the options that select an owner, quoted for a shell."""
    if WATCHED.search(row.get("cgroup") or ""):
        return ""  # it is gone
    if row.get("container"):
        return f" --container {shlex.quote(row['container'])}"
    if row.get("cgroup"):
        return f" --cgroup {shlex.quote(row['cgroup'])}"
    return f" --netns {row['netns']}" if row.get("netns") else ""


def more(command: str, row: Row, *options: str) -> str:
    """Return a command that shows more of an owner, to be typed."""
    return " ".join((f"cgnet {command}{select_owner(row)}", *options)).strip()


def advice_on(w: Watched, group: Group) -> tuple[str, dict[str, Any]]:
    """Return advice on drops, and its evidence: what ``cgnet drop --explain`` says of them."""
    row = group.row
    kind = row.get("reason_class")
    if kind is None and row.get("reason") in BY_REASON:
        kind = CLASSES[BY_REASON[row["reason"]]]
    known = {name: row[name] for name in Seen._fields if row.get(name) is not None}
    nothing = {"reason": None, "netns": 0}
    seen = Seen(**nothing | known | {"drops": group.count, "reason_class": kind})
    text, evidence = advise(seen, w.look) or ("it isn't known what dropped it", {})
    shown = {"reason": row.get("reason"), "location": row.get("location"), "drops": group.count}
    return text, shown | evidence


def finding(
    w: Watched, sentence: str, owner: Row, *, harm: Harm, more: str,
    severity: str | None = None, confidence: str = SURE, peer: Row | None = None,
    daddr: str | None = None, dport: int | None = None, count: int = 0, seconds: float = 0.0,
    evidence: dict[str, Any] | None = None, signals: Iterable[str] = (), **words: Any,
) -> Finding:  # fmt: skip
    """Return a finding; ``sentence`` is a key of SENTENCES, and ``words`` are fields of its own.

    What rests on a signal that lost records isn't certain.
    """
    if confidence == SURE and any(w.lost.get(name) for name in signals):
        confidence = LIKELY
    if severity is None:
        severity = {Harm.NONE: "info", Harm.SLOWED: "warning"}.get(harm, "error")
    template, ident = SENTENCES[sentence], sentence.partition("/")[0]
    fields = {
        "who": who(owner), "peer": who(peer or {}), "daddr": daddr, "dport": dport,
        "where": address_port(daddr, dport),
    } | words  # fmt: skip
    return Finding(
        ident, severity, confidence, harm, owner, peer or {}, daddr, dport, count, seconds,
        template.text.format_map(fields),
        {name: value for name, value in (evidence or {}).items() if value is not None},
        template.fix.format_map(fields), more,
    )  # fmt: skip


def plural(number: int, what: str) -> str:
    """Return a number and what it counts: 1 connection, 2 connections."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def enter(w: Watched, netns: int) -> str:
    """Return the prefix that runs a command in a network namespace."""
    return w.look.place(netns).enter


def throttle(cpu: dict[str, int] | None) -> str:
    """Return what a CPU limit did, as the end of a sentence; "" without one."""
    if not cpu:
        return ""
    return f"; its CPU limit held it up in {cpu['nr_throttled']} of {cpu['nr_periods']} periods"


def destination(row: Row) -> tuple[Any, ...]:
    """Return whose connection it is, and to where: a server's are those of its port."""
    remote = (row["daddr"], row["dport"]) if row.get("role") != "server" else (None, row["sport"])
    return who(row), row["netns"], *remote


def by_destination(connections: Iterable[Connection]) -> list[list[Connection]]:
    """Return connections, grouped by their owner and destination."""
    found: dict[tuple[Any, ...], list[Connection]] = defaultdict(list)
    for each in connections:
        found[destination(each.row)].append(each)
    return list(found.values())


def ends_of(row: Row) -> dict[str, Any]:
    """Return daddr and dport of a finding: those of the server, whichever end has it."""
    if row.get("role") == "server":
        return {"daddr": row["saddr"], "dport": row["sport"]}
    return {"daddr": row["daddr"], "dport": row["dport"]}
