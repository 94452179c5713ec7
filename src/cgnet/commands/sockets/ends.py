# SPDX-License-Identifier: BSD-2-Clause
"""Which open sockets are the two ends of one connection, of all that a listing finds."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from cgnet.commands.sockets.record import ADDRESS_PART, IDENTITY_PART
from cgnet.owners.pairs import NONE, seen_from_there
from cgnet.records._layouts import SOCKET_EVENT
from cgnet.records.schema import OWNER_PART, flow_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COUNTED_PART = SOCKET_EVENT.slice("counted")
# A socket's address is reused, but not with the numbers of the connection before.
END_PART = slice(COUNTED_PART.start, ADDRESS_PART.stop)
FLOW_PART = SOCKET_EVENT.slice("flow")


class End(NamedTuple):
    """One end of a connection: struct owner, struct flow, and the part END_PART of its record.

    ``made``: TCP counted a handshake, so the socket wasn't restored.
    """

    key: bytes
    owner: bytes
    flow: bytes
    made: bool


class OpenEnds:
    """Owners (struct owner) of other ends, by the part END_PART of an end's own record."""

    def __init__(self) -> None:
        """Begin with no sockets."""
        self._others: dict[bytes, bytes] = {}

    def learn(self, records: Iterable[bytes]) -> None:
        """Find the ends that belong together, of the records of all sockets; forget others."""
        self._others = {mine.key: other.owner for mine, other in pairs(records)}

    def other(self, key: bytes) -> bytes | None:
        """Return the owner of the other end; None if no socket here is known to be it."""
        return self._others.get(key)


def pairs(records: Iterable[bytes]) -> Iterator[tuple[End, End]]:
    """Yield each end whose other one is among the records of all sockets, and that one."""
    ends: defaultdict[bytes, dict[bytes, End]] = defaultdict(dict)
    owners: dict[bytes, bytes] = {}  # one object for equal ones
    for raw in records:
        if (counted := raw[COUNTED_PART]) != NONE:
            owner = owners.setdefault(raw[OWNER_PART], raw[OWNER_PART])
            made = raw[IDENTITY_PART] != NONE
            ends[counted][raw[ADDRESS_PART]] = End(raw[END_PART], owner, raw[FLOW_PART], made)
    for counted, here in ends.items():
        there = ends.get(seen_from_there(counted), {})
        if len(here) == len(there) == 1:
            (mine,), (other,) = here.values(), there.values()
            if are_one_connection(mine, other):
                yield mine, other


def are_one_connection(one: End, other: End) -> bool:
    """Return whether two sockets that have the same numbers belong together.

    Whoever restores a socket may give it any numbers. Only in one network namespace, at the
    addresses of each other, are they the two ends nevertheless.
    """
    if one.made and other.made:
        return True
    here, there = flow_row(one.flow), flow_row(other.flow)
    return _seen(here, "s", "d") == _seen(there, "d", "s")


def _seen(flow: dict[str, object], local: str, remote: str) -> tuple[object, ...]:
    names = (f"{local}addr", f"{local}port", f"{remote}addr", f"{remote}port", "netns", "family")
    return tuple(flow[name] for name in names)
