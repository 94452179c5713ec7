# SPDX-License-Identifier: BSD-2-Clause
"""Connections that are open and don't get on: loss, closed windows, waits for the other side."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cgnet.findings.causes import cause_of
from cgnet.findings.connections import MAX_WAITING, service_port
from cgnet.findings.finding import UNKNOWN, Finding, Harm, who
from cgnet.findings.rules.base import (
    LIKELY,
    POSSIBLE,
    SURE,
    address_port,
    advice_on,
    finding,
    more,
    throttle,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgnet.findings.connections import Connection
    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

MIN_WAITS = 3  # for the retransmission timer
MIN_SHARE = 0.002  # of the bytes sent
MIN_LOOKS = 2
# Of attempts, and of queues: rules of their own tell.
OTHERS = frozenset({"no-listener", "accept-queue-full", "time-wait-refused"})
REORDERING = 3  # the kernel's own threshold, net.ipv4.tcp_reordering
NEEDLESS = 0.5  # share of resends that weren't needed
LIMITED = 0.3  # share of the time
MOSTLY = 0.7
GROWN = 4  # times the least round trip
MANY = 20  # segments
BIG = 1000  # bytes of a segment that is as large as its link takes
DATA_CAUSES = frozenset({"timeout", "fast", "slow_start", "tail_loss_probe"})
THROTTLED = 0.1  # share of the periods of a CPU limit
MIN_TURNS = 3
SEEN = 0.05  # share of short connections that looks find: one a second, of those that take 50 ms
FEW = 16  # connections whose other end is looked for
NS = 1_000_000_000
LIFE_NS = 15 * NS  # longer ones may idle, or poll


def _destination(row: Row) -> tuple[Any, ...]:
    remote = (row["daddr"], row["dport"]) if row.get("role") != "server" else (None, row["sport"])
    return who(row), row["netns"], *remote


def _by_destination(connections: Iterable[Connection]) -> list[list[Connection]]:
    found: dict[tuple[Any, ...], list[Connection]] = defaultdict(list)
    for each in connections:
        found[_destination(each.row)].append(each)
    return list(found.values())


def _ends(row: Row) -> dict[str, Any]:
    """Return daddr and dport of a finding: those of the server, whichever end has it."""
    if row.get("role") == "server":
        return {"daddr": row["saddr"], "dport": row["sport"]}
    return {"daddr": row["daddr"], "dport": row["dport"]}


def _between(row: Row) -> str:
    if row.get("role") == "server":
        return f"{who(row)} and the clients of its port {row['sport']}"
    return f"{who(row)} and {address_port(row['daddr'], row['dport'])}"


# -- loss


def loss(w: Watched) -> Iterator[Finding]:
    """Segments that are sent again: dropped on this host, too large for the way, or lost on it."""
    by_place: dict[tuple[Any, ...], list[Group]] = defaultdict(list)
    for group in w.resends:
        if group.row["cause"] in DATA_CAUSES and w.selects(group.row):
            by_place[_destination(group.row)].append(group)
    stuck: dict[tuple[Any, ...], list[Connection]] = defaultdict(list)
    for each in w.connections:
        if each.stuck:
            stuck[_destination(each.row)].append(each)
    yield from _sourceless(w)
    for place, groups in by_place.items():
        yield from _lost(w, groups, stuck.get(place, []))
    for place, several in stuck.items():
        if place not in by_place and w.selects(several[0].row):
            yield from _lost(w, [], several)


def _sourceless(w: Watched) -> Iterator[Finding]:
    """Connections whose own address was taken away."""
    held = [each for each in w.connections if each.stuck or each.probing or each.retrans]
    for several in _by_destination(held):
        row = several[0].row
        if not w.lacks_source(row) or not w.selects(row):
            continue
        yield finding(
            w, "source-address-missing/open", row, harm=Harm.STALLED, **_ends(row),
            where=address_port(row["daddr"], row["dport"]), source=row["saddr"],
            more=more("sockets", row, f"--saddr {row['saddr']}"), count=len(several),
            seconds=sum(max(each.stuck, each.probing * each.seconds) for each in several),
            peer=w.peer_of(row), evidence={"saddr": row["saddr"]},
        )  # fmt: skip


def _lost(w: Watched, groups: list[Group], stuck: list[Connection]) -> Iterator[Finding]:
    segs = sum(group.sums["segs"] for group in groups)
    row = groups[0].row if groups else stuck[0].row
    stalled = [each for each in stuck if each.stuck >= w.limits.stuck_s]
    if not stalled and not _is_much(w, row, groups):
        return
    seqs = {seq for group in groups for seq in group.ids}
    drops = w.drops_of(seqs)
    cause = next((name for one in drops if (name := cause_of(one.row))), None)
    counts: dict[str, Any] = {"resent": segs}
    for group in groups:
        counts[group.row["cause"]] = counts.get(group.row["cause"], 0) + group.sums["segs"]
    timeouts = [group for group in groups if group.row["cause"] == "timeout"]
    seconds = max(
        sum(each.stuck for each in stalled), sum(group.sums["rto_us"] for group in timeouts) / 1e6
    )
    common: dict[str, Any] = {
        **_ends(row), "harm": Harm.STALLED if stalled else Harm.SLOWED,
        "count": max(len(stalled), 1), "seconds": seconds, "signals": ("retrans", "drop"),
        "peer": w.peer_of(row),
    }  # fmt: skip
    if cause:
        drop = next(one for one in drops if cause_of(one.row) == cause)
        advice, evidence = advice_on(w, drop)
        if cause in OTHERS:
            return
        owner = row
        if cause == "tcp-memory" and who(drop.row) != UNKNOWN:  # whose memory it is
            owner, common["peer"] = drop.row, row if who(row) != who(drop.row) else common["peer"]
        yield finding(
            w, f"{cause}/segments", owner, between=_between(row), advice=advice,
            more=more("drop", drop.row, "--explain", f"--port {service_port(row)}"),
            evidence=counts | evidence, **common,
        )  # fmt: skip
        return
    if shuffled := _reordered(w, row, segs):
        yield finding(
            w, "path-reordering", row, confidence=LIKELY,
            between=_between(row), needless=shuffled["dsack_dups"], resent=segs,
            more=more("life", row, "-i 5", "-o wide"), evidence=counts | shuffled, **common,
        )  # fmt: skip
        return
    big = [group for group in timeouts if group.most["len"] >= BIG and group.most["attempt"] > 1]
    alive = _answers(w, row, stalled)
    too_big = _all_big(stalled, groups) and (alive or not _much_went(w, row))
    hangs = stalled or (big and len(seqs) > 1 and not _much_went(w, row))
    if hangs and (big or not groups) and too_big:
        yield finding(
            w, "mtu-blackhole", row, confidence=LIKELY,
            between=_between(row),
            more=more("retrans", row, "--cause timeout", "-o wide"), evidence=counts, **common,
        )  # fmt: skip
        return
    if stalled and not alive:
        yield finding(
            w, "peer-vanished", row, confidence=LIKELY,
            where=address_port(row["daddr"], row["dport"]),
            stuck=f"{max(each.stuck for each in stalled):.0f}",
            more=more("sockets", row, f"--daddr {row['daddr']}"), evidence=counts, **common,
        )  # fmt: skip
        return
    yield finding(
        w, "path-loss", row, confidence=LIKELY,
        between=_between(row), resent=segs,
        more=more("retrans", row, "-c", "--by daddr,cause"), evidence=counts, **common,
    )  # fmt: skip


def _is_much(w: Watched, row: Row, groups: list[Group]) -> bool:
    """Return whether resends harm: waits for the timer, or a good share of what was sent."""
    waits = sum(group.sums["segs"] for group in groups if group.row["cause"] == "timeout")
    segs = sum(group.sums["segs"] for group in groups)
    if waits >= MIN_WAITS or segs < w.limits.resent:
        return waits >= MIN_WAITS
    place = _destination(row)
    sent = sum(each.sums["tx_bytes_delta"] for each in w.lives if _destination(each.row) == place)
    return sum(group.sums["len"] for group in groups) >= MIN_SHARE * sent


def _reordered(w: Watched, row: Row, segs: int) -> dict[str, int]:
    """Return what connections say of reordering, if that is why they send again; else {}."""
    place = _destination(row)
    lives = [each for each in w.lives if _destination(each.row) == place]
    most = max((each.most["reordering"] for each in lives), default=0)
    known = [each for each in lives if each.row["dsack_dups"] is not None]
    needless = sum(each.sums["dsack_dups"] for each in known)
    if most <= REORDERING or needless < NEEDLESS * segs:
        return {}
    return {"reordering": most, "dsack_dups": needless}


def _answers(w: Watched, row: Row, stalled: list[Connection]) -> bool:
    """Return whether the other side answers while connections stand still: an attempt was made."""
    if row.get("role") == "server":
        return True
    since = w.end_ns - int(max((each.stuck for each in stalled), default=0.0) * NS)
    to_it = (group for group in w.attempts if group.row["daddr"] == row["daddr"])
    return any(each.row["result"] == "ok" and each.last_ns >= since for each in to_it)


def _much_went(w: Watched, row: Row) -> bool:
    """Return whether large segments arrived before: then it isn't their size that stops them now."""
    place = _destination(row)
    lives = [each for each in w.lives if _destination(each.row) == place]
    return any(each.most["tx_bytes"] > MANY * BIG for each in lives) or not lives


