# SPDX-License-Identifier: BSD-2-Clause
"""Servers that don't answer in time, as their clients and their own sockets show."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cgnet.findings.connections import MAX_WAITING
from cgnet.findings.finding import Finding, Harm, who
from cgnet.findings.rules.base import (
    LIKELY,
    LIMITED,
    POSSIBLE,
    SURE,
    by_destination,
    destination,
    ends_of,
    finding,
    more,
    plural,
    throttle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.connections import Connection
    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

THROTTLED = 0.1  # share of the periods of a CPU limit
MIN_TURNS = 3
SEEN = 0.05  # share of short connections that looks find: one a second, of those that take 50 ms
FEW = 16  # connections whose other end is looked for
TICK_US = 20_000  # the kernel's ticks are 10 ms at most, and two are compared
LIFE_NS = 15_000_000_000  # longer ones may idle, or poll


def answers(w: Watched) -> Iterator[Finding]:
    """Clients that wait for their server: it thinks, or its CPU limit holds it up."""
    deaf = {(who(each.row), each.row["sport"]) for each in w.connections if _is_unheard(w, each)}
    one_way = {destination(each.row) for each in w.connections if each.one_way}
    waiting = [
        each
        for each in w.connections
        if each.waiting >= LIMITED
        and each.row["role"] != "server"
        and destination(each.row) not in one_way
    ]
    thinking = _thinking(w)
    for everyone in by_destination(waiting):
        # Again and again, on one connection or on one after the other: a long poll isn't.
        several = [each for each in everyone if each.turns >= MIN_TURNS]
        one_by_one = [each for each in everyone if each.gone]
        if len(one_by_one) >= MIN_TURNS and _waits_long(w, one_by_one):
            several += [each for each in one_by_one if each.turns < MIN_TURNS]
        if not several:
            continue
        row = several[0].row
        other = next((end for each in several[:FEW] if (end := w.peer_of(each.row))), {})
        if not w.selects(row, other):
            continue
        owner = other or row
        if other and (who(other), row["dport"]) in deaf:
            continue  # another rule tells
        cpu, limited = _cpu_of(w, other)
        seconds = sum(each.waiting * each.seconds for each in several)
        share = sum(each.waiting for each in several) / len(several)
        turns = thinking.pop((who(other), other["netns"], row["dport"]), None) if other else None
        evidence: dict[str, Any] = {
            "waiting": round(share, 2),
            "turns": sum(max(1, each.turns) for each in several),
        } | (_told(turns) if turns else {})
        yield finding(
            w, "cpu-limit" if limited else "slow-server", owner, harm=Harm.SLOWED,
            peer=row if other else {}, daddr=row["daddr"], dport=row["dport"],
            confidence=SURE if limited or turns else LIKELY if other else POSSIBLE,
            signals=("life",) if turns and not limited else (),
            client=who(row), share=f"{share:.0%}", server=who(other) if other else "it",
            cpu=throttle(cpu),
            more=more("sockets", owner, f"--port {row['dport']}", "-o wide"), count=len(several),
            seconds=seconds, evidence=evidence | (cpu or {}),
        )  # fmt: skip
    for groups in thinking.values():
        yield from _thinks(w, groups)


def _thinking(w: Watched) -> dict[tuple[Any, ...], list[Group]]:
    """Return the servers that were measured to take long to answer, by who, namespace and port."""
    found: dict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for each in w.lives:
        if each.sums.get("thinking_turns") and w.role_of(each.row) == "server":
            found[who(each.row), each.row["netns"], each.row["sport"]].append(each)
    return {
        place: groups
        for place, groups in found.items()
        if _sum(groups, "thinking_turns") >= MIN_TURNS
        and _took_us(groups) >= w.limits.ttfb_ms * 1000
        and _share(w, groups) >= LIMITED
    }


def _share(w: Watched, groups: list[Group]) -> float:
    """Return the share of the time that clients wait; of connections from before, of the watch."""
    lasted_ns = _sum(groups, "thinking_ns") + _sum(groups, "thinking_before") * w.seconds * 1e9
    return min(1.0, _sum(groups, "think_us") * 1000 / max(1, lasted_ns))


def _sum(groups: list[Group], name: str) -> int:
    return sum(each.sums[name] for each in groups)


def _took_us(groups: list[Group]) -> int:
    """Return how long an answer takes, on average."""
    return _sum(groups, "think_us") // _sum(groups, "thinking_turns")


def _told(groups: list[Group]) -> dict[str, int]:
    return {
        "ttfb_us": _took_us(groups),
        "ttfb_max_us": max(each.most["greatest_turn_us"] for each in groups),
        "turns": _sum(groups, "thinking_turns"),
    }


def _cpu_of(w: Watched, server: Row) -> tuple[dict[str, int] | None, bool]:
    """Return the throttling of a server's cgroup, and whether it is what makes it slow."""
    cpu = w.cpu_limit(server)
    return cpu, bool(cpu and cpu["nr_throttled"] >= THROTTLED * max(1, cpu["nr_periods"]))


