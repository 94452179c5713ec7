# SPDX-License-Identifier: BSD-2-Clause
"""Attempts that fail, or whose SYN goes unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.advice import Seen, advise
from cgnet.findings.causes import cause_of, function_of
from cgnet.findings.drop_reasons import UNSPECIFIED
from cgnet.findings.finding import UNKNOWN, Finding, Harm, who
from cgnet.findings.rules.base import (
    LIKELY,
    LOOPBACK,
    SURE,
    address_port,
    advice_on,
    enter,
    finding,
    more,
    plural,
)
from cgnet.findings.rules.queues import full_listeners

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cgnet.findings.tally import Group
    from cgnet.findings.watched import Row, Watched

SYN_QUEUE_FULL = "TcpExtTCPReqQFullDrop"
ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound to
# ICMP tells of a firewall: of IPv6 as EACCES, by administrators as EPERM or EACCES.
UNREACHABLE = ("EHOSTUNREACH", "ENETUNREACH")
REFUSALS = ("ECONNREFUSED", "EACCES", "EPERM")
# Kinds of routes and rules by the error that they give before a SYN; see ip-route(8).
REFUSING = {"EACCES": "prohibit", "EINVAL": "blackhole"}
NS = 1_000_000_000
INSTEAD = 0.8  # share of attempts after which one to the other family's address succeeded


class Unanswered:
    """Attempts of an owner to one destination whose SYN was sent again, or never answered."""

    def __init__(self, row: Row) -> None:
        """``row`` has the owner and the addresses."""
        self.row = row
        self.failed = self.pending = self.late = 0
        self.seconds = 0.0
        self.seqs: set[int] = set()
        self.failed_ns = self.answered_ns = 0  # the first that failed; the last that succeeded

    @property
    def count(self) -> int:
        """How many attempts."""
        return self.failed + self.pending + self.late

    def is_answered_at_times(self, end_ns: int) -> bool:
        """Return whether others succeeded meanwhile."""
        if self.failed:
            return self.answered_ns > self.failed_ns
        return bool(self.late) or self.answered_ns > end_ns - NS


def _where(row: Row) -> tuple[Any, ...]:
    return who(row), row["netns"], row["daddr"], row["dport"]


def _unanswered_kind(w: Watched, group: Group) -> str:
    """Return what became of attempts that waited for an answer: failed, late, or "" for neither."""
    result, resent = group.row["result"], group.sums["syn_retrans"]
    if group.row["role"] != "client" or group.row["tcp_state"] == "CLOSE":
        return ""
    if result in ("ETIMEDOUT", *UNREACHABLE):
        return "failed"
    if result == "aborted" and (resent or group.most["latency_ns"] >= w.limits.syn_s * NS):
        return "failed"
    return "late" if result == "ok" and resent else ""


def unanswered(w: Watched) -> list[Unanswered]:
    """Return the attempts whose SYN waited for an answer in vain, or for a second or longer."""
    found: dict[tuple[Any, ...], Unanswered] = {}

    def of(row: Row) -> Unanswered:
        return found.setdefault(_where(row), Unanswered(row))

    for group in w.attempts:
        kind = _unanswered_kind(w, group)
        if kind:
            each = of(group.row)
            each.failed += group.count if kind == "failed" else 0
            each.late += min(group.count, group.sums["syn_retrans"]) if kind == "late" else 0
            each.seconds += group.sums["latency_ns"] / 1e9
            if kind == "failed":
                each.failed_ns = min(each.failed_ns or group.first_ns, group.first_ns)
    for row in w.pending:
        if row["state"] == "SYN_SENT" and row["retrans"] and w.selects(row):
            of(row).pending += 1
    for group in w.resends:
        if group.row["cause"] == "syn" and (known := found.get(_where(group.row))):
            known.seqs |= group.ids
    _see_answered(w, found)
    return list(found.values())


def _see_answered(w: Watched, found: dict[tuple[Any, ...], Unanswered]) -> None:
    """Tell unanswered attempts when others to there succeeded."""
    for group in w.attempts:
        if group.row["result"] == "ok" and (known := found.get(_where(group.row))):
            known.answered_ns = max(known.answered_ns, group.last_ns)


def _local_listeners(w: Watched, row: Row, netns: int | None) -> list[Row]:
    return [
        each for each in w.listeners_at(row["dport"]) if netns is None or each["netns"] == netns
    ]


def refused(w: Watched) -> Iterator[Finding]:
    """Attempts that were refused: nobody listens, or a firewall rejects."""
    for group in w.attempts:
        row = group.row
        if row["role"] != "client" or row["tcp_state"] == "CLOSE" or not w.selects(row):
            continue
        if row["result"] not in REFUSALS:
            continue
        drops = w.drops_on_way(row)
        rejecting = [each for each in drops if cause_of(each.row) == "firewall-drop"]
        missing = [each for each in drops if cause_of(each.row) == "no-listener"]
        common = {
            "harm": _harm(w, group), "daddr": row["daddr"], "dport": row["dport"],
            "count": group.count, "signals": ("connect", "drop"),
        }  # fmt: skip
        routing = [each for each in drops if cause_of(each.row) == "no-route"]
        if rejecting and not missing:
            yield _rejected(w, group, rejecting[0], common)
        elif routing and row["result"] != "ECONNREFUSED":
            advice, evidence = advice_on(w, routing[0])
            yield finding(
                w, "no-route/attempt", row, confidence=LIKELY, advice=advice, packet="SYN",
                more=more("drop", routing[0].row, "--explain", f"--port {row['dport']}"),
                evidence=evidence | {"result": row["result"]}, **common,
            )  # fmt: skip
        elif row["result"] != "ECONNREFUSED":
            yield finding(
                w, "firewall-reject/far", row, confidence=LIKELY, result=row["result"],
                more=more("connect", row, f"--result {row['result']}"),
                evidence={"result": row["result"]}, **common,
            )  # fmt: skip
        elif missing:
            yield _not_listening(w, group, missing[0], common)
        elif row["daddr"].startswith(LOOPBACK):
            yield _not_listening(w, group, None, common)
        else:
            yield finding(
                w, "no-listener/far", row, confidence=LIKELY,
                more=more("connect", row, "--result ECONNREFUSED", f"--dport {row['dport']}"),
                evidence={"result": row["result"], "refused": group.count}, **common,
            )  # fmt: skip


def _harm(w: Watched, group: Group) -> Harm:
    """Return the harm of attempts that fail at once: none if the other family was called then."""
    row = group.row
    others = (
        each
        for each in w.attempts
        if each.row["result"] == "ok"
        and each.row["role"] == "client"
        and each.row["family"] != row["family"]
        and (who(each.row), each.row["netns"], each.row["dport"])
        == (who(row), row["netns"], row["dport"])
        and each.last_ns > group.last_ns - NS
    )
    return Harm.NONE if sum(each.count for each in others) >= INSTEAD * group.count else Harm.FAILED


def _rejected(w: Watched, group: Group, drop: Group, common: dict[str, Any]) -> Finding:
    row = group.row
    advice, evidence = advice_on(w, drop)
    return finding(
        w, "firewall-reject", row, advice=advice,
        more=more("drop", drop.row, "--explain", f"--dport {drop.row['dport']}"),
        peer=_other(drop.row, row), evidence=evidence | {"result": row["result"]}, **common,
    )  # fmt: skip


def _other(one: Row, row: Row) -> Row:
    """Return a drop's row as the peer, if it is of another owner than the attempt."""
    return one if who(one) not in (who(row), UNKNOWN) else {}