def _all_big(stalled: list[Connection], groups: list[Group]) -> bool:
    waiting = [each.row["send_q"] - (each.row["unsent"] or 0) for each in stalled]
    return all(number >= BIG for number in waiting) and all(
        group.most["len"] >= BIG for group in groups
    )


def delay(w: Watched) -> Iterator[Finding]:
    """A long way: round trips take long, always, or many times longer than the least one did."""
    for several in _by_destination(
        each
        for each in w.connections
        if _is_slow(each, w.limits.rtt_ms * 1000) and w.selects(each.row)
    ):
        row = several[0].row
        least = min(each.min_rtt_us or 0 for each in several)
        now = max(each.row["srtt_us"] or 0 for each in several)
        grown = least < w.limits.rtt_ms * 1000
        yield finding(
            w, "path-delay/grown" if grown else "path-delay", row, harm=Harm.NONE, **_ends(row),
            between=_between(row), now=f"{now / 1000:.0f}", least=f"{least / 1000:.{grown:d}f}",
            more=more("rtt", row, f"--port {service_port(row)}"), count=len(several),
            evidence={"min_rtt_us": least, "srtt_us": now}, peer=w.peer_of(row),
        )  # fmt: skip


def _is_slow(each: Connection, long_us: float) -> bool:
    """Return whether a connection's round trips take long."""
    now, least = each.row["srtt_us"] or 0, each.min_rtt_us
    if not least:
        return False
    always = least >= long_us and not each.row["retrans"]  # a sample of a resend is no round trip
    return always or now >= max(long_us, GROWN * least)


