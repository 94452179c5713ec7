# SPDX-License-Identifier: BSD-2-Clause
"""From the bytes of a record to values.

A record is a row of C structs, and each gives a group of fields. A group says which bytes its values
depend on. Bytes that come again (the owner, the service) need not be decoded again: who
renders may keep what it made of them.
"""

from __future__ import annotations

import errno
import struct
import sys
import time
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet._layouts import (
    CGROUP_EVENT,
    CONNECT_EVENT,
    FLOW,
    HEAD,
    OUTCOME,
    OWNER,
    AttemptResult,
    RecordKind,
    Role,
)
from cgnet.cgroups import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgnet._layouts import Layout

SCHEMA = 1
# include/net/tcp_states.h
TCP_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
)  # fmt: skip
ROLES: dict[int, str] = {Role.ROLE_CLIENT: "client", Role.ROLE_SERVER: "server"}
RESULTS: dict[int, str] = {
    AttemptResult.RESULT_OK: "ok",
    AttemptResult.RESULT_ABORTED: "aborted",
}


class Group(NamedTuple):
    """Fields that are decoded together.

    ``repeats``: the same bytes will be seen often. ``settled`` tells whether they will then give the
    same values.
    """

    fields: tuple[str, ...]
    part: slice
    values: Callable[[bytes], tuple[Any, ...]]
    repeats: bool
    settled: Callable[[tuple[Any, ...]], bool] = lambda _values: True


def part_of(layout: Layout, member: str) -> slice:
    """Return where a member lies in a record."""
    found = next(each for each in layout.members if each.name == member)
    return slice(found.offset, found.offset + found.size)


HEAD_PART = part_of(CONNECT_EVENT, "head")
OWNER_PART = part_of(CONNECT_EVENT, "owner")
OWNER_SOURCE = OWNER_PART.start + part_of(OWNER, "source").start
OWNER_UNDECIDED = OWNER_PART.start + part_of(OWNER, "undecided").start
FLOW_PART = part_of(CONNECT_EVENT, "flow")
OUTCOME_PART = part_of(CONNECT_EVENT, "outcome")
PORT = part_of(FLOW, "sport")
HEAD_KIND = 0  # enum record_kind fits its first byte


