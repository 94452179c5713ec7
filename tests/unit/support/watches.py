# SPDX-License-Identifier: BSD-2-Clause
"""Watches that are made up: what the rules of `cgnet why` are asked about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cgnet.findings.connections import Connection
from cgnet.findings.rules import judge
from cgnet.findings.tally import Group
from cgnet.findings.thresholds import Thresholds
from cgnet.findings.watched import Watched

if TYPE_CHECKING:
    from cgnet.findings.finding import Finding

Row = dict[str, Any]
NETNS, OTHER_NETNS = 100, 200
END_NS = 10**10
WHO: Row = {
    "container": "app", "pod": None, "cgroup": "/app", "cgroup_id": "1", "netns": NETNS, "pid": 1,
    "comm": "app",
}  # fmt: skip
SERVER: Row = WHO | {"container": "web", "cgroup": "/web", "cgroup_id": "2", "netns": OTHER_NETNS}
FLOW: Row = {
    "family": 4, "mapped": False, "saddr": "10.0.0.1", "sport": 40000, "daddr": "10.0.0.2",
    "dport": 80,
}  # fmt: skip
BACK: Row = {
    "family": 4, "mapped": False, "saddr": "10.0.0.2", "sport": 80, "daddr": "10.0.0.1",
    "dport": 40000,
}  # fmt: skip


def group(row: Row, count: int = 1, ids: tuple[int, ...] = (), **sums: int) -> Group:
    known = {
        "latency_ns": 0, "syn_retrans": 0, "segs": count, "len": 0, "attempt": 1, "rto_us": 0,
        "retrans": 0, "dsack_dups": 0, "reordering": 3, "tx_bytes_delta": 0,
        "tx_bytes": 0, "tx_segs": 0, "duration_ns": 0, "thinking": 0, "thinking_turns": 0,
        "thinking_ns": 0, "thinking_before": 0, "think_us": 0, "greatest_turn_us": 0,
    }  # fmt: skip
    return Group(row, count, known | sums, known | sums, frozenset(ids), 0, END_NS)


def attempt(result: str, count: int = 1, state: str = "SYN_SENT", **more: Any) -> Group:
    sums = {name: more.pop(name) for name in ("latency_ns", "syn_retrans") if name in more}
    row = WHO | FLOW | {"role": "client", "tcp_state": state, "result": result} | more
    return group(row, count, **sums)


def drop(reason: str | None, flags: str = "S", count: int = 1, seq: int = 7, **more: Any) -> Group:
    row: Row = SERVER | FLOW | {
        "tcp_flags": flags, "reason": reason, "reason_class": None, "location": "f+0x1",
        "stack": (), "dev": "eth0", "direction": "rx", "tcp_state": None,
    }  # fmt: skip
    return group(row | more, count, (seq,))


def resend(cause: str, segs: int = 1, seq: int = 7, **more: Any) -> Group:
    sums = {name: more.pop(name) for name in ("len", "attempt", "rto_us") if name in more}
    row = WHO | FLOW | {"role": "client", "tcp_state": "ESTABLISHED", "cause": cause} | more
    return group(row, segs, (seq,), **{"segs": segs} | sums)


def end(closed_by: str | None, cause: str | None, count: int = 1, **more: Any) -> Group:
    sums = {
        name: more.pop(name)
        for name in ("reordering", "dsack_dups", "duration_ns", "tx_bytes", "tx_segs")
        if name in more
    }
    row = WHO | FLOW | {
        "role": "client", "tcp_state": "ESTABLISHED", "closed_by": closed_by, "close_cause": cause,
        "rst_reason": None, "open": closed_by is None, "srtt_us": 100, "dsack_dups": 0,
    } | more  # fmt: skip
    return group(row, count, **sums)


def answered(turns: int, each_us: int, duration_s: float, count: int = 1, **more: Any) -> Group:
    """Return ends of a server's connections whose clients wait, as many as ``count``."""
    row = SERVER | BACK | {"role": "server", "open": True, "dsack_dups": 0, "close_cause": None}
    sums = {
        "thinking": count, "thinking_turns": turns, "thinking_ns": int(duration_s * 1e9),
        "think_us": turns * each_us, "greatest_turn_us": 2 * each_us,
        "thinking_before": more.pop("thinking_before", 0),
    }  # fmt: skip
    return group(row | {"closed_by": None} | more, count, **sums)


