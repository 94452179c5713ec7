# SPDX-License-Identifier: BSD-2-Clause
"""Sums of a listing: sockets by their states, and ephemeral ports by where they lead."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from cgnet.commands.sockets.ends import END_PART
from cgnet.commands.sockets.record import ROLE_PART, STATE_PART
from cgnet.counting.counts import cut_path, prefix
from cgnet.records._layouts import SOCKET_EVENT, Role
from cgnet.records.schema import ADDRESSES, OWNER_PART, TCP_STATES, flow_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cgnet.counting.keys import Key
    from cgnet.records._layouts import SocketNetns
    from cgnet.records.schema import Schema

OF_OWNER = frozenset({"container", "pod", "unit", "cgroup", "selected", "pid", "comm", "uid"})
FLOW_PART = SOCKET_EVENT.slice("flow")
PARTS = {
    "netns": (SOCKET_EVENT.slice("flow.netns"),),
    "saddr": (SOCKET_EVENT.slice("flow.saddr"), SOCKET_EVENT.slice("flow.family", "mapped")),
    "daddr": (SOCKET_EVENT.slice("flow.daddr"), SOCKET_EVENT.slice("flow.family", "mapped")),
    "sport": (SOCKET_EVENT.slice("flow.sport"),),
    "dport": (SOCKET_EVENT.slice("flow.dport"),),
    "peer": (END_PART, ADDRESSES.part, *ADDRESSES.more),
    "role": (ROLE_PART,),
    "state": (STATE_PART,),
}
GIVEN = SOCKET_EVENT.slice("owner.given")
LISTEN = TCP_STATES.index("LISTEN")
SPORT = SOCKET_EVENT.slice("flow.sport")
# A connection uses its local port together with these.
WAY = (
    SOCKET_EVENT.slice("flow.netns"), SOCKET_EVENT.slice("flow.saddr"),
    SOCKET_EVENT.slice("flow.daddr"), SOCKET_EVENT.slice("flow.dport"),
)  # fmt: skip
PORT_FIELDS = (
    "netns", "container", "pod", "pod_namespace", "cgroup", "saddr", "daddr", "dport", "used", "left",
    "first_port", "last_port",
)  # fmt: skip


class States:
    """Counts of sockets by keys."""

    def __init__(self, keys: Sequence[Key], schema: Schema, given: Sequence[str]) -> None:
        """``schema`` is that of records; ``given`` has the texts of ``--cgroup``."""
        self._keys, self._schema, self._given = keys, schema, given
        parts = [OWNER_PART] if any(key.name in OF_OWNER for key in keys) else []
        for key in keys:
            parts += [part for part in PARTS.get(key.name, ()) if part not in parts]
        self._parts = parts
        self._counts: Counter[tuple[bytes, ...]] = Counter()

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row, after those of every record."""
        keys = dict.fromkeys(field for key in self._keys for field in key.fields)
        return (*keys, "count")

    def add(self, records: Iterable[bytes]) -> None:
        """Count records."""
        parts = self._parts
        self._counts.update(tuple(raw[part] for part in parts) for raw in records)

    def take(self) -> list[dict[str, Any]]:
        """Return the rows, the highest count first, and begin anew."""
        totals: Counter[tuple[Any, ...]] = Counter()
        for taken, count in self._counts.items():
            totals[self._values(taken)] += count
        self._counts.clear()
        ordered = sorted(totals.items(), key=lambda item: (-item[1], str(item[0])))
        return [dict(zip(self.fields, (*named, count), strict=True)) for named, count in ordered]

    def _values(self, taken: tuple[bytes, ...]) -> tuple[Any, ...]:
        raw = bytearray(SOCKET_EVENT.size)
        for part, value in zip(self._parts, taken, strict=True):
            raw[part] = value
        row = self._schema.row(bytes(raw))
        given = int.from_bytes(raw[GIVEN], sys.byteorder)
        row["selected"] = self._given[given - 1] if given else None
        names = {key.name for key in self._keys}
        if "cgroup" not in names and row["container"]:
            row["cgroup"] = None
        for key in self._keys:
            if key.name == "cgroup":
                row["cgroup"] = cut_path(row["cgroup"], key.size)
            elif key.name in ("saddr", "daddr") and key.size is not None:
                row[key.name] = prefix(row[key.name], key.size)
        fields = dict.fromkeys(field for key in self._keys for field in key.fields)
        return tuple(row[field] for field in fields)


class Ports:
    """Ephemeral ports in use by (namespace, source, destination, port)."""

    fields = PORT_FIELDS

    def __init__(self, schema: Schema) -> None:
        """``schema`` is that of records."""
        self._schema = schema
        self._used: defaultdict[tuple[bytes, ...], dict[bytes, bytes]] = defaultdict(dict)
        self.ranges: dict[int, range] = {}

    def begin(self, namespaces: Iterable[SocketNetns]) -> None:
        """Take the range of each namespace."""
        self.ranges = {
            each.inode: range(each.first_port, each.last_port + 1) for each in namespaces
        }

    def add(self, records: Iterable[bytes]) -> None:
        """Count records: connections that this host began, or may have begun."""
        side = ROLE_PART.start
        state = STATE_PART.start
        for raw in records:
            if raw[side] != Role.ROLE_SERVER and raw[state] != LISTEN:
                self._used[tuple(raw[part] for part in WAY)].setdefault(raw[SPORT], raw)

    def take(self) -> list[dict[str, Any]]:
        """Return the rows, those with the fewest ports left first, and begin anew."""
        rows = [self._row(list(used.values())) for used in self._used.values()]
        self._used.clear()
        return sorted(
            (row for row in rows if row["used"]),
            key=lambda row: (row["left"], str(row["container"]), row["netns"], row["daddr"]),
        )

    def _row(self, records: list[bytes]) -> dict[str, Any]:
        owners = Counter(raw[OWNER_PART] for raw in records)
        most = owners.most_common(1)[0][0]
        owner = self._schema.row(next(raw for raw in records if raw[OWNER_PART] == most))
        ports = self.ranges.get(owner["netns"], range(0))
        used = sum(flow_row(raw[FLOW_PART])["sport"] in ports for raw in records)
        row = owner | {
            "used": used, "left": len(ports) - used,
            "first_port": ports.start, "last_port": ports.stop - 1,
        }  # fmt: skip
        return {field: row[field] for field in PORT_FIELDS}