def _not_listening(w: Watched, group: Group, drop: Group | None, common: dict[str, Any]) -> Finding:
    """Return the finding of a SYN that found no listener: by what listens at the port elsewhere."""
    row, port = group.row, group.row["dport"]
    netns = drop.row["netns"] if drop else row["netns"]
    target = drop.row["daddr"] if drop else row["daddr"]
    here = _local_listeners(w, row, netns)
    there = [each for each in _local_listeners(w, row, None) if each["netns"] != netns]
    place = w.look.place(netns).name
    evidence: dict[str, Any] = {
        "result": row["result"],
        "listeners": [f"{each['saddr']}:{each['sport']}" for each in here],
        "netns": netns,
    }
    peer = _other(drop.row, row) if drop else {}
    if here:
        deaf = [each for each in here if each["old"] and each["family"] != row["family"]]
        fitting = [each for each in here if each["saddr"] in (*ANY, target) and each not in deaf]
        bound = [each for each in fitting if each["old"]]
        if bound and len(bound) == len(fitting):
            return finding(
                w, "wrong-bind-address/device", row, confidence=LIKELY, peer=bound[0],
                listener=address_port(bound[0]["saddr"], port), enter=enter(w, netns),
                more=more("sockets --listeners", bound[0]), evidence=evidence, **common,
            )  # fmt: skip
        if fitting:
            return finding(
                w, "no-listener/starting", row, confidence=LIKELY, peer=here[0],
                more=more("sockets --listeners", here[0]), evidence=evidence, **common,
            )  # fmt: skip
        addresses = ", ".join(sorted({each["saddr"] for each in here}))
        return finding(
            w, "wrong-bind-address", row, peer=here[0],
            addresses=addresses, target=target,
            more=more("sockets --listeners", here[0]), evidence=evidence, **common,
        )  # fmt: skip
    sentence, others = "no-listener", ", ".join(sorted({who(each) for each in there})[:3])
    if there and row["daddr"].startswith(LOOPBACK):
        sentence = "no-listener/loopback"
    elif twice := _twice(w, row, netns, there):
        return finding(
            w, "duplicate-address", row, confidence=LIKELY, peer=twice,
            place=place, other_place=w.look.place(twice["netns"]).name, enter=enter(w, netns),
            more=more("connect", row, f"--daddr {row['daddr']}"), evidence=evidence, **common,
        )  # fmt: skip
    elif there:
        sentence = "no-listener/elsewhere"
    if there:
        evidence["elsewhere"] = [f"{each['saddr']}:{each['sport']}" for each in there][:5]
    return finding(
        w, sentence, row, peer=peer, place=place, others=others,
        more=more("connect", row, "--result ECONNREFUSED", f"--dport {port}"),
        evidence=evidence, confidence=SURE if drop else LIKELY, **common,
    )  # fmt: skip


