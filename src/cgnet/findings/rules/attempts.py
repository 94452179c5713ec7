# SPDX-License-Identifier: BSD-2-Clause
"""Attempts that fail, or whose SYN goes unanswered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cgnet.findings.causes import cause_of
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

ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound to
# ICMP tells of a firewall: of IPv6 as EACCES, by administrators as EPERM or EACCES.
REFUSALS = ("ECONNREFUSED", "EACCES", "EPERM")
NS = 1_000_000_000


class Unanswered:
    """Attempts of an owner to one destination whose SYN was sent again, or never answered."""

    def __init__(self, row: Row) -> None:
        """``row`` has the owner and the addresses."""
        self.row = row
        self.failed = self.pending = self.late = 0
        self.seconds = 0.0
        self.seqs: set[int] = set()

    @property
    def count(self) -> int:
        """How many attempts."""
        return self.failed + self.pending + self.late


def _where(row: Row) -> tuple[Any, ...]:
    return who(row), row["netns"], row["daddr"], row["dport"]


def _unanswered_kind(w: Watched, group: Group) -> str:
    """Return what became of attempts that waited for an answer: failed, late, or "" for neither."""
    result, resent = group.row["result"], group.sums["syn_retrans"]
    if group.row["role"] != "client" or group.row["tcp_state"] == "CLOSE":
        return ""
    if result in ("ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"):
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
    for row in w.pending:
        if row["state"] == "SYN_SENT" and row["retrans"] and w.selects(row):
            of(row).pending += 1
    for group in w.resends:
        if group.row["cause"] == "syn" and (known := found.get(_where(group.row))):
            known.seqs |= group.ids
    return list(found.values())


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
            "harm": Harm.FAILED, "daddr": row["daddr"], "dport": row["dport"],
            "count": group.count, "signals": ("connect", "drop"),
        }  # fmt: skip
        if rejecting and not missing:
            yield _rejected(w, group, rejecting[0], common)
        elif row["result"] != "ECONNREFUSED":
            yield finding(
                w, "firewall-reject", row, confidence=LIKELY,
                text=f"{who(row)} is refused on its way to {address_port(row['daddr'], row['dport'])} "
                f"({row['result']}): a firewall or router answers by ICMP that it is prohibited",
                fix=f"let the firewalls on the way accept port {row['dport']}",
                more=more("connect", row, f"--result {row['result']}"),
                evidence={"result": row["result"]}, **common,
            )  # fmt: skip
        elif missing:
            yield _not_listening(w, group, missing[0], common)
        elif row["daddr"].startswith(LOOPBACK):
            yield _not_listening(w, group, None, common)
        else:
            yield finding(
                w, "no-listener", row, confidence=LIKELY,
                text=f"{who(row)} is refused by {address_port(row['daddr'], row['dport'])}: the "
                "reset came from there, or from a firewall on the way; this host dropped nothing",
                fix="start the service there, have it listen on that address and port, or let its "
                "firewall accept",
                more=more("connect", row, "--result ECONNREFUSED", f"--dport {row['dport']}"),
                evidence={"result": row["result"], "refused": group.count}, **common,
            )  # fmt: skip


def _rejected(w: Watched, group: Group, drop: Group, common: dict[str, Any]) -> Finding:
    row = group.row
    text, evidence = advice_on(w, drop)
    return finding(
        w, "firewall-reject", row,
        text=f"{who(row)} is refused by a firewall on this host, on its way to "
        f"{address_port(row['daddr'], row['dport'])}: {text}",
        fix=f"let the rule accept port {row['dport']}, or have {who(row)} call what it may",
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
    called = address_port(row["daddr"], port)
    evidence: dict[str, Any] = {
        "result": row["result"],
        "listeners": [f"{each['saddr']}:{each['sport']}" for each in here],
        "netns": netns,
    }
    peer = _other(drop.row, row) if drop else {}
    if here:
        deaf = [each for each in here if each["old"] and each["family"] != row["family"]]
        fitting = [each for each in here if each["saddr"] in (*ANY, target) and each not in deaf]
        if fitting:
            return finding(
                w, "no-listener", row, confidence=LIKELY, peer=here[0],
                text=f"{who(row)} was refused by {called}: nobody listened there, and "
                f"{who(here[0])} does by "
                "now", fix="let the client try again while the service starts",
                more=more("sockets --listeners", here[0]), evidence=evidence, **common,
            )  # fmt: skip
        addresses = ", ".join(sorted({each["saddr"] for each in here}))
        return finding(
            w, "wrong-bind-address", row, peer=here[0],
            text=f"{who(row)} calls {called}, and {who(here[0])} listens on {addresses} alone",
            fix=f"have {who(here[0])} listen on {target} or on 0.0.0.0 (::), or call {addresses}",
            more=more("sockets --listeners", here[0]), evidence=evidence, **common,
        )  # fmt: skip
    text = f"{who(row)} calls {called}, and nobody listens at port {port} in {place}"
    fix = f"start what should serve port {port}, or correct the port that is called"
    if there and row["daddr"].startswith(LOOPBACK):
        others = ", ".join(sorted({who(each) for each in there})[:3])
        text += f"; {others} does in another network namespace, where 127.0.0.1 is another one"
        fix = f"call {others} by its own address or name, or share its network namespace"
        evidence["elsewhere"] = [f"{each['saddr']}:{each['sport']}" for each in there][:5]
    elif twice := _twice(w, row, netns, there):
        return finding(
            w, "duplicate-address", row, confidence=LIKELY, peer=twice,
            text=f"{called} is there twice: {place} and {w.look.place(twice['netns']).name} have the "
            f"address, and {who(twice)} listens in one of them alone; who answers is a matter of chance",
            fix=f"take {row['daddr']} away from one of them ('{enter(w, netns)}ip addr')",
            more=more("connect", row, f"--daddr {row['daddr']}"), evidence=evidence, **common,
        )  # fmt: skip
    elif there:
        others = ", ".join(sorted({who(each) for each in there})[:3])
        text += f"; {others} does in another network namespace"
        fix = f"call the address of {others}, publish its port, or start the service where it is called"
        evidence["elsewhere"] = [f"{each['saddr']}:{each['sport']}" for each in there][:5]
    return finding(
        w, "no-listener", row, peer=peer, text=text, fix=fix,
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


FIX = {
    "firewall-drop": "let the rule accept it, or have the client call what it may",
    "rp-filter": "add the route back through that device, or set rp_filter to 2 (loose)",
    "qdisc-limit": "raise the limit or the rate of the queue, or send less through the device",
    "conntrack-full": "raise nf_conntrack_max, or have fewer or shorter connections tracked",
    "no-route": "add the route, or call an address that is reachable",
    "tcp-memory": "give TCP, or the container, more memory, or have the application read faster",
    "mtu-blackhole": "lower the MTU (or MSS) of the sender's link, or let ICMP 'too big' through",
    "time-wait-refused": "let the client, or the NAT, use its ports again later; keep connections open",
    "no-listener": "start the service, or correct the address",
    "accept-queue-full": "have the application accept faster, or raise its backlog",
}


def _from_nowhere(w: Watched, each: Unanswered, common: dict[str, Any]) -> Finding:
    """Return the finding of attempts from an address that no device there has."""
    row = each.row
    return finding(
        w, "source-address-missing", row, confidence=LIKELY,
        text=f"{who(row)} gets no answer from {address_port(row['daddr'], row['dport'])}: no "
        f"device there has its source address {row['saddr']}, so answers don't find back",
        fix=f"give the address back ('{enter(w, row['netns'])}ip addr'), or bind to another one",
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
        where = address_port(row["daddr"], row["dport"])
        failed = each.failed + each.pending
        harm = Harm.FAILED if failed else Harm.SLOWED
        common: dict[str, Any] = {
            "harm": harm, "daddr": row["daddr"], "dport": row["dport"], "count": each.count,
            "seconds": each.seconds, "signals": ("connect", "drop", "retrans"),
        }  # fmt: skip
        if w.lacks_source(row):
            yield _from_nowhere(w, each, common)
            continue
        drops = w.drops_of(each.seqs) or w.drops_on_way(row) or w.drops_on_way(row, flags="SA")
        drops = [one for one in drops if one.row["tcp_flags"] in ("S", "SA", "SE", "SEC")] or drops
        cause = next((name for one in drops if (name := cause_of(one.row))), None)
        counts = numbers_of(each)
        if drops and cause:
            drop = next(one for one in drops if cause_of(one.row) == cause)
            text, evidence = advice_on(w, drop)
            if cause == "firewall-drop" and "table of connections" in text:
                cause = "conntrack-full"
            if cause == "firewall-drop" and row.get("result") in ("EHOSTUNREACH", "ENETUNREACH"):
                cause = "firewall-reject"
            what = "answer to its SYN" if drop.row["tcp_flags"] == "SA" else "SYN"
            yield finding(
                w, cause, row, peer=_other(drop.row, row),
                confidence=SURE if w.drops_of(each.seqs) else LIKELY,
                text=f"{who(row)} gets no answer from {where}: the {what} is dropped on this host: "
                f"{text}",
                fix=FIX.get(cause, FIX["firewall-drop"]),
                more=more("drop", drop.row, "--explain", f"--port {row['dport']}"),
                evidence=counts | evidence, **common,
            )  # fmt: skip
            continue
        if row.get("result") in ("EHOSTUNREACH", "ENETUNREACH"):
            yield _unreachable(w, row, common, counts)
            continue
        if back := _no_way_back(w, row, common, counts):
            yield back
            continue
        if not failed:
            yield finding(
                w, "path-loss", row, confidence=LIKELY,
                text=f"{who(row)} waits for {where}: {plural(each.late, 'handshake')} took a "
                "second SYN, a second or more each; this host dropped none of them",
                fix="look for loss on the way, or for a server that is overloaded",
                more=more("retrans", row, "--cause syn,synack"), evidence=counts, **common,
            )  # fmt: skip
            continue
        yield finding(
            w, "syn-unanswered", row, confidence=SURE if each.seqs else LIKELY,
            text=f"{who(row)} gets no answer from {where}: its SYNs leave this host, nothing comes "
            "back, and nothing was dropped here",
            fix="check that the address is right and the host up, and the firewalls and routes on "
            "the way and back",
            more=more("connect", row, f"--dport {row['dport']}"), evidence=counts, **common,
        )  # fmt: skip


def _no_way_back(
    w: Watched, row: Row, common: dict[str, Any], counts: dict[str, Any]
) -> Finding | None:
    """Return a finding if a listener of this host got the SYN and has no route for its answer."""
    for each in w.listeners_at(row["dport"]):
        if each["netns"] == row["netns"] or not each["drops_grown"] or not w.reaches(row, each):
            continue
        if w.look.has_route(each["netns"], row["saddr"]) is not False:
            continue
        place = w.look.place(each["netns"]).name
        return finding(
            w, "no-route", row, peer=each,
            text=f"{who(row)} gets no answer from {address_port(row['daddr'], row['dport'])}: its "
            f"SYN comes to {who(each)}, and {place} has no route back to {row['saddr']}",
            fix=f"add the route back: '{enter(w, each['netns'])}ip route get {row['saddr']}' tells",
            more=more("connect", row, f"--dport {row['dport']}"),
            evidence=counts | {"listener_drops": each["drops_grown"]}, **common,
        )  # fmt: skip
    return None


def _unreachable(w: Watched, row: Row, common: dict[str, Any], counts: dict[str, Any]) -> Finding:
    where = address_port(row["daddr"], row["dport"])
    return finding(
        w, "no-route", row, confidence=LIKELY,
        text=f"{who(row)} can't reach {where} ({row['result']}): a router, or this host for lack "
        "of an answer on the link, says that it isn't reachable",
        fix=f"check the address, and '{enter(w, row['netns'])}ip route get {row['daddr']}'; or who "
        "answers for it on the link (ip neigh)",
        more=more("connect", row, f"--result {row['result']}"),
        evidence=counts | {"result": row["result"]}, **common,
    )  # fmt: skip


def denied(w: Watched) -> Iterator[Finding]:
    """Attempts that fail before a SYN leaves, or for lack of a port."""
    for group in w.attempts:
        row = group.row
        if row["role"] != "client" or not w.selects(row):
            continue
        result, where = row["result"], address_port(row["daddr"], row["dport"])
        at = enter(w, row["netns"])
        common: dict[str, Any] = {
            "harm": Harm.FAILED, "daddr": row["daddr"], "dport": row["dport"],
            "count": group.count, "signals": ("connect",), "evidence": {"result": result},
            "more": more("connect", row, f"--result {result}", "--sync-errors on"),
        }  # fmt: skip
        if result in ("EPERM", "EACCES") and row["tcp_state"] == "CLOSE":
            yield finding(
                w, "connect-denied", row,
                text=f"{who(row)} may not connect to {where} ({result}): a BPF program at its "
                "cgroup, a security module, or a rule of the output hook forbids it",
                fix=f"look at 'bpftool cgroup tree', '{at}nft list ruleset', and the audit log, "
                "and let it",
                **common,
            )  # fmt: skip
        elif result == "EADDRNOTAVAIL" and row["tcp_state"] != "CLOSE":
            yield _no_port(w, group, common)
        elif result in ("EADDRNOTAVAIL", "EINVAL") or _lacks_source(w, row):
            source = row["saddr"]
            yield finding(
                w, "source-address-missing", row,
                text=f"{who(row)} can't connect to {where} from {source} ({result}): no device "
                "there has that source address",
                fix=f"give the address back ('{at}ip addr'), or bind to another one", **common,
            )  # fmt: skip
        elif result in ("ENETUNREACH", "EHOSTUNREACH") and row["tcp_state"] == "CLOSE":
            ident = "no-route"
            text = f"{who(row)} can't connect to {where} ({result}): its network namespace has no "
            "route there"
            yield finding(
                w, ident, row, text=text,
                fix=f"add the route ('{at}ip route get {row['daddr']}' tells), or call another address",
                **common,
            )  # fmt: skip


def _lacks_source(w: Watched, row: Row) -> bool:
    """Return whether an attempt fails before a SYN from an address that no device there has."""
    if row["result"] not in ("ENETUNREACH", "EHOSTUNREACH") or row["tcp_state"] != "CLOSE":
        return False
    return w.lacks_source(row)


def _no_port(w: Watched, group: Group, common: dict[str, Any]) -> Finding:
    row = group.row
    place = w.look.sysctl(row["netns"], "net/ipv4/ip_local_port_range")
    used = w.sockets.states.get(6, 0)
    return finding(
        w, "ports-exhausted", row,
        text=f"{who(row)} finds no free local port for {address_port(row['daddr'], row['dport'])}: "
        f"the range {place or ''} is used up to that destination",
        fix="keep connections open instead of making new ones, widen net.ipv4.ip_local_port_range, "
        "or use more addresses",
        **common
        | {
            "more": f"cgnet sockets --ports --netns {row['netns']}",
            "evidence": {"result": row["result"], "ip_local_port_range": place, "time_wait": used},
        },
    )  # fmt: skip


RULES = (refused, silent, denied)
