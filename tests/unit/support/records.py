# SPDX-License-Identifier: BSD-2-Clause
"""Records for tests: built from values, and random ones."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import strategies as st

from cgnet.commands.connect.command import COMMAND
from cgnet.owners.cgroup_paths import Facts, place
from cgnet.owners.cgroups import Hierarchy
from cgnet.owners.runtimes import Known
from cgnet.records._layouts import (
    CONNECT_EVENT,
    HEAD,
    CloseCause,
    ClosedBy,
    DroppedHere,
    Flow,
    Head,
    Identity,
    Life,
    Outcome,
    Owner,
    OwnerSource,
    RecordKind,
    Retrans,
    RetransCause,
    Role,
    RttSample,
)
from cgnet.records.schema import FLOW_PART, OUTCOME_PART, OWNER_PART, Clock, Schema
from cgnet.render import make_renderer

if TYPE_CHECKING:
    from cgnet.render import Renderer

# The realtime clock reads 2026-03-01T12:34:56.789012Z when the kernel's reads 0.
EPOCH_NS = 1_772_368_496_789_012_000
ACCEPTED = "every option was accepted"  # how a run ends without permission to trace
COUNT_TAIL = struct.Struct("=IiQ")  # of struct count_key, after owner and flow
MEMORY, V2 = 7, 0  # hierarchy ids that Names knows

HOSTILE_COMMS = (
    b"[/red]",
    b"[bold]x",
    b"\x1b[31mred",
    b"a\nb",
    b"a\r\tb",
    b"\xff\xfe",
    b"\"'`\\",
    b"=cmd|' /C calc'!",
    b"@SUM(1)",
    b"+1",
    b"-1",
    b"a,b;c",
    b"%s%d",
    b"{x}",
    "\u202eevil".encode(),
    "\u2066a\u2069".encode(),
    b"sixteen bytes ok",
)


class Names:
    """Cgroups' names without a cgroup file system."""

    def __init__(self, paths: dict[tuple[int, int], str] | None = None) -> None:
        self.paths = paths or {}

    naming = Hierarchy(MEMORY, "memory", ("memory",), Path("/sys/fs/cgroup/memory"), "/")

    def hierarchy_name(self, hierarchy: int) -> str | None:
        return {MEMORY: "memory", V2: "v2"}.get(hierarchy)

    version = 0

    def path(self, hierarchy: int, cgroup: int) -> str | None:
        return self.paths.get((hierarchy, cgroup))

    def remember(self, hierarchy: int, cgroup: int, path: str) -> None:
        self.paths[hierarchy, cgroup] = path

    def rename(self, hierarchy: int, cgroup: int, path: str) -> str | None:
        old = self.paths.get((hierarchy, cgroup))
        self.paths[hierarchy, cgroup] = path
        return old

    def tidy(self) -> None:
        pass


class Connect(NamedTuple):
    """The values of a record; the defaults are those of a successful attempt."""

    ts_ns: int = 0
    cgroup_id: int = 42
    hierarchy: int = MEMORY
    source: int = OwnerSource.OWNER_LEARNED
    undecided: int = 0
    given: int = 0
    pid: int = 4711
    uid: int = 1000
    comm: bytes = b"curl"
    saddr: bytes = bytes([10, 0, 0, 1]) + bytes(12)
    daddr: bytes = bytes([10, 0, 0, 2]) + bytes(12)
    netns: int = 4026531840
    dport: int = 443
    family: int = 4
    mapped: int = 0
    sport: int = 51000
    latency_ns: int = 1_234_567
    result: int = 0
    syn_retrans: int = 0
    tcp_state: int = 1
    role: int = Role.ROLE_CLIENT
    local: int = 0
    remote: int = 0

    def raw(self) -> bytes:
        """Return the bytes as the kernel side would write them."""
        v = self._asdict()
        head = Head(kind=RecordKind.RECORD_CONNECT, pad=0, ts_ns=self.ts_ns)
        owner = Owner(**{name: v[name] for name in Owner._fields})
        flow = Flow(**{name: v.get(name, bytes(6)) for name in Flow._fields})
        outcome = Outcome(**{name: v[name] for name in Outcome._fields})
        return CONNECT_EVENT.packed.pack(*head, *owner, *flow, *outcome, self.local, self.remote)

    def count_key(self) -> bytes:
        """Return the attempt's key in the counts, with all parts."""
        raw = self.raw()
        return raw[OWNER_PART] + raw[FLOW_PART] + COUNT_TAIL.pack(self.role, self.result, 0)