def _twice(w: Watched, row: Row, netns: int, there: list[Row]) -> Row | None:
    """Return the listener of another namespace that has the address, too, and was reached there."""
    reached = any(
        group.row["result"] == "ok"
        and (group.row["daddr"], group.row["dport"]) == (row["daddr"], row["dport"])
        for group in w.attempts
    )
    if row["daddr"] not in w.look.addresses(netns):
        return None
    found = [each for each in there if row["daddr"] in w.look.addresses(each["netns"])]
    return found[0] if found and reached else None


def _from_nowhere(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding:
    """Return the finding of attempts from an address that no device there has."""
    row = each.row
    return finding(
        w, "source-address-missing/unanswered", row, confidence=LIKELY, source=row["saddr"],
        enter=enter(w, row["netns"]),
        more=more("connect", row, f"--saddr {row['saddr']}"), evidence=numbers_of(each), **common,
    )  # fmt: skip


def numbers_of(each: Unanswered) -> dict[str, int]:
    """Return how many attempts failed, still wait, or were late."""
    numbers = {"failed": each.failed, "waiting": each.pending, "late": each.late}
    return {name: number for name, number in numbers.items() if number}


def silent(w: Watched) -> Iterator[Finding]:
    """Attempts whose SYN, or the answer to it, was lost: here, or nobody knows where."""
    full = full_listeners(w)
    for each in unanswered(w):
        row = each.row
        if not w.selects(row) or any(w.reaches(row, one) for one in full):
            continue  # of full accept queues another rule tells
        common: dict[str, Any] = {
            "harm": Harm.FAILED if each.failed + each.pending else Harm.SLOWED,
            "daddr": row["daddr"], "dport": row["dport"], "count": each.count,
            "seconds": each.seconds, "signals": ("connect", "drop", "retrans"),
        }  # fmt: skip
        if w.lacks_source(row):
            yield _from_nowhere(w, each, common)
        else:
            yield (
                _half_open(w, each, common)
                or _dropped(w, each, common)
                or _unreachable(w, each, common)
                or _no_way_back(w, each, common)
                or _lost(w, each, common)
            )


def _half_open(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding | None:
    """Return a finding if the listener's queue of half-open connections is full.

    Kernels drop such a SYN without an event: the listener's drops and a counter tell.
    """
    row = each.row
    if _explaining(w.drops_of(each.seqs)):
        return None
    for one in w.listeners_at(row["dport"]):
        grown = w.look.grown(one["netns"], (SYN_QUEUE_FULL,)).get(SYN_QUEUE_FULL, 0)
        if not one["drops_grown"] or not grown or not w.reaches(row, one):
            continue
        seen = Seen("TCP_SYN_QUEUE_FULL", "resource", one["netns"], dport=row["dport"])
        text, evidence = advise(seen, w.look) or ("", {})
        return finding(
            w, "accept-queue-full/half-open", one, peer=row, confidence=LIKELY, advice=text,
            listener=address_port(one["saddr"], one["sport"]), drops=grown,
            more=more("sockets --listeners", one), evidence=numbers_of(each) | evidence, **common,
        )  # fmt: skip
    return None


def _explaining(drops: list[Group]) -> Group | None:
    """Return a drop whose cause is known, of a handshake's packet rather than of another."""
    known = [one for one in drops if cause_of(one.row)]
    handshake = [one for one in known if one.row["tcp_flags"] in ("S", "SA", "SE", "SEC")]
    return next(iter(handshake or known), None)


def _dropped(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding | None:
    """Return a finding if this host dropped the SYN, or the answer to it."""
    row = each.row
    places = (w.drops_of(each.seqs), w.drops_on_way(row), w.drops_on_way(row, flags="SA"))
    drop = next((found for drops in places if (found := _explaining(drops))), None)
    cause = cause_of(drop.row) if drop else None
    if not drop or not cause:
        return None
    advice, evidence = advice_on(w, drop)
    if cause == "firewall-drop" and "table of connections" in advice:
        cause = "conntrack-full"
    if cause == "firewall-drop" and row.get("result") in UNREACHABLE:
        cause = "firewall-reject"
    return finding(
        w, f"{cause}/attempt", row, peer=_other(drop.row, row), advice=advice,
        packet="answer to its SYN" if drop.row["tcp_flags"] == "SA" else "SYN",
        confidence=SURE if drop in places[0] and "untold" not in drop.row else LIKELY,
        more=more("drop", drop.row, "--explain", f"--port {row['dport']}"),
        evidence=numbers_of(each) | evidence, **common,
    )  # fmt: skip


def _unreachable(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding | None:
    row = each.row
    if row.get("result") not in UNREACHABLE:
        return None
    return finding(
        w, "no-route/unreachable", row, confidence=LIKELY, result=row["result"],
        enter=enter(w, row["netns"]), more=more("connect", row, f"--result {row['result']}"),
        evidence=numbers_of(each) | {"result": row["result"]}, **common,
    )  # fmt: skip


def _no_way_back(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding | None:
    """Return a finding if a listener of this host got the SYN and has no route for its answer."""
    row = each.row
    for one in w.listeners_at(row["dport"]):
        if one["netns"] == row["netns"] or not one["drops_grown"] or not w.reaches(row, one):
            continue
        if w.look.has_route(one["netns"], row["saddr"]) is not False:
            continue
        return finding(
            w, "no-route/back", row, peer=one, source=row["saddr"],
            place=w.look.place(one["netns"]).name, enter=enter(w, one["netns"]),
            more=more("connect", row, f"--dport {row['dport']}"),
            evidence=numbers_of(each) | {"listener_drops": one["drops_grown"]}, **common,
        )  # fmt: skip
    return None


def _lost(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding:
    """Return the finding of what was lost beyond this host."""
    row = each.row
    if not each.failed + each.pending:
        return _lost_at_times(w, each, common)
    if drops := [one for one in w.drops_of(each.seqs) if not w.is_answered(one.row)]:
        if drops[0].row.get("reason") not in (None, UNSPECIFIED):
            advice, evidence = advice_on(w, drops[0])
            return finding(
                w, "syn-unanswered/refused", row, peer=_other(drops[0].row, row), advice=advice,
                drops=plural(sum(one.count for one in drops), "packet"),
                more=more("drop", drops[0].row, "--explain", f"--port {row['dport']}"),
                evidence=numbers_of(each) | evidence, **common,
            )  # fmt: skip
        return finding(
            w, "syn-unanswered/dropped", row, confidence=LIKELY,
            drops=plural(sum(one.count for one in drops), "packet"), function=function_of(drops[0].row),
            more=more("drop", drops[0].row, f"--port {row['dport']}", "-o wide"),
            evidence=numbers_of(each) | {"location": drops[0].row["location"]}, **common,
        )  # fmt: skip
    if each.is_answered_at_times(w.end_ns):
        return _lost_at_times(w, each, common)
    return finding(
        w, "syn-unanswered", row, confidence=SURE if each.seqs else LIKELY,
        more=more("connect", row, f"--dport {row['dport']}"), evidence=numbers_of(each), **common,
    )  # fmt: skip


def _lost_at_times(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding:
    """Return the finding of attempts that are answered late, or not, while others are."""
    row = each.row
    return finding(
        w, "path-loss/handshake", row, confidence=LIKELY, late=plural(each.count, "handshake"),
        more=more("retrans", row, "--cause syn,synack"), evidence=numbers_of(each), **common,
    )  # fmt: skip


def denied(w: Watched) -> Iterator[Finding]:
    """Attempts that fail before a SYN leaves, or for lack of a port."""
    for group in w.attempts:
        row, result = group.row, group.row["result"]
        if row["role"] != "client" or not w.selects(row):
            continue
        common: dict[str, Any] = {
            "harm": _harm(w, group), "daddr": row["daddr"], "dport": row["dport"],
            "count": group.count, "signals": ("connect",), "evidence": {"result": result},
            "more": more("connect", row, f"--result {result}", "--sync-errors on"),
            "result": result, "enter": enter(w, row["netns"]),
        }  # fmt: skip
        if _is_refused_by_a_route(w, row):
            yield finding(
                w, "no-route/refusing", row, kind=REFUSING[result],
                confidence=LIKELY if result == "EINVAL" else SURE, **common,
            )  # fmt: skip
        elif result in ("EPERM", "EACCES") and row["tcp_state"] == "CLOSE":
            yield finding(w, "connect-denied", row, **common)
        elif result == "EADDRNOTAVAIL" and row["tcp_state"] != "CLOSE":
            yield _no_port(w, group, common)
        elif result in ("EADDRNOTAVAIL", "EINVAL") or _lacks_source(w, row):
            yield finding(w, "source-address-missing", row, source=row["saddr"], **common)
        elif result in UNREACHABLE and row["tcp_state"] == "CLOSE":
            yield finding(w, "no-route", row, **common)


def _lacks_source(w: Watched, row: Row) -> bool:
    """Return whether an attempt fails before a SYN from an address that no device there has."""
    return row["result"] in UNREACHABLE and row["tcp_state"] == "CLOSE" and w.lacks_source(row)


def _is_refused_by_a_route(w: Watched, row: Row) -> bool:
    """Return whether an attempt fails by a route or rule that refuses, before a SYN."""
    if row["tcp_state"] != "CLOSE" or row["result"] not in REFUSING or w.lacks_source(row):
        return False
    return bool(w.look.route_error(row["netns"], row["daddr"]) == row["result"])


def _no_port(w: Watched, group: Group, common: dict[str, Any]) -> Finding:
    row = group.row
    used_up = w.look.sysctl(row["netns"], "net/ipv4/ip_local_port_range")
    evidence = {
        "result": row["result"], "ip_local_port_range": used_up,
        "time_wait": w.sockets.states.get(6, 0),
    }  # fmt: skip
    shown = common | {"more": f"cgnet sockets --ports --netns {row['netns']}", "evidence": evidence}
    return finding(w, "ports-exhausted", row, range=used_up or "", **shown)


RULES = (refused, silent, denied)
