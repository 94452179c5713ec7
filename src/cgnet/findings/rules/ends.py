# SPDX-License-Identifier: BSD-2-Clause
"""Connections that end with harm: resets, time-outs, kills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.finding import Finding, Harm, who
from cgnet.findings.rules.base import LIKELY, address_port, enter, finding, more, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

OPEN_STATES = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1")


def _common(group: Group) -> dict[str, Any]:
    row = group.row
    server = row["role"] == "server"
    return {
        "daddr": row["saddr"] if server else row["daddr"],
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
        if row["close_cause"] != "abort" or not w.selects(row) or _far_forgot(w, row):
            continue
        yield finding(
            w, "killed-locally", row,
            connections=plural(group.count, "connection"), far=_far(row),
            more=more("life", row, "--close-cause abort"), peer=w.peer_of(row),
            evidence={"killed": group.count}, **_common(group),
        )  # fmt: skip


def _far_forgot(w: Watched, row: Row) -> bool:
    """Return whether the other side's data came later: the kill was a server forgetting the idle."""
    back = {
        "saddr": row["daddr"], "daddr": row["saddr"], "sport": row["dport"], "dport": row["sport"],
        "role": "client" if w.role_of(row) == "server" else "server",
    }  # fmt: skip
    return w.role_of(row) == "server" and bool(_forgot(w, back))


def vanished(w: Watched) -> Iterator[Finding]:
    """Connections that timed out: nothing came from the other side any more."""
    for group in w.ends:
        row = group.row
        if row["close_cause"] != "timeout" or not w.selects(row):
            continue
        yield finding(
            w, "peer-vanished/ended", row, confidence=LIKELY,
            connections=plural(group.count, "connection"), far=_far(row),
            more=more("life", row, "--close-cause timeout"), peer=w.peer_of(row),
            evidence={"timed_out": group.count, "resent": group.sums["retrans"]}, **_common(group),
        )  # fmt: skip


def resets(w: Watched) -> Iterator[Finding]:
    """Clients that are reset in the middle of what they do."""
    for group in w.ends:
        row = group.row
        if (row["closed_by"], row["close_cause"]) != ("peer", "rst") or w.role_of(row) != "client":
            continue
        if not w.selects(row) or _is_killed(w, row):
            continue
        yield (
            _twice(w, group) or _closed_listener(w, group) or _idle(w, group) or _reset(w, group)
        )


def _far_ends(w: Watched, row: Row) -> list[Group]:
    """Return the ends at the other side, where it is on this host: by the service's address and port."""
    return [
        each
        for each in w.ends
        if each.row["sport"] == row["dport"] and each.row["saddr"] == row["daddr"]
    ]


def _is_killed(w: Watched, row: Row) -> bool:
    """Return whether the other side was killed: a finding of its own."""
    return any(
        each.row["close_cause"] == "abort" and not _forgot(w, row) for each in _far_ends(w, row)
    )


def _forgot(w: Watched, row: Row) -> list[Group]:
    """Return the drops of a client's data that found no connection any more at the other side."""
    found = w.drops_on_way(row, flags=None)
    return [
        each
        for each in found
        if "P" in (each.row["tcp_flags"] or "")
        and each.row["sport"] != row["dport"]
        and (each.row["reason"] in GONE or each.row["reason_class"] == "application")
    ]


# The kernel's reasons for a reset by close() with unread data, or with linger 0.
ABORTS = ("TCP_ABORT_ON_CLOSE", "TCP_ABORT_ON_LINGER", "TCP_DISCONNECT_WITH_DATA")
GONE = ("NO_SOCKET", "TCP_FLAGS", "NOT_SPECIFIED", "TCP_ABORT_ON_DATA", "TCP_RESET", None)


def _closed_listener(w: Watched, group: Group) -> Finding | None:
    """Return a finding if the listener closed with connections in its queue."""
    row = group.row
    gone = [
        each
        for each in w.sockets.closed_listeners()
        if each["sport"] == row["dport"] and each["fullest"]
    ]
    resets = [
        each
        for each in _far_ends(w, row)
        if (each.row["closed_by"], each.row["close_cause"]) == ("local", "rst")
    ]
    if not gone or not resets:
        return None
    owner = gone[0]
    return finding(
        w, "listener-closed", owner, peer=row, confidence=LIKELY,
        reset=group.count,
        more=more("life", row, "--close-cause rst"),
        evidence={"reset": group.count, "queue": owner["fullest"]}, **_common(group),
    )  # fmt: skip


def _twice(w: Watched, group: Group) -> Finding | None:
    """Return a finding if two namespaces have the address, and both got the client's segments."""
    row = group.row
    accepted = [
        each.row
        for each in (*w.attempts, *w.ends)
        if each.row["role"] == "server"
        and (each.row["saddr"], each.row["sport"]) == (row["daddr"], row["dport"])
        and each.row["daddr"] == row["saddr"]
    ]
    there = {each["netns"]: each for each in accepted}
    reached = set(there) | {each.row["netns"] for each in _forgot(w, row)}
    both = sorted(each for each in reached if row["daddr"] in w.look.addresses(each))
    if len(both) < 2 or not there or row["netns"] in both:
        return None
    places = [w.look.place(each).name for each in both]
    return finding(
        w, "duplicate-address/resets", row, confidence=LIKELY,
        peer=there.get(both[0]) or there.get(both[1]), where=_far(row), enter=enter(w, both[-1]),
        place=places[0], other_place=places[1],
        more=more("connect", row, f"--daddr {row['daddr']}"),
        evidence={"reset": group.count, "netns": both}, **_common(group),
    )  # fmt: skip


def _idle(w: Watched, group: Group) -> Finding | None:
    """Return a finding if the other side, or something on the way, had forgotten the connection."""
    row = group.row
    dropped = _forgot(w, row)
    aborted = [each for each in _far_ends(w, row) if each.row["rst_reason"] in ABORTS]
    if sum(each.count for each in dropped) * 2 < group.count:
        return None
    if sum(each.count for each in aborted) * 2 >= group.count:
        return None  # segments in flight when the server reset find no connection, either
    by = dropped[0].row
    return finding(
        w, "idle-reset", row, peer=w.peer_of(row), confidence=LIKELY,
        far=_far(row), place=w.look.place(by["netns"]).name,
        more=more("drop", by, f"--port {row['dport']}"),
        evidence={
            "reset": group.count, "reason": by["reason"], "location": by["location"],
            "drops": sum(each.count for each in dropped),
        },
        **_common(group),
    )  # fmt: skip


def _reset(w: Watched, group: Group) -> Finding:
    row = group.row
    there = [each for each in _far_ends(w, row) if each.row["closed_by"] == "local"]
    reason = there[0].row["rst_reason"] if there else None
    why = f" ({reason})" if reason else ""  # before 6.10 the kernel doesn't tell
    return finding(
        w, "reset-by-peer", row, peer=there[0].row if there else w.peer_of(row),
        far=_far(row), connections=plural(group.count, "connection"),
        reason=f": {who(there[0].row)} closed them by a reset{why}" if there else "",
        more=more("life", row, "--close-cause rst", f"--dport {row['dport']}"),
        evidence={"reset": group.count, "rst_reason": reason}, **_common(group),
    )  # fmt: skip


RULES = (kills, vanished, resets)
