# SPDX-License-Identifier: BSD-2-Clause
"""Connections that end with harm: resets, time-outs, kills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.finding import Finding, Harm, who
from cgnet.findings.rules.base import LIKELY, address_port, finding, more, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

OPEN_STATES = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1")


def _common(group: Group) -> dict[str, Any]:
    row = group.row
    server = row["role"] == "server"
    return {
        "daddr": None if server else row["daddr"],
        "dport": row["sport"] if server else row["dport"],
        "count": group.count, "signals": ("life",), "harm": Harm.FAILED,
    }  # fmt: skip


def _far(row: Row) -> str:
    if row["role"] == "server":
        return f"clients of its port {row['sport']}"
    return address_port(row["daddr"], row["dport"])


def kills(w: Watched) -> Iterator[Finding]:
    """Connections that somebody on this host killed."""
    for group in w.ends:
        row = group.row
        if row["close_cause"] != "abort" or not w.selects(row):
            continue
        yield finding(
            w, "killed-locally", row,
            text=f"{plural(group.count, 'connection')} of {who(row)} with {_far(row)} killed on this "
            "host, by another than the owner: ss -K, or a manager of connections",
            fix="find who does it (a health checker, a script, a mesh's agent), and let it not",
            more=more("life", row, "--close-cause abort"), peer=w.peer_of(row),
            evidence={"killed": group.count}, **_common(group),
        )  # fmt: skip


def vanished(w: Watched) -> Iterator[Finding]:
    """Connections that timed out: nothing came from the other side any more."""
    for group in w.ends:
        row = group.row
        if row["close_cause"] != "timeout" or not w.selects(row):
            continue
        yield finding(
            w, "peer-vanished", row, confidence=LIKELY,
            text=f"{plural(group.count, 'connection')} of {who(row)} with {_far(row)} timed out: "
            "nothing "
            "came from the other side any more",
            fix="check the other host and the way to it; a keepalive notices it sooner",
            more=more("life", row, "--close-cause timeout"), peer=w.peer_of(row),
            evidence={"timed_out": group.count, "resent": group.sums["retrans"]}, **_common(group),
        )  # fmt: skip


RULES = (kills, vanished)
