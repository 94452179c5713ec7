# SPDX-License-Identifier: BSD-2-Clause
"""An open socket: the fields of its record."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import OWNER, SOCKET_EVENT, SocketLimit, SocketTimer
from cgnet.records.conn_id import PUBLIC_KEY, conn_id_field
from cgnet.records.fields import FieldGroup, NumberField
from cgnet.records.schema import FLOW_GROUPS, OWNER_PART, ROLES, tcp_state_name

if TYPE_CHECKING:
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records.fields import AnyField

TIMERS = {each: each.name.removeprefix("TIMER_").lower() for each in SocketTimer}
LIMITS = {
    each: None if each is SocketLimit.LIMIT_NONE else each.name.removeprefix("LIMIT_").lower()
    for each in SocketLimit
}
MARKS_PART = SOCKET_EVENT.slice("socket.tcp_state", "limited_by")
STATE_PART = SOCKET_EVENT.slice("socket.tcp_state")
ROLE_PART = SOCKET_EVENT.slice("socket.role")
AGE_PART = SOCKET_EVENT.slice("socket.age_us")
ADDRESS_PART = SOCKET_EVENT.slice("socket.address")
IDENTITY_PART = SOCKET_EVENT.slice("identity")
INODE_PART = SOCKET_EVENT.slice("socket.inode")
SHARED_PART = SOCKET_EVENT.slice("socket.shared")
_MARKS = struct.Struct("=BBBB")
NO_U32, NO_U64 = 2**32 - 1, 2**64 - 1
HOLDER_FIELDS = ("pid", "comm", "container", "pod", "cgroup")


def _marks(part: bytes) -> tuple[Any, ...]:
    state, side, timer, limit = _MARKS.unpack(part)
    return ROLES.get(side), tcp_state_name(state), TIMERS.get(timer), LIMITS.get(limit)


def number(field: str) -> NumberField:
    """Return a field that is a number; all ones stand for no value."""
    part = SOCKET_EVENT.slice(f"socket.{field}")
    return NumberField(field, part, null=NO_U64 if part.stop - part.start == 8 else NO_U32)


class Shared:
    """The processes of sockets that several have open, by number: a record has the number."""

    def __init__(self) -> None:
        """Begin with none; the number 0 stands for none."""
        self._lists: list[list[bytes]] = [[]]
        self.version = 0

    def begin(self) -> None:
        """Forget those of the last listing."""
        self._lists = [[]]
        self.version += 1

    def add(self, owners: list[bytes]) -> int:
        """Return the number of a list of struct owner."""
        self._lists.append(sorted(owners, key=lambda raw: OWNER.packed.unpack(raw)[5]))
        return len(self._lists) - 1

    def of(self, number: int) -> list[bytes]:
        """Return a list by its number."""
        return self._lists[number] if number < len(self._lists) else []


def groups(
    names: CgroupNames, runtimes: Runtimes, shared: Shared, conn_key: bytes = PUBLIC_KEY
) -> list[AnyField]:
    """Return the groups of a record's fields, in order; ``conn_key`` is the key of conn_id."""
    owner = owner_group(names, runtimes)

    def holders(part: bytes) -> tuple[Any, ...]:
        owners = shared.of(int.from_bytes(part, sys.byteorder))
        rows = [dict(zip(owner.fields, owner.values(raw), strict=True)) for raw in owners]
        return ([{field: row[field] for field in HOLDER_FIELDS} for row in rows] or None,)

    return [
        owner,
        *FLOW_GROUPS,
        FieldGroup(("role", "state", "timer", "limited_by"), MARKS_PART, _marks, repeats=True),
        *map(
            number,
            (
                "age_us", "recv_q", "send_q", "unsent", "cwnd", "ssthresh", "mss", "srtt_us",
                "min_rtt_us", "retrans", "timer_us", "last_sent_us", "last_received_us",
                "delivery_rate", "tx_bytes", "rx_bytes",
                "busy_us", "rwnd_limited_us", "sndbuf_limited_us", "backlog", "queue",
                "queue_high", "drops",
            ),
        ),
        NumberField("inode", INODE_PART, null=0),
        FieldGroup(
            ("holders",), SHARED_PART, holders, repeats=True, version=lambda: shared.version
        ),
        conn_id_field(IDENTITY_PART, conn_key),
    ]  # fmt: skip


def with_part(raw: bytes, part: slice, value: int) -> bytes:
    """Return a record with a number replaced."""
    size = part.stop - part.start
    return raw[: part.start] + value.to_bytes(size, sys.byteorder) + raw[part.stop :]


def owner_of(raw: bytes) -> bytes:
    """Return struct owner of a record."""
    return raw[OWNER_PART]
