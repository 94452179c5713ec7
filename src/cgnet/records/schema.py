# SPDX-License-Identifier: BSD-2-Clause
"""Decoding of records into values.

A record is a sequence of C structs; each provides groups of fields.
"""

from __future__ import annotations

import errno
import struct
import time
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.records._layouts import (
    CGROUP_EVENT,
    CONNECT_EVENT,
    FLOW,
    HEAD,
    OUTCOME,
    AttemptResult,
    DroppedHere,
    RetransCause,
    Role,
)
from cgnet.records.fields import (
    AnyField,
    FieldGroup,
    NumberField,
    RecordSlicer,
    TimestampField,
    values_of,
)
from cgnet.text import CUT, decode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

SCHEMA = 2
NSEC_PER_SEC, NSEC_PER_USEC, USEC_PER_SEC = 1_000_000_000, 1000, 1_000_000
DIGITS = [f"{number:03d}" for number in range(1000)]  # faster than formatting six digits
# include/net/tcp_states.h
TCP_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
)  # fmt: skip
ROLES: dict[int, str] = {Role.ROLE_CLIENT: "client", Role.ROLE_SERVER: "server"}
# Why TCP sent a segment again.
CAUSES: dict[int, str] = {each: each.name.removeprefix("RETRANS_").lower() for each in RetransCause}
# Whether this host had dropped it, or its answer; unknown ones are in neither.
DROPPED_HERE: dict[int, bool] = {
    DroppedHere.DROPPED_ELSEWHERE: False,
    DroppedHere.DROPPED_SEGMENT: True,
    DroppedHere.DROPPED_ANSWER: True,
}
RESULTS: dict[int, str] = {
    AttemptResult.RESULT_OK: "ok",
    AttemptResult.RESULT_ABORTED: "aborted",
}

HEAD_PART = CONNECT_EVENT.slice("head")
OWNER_PART = CONNECT_EVENT.slice("owner")
CGROUP_PART = CONNECT_EVENT.slice("owner.cgroup_id", "hierarchy")
OWNER_SOURCE = CONNECT_EVENT.slice("owner.source").start
OWNER_UNDECIDED = CONNECT_EVENT.slice("owner.undecided").start
# The tracepoint's path buffer has the size of the record's: TRACE_CGROUP_PATH_LEN in
# kernel/cgroup/cgroup-internal.h.
MAX_TOLD = CGROUP_EVENT.size - CGROUP_EVENT.slice("path").start - 1
FLOW_PART = CONNECT_EVENT.slice("flow")
OUTCOME_PART = CONNECT_EVENT.slice("outcome")
# From a record's bytes: its enum record_kind, which fits in the first byte, and enum owner_source.
kind_of, source_of = itemgetter(0), itemgetter(OWNER_SOURCE)


class Clock:
    """Converts the kernel's monotonic clock to UTC with microseconds (RFC 3339)."""

    def __init__(self) -> None:
        """Measure the offset between the clocks; call ``adjust`` from time to time."""
        self.adjust()

    def adjust(self) -> None:
        """Measure the offset again, to follow steps of the system time."""
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def text(self, ts_ns: int) -> str:
        """Return the UTC time of a monotonic timestamp in nanoseconds."""
        return self.texts((ts_ns,))[0]

    def texts(self, moments: Sequence[int]) -> list[str]:
        """Return the UTC time of each timestamp; fastest if most are within the same second."""
        found, begin, prefix = [], -NSEC_PER_SEC, ""
        for ts_ns in moments:
            us = (ts_ns - begin) // NSEC_PER_USEC
            if not 0 <= us < USEC_PER_SEC:
                second = (ts_ns + self.offset_ns) // NSEC_PER_SEC
                begin = second * NSEC_PER_SEC - self.offset_ns
                prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
                us = (ts_ns - begin) // NSEC_PER_USEC
            found.append(f"{prefix}{DIGITS[us // 1000]}{DIGITS[us % 1000]}Z")
        return found


@lru_cache(maxsize=8192)
def address(family: int, packed: bytes) -> str:
    """Return an address as text. ``family`` is 4 or 6; ``packed`` has 16 bytes."""
    if family == 4:
        return inet_ntop(AF_INET, packed[:4])
    return inet_ntop(AF_INET6, packed)


def _addresses(part: bytes) -> tuple[Any, ...]:
    saddr, daddr, netns, family, mapped = _ADDRESSES.unpack(part)
    source, destination = address(family, saddr), address(family, daddr)
    return netns, family, bool(mapped), source, destination


# A flow without its ports: a client's connections differ in the local port, a server's in the
# remote port.
_ENDS, _KINDS = FLOW.part("saddr", "netns"), FLOW.part("family", "mapped")
_ADDRESSES = struct.Struct(_ENDS.format + _KINDS.format.removeprefix("="))
ADDRESSES = FieldGroup(
    ("netns", "family", "mapped", "saddr", "daddr"),
    CONNECT_EVENT.slice("flow.saddr", "netns"),
    _addresses,
    repeats=True,
    more=(CONNECT_EVENT.slice("flow.family", "mapped"),),
)
REMOTE_PORT = NumberField("dport", CONNECT_EVENT.slice("flow.dport"))
LOCAL_PORT = NumberField("sport", CONNECT_EVENT.slice("flow.sport"))
FLOW_GROUPS = (ADDRESSES, REMOTE_PORT, LOCAL_PORT)


