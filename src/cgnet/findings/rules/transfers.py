# SPDX-License-Identifier: BSD-2-Clause
"""Connections that are open and don't get on: loss, long ways, closed windows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cgnet.findings.causes import cause_of
from cgnet.findings.connections import service_port
from cgnet.findings.drop_reasons import UNSPECIFIED
from cgnet.findings.finding import UNKNOWN, Finding, Harm, who
from cgnet.findings.rules.base import (
    LIKELY,
    LIMITED,
    POSSIBLE,
    address_port,
    advice_on,
    by_destination,
    destination,
    ends_of,
    enter,
    finding,
    more,
    throttle,
)
from cgnet.kernel.program_stats import EGRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.connections import Connection
    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

MIN_WAITS = 3  # for the retransmission timer
MIN_SHARE = 0.002  # of the bytes sent
MIN_LOOKS = 3
# Of attempts, and of queues: rules of their own tell.
OTHERS = frozenset({"no-listener", "accept-queue-full", "time-wait-refused"})
HERE = frozenset({"firewall-drop", "rp-filter", "no-route", "qdisc-limit", "tcp-memory"})
REORDERING = 3  # the kernel's own threshold, net.ipv4.tcp_reordering
NEEDLESS = 0.5  # share of resends that weren't needed
MOSTLY = 0.7
GROWN = 4  # times the least round trip
MANY = 20  # segments
NS = 1_000_000_000
LARGE = 0.3  # of that, on average: acknowledgements count as segments
BIG = 1000  # bytes of a segment that is as large as its link takes
DATA_CAUSES = frozenset({"timeout", "fast", "slow_start", "tail_loss_probe"})
AGAIN = 1.5  # times that a segment is sent again
MIN_EXPLAINED = 0.5  # share of resends that drops have to explain


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
            by_place[destination(group.row)].append(group)
    stuck: dict[tuple[Any, ...], list[Connection]] = defaultdict(list)
    for each in w.connections:
        if each.stuck:
            stuck[destination(each.row)].append(each)
    yield from _sourceless(w)
    for place, groups in by_place.items():
        yield from _lost(w, groups, stuck.get(place, []))
    for place, several in stuck.items():
        if place not in by_place and w.selects(several[0].row):
            yield from _lost(w, [], several)


def _sourceless(w: Watched) -> Iterator[Finding]:
    """Connections whose own address was taken away."""
    held = [each for each in w.connections if each.stuck or each.probing or each.retrans]
    for several in by_destination(held):
        row = several[0].row
        if not w.lacks_source(row) or not w.selects(row):
            continue
        yield finding(
            w, "source-address-missing/open", row, harm=Harm.STALLED, **ends_of(row),
            where=address_port(row["daddr"], row["dport"]), source=row["saddr"],
            more=more("sockets", row, f"--saddr {row['saddr']}"), count=len(several),
            seconds=sum(max(each.stuck, each.probing * each.seconds) for each in several),
            peer=w.peer_of(row), evidence={"saddr": row["saddr"]},
        )  # fmt: skip


def _lost(w: Watched, groups: list[Group], stuck: list[Connection]) -> Iterator[Finding]:
    row = groups[0].row if groups else stuck[0].row
    stalled = [each for each in stuck if each.stuck >= w.limits.stuck_s]
    if not stalled and not _is_much(w, row, groups):
        return
    counts: dict[str, Any] = {"resent": sum(group.sums["segs"] for group in groups)}
    for group in groups:
        counts[group.row["cause"]] = counts.get(group.row["cause"], 0) + group.sums["segs"]
    timeouts = [group for group in groups if group.row["cause"] == "timeout"]
    seconds = max(
        sum(each.stuck for each in stalled), sum(group.sums["rto_us"] for group in timeouts) / 1e6
    )
    common: dict[str, Any] = {
        **ends_of(row), "harm": Harm.STALLED if stalled else Harm.SLOWED,
        "count": max(len(stalled), 1), "seconds": seconds, "signals": ("retrans", "drop"),
        "peer": w.peer_of(row), "evidence": counts,
    }  # fmt: skip
    drops, cause, sent = _drops_of(w, row, groups)
    if cause in OTHERS:
        return
    yield (
        _dropped(w, row, drops, f"{cause}/{sent}", common)
        if cause
        else _on_the_way(w, groups, stalled, common)
    )


def _drops_of(w: Watched, row: Row, groups: list[Group]) -> tuple[list[Group], str | None, str]:
    """Return drops on this host that explain resends, their cause, and the kind of dropped segment."""
    drops = w.drops_of({seq for group in groups for seq in group.ids})
    for some, sent in ((drops, "segments"), (w.drops_back(row), "answers")):
        causes = [cause for one in some if (cause := cause_of(one.row))]
        if sent == "answers":
            causes = [each for each in causes if each in HERE]
        if causes:
            return [one for one in some if cause_of(one.row) == causes[0]], causes[0], sent
    known = [one for one in drops if one.row.get("reason") not in (None, UNSPECIFIED)]
    segs = sum(group.sums["segs"] for group in groups)
    if known and sum(one.count for one in known) >= MIN_EXPLAINED * segs:
        return known, "path-loss", "segments"
    return [], None, ""


def _dropped(
    w: Watched, row: Row, drops: list[Group], sentence: str, common: dict[str, Any]
) -> Finding:
    """Return the finding of what this host dropped."""
    drop, counts = drops[0], common["evidence"]
    advice, evidence = advice_on(w, drop)
    owner, how = row, common | {"evidence": counts | evidence}
    if sentence == "tcp-memory/segments" and who(drop.row) != UNKNOWN:  # whose memory it is
        owner = drop.row
        how |= {"peer": row} if who(row) != who(drop.row) else {}
    if drop.row.get("link_down"):
        sentence = "peer-vanished/link"
    elif sentence == "qdisc-limit/segments" and counts.get("timeout", 0) < MIN_WAITS:
        # TCP fills the queue of what shapes it, and goes on.
        how |= {"harm": Harm.NONE if how["harm"] is Harm.SLOWED else how["harm"]}
    return finding(
        w, sentence, owner, between=_between(row), advice=advice,
        more=more("drop", drop.row, "--explain", f"--port {service_port(row)}"), **how,
    )  # fmt: skip


def _on_the_way(
    w: Watched, groups: list[Group], stalled: list[Connection], common: dict[str, Any]
) -> Finding:
    """Return the finding for resends that no drop on this host explains."""
    row = groups[0].row if groups else stalled[0].row
    counts = common["evidence"]
    segs, seqs = counts["resent"], {seq for group in groups for seq in group.ids}
    if shuffled := _reordered(w, row, segs):
        return finding(
            w, "path-reordering", row, confidence=LIKELY,
            between=_between(row), needless=shuffled["dsack_dups"], resent=segs,
            more=more("life", row, "-i 5", "-o wide"),
            **common | {"evidence": counts | shuffled},
        )  # fmt: skip
    big = [
        group
        for group in groups
        if group.row["cause"] == "timeout"
        and group.most["len"] >= BIG
        and (stalled or group.most["attempt"] > 1)
    ]
    alive = _answers(w, row, stalled)
    too_big = _all_big(stalled, groups) and (alive or not _much_went(w, row))
    hangs = stalled or (big and len(seqs) > 1 and not _much_went(w, row))
    # Most come through at their first resend.
    lossy = len(seqs) > 2 * len(stalled) + 2 and segs < AGAIN * len(seqs)
    if hangs and (big or not groups) and too_big and not lossy:
        return finding(
            w, "mtu-blackhole", row, confidence=LIKELY, between=_between(row),
            more=more("retrans", row, "--cause timeout", "-o wide"), **common,
        )  # fmt: skip
    if stalled and not alive and not lossy:
        return finding(
            w, "peer-vanished", row, confidence=LIKELY,
            where=address_port(row["daddr"], row["dport"]),
            stuck=f"{max(each.stuck for each in stalled):.0f}",
            more=more("sockets", row, f"--daddr {row['daddr']}"), **common,
        )  # fmt: skip
    return finding(
        w, "path-loss", row, confidence=LIKELY, between=_between(row), resent=segs,
        more=more("retrans", row, "-c", "--by daddr,cause"), **common,
    )  # fmt: skip


def _is_much(w: Watched, row: Row, groups: list[Group]) -> bool:
    """Return whether resends harm: waits for the timer, or a good share of what was sent."""
    waits = sum(group.sums["segs"] for group in groups if group.row["cause"] == "timeout")
    segs = sum(group.sums["segs"] for group in groups)
    if waits >= MIN_WAITS or segs < w.limits.resent:
        return waits >= MIN_WAITS
    place = destination(row)
    sent = sum(each.sums["tx_bytes_delta"] for each in w.lives if destination(each.row) == place)
    return sum(group.sums["len"] for group in groups) >= MIN_SHARE * sent


def _reordered(w: Watched, row: Row, segs: int) -> dict[str, int]:
    """Return what connections say of reordering, if that is why they send again; else {}."""
    place = destination(row)
    lives = [each for each in w.lives if destination(each.row) == place]
    most = max((each.most["reordering"] for each in lives), default=0)
    known = [each for each in lives if each.row["dsack_dups"] is not None]
    needless = sum(each.sums["dsack_dups"] for each in known)
    if most <= REORDERING or needless < NEEDLESS * segs:
        return {}
    return {"reordering": most, "dsack_dups": needless}


def _answers(w: Watched, row: Row, stalled: list[Connection]) -> bool:
    """Return whether the other side answers while connections stand still: an attempt was made."""
    if any(each.heard < each.stuck for each in stalled):
        return True
    if row.get("role") == "server":  # unless what clients send there, small as it is, hangs, too
        there = (row["saddr"], row["sport"])
        return not any(
            each.stuck
            and (each.row["daddr"], each.row["dport"]) == there
            and each.row["send_q"] < BIG
            for each in w.connections
        )
    since = w.end_ns - int(max((each.stuck for each in stalled), default=0.0) * NS)
    to_it = (group for group in w.attempts if group.row["daddr"] == row["daddr"])
    return any(each.row["result"] == "ok" and each.last_ns >= since for each in to_it)


def _much_went(w: Watched, row: Row) -> bool:
    """Return whether large segments arrived before: then it isn't their size that stops them now."""
    place = destination(row)
    lives = [each for each in w.lives if destination(each.row) == place]
    return not lives or any(
        each.most["tx_bytes"] > max(MANY * BIG, each.most["tx_segs"] * BIG * LARGE)
        for each in lives
    )