def _thinks(w: Watched, groups: list[Group]) -> Iterator[Finding]:
    """A server that is slow as its own end shows: wherever its clients are."""
    row = groups[0].row
    if not w.selects(row):
        return
    cpu, limited = _cpu_of(w, row)
    several, took_ms = _sum(groups, "thinking"), _took_us(groups) / 1000
    before = _sum(groups, "thinking_before") == several
    port = f"--sport {row['sport']}"
    shown = ("sockets", row, port, "-o wide") if before else ("life", row, "--ttfb", port)
    yield finding(
        w, "cpu-limit/thinks" if limited else "slow-server/thinks", row, harm=Harm.SLOWED,
        daddr=row["saddr"], dport=row["sport"], signals=("life",), took=f"{took_ms:.0f} ms",
        share=f"{_share(w, groups):.0%}", cpu=throttle(cpu),
        more=more(*shown), peer=w.sockets.other_end(row) if several == 1 else None,
        count=several, seconds=_sum(groups, "think_us") / 1e6, evidence=_told(groups) | (cpu or {}),
    )  # fmt: skip


def unheard(w: Watched) -> Iterator[Finding]:
    """Servers that don't read requests: they are stopped, stuck, or busy with others."""
    waiting = [each for each in w.connections if _is_unheard(w, each)]
    for several in by_destination(waiting):
        row = several[0].row
        far = [each for one in several[:FEW] if (each := w.sockets.other_end(one.row))]
        names = {who(each) for each in far}
        if not w.selects(row, *far):
            continue
        cpu = w.cpu_limit(row)
        yield finding(
            w, "slow-server/unread", row, harm=Harm.STALLED, **ends_of(row) | {"dport": row["sport"]},
            confidence=LIKELY, peer=far[0] if len(names) == 1 else {}, server=who(row),
            client=next(iter(names)) if len(names) == 1 else "its clients", cpu=throttle(cpu),
            connections=plural(len(several), "connection"),
            longest=f"{max(_since_data(each) for each in several):.0f}",
            more=more("sockets", row, f"--port {row['sport']}"), count=len(several),
            seconds=sum(_since_data(each) for each in several),
            evidence={"recv_q": max(each.row["recv_q"] for each in several)} | (cpu or {}),
        )  # fmt: skip


def _since_data(each: Connection) -> float:
    """Return the seconds since data came last."""
    return (each.row["last_received_us"] or 0) / 1e6


def _is_unheard(w: Watched, each: Connection) -> bool:
    """Return whether a server has left a request unread for a while, and owes its answer."""
    row = each.row
    if w.role_of(row) != "server" or not 0 < row["recv_q"] < w.limits.unread or each.gone:
        return False
    sent, came = row["last_sent_us"], row["last_received_us"]
    if came is None or came < 2 * w.limits.stuck_s * 1e6:
        return False
    if sent is not None and sent + TICK_US < came:
        return False
    # A client that gave up before is over; one that gave up now has waited.
    return bool(row["state"] == "ESTABLISHED" or came <= w.seconds * 1e6)


def _waits_long(w: Watched, seen: list[Connection]) -> bool:
    """Return whether connections one after the other live as long as an answer takes, and no longer.

    A look finds short ones waiting as well, but few of all that there are.
    """
    place = destination(seen[0].row)
    ends = [each for each in w.ends if destination(each.row) == place]
    count = sum(each.count for each in ends)
    if not count or len(seen) < min(SEEN * count, MAX_WAITING):
        return False
    return sum(each.sums["duration_ns"] for each in ends) / count <= LIFE_NS


RULES = (answers, unheard)