class Clock:
    """The kernel's monotonic clock told as time of day, in UTC with microseconds (RFC 3339)."""

    def __init__(self) -> None:
        """Take the distance of the two clocks now; call ``adjust`` now and then."""
        self._second = -1
        self._prefix = ""
        self.adjust()

    def adjust(self) -> None:
        """Follow the steps of the time of day."""
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def text(self, ts_ns: int) -> str:
        """Return the time of day of a moment of the monotonic clock."""
        second, ns = divmod(ts_ns + self.offset_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{ns // 1000:06d}Z"


def time_group(clock: Clock) -> Group:
    """Make the group of a record's time."""
    unpack = HEAD.packed.unpack

    def values(part: bytes) -> tuple[Any, ...]:
        ts_ns = unpack(part)[2]
        return clock.text(ts_ns), ts_ns

    return Group(("time", "ts_ns"), HEAD_PART, values, repeats=False)


@lru_cache(maxsize=8192)
def address(family: int, packed: bytes) -> str:
    """Return an address as text."""
    if family == 4:
        return inet_ntop(AF_INET, packed[:4])
    return inet_ntop(AF_INET6, packed)


def _service_values(part: bytes) -> tuple[Any, ...]:
    saddr, daddr, netns, dport, family, mapped = FLOW.packed.unpack(part + bytes(8))[:6]
    source, destination = address(family, saddr), address(family, daddr)
    return netns, family, bool(mapped), source, destination, dport


# All of a flow but the local port, which is another one for each connection.
SERVICE = Group(
    ("netns", "family", "mapped", "saddr", "daddr", "dport"),
    slice(FLOW_PART.start, FLOW_PART.start + PORT.start),
    _service_values,
    repeats=True,
)
LOCAL_PORT = Group(
    ("sport",),
    slice(FLOW_PART.start + PORT.start, FLOW_PART.start + PORT.stop),
    lambda part: (int.from_bytes(part, sys.byteorder),),
    repeats=True,
)


def result_name(result: int) -> str:
    """Return "ok", "aborted", or the errno's name (its number where it has none)."""
    return RESULTS.get(result) or errno.errorcode.get(result, str(result))


def tcp_state_name(state: int) -> str:
    """Return a TCP state's name, or the number of one that came later."""
    return TCP_STATES[state] if 0 < state < len(TCP_STATES) else str(state)


def _decision_values(part: bytes) -> tuple[Any, ...]:
    result, tcp_state, role = _DECISION.unpack(part)
    return ROLES.get(role), tcp_state_name(tcp_state), result_name(result)


# How it ended is one of few; how long it took is not.
_DECISION = struct.Struct("=hBB")
DECISION = Group(
    ("role", "tcp_state", "result"),
    slice(
        OUTCOME_PART.start + part_of(OUTCOME, "result").start,
        OUTCOME_PART.start + part_of(OUTCOME, "role").stop,
    ),
    _decision_values,
    repeats=True,
)


def _latency_values(part: bytes) -> tuple[Any, ...]:
    latency_ns, syn_retrans = _LATENCY.unpack(part)
    return latency_ns // 1000 if latency_ns else None, syn_retrans


_LATENCY = struct.Struct("=QI")
LATENCY = Group(
    ("latency_us", "syn_retrans"),
    slice(
        OUTCOME_PART.start + part_of(OUTCOME, "latency_ns").start,
        OUTCOME_PART.start + part_of(OUTCOME, "syn_retrans").stop,
    ),
    _latency_values,
    repeats=False,
)


class CgroupChange(NamedTuple):
    """A cgroup that was made or removed."""

    born: bool
    hierarchy: int
    cgroup_id: int
    marks: int
    path: str


def cgroup_change(raw: bytes) -> CgroupChange:
    """Decode struct cgroup_event."""
    kind, _, _, cgroup_id, hierarchy, marks, path = CGROUP_EVENT.packed.unpack(raw)
    text = decode(path.partition(b"\0")[0])
    born = kind == RecordKind.RECORD_CGROUP_BORN
    return CgroupChange(born, hierarchy, cgroup_id, marks, text)


class Schema:
    """The fields of a command's records, in order."""

    def __init__(
        self, name: str, clock: Clock, groups: list[Group], size: int, least: int | None = None
    ) -> None:
        """``name`` is the subcommand's, and the records' ``type``; ``size`` is in bytes.

        ``least`` is the size of the shortest record, where they differ.
        """
        self.least = size if least is None else least
        self.name = name
        self.clock = clock
        self.groups = [time_group(clock), *groups]
        groups = self.groups
        self.size = size
        self.fields = ("schema", "type", *(field for group in groups for field in group.fields))

    def row(self, raw: bytes) -> dict[str, Any]:
        """Return all fields of a record, as values that JSON has. Raises struct.error."""
        if not self.least <= len(raw) <= self.size:
            raise struct.error(f"a record of {len(raw)} bytes, not {self.size}")
        row: dict[str, Any] = {"schema": SCHEMA, "type": self.name}
        for group in self.groups:
            row.update(zip(group.fields, group.values(raw[group.part]), strict=True))
        return row

    def rows(self, batch: list[bytes]) -> Iterator[dict[str, Any]]:
        """Return the rows of a batch."""
        return map(self.row, batch)


class CountSchema:
    """The fields of rows that are made in user space: counts. A row is a mapping already."""

    def __init__(self, name: str, clock: Clock, fields: tuple[str, ...]) -> None:
        """``fields`` come after those that every record has."""
        self.name = name
        self.clock = clock
        self.groups: list[Group] = []
        self.fields = ("schema", "type", "time", "ts_ns", *fields)

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row as it is."""
        return row

    def rows(self, batch: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Return the rows as they are."""
        return iter(batch)