def flow_row(part: bytes) -> dict[str, Any]:
    """Return the fields of a struct flow, by name."""
    saddr, daddr, netns, dport, family, mapped, sport, _ = FLOW.packed.unpack(part)
    addresses = _addresses(_ADDRESSES.pack(saddr, daddr, netns, family, mapped))
    return dict(zip(ADDRESSES.fields, addresses, strict=True)) | {"dport": dport, "sport": sport}


def result_name(result: int) -> str:
    """Return "ok", "aborted", or the errno's name (its number where it has none)."""
    return RESULTS.get(result) or errno.errorcode.get(result, str(result))


def tcp_state_name(state: int) -> str:
    """Return a TCP state's name, or the number of a state that newer kernels added."""
    return TCP_STATES[state] if 0 < state < len(TCP_STATES) else str(state)


def _decision_values(part: bytes) -> tuple[Any, ...]:
    result, tcp_state, role = _DECISION.unpack(part)
    return ROLES.get(role), tcp_state_name(tcp_state), result_name(result)


# Results repeat; latencies don't.
_DECISION = OUTCOME.part("result", "role")
DECISION = FieldGroup(
    ("role", "tcp_state", "result"),
    CONNECT_EVENT.slice("outcome.result", "role"),
    _decision_values,
    repeats=True,
)


LATENCY = NumberField(
    "latency_us", CONNECT_EVENT.slice("outcome.latency_ns"), NSEC_PER_USEC, null=0
)
SYN_RETRANS = NumberField("syn_retrans", CONNECT_EVENT.slice("outcome.syn_retrans"))


class CgroupChange(NamedTuple):
    """A cgroup that was created, renamed or removed.

    ``path`` is the new path after a rename. ``is_cut``: the path exceeds the record's buffer.
    """

    kind: int
    hierarchy: int
    cgroup_id: int
    marks: int
    path: str
    is_cut: bool


def cgroup_change(raw: bytes) -> CgroupChange:
    """Decode struct cgroup_event. Raises struct.error."""
    kind, _, _, cgroup_id, hierarchy, marks, path = CGROUP_EVENT.packed.unpack(raw)
    told = path.partition(b"\0")[0]
    is_cut = len(told) >= MAX_TOLD
    if is_cut:  # the last name may be incomplete
        told = told.rpartition(b"/")[0] + b"/" + CUT.encode()
    return CgroupChange(kind, hierarchy, cgroup_id, marks, decode(told), is_cut)


class Schema:
    """The fields of a command's records, in order."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        groups: Sequence[AnyField],
        size: int,
        least: int | None = None,
    ) -> None:
        """``name`` is the subcommand's, and the records' ``type``; ``size`` is in bytes.

        ``least`` is the size of the shortest record, if sizes differ.
        """
        self.name = name
        self.clock = clock
        moment = HEAD.slice("ts_ns")
        self.groups = [
            TimestampField("time", moment, clock.texts),
            NumberField("ts_ns", moment),
            *groups,
        ]
        self._size, self._least = size, size if least is None else least
        self.parts = RecordSlicer(self.groups, self._size, self._least)
        self._makers = [values_of(group) for group in self.groups]
        groups = self.groups
        self.fields = ("schema", "type", *(field for group in groups for field in group.fields))

    def only(self, fields: Collection[str]) -> Schema:
        """Return a schema with the groups of these fields alone: its rows take less time."""
        _, _, *own = self.groups  # the others are of every record
        groups = [each for each in own if not {*each.fields}.isdisjoint(fields)]
        return Schema(self.name, self.clock, groups, self._size, self._least)

    def row(self, raw: bytes) -> dict[str, Any]:
        """Return all fields of a record, as JSON values. Raises struct.error."""
        return next(self.rows([raw]))

    def rows(self, batch: list[bytes]) -> Iterator[dict[str, Any]]:
        """Return the rows of a batch. Raises struct.error."""
        taken = self.parts.columns(batch)
        made = [make(column) for make, column in zip(self._makers, taken, strict=True)]
        start = SCHEMA, self.name
        for values in zip(*made, strict=True):
            yield dict(zip(self.fields, chain(start, *values), strict=True))


class CountSchema:
    """The fields of rows that user space produces, such as counts. A row is a mapping already."""

    def __init__(self, name: str, clock: Clock, fields: tuple[str, ...]) -> None:
        """``fields`` follow those that every record has."""
        self.name = name
        self.clock = clock
        self.groups: list[AnyField] = []
        self.parts = RecordSlicer((), 0, 0)
        self.fields = ("schema", "type", "time", "ts_ns", *fields)

    def only(self, _fields: Collection[str]) -> CountSchema:
        """Return itself: its rows are there already."""
        return self

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row unchanged."""
        return row

    def rows(self, batch: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Return an iterator over the rows, unchanged."""
        return iter(batch)
