# SPDX-License-Identifier: BSD-2-Clause
"""Open sockets, looked at again and again: what changed, what waits, and for how long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.records._layouts import SOCKET_EVENT, OpenSocket, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.findings.thresholds import Thresholds
    from cgnet.records.schema import Schema

MAX_SOCKETS = 262_144  # that are followed: some 150 MB
MAX_DECIDED = 16_384  # connections that filters are asked about
MAX_TOLD = 4096  # connections that are handed to the rules
MAX_WAITING = 1024  # of them, that wait for an answer and have no other trouble
SOCKET_PART = SOCKET_EVENT.slice("socket")
OPENED_PART = SOCKET_EVENT.slice("socket.address", "inode")
ADDRESS_PART = SOCKET_EVENT.slice("socket.address")
STATE_AT = SOCKET_EVENT.slice("socket.tcp_state").start
ROLE_AT = SOCKET_EVENT.slice("socket.role").start
NETNS_PART = SOCKET_EVENT.slice("flow.netns")
SPORT_PART = SOCKET_EVENT.slice("flow.sport")
FLOW_PART = SOCKET_EVENT.slice("flow")
REMOTE_PART = SOCKET_EVENT.slice("flow.daddr", "mapped")
RECEIVED_PART = SOCKET_EVENT.slice("socket.last_received_us")
PORTS = SOCKET_EVENT.slice("flow.sport"), SOCKET_EVENT.slice("flow.dport")
# include/net/tcp_states.h
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, TIME_WAIT = 1, 2, 3, 4, 6
CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING, NEW_SYN_RECV = 8, 9, 10, 11, 12
TRYING = frozenset({SYN_SENT, SYN_RECV, NEW_SYN_RECV})
CARRY = frozenset({ESTABLISHED, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING})
NO_U32, NO_U64 = 2**32 - 1, 2**64 - 1
TIMER_ON, TIMER_PROBE = 1, 4
US = 1_000_000


class Connection(NamedTuple):
    """A connection that is open at the end, or was at the last look, and what it went through.

    Shares are of the time that it was looked at; ``looks`` is their number.
    """

    row: dict[str, Any]
    seconds: float  # that it was looked at
    looks: int
    retrans: int  # segments resent meanwhile
    busy: float  # seconds with data to send
    rwnd_limited: float  # seconds
    sndbuf_limited: float
    unread: float  # share of looks at which the owner had left data unread
    waiting: float  # share of looks at which the other side owed an answer
    one_way: bool  # data was sent again and again, and none came
    probing: float  # share of looks with a closed window
    heard: float  # seconds since data came last, on this connection or another to there
    stuck: float  # seconds, to the end, without an acknowledgement of what was sent
    turns: int  # looks between which data came and was sent
    gone: bool  # it wasn't there any more at the last look
    min_rtt_us: int | None


class _Followed:
    """A socket between looks."""

    __slots__ = (
        "first", "last", "looks", "one_way", "probing", "seen_ns", "since_ns", "stuck_ns", "turns",
        "unacked_ns", "unread", "waiting",
    )  # fmt: skip

    def __init__(self, raw: bytes, now_ns: int) -> None:
        self.first = self.last = raw
        self.since_ns = self.seen_ns = now_ns
        self.looks = self.unread = self.waiting = self.probing = self.turns = 0
        self.one_way = False
        self.unacked_ns = 0  # since when there is something unacknowledged
        self.stuck_ns = 0  # since when nothing is acknowledged; 0: something was


def _socket(raw: bytes) -> OpenSocket:
    return OpenSocket.unpack(raw, SOCKET_PART.start)


def _number(part: bytes) -> int:
    return int.from_bytes(part, sys.byteorder)


def _known(number: int, none: int = NO_U32) -> int:
    return 0 if number == none else number


class Connections:
    """The sockets of a run. Looks are as often as their caller makes them."""

    def __init__(self, schema: Schema, limits: Thresholds) -> None:
        """``schema`` decodes struct socket_event."""
        self._schema = schema
        self._stuck_us, self._long_us = limits.stuck_s * US, limits.rtt_ms * 1000
        self._followed: dict[bytes, _Followed] = {}
        self._listeners: dict[bytes, bytes] = {}  # the last look
        self._listened: dict[bytes, bytes] = {}  # the first look at each
        self._from_start: set[bytes] = set()  # listeners that were there at the first look
        self._fullest: dict[bytes, int] = {}
        self._attempts: dict[bytes, bytes] = {}
        self.states: dict[int, int] = {}  # at the last look
        self.untold = 0
        self.looks = 0
        self._looked_ns = 0

    def look(self, batches: Iterable[list[bytes]], now_ns: int) -> None:
        """Take all sockets of a listing."""
        self.looks += 1
        self._looked_ns = now_ns
        self.states = {}
        listeners: dict[bytes, bytes] = {}
        attempts: dict[bytes, bytes] = {}
        for batch in batches:
            for raw in batch:
                state = raw[STATE_AT]
                self.states[state] = self.states.get(state, 0) + 1
                if state in CARRY:
                    self._follow(raw, now_ns)
                elif state == LISTEN:
                    listeners[raw[ADDRESS_PART]] = raw
                elif state in TRYING and len(attempts) < MAX_SOCKETS:
                    attempts[raw[ADDRESS_PART]] = raw
        self._listeners, self._attempts = listeners, attempts
        for address, raw in listeners.items():
            if self.looks == 1:
                self._from_start.add(raw[OPENED_PART])
            self._listened.setdefault(address, raw)
            waiting = _socket(raw).recv_q
            self._fullest[address] = max(self._fullest.get(address, 0), waiting)
        if len(self._followed) > MAX_SOCKETS // 2:
            gone = [key for key, each in self._followed.items() if each.seen_ns < now_ns]
            for key in gone:
                del self._followed[key]

    def _follow(self, raw: bytes, now_ns: int) -> None:
        address = raw[ADDRESS_PART]
        each = self._followed.get(address)
        if each is None or each.last[FLOW_PART] != raw[FLOW_PART]:
            if each is None and len(self._followed) >= MAX_SOCKETS:
                self.untold += 1
                return
            each = self._followed[address] = _Followed(raw, now_ns)
        now, before = _socket(raw), _socket(each.last)
        each.looks += 1
        sent, came = now.last_sent_us, now.last_received_us
        was_read = now.rx_bytes - now.recv_q > before.rx_bytes - before.recv_q
        each.unread += each.looks > 1 and now.recv_q > 0 and not was_read
        asked = now.send_q == 0 and now.tx_bytes > 0
        each.waiting += asked and (now.rx_bytes == 0 or sent < came)
        each.one_way = now.rx_bytes == 0 and (each.one_way or now.tx_bytes > before.tx_bytes > 0)
        each.probing += now.timer == TIMER_PROBE
        each.turns += now.tx_bytes > before.tx_bytes and now.rx_bytes > before.rx_bytes
        # last_sent_us counts resends, too: the wait may have begun at a look before.
        unacked = now.send_q - _known(now.unsent) > 0 and now.timer == TIMER_ON
        began = now_ns - _known(sent, NO_U64) * 1000
        if each.unacked_ns and now.tx_bytes == before.tx_bytes:
            began = min(began, each.unacked_ns)
        each.unacked_ns = began if unacked else 0
        late = now_ns - began > 1000 * max(self._stuck_us, 5 * _known(now.srtt_us))
        each.stuck_ns = began if unacked and late else 0
        each.last, each.seen_ns = raw, now_ns

    # -- what the rules ask

    def connections(self, end_ns: int) -> list[Connection]:
        """Return the connections that carry data and may have trouble; those of the last looks."""
        found: list[Connection] = []
        self._heard_ns = self._heard()
        waiting = 0  # for an answer, and nothing else: long polls may be many
        for each in self._followed.values():
            first, last = _socket(each.first), _socket(each.last)
            if not (_is_suspicious(each, first, last) or _known(last.srtt_us) >= self._long_us):
                if each.waiting * 2 <= each.looks or waiting >= MAX_WAITING:
                    continue
                waiting += 1
            if len(found) >= MAX_TOLD:
                self.untold += 1
                continue
            found.append(self._connection(each, first, last, end_ns))
        return found

    def _heard(self) -> dict[bytes, int]:
        """Return when data came last, by the other side's address and port; of those that hang."""
        found = {each.last[REMOTE_PART]: 0 for each in self._followed.values() if each.stuck_ns}
        for each in self._followed.values():
            remote = each.last[REMOTE_PART]
            if remote in found:
                came = each.seen_ns - 1000 * _number(each.last[RECEIVED_PART])
                found[remote] = max(found[remote], came)
        return found

    def _connection(
        self, each: _Followed, first: OpenSocket, last: OpenSocket, end_ns: int
    ) -> Connection:
        def grown(name: str) -> float:
            now, before = getattr(last, name), getattr(first, name)
            if NO_U64 in (now, before):
                return 0.0
            if each.looks == 1:
                before = 0
            return float(max(0, now - before)) / US

        stuck = (end_ns - each.stuck_ns) / 1e9 if each.stuck_ns else 0.0
        return Connection(
            row=self._schema.row(each.last),
            seconds=(each.seen_ns - each.since_ns) / 1e9,
            looks=each.looks,
            retrans=max(0, _known(last.retrans) - (_known(first.retrans) if each.looks > 1 else 0)),
            busy=grown("busy_us"),
            rwnd_limited=grown("rwnd_limited_us"),
            sndbuf_limited=grown("sndbuf_limited_us"),
            unread=each.unread / max(1, each.looks - 1),  # the first has none before it
            waiting=each.waiting / each.looks,
            one_way=each.one_way,
            probing=each.probing / each.looks,
            heard=(end_ns - self._heard_ns.get(each.last[REMOTE_PART], 0)) / 1e9,
            stuck=stuck,
            turns=each.turns,
            gone=each.seen_ns < self._looked_ns,
            min_rtt_us=None if last.min_rtt_us == NO_U32 else last.min_rtt_us,
        )

    def open(self, wanted: Callable[[dict[str, Any]], bool] | None = None) -> int:
        """Return how many connections carried data at the last look; those that are wanted."""
        there = [each for each in self._followed.values() if each.seen_ns == self._looked_ns]
        if wanted is None:
            return len(there)
        return sum(wanted(self._schema.row(each.last)) for each in there[:MAX_DECIDED])

    def listeners(self) -> list[dict[str, Any]]:
        """Return the listeners of the last look, with ``drops_grown`` and ``fullest``.

        ``old``: it was there at the first look.
        """
        found = []
        for address, raw in self._listeners.items():
            first, last = _socket(self._listened[address]), _socket(raw)
            drops = _known(last.drops) - _known(first.drops)
            if raw[SPORT_PART] != self._listened[address][SPORT_PART]:
                drops = 0
            row = self._schema.row(raw)
            old = raw[OPENED_PART] in self._from_start
            seen = {"fullest": self._fullest.get(address, 0), "old": old}
            found.append(row | {"drops_grown": max(0, drops)} | seen)
        return found

    def closed_listeners(self) -> list[dict[str, Any]]:
        """Return the listeners that were there at a look, and aren't any more, with ``fullest``."""
        return [
            self._schema.row(raw) | {"fullest": self._fullest.get(address, 0)}
            for address, raw in self._listened.items()
            if address not in self._listeners
        ]

    def attempts(self) -> list[dict[str, Any]]:
        """Return the attempts that are under way at the last look: SYN_SENT, SYN_RECV."""
        return [self._schema.row(raw) for raw in list(self._attempts.values())[:MAX_TOLD]]

    def other_end(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of a connection's other end on this host; {} if there is none, or two."""
        if not hasattr(self, "_ends_of"):
            self._ends_of: dict[bytes, list[bytes]] = {}
            for each in self._followed.values():
                self._ends_of.setdefault(_ports(each.last), []).append(each.last)
        wanted = row["dport"].to_bytes(2, sys.byteorder) + row["sport"].to_bytes(2, sys.byteorder)
        found = [
            other
            for raw in self._ends_of.get(wanted, [])
            if (other := self._schema.row(raw))["saddr"] == row["daddr"]
            and other["daddr"] == row["saddr"]
        ]
        return found[0] if len(found) == 1 else {}


def _ports(raw: bytes) -> bytes:
    return raw[PORTS[0]] + raw[PORTS[1]]


def _is_suspicious(each: _Followed, first: OpenSocket, last: OpenSocket) -> bool:
    """Return whether something may be wrong with a connection, by a cheap test."""
    return bool(
        each.stuck_ns
        or each.probing
        or each.unread * 2 >= each.looks
        or (last.recv_q and _known(last.last_received_us, NO_U64) > US)
        or last.timer == TIMER_PROBE
        or _known(last.retrans) > _known(first.retrans)
        or _known(last.rwnd_limited_us, NO_U64) > _known(first.rwnd_limited_us, NO_U64)
        or _known(last.sndbuf_limited_us, NO_U64) > _known(first.sndbuf_limited_us, NO_U64)
    )


def service_port(row: dict[str, Any]) -> int:
    """Return the server's port of a connection, from either side's row."""
    return int(row["sport"] if row.get("role") == ROLE_SERVER else row["dport"])


ROLE_SERVER = Role.ROLE_SERVER.name.removeprefix("ROLE_").lower()