def _all_big(stalled: list[Connection], groups: list[Group]) -> bool:
    waiting = [each.row["send_q"] - (each.row["unsent"] or 0) for each in stalled]
    return all(number >= BIG for number in waiting) and all(
        group.most["len"] >= BIG for group in groups
    )


def delay(w: Watched) -> Iterator[Finding]:
    """A long way: round trips take long, always, or many times longer than the least one did."""
    for several in by_destination(
        each
        for each in w.connections
        if _is_slow(each, w.limits.rtt_ms * 1000) and w.selects(each.row)
    ):
        row = several[0].row
        least = min(each.min_rtt_us or 0 for each in several)
        now = max(each.row["srtt_us"] or 0 for each in several)
        grown = least < w.limits.rtt_ms * 1000
        yield finding(
            w, "path-delay/grown" if grown else "path-delay", row, harm=Harm.NONE, **ends_of(row),
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
    for several in by_destination(held):
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
        if unsent := _unsent(w, several, common):
            yield unsent
            continue
        if other and not unread and not any(each.rwnd_limited for each in several):
            continue  # the window is open: what is sent doesn't leave
        if other:
            done.add(destination(other))
        if other and unread < w.limits.unread and not any(each.probing for each in several):
            yield finding(
                w, "receive-buffer-small", other, peer=row, **ends_of(other), **common,
                more=more("sockets", other, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
        elif other:
            cpu = w.cpu_limit(other)
            yield finding(
                w, "cpu-limit/reader" if cpu else "slow-reader", other, peer=row, **ends_of(other),
                **common | {"evidence": evidence | (cpu or {})},
                unread=unread, cpu=throttle(cpu),
                more=more("sockets", other, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
        else:
            closed = any(each.probing for each in several)
            yield finding(
                w, "slow-reader/far" if closed else "receive-buffer-small/far", row,
                confidence=LIKELY, **ends_of(row), **common, between=_between(row),
                more=more("sockets", row, f"--port {service_port(row)}", "-o wide"),
            )  # fmt: skip
    yield from _unread(w, done)


def _unsent(w: Watched, several: list[Connection], common: dict[str, Any]) -> Finding | None:
    """Return a finding of data that doesn't leave, in spite of an open window."""
    row = several[0].row
    if w.lacks_source(row):
        return None
    ends = ends_of(row) | {"peer": w.peer_of(row)}
    if result := w.look.route_error(row["netns"], row["daddr"]):
        return finding(
            w, "no-route/open", row, result=result, enter=enter(w, row["netns"]),
            more=more("sockets", row, f"--daddr {row['daddr']}"),
            where=address_port(row["daddr"], row["dport"]),
            **ends, **common | {"evidence": {"result": result, "send_q": row["send_q"]}},
        )  # fmt: skip
    if any(each.rwnd_limited for each in several):
        return None
    drop = next((each for each in w.drops_ahead(row) if cause_of(each.row) in HERE), None)
    if not drop:
        return _kept_back(w, row, ends, common)
    advice, evidence = advice_on(w, drop)
    return finding(
        w, f"{cause_of(drop.row)}/segments", row, between=_between(row), advice=advice,
        more=more("drop", drop.row, "--explain", f"--port {service_port(row)}"),
        **ends, **common | {"evidence": evidence},
    )  # fmt: skip


def _kept_back(
    w: Watched, row: Row, ends: dict[str, Any], common: dict[str, Any]
) -> Finding | None:
    """Return a finding if a firewall may keep data from leaving, whose drops are seconds apart."""
    other = w.sockets.other_end(row)
    if not other or other["recv_q"] or not row["unsent"]:
        return None
    rules = w.look.rules(row["netns"]) or {}
    hooks = [each for each in ("output", "postrouting", "egress") if rules.get(each)]
    programs = w.look.programs(row.get("pid"), row.get("cgroup"), EGRESS)
    if not hooks and not (programs and programs[1]):
        return None
    by = [f"a rule of the {' or '.join(hooks)} hook"] if hooks else []
    by += ["a BPF program at its cgroup (egress)"] if programs and programs[1] else []
    return finding(
        w, "firewall-drop/unsent", row, confidence=POSSIBLE, by=" or ".join(by),
        where=address_port(row["daddr"], row["dport"]), enter=enter(w, row["netns"]),
        more=more("drop", row, "--explain", f"--port {service_port(row)}"),
        **ends, **common | {"evidence": {"unsent": row["unsent"], "hooks": hooks or None}},
    )  # fmt: skip


def _unread(w: Watched, done: set[tuple[Any, ...]]) -> Iterator[Finding]:
    """Receivers that don't read, whose sender isn't on this host or isn't held up yet."""
    waiting = [
        each
        for each in w.connections
        if each.looks >= MIN_LOOKS and each.unread >= MOSTLY and destination(each.row) not in done
        and each.row["recv_q"] >= w.limits.unread
    ]  # fmt: skip
    for several in by_destination(waiting):
        row = several[0].row
        if not w.selects(row):
            continue
        unread = max(each.row["recv_q"] for each in several)
        cpu = w.cpu_limit(row)
        yield finding(
            w, "cpu-limit/unread" if cpu else "slow-reader/unread", row, harm=Harm.STALLED,
            **ends_of(row), confidence=LIKELY, unread=unread, cpu=throttle(cpu),
            more=more("sockets", row, f"--port {service_port(row)}"), count=len(several),
            seconds=sum(each.seconds for each in several), peer=w.peer_of(row),
            evidence={"recv_q": unread} | (cpu or {}),
        )  # fmt: skip


RULES = (loss, delay, windows)
