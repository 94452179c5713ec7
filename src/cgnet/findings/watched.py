# SPDX-License-Identifier: BSD-2-Clause
"""All that a watch saw, as the rules ask for it: events by group, open sockets, counters, settings."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cgnet.findings.connections import service_port
from cgnet.findings.finding import who
from cgnet.findings.untold_reasons import with_link, with_reason
from cgnet.owners.record_fields import UNKNOWN as UNKNOWN_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgnet.filters.matching import Matcher
    from cgnet.findings.connections import Connection, Connections
    from cgnet.findings.evidence import Look
    from cgnet.findings.tally import Group
    from cgnet.findings.thresholds import Thresholds

SYN = "S"

ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound to
Row = dict[str, Any]


class Watched:
    """The evidence. Rows are as the commands print them in JSON."""

    def __init__(
        self,
        groups: dict[str, list[Group]],
        sockets: Connections,
        look: Look,
        matcher: Matcher,
        *,
        seconds: float,
        end_ns: int,
        lost: dict[str, int],
        throttled: dict[str, dict[str, int]],
        limits: Thresholds,
    ) -> None:
        """``groups`` are the events by signal; ``lost`` those that each signal lost."""
        self.look = look
        there = {
            name: [each for each in found if not self._is_left_over(each.row)]
            for name, found in groups.items()
        }
        self.attempts = there.get("connect", [])
        self._drops = there.get("drop", [])
        self.sockets, self.matcher = sockets, matcher
        self.resends = [self._with_role(each) for each in there.get("retrans", [])]
        lives = [self._with_role(each) for each in there.get("life", [])]
        self.ends = [each for each in lives if not each.row["open"]]
        self.lives = lives  # with those of open connections
        self.seconds, self.end_ns, self.lost = seconds, end_ns, lost
        self._throttled, self.limits = throttled, limits

    def _is_left_over(self, row: Row) -> bool:
        """Return whether a deleted container left it in the kernel: it is nobody's trouble."""
        unknown = row.get("owner_source") == UNKNOWN_SOURCE
        return unknown and not self.look.is_there(row["netns"])

    @cached_property
    def drops(self) -> list[Group]:
        """The drops, with their reasons as far as they are known."""
        return [
            replace(each, row=with_link(self, with_reason(self, each.row))) for each in self._drops
        ]

    @cached_property
    def connections(self) -> list[Connection]:
        """The connections that may have trouble."""
        found = self.sockets.connections(self.end_ns)
        return [
            each._replace(row=each.row | {"role": self.role_of(each.row)})
            for each in found
            if not self._is_left_over(each.row)
        ]

    def _with_role(self, group: Group) -> Group:
        """Return a group of connections; those from before the start get their role."""
        return replace(group, row=group.row | {"role": self.role_of(group.row)})

    @cached_property
    def open(self) -> int:
        """How many selected connections are open at the end."""
        selective = self.matcher.by_owner or self.matcher.by_flow
        return self.sockets.open(self.selects if selective else None)

    @cached_property
    def listeners(self) -> list[Row]:
        """The listeners, of all namespaces."""
        return self.sockets.listeners()

    @cached_property
    def _listeners_by_port(self) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for each in self.listeners:
            found.setdefault(each["sport"], []).append(each)
        return found

    @cached_property
    def pending(self) -> list[Row]:
        """The attempts that are under way at the end."""
        return self.sockets.attempts()

    @cached_property
    def _drops_of_seq(self) -> dict[int, list[Group]]:
        found: dict[int, list[Group]] = {}
        for group in self.drops:
            for seq in group.ids:
                found.setdefault(seq, []).append(group)
        return found

    def drops_of(self, seqs: Iterable[int]) -> list[Group]:
        """Return the groups of drops of packets with these sequence numbers, most drops first."""
        found: dict[int, Group] = {}
        for seq in seqs:
            for group in self._drops_of_seq.get(seq, ()):
                found[id(group)] = group
        return sorted(found.values(), key=lambda group: -group.count)

    def drops_on_way(self, row: Row, *, flags: str | None = SYN) -> list[Group]:
        """Return the drops of packets between the ends of a connection, by address and port.

        Of attempts alone, whose source port may be any of the group's. NAT hides some of them.
        """
        ends = {row["saddr"], row["daddr"]}
        port = service_port(row)
        return [
            group
            for group in self.drops
            if (flags is None or group.row["tcp_flags"] == flags)
            and port in (group.row["dport"], group.row["sport"])
            and {group.row["saddr"], group.row["daddr"]} & ends
        ]

    def drops_back(self, row: Row) -> list[Group]:
        """Return the drops of what the other side of a connection sends, but its handshake."""
        return self._drops_from(row["daddr"], row["saddr"], service_port(row))

    def drops_ahead(self, row: Row) -> list[Group]:
        """Return the drops of what a connection's own side sends, but its handshake."""
        return self._drops_from(row["saddr"], row["daddr"], service_port(row))

    def _drops_from(self, saddr: str, daddr: str, port: int) -> list[Group]:
        return [
            group
            for group in self.drops
            if "S" not in (group.row["tcp_flags"] or "S")
            and port in (group.row["dport"], group.row["sport"])
            and (group.row["saddr"], group.row["daddr"]) == (saddr, daddr)
        ]

    def is_answered(self, row: Row) -> bool:
        """Return whether SYNs came to the listener at a drop's port: it sent its answers again."""
        return any(
            group.row["cause"] == "synack"
            and (group.row["netns"], group.row["sport"]) == (row["netns"], row["dport"])
            for group in self.resends
        )

    def listeners_at(self, port: int, netns: int | None = None) -> list[Row]:
        """Return the listeners at a port, of one namespace or of all."""
        there = self._listeners_by_port.get(port, ())
        return [each for each in there if netns in (None, each["netns"])]

    @staticmethod
    def takes(listener: Row, address: str) -> bool:
        """Return whether a listener is bound to an address, or to all."""
        return listener["saddr"] in (*ANY, address)

    def reaches(self, row: Row, listener: Row) -> bool:
        """Return whether an attempt goes to a listener: by its address, which no NAT changes."""
        if row["dport"] != listener["sport"]:
            return False
        if listener["saddr"] not in ANY:
            return bool(listener["saddr"] == row["daddr"])
        return row["daddr"] in self.look.addresses(listener["netns"]) or (
            row["netns"] == listener["netns"] and row["daddr"].startswith(("127.", "::1"))
        )

    def cpu_limit(self, row: Row) -> dict[str, int] | None:
        """Return how often an owner was throttled, by its cgroup's limit or one above it."""
        path = row.get("cgroup") or ""
        while path:
            if found := self._throttled.get(path):
                return found
            path = path.rpartition("/")[0]
        return None

    def lacks_source(self, row: Row) -> bool:
        """Return whether no device of a socket's namespace has its address, as far as is known."""
        addresses = self.look.addresses(row["netns"])
        source = row["saddr"]
        return bool(addresses) and source not in (*ANY, *addresses) and source[:4] != "127."

    def role_of(self, row: Row) -> str:
        """Return a connection's role; of one from before the start, by who listens at its port."""
        if row.get("role"):
            return str(row["role"])
        return "server" if self.listeners_at(row["sport"], row["netns"]) else "client"

    def peer_of(self, row: Row) -> Row:
        """Return the row of the other end on this host; {} if none is known for sure."""
        other = self.sockets.other_end(row)
        if other:
            return other
        if row.get("role") == "server":
            return {}
        near = [each for each in self.listeners if self.reaches(row, each)]
        names = {who(each) for each in near}
        return near[0] if len(names) == 1 else {}

    def selects(self, *rows: Row) -> bool:
        """Return whether one of the rows is of a selected owner and connection."""
        return any(
            self.matcher.owner(row) and ("saddr" not in row or self.matcher.flow(row))
            for row in rows
            if row
        )

    def selects_packet(self, row: Row) -> bool:
        """Return whether a drop is of a selected owner and of a selected packet."""
        return self.matcher.owner(row) and self.matcher.flow(row, either_way=True)