# -- windows


def windows(w: Watched) -> Iterator[Finding]:
    """Senders that the receiver's window holds up."""
    held = [
        each
        for each in w.connections
        if each.probing >= LIMITED or (each.seconds and each.rwnd_limited / each.seconds >= LIMITED)
    ]
    done: set[tuple[Any, ...]] = set()
    for several in _by_destination(held):
        row = several[0].row
        ends = [(each, w.sockets.other_end(each.row)) for each in several]
        other = next((one for _, one in ends if one), {})
        if not w.selects(row, other):
            continue
        seconds = sum(max(each.rwnd_limited, each.probing * each.seconds) for each in several)
        unread = max((one["recv_q"] for _, one in ends if one), default=0)
        evidence: dict[str, Any] = {
            "rwnd_limited_s": round(sum(each.rwnd_limited for each in several), 1),
            "closed_window": any(each.probing for each in several), "send_q": row["send_q"],
            "recv_q": unread if other else None,
        }  # fmt: skip
        common: dict[str, Any] = {
            "count": len(several), "seconds": seconds, "evidence": evidence,
            "harm": Harm.STALLED if any(each.probing >= MOSTLY for each in several) else Harm.SLOWED,
        }  # fmt: skip
        if other and not unread and not any(each.rwnd_limited for each in several):
            continue  # the window is open: what is sent doesn't leave
        if other:
            done.add(_destination(other))
        if other and unread < w.limits.unread and not any(each.probing for each in several):
            yield finding(
                w, "receive-buffer-small", other, peer=row, **_ends(other), **common,
                more=more("sockets", other, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
        elif other:
            cpu = w.throttled.get(other.get("cgroup") or "")
            yield finding(
                w, "cpu-limit/reader" if cpu else "slow-reader", other, peer=row, **_ends(other),
                **common | {"evidence": evidence | (cpu or {})},
                unread=unread, cpu=throttle(cpu),
                more=more("sockets", other, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
        else:
            closed = any(each.probing for each in several)
            yield finding(
                w, "slow-reader/far" if closed else "receive-buffer-small/far", row,
                confidence=LIKELY, **_ends(row), **common, between=_between(row),
                more=more("sockets", row, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
    yield from _unread(w, done)


def _unread(w: Watched, done: set[tuple[Any, ...]]) -> Iterator[Finding]:
    """Receivers that don't read, whose sender isn't on this host or isn't held up yet."""
    waiting = [
        each
        for each in w.connections
        if each.looks >= MIN_LOOKS and each.unread >= MOSTLY and _destination(each.row) not in done
        and each.row["recv_q"] >= w.limits.unread
    ]  # fmt: skip
    for several in _by_destination(waiting):
        row = several[0].row
        if not w.selects(row):
            continue
        unread = max(each.row["recv_q"] for each in several)
        cpu = w.throttled.get(row.get("cgroup") or "")
        yield finding(
            w, "cpu-limit/unread" if cpu else "slow-reader/unread", row, harm=Harm.STALLED,
            **_ends(row), confidence=LIKELY, unread=unread, cpu=throttle(cpu),
            more=more("sockets", row, f"--port {service_port(row)}"), count=len(several),
            seconds=sum(each.seconds for each in several), peer=w.peer_of(row),
            evidence={"recv_q": unread} | (cpu or {}),
        )  # fmt: skip


# -- waits for an answer


def answers(w: Watched) -> Iterator[Finding]:
    """Clients that wait for their server: it thinks, or its CPU limit holds it up."""
    waiting = [
        each for each in w.connections if each.waiting >= LIMITED and each.row["role"] != "server"
    ]
    thinking = _thinking(w)
    for everyone in _by_destination(waiting):
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
        if each.sums.get("thinking_turns"):
            found[who(each.row), each.row["netns"], each.row["sport"]].append(each)
    return {
        place: groups
        for place, groups in found.items()
        if _sum(groups, "thinking_turns") >= MIN_TURNS
        and _took_us(groups) >= w.limits.ttfb_ms * 1000
    }


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
    cpu = w.throttled.get(server.get("cgroup") or "")
    return cpu, bool(cpu and cpu["nr_throttled"] >= THROTTLED * max(1, cpu["nr_periods"]))


def _thinks(w: Watched, groups: list[Group]) -> Iterator[Finding]:
    """A server that is slow as its own end shows: wherever its clients are."""
    row = groups[0].row
    if not w.selects(row):
        return
    cpu, limited = _cpu_of(w, row)
    think_us, duration_ns = _sum(groups, "think_us"), _sum(groups, "thinking_ns")
    yield finding(
        w, "cpu-limit/thinks" if limited else "slow-server/thinks", row, harm=Harm.SLOWED,
        **_ends(row), signals=("life",), took=f"{_took_us(groups) / 1000:.0f} ms",
        share=f"{min(1.0, think_us * 1000 / duration_ns):.0%}", cpu=throttle(cpu),
        more=more("life", row, "--ttfb", f"--sport {row['sport']}"),
        count=_sum(groups, "thinking"), seconds=think_us / 1e6, evidence=_told(groups) | (cpu or {}),
    )  # fmt: skip


def _waits_long(w: Watched, seen: list[Connection]) -> bool:
    """Return whether connections one after the other live as long as an answer takes, and no longer.

    A look finds short ones waiting as well, but few of all that there are.
    """
    place = _destination(seen[0].row)
    ends = [each for each in w.ends if _destination(each.row) == place]
    count = sum(each.count for each in ends)
    if not count or len(seen) < min(SEEN * count, MAX_WAITING):
        return False
    return sum(each.sums["duration_ns"] for each in ends) / count <= LIFE_NS


RULES = (loss, delay, windows, answers)