def record_of(kind: RecordKind, tail: bytes, record: Connect | None = None) -> bytes:
    """Return a record: head, owner and flow of one of `connect`, and the command's own part."""
    before = (record or Connect()).raw()[: OUTCOME_PART.start]
    head = HEAD.packed.pack(kind, 0, HEAD.packed.unpack(before[: HEAD.size])[2])
    return head + before[HEAD.size :] + tail


SAMPLE = RttSample(1500, 1800, 1, Role.ROLE_SERVER, 0, bytes(5))
RESENT = Retrans(
    seq=1000, len=2896, segs=2, attempt=1, rto_us=204_000, srtt_us=1800, cwnd=10, ssthresh=7,
    in_flight=3, cause=RetransCause.RETRANS_FAST, tcp_state=1, role=Role.ROLE_SERVER,
    dropped=DroppedHere.DROPPED_ELSEWHERE, pad=bytes(4),
)  # fmt: skip
ENDED = Life(
    2_500_000_000, 300_000, 10, 20, 1000, 3, 4, 1, 250, 200, 5, 6, 7, 2, 0, 5, Role.ROLE_CLIENT,
    ClosedBy.CLOSED_BY_PEER, CloseCause.CLOSE_FIN, 3, 1, 9, 19,
)  # fmt: skip
IDENTITY = Identity(0x2000, 0x1000).pack()


def packed_address(text: str) -> bytes:
    """Return an address in the format of a flow."""
    return ip_address(text).packed.ljust(16, b"\0")


def fixed_clock() -> Clock:
    """Return a clock that reads EPOCH_NS when the kernel's reads 0."""
    clock = Clock()
    clock.offset_ns = EPOCH_NS
    return clock


class NoRuntimes:
    """Knows no containers, and expects none."""

    def of(self, path: str) -> Known:
        return Known(Facts(), (), (), place(path), expected=False, is_final=True)


def no_runtimes() -> Any:
    """Return the runtimes of a host without containers."""
    return NoRuntimes()


def connect_schema(names: Names) -> Schema:
    """Return the schema of `connect`."""
    return Schema(
        "connect", fixed_clock(), COMMAND.fields(names, no_runtimes()), CONNECT_EVENT.size
    )


def renderer(kind: str, names: Names, fields: list[str] | None = None, **how: bool) -> Renderer:
    """Return the renderer of `connect -o kind --fields fields`."""
    how = {"terminal": False, "header": True, **how}
    columns = COMMAND.columns
    return make_renderer(kind, connect_schema(names), fields, columns, **how)


def u(bits: int) -> st.SearchStrategy[int]:
    """Return unsigned integers of ``bits`` bits."""
    return st.integers(0, (1 << bits) - 1)


comms = st.one_of(st.sampled_from(HOSTILE_COMMS), st.binary(max_size=16))
ERRNOS = st.one_of(st.sampled_from([0, -1, 110, 111, 113]), st.integers(-(1 << 15), (1 << 15) - 1))


def connects(**fixed: Any) -> st.SearchStrategy[Connect]:
    """Return random records, with any values that the kernel side may write."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "ts_ns": u(62),
        "cgroup_id": u(64),
        "hierarchy": st.sampled_from([MEMORY, V2, 99]),
        "source": st.sampled_from([int(source) for source in OwnerSource]),
        "undecided": st.sampled_from([0, 1, 2]),
        "given": u(16),
        "pid": u(32),
        "uid": u(32),
        "comm": comms,
        "saddr": st.binary(min_size=16, max_size=16),
        "daddr": st.binary(min_size=16, max_size=16),
        "netns": u(32),
        "dport": u(16),
        "family": st.sampled_from([4, 6]),
        "mapped": st.sampled_from([0, 1]),
        "sport": u(16),
        "latency_ns": st.just(0) | u(64),  # 0: no SYN left
        "result": ERRNOS,
        "syn_retrans": u(32),
        "tcp_state": st.integers(1, 13),
        "role": st.sampled_from([int(role) for role in Role]),
        "local": u(32),
        "remote": u(32),
        **{name: st.just(value) for name, value in fixed.items()},
    }
    return st.builds(Connect, **values)