def listener(port: int = 80, address: str = "0.0.0.0", **more: Any) -> Row:
    state = {
        "state": "LISTEN", "role": None, "recv_q": 0, "send_q": 128, "backlog": 128,
        "drops_grown": 0, "fullest": 0, "old": True,
    }  # fmt: skip
    return (
        SERVER
        | BACK
        | {"saddr": address, "sport": port, "daddr": "0.0.0.0", "dport": 0}
        | state
        | more
    )


def connection(row: Row, **more: Any) -> Connection:
    base = {"role": "client", "recv_q": 0, "send_q": 0, "unsent": 0, "retrans": 0, "srtt_us": 100}
    known: Row = {
        "seconds": 10.0, "looks": 10, "retrans": 0, "busy": 0.0, "rwnd_limited": 0.0,
        "sndbuf_limited": 0.0, "unread": 0.0, "waiting": 0.0, "one_way": False, "probing": 0.0,
        "heard": 1e9, "stuck": 0.0, "turns": 0, "gone": False, "min_rtt_us": 100,
    }  # fmt: skip
    return Connection(row=base | row, **known | more)


class Sockets:
    """Open sockets that are made up."""

    def __init__(
        self, listeners: list[Row], connections: list[Connection], others: list[Row]
    ) -> None:
        self._listeners, self._connections, self._others = listeners, connections, others
        self.states: dict[int, int] = {}
        self.pending: list[Row] = []
        self.closed: list[Row] = []

    def listeners(self) -> list[Row]:
        return self._listeners

    def connections(self, _end_ns: int) -> list[Connection]:
        return self._connections

    def attempts(self) -> list[Row]:
        return self.pending

    def closed_listeners(self) -> list[Row]:
        return self.closed

    def other_end(self, row: Row) -> Row:
        ends = (row["daddr"], row["dport"], row["saddr"], row["sport"])
        for each in self._others:
            if (each["saddr"], each["sport"], each["daddr"], each["dport"]) == ends:
                return each
        return {}


class Look:
    """Settings and counters: none is known, unless a test gives it."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    def place(self, netns: int) -> Any:
        return SimpleNamespace(name=f"network namespace {netns}", enter=f"ip netns exec {netns} ")

    def is_there(self, netns: int) -> bool:
        return netns not in self.known.get("gone", ())

    def addresses(self, netns: int) -> frozenset[str]:
        known = self.known.get("addresses", {OTHER_NETNS: ["10.0.0.2"], NETNS: ["10.0.0.1"]})
        return frozenset(known.get(netns, ()))

    def grown(self, _netns: int, names: tuple[str, ...]) -> dict[str, int]:
        known = self.known.get("grown", {})
        return {name: known[name] for name in names if name in known}

    grown_lately = grown

    def sysctl(self, _netns: int, name: str) -> str | None:
        found = self.known.get("sysctl", {}).get(name)
        return None if found is None else str(found)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.known.get(name)


def watched(
    *groups: Group, listeners: list[Row] | None = None, connections: list[Connection] | None = None,
    others: list[Row] | None = None, pending: list[Row] | None = None, closed: list[Row] | None = None,
    selects: Any = None, lost: dict[str, int] | None = None,
    throttled: dict[str, dict[str, int]] | None = None, **known: Any,
) -> Watched:  # fmt: skip
    by_signal: dict[str, list[Group]] = {"connect": [], "drop": [], "retrans": [], "life": []}
    for each in groups:
        row = each.row
        name = "connect" if "result" in row else "drop" if "reason" in row else None
        by_signal[name or ("retrans" if "cause" in row else "life")].append(each)
    sockets = Sockets(listeners or [], connections or [], others or [])
    sockets.pending, sockets.closed = pending or [], closed or []
    matcher: Any = SimpleNamespace(
        owner=selects or (lambda _row: True),
        flow=lambda _row, **_: True,
        by_owner=False,
        by_flow=False,
    )
    look: Any = Look(**known)
    made: Any = sockets
    return Watched(
        by_signal, made, look, matcher, seconds=10.0, end_ns=END_NS, lost=lost or {},
        throttled=throttled or {}, limits=Thresholds(),
    )  # fmt: skip


def only(made: Watched) -> Finding:
    found = judge(made)
    assert len(found) == 1, [(each.id, each.text) for each in found]
    return found[0]


def ids(made: Watched) -> list[str]:
    return [each.id for each in judge(made)]
