# SPDX-License-Identifier: BSD-2-Clause
"""The other ends of connections that were open at the start, whose records have no identity.

Such a record gets a mark in the place of struct identity: a number, twice. TCP's own two numbers
differ (peer/identity.bpf.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgnet.owners.pairs import NONE
from cgnet.records._layouts import FLOW, IDENTITY, PACKET_END
from cgnet.records.schema import FLOW_PART

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN_PART, IS_SOURCE_PART = PACKET_END.slice("known"), PACKET_END.slice("is_source")
SADDR, DADDR, SPORT, DPORT = (FLOW.slice(name) for name in ("saddr", "daddr", "sport", "dport"))
NETNS, FAMILY = FLOW.slice("netns"), FLOW.slice("family")


def place_of(flow: bytes, *, local_is_source: bool = True) -> bytes:
    """Return what tells an open socket from all others, from its struct flow, or a packet's."""
    source, destination = flow[SADDR] + flow[SPORT], flow[DADDR] + flow[DPORT]
    ends = source + destination if local_is_source else destination + source
    return ends + flow[NETNS] + flow[FAMILY]


class PairsBefore:
    """Owners (struct owner) of other ends, by the marks of ends."""

    def __init__(
        self, found: Iterable[tuple[bytes, bytes]], end: slice, role: slice, *, of_packets: bool
    ) -> None:
        """Know ends by struct flow, and the owners of their other ends.

        ``end`` is the part of a record that has the identity, or is struct packet_end, and
        ``role`` its role: all connections that begin later have one, restored ones, too.
        """
        self._end, self._role, self._of_packets = end, role, of_packets
        self._owners: dict[bytes, bytes] = {}
        self._marks: dict[bytes, bytes] = {}
        for number, (flow, owner) in enumerate(found, 1):
            mark = IDENTITY.packed.pack(number, number)
            self._marks[place_of(flow)], self._owners[mark] = mark, owner

    def other(self, mark: bytes) -> bytes | None:
        """Return the owner of the other end; None if this is no mark."""
        return self._owners.get(mark)

    def mark(self, raw: bytes) -> bytes:
        """Return a record with its mark, if its connection was open at the start."""
        at = self._end.start
        end = raw[self._end]
        if raw[self._role] != b"\0" or not end.startswith(NONE):
            return raw
        if self._of_packets and not any(end[KNOWN_PART]):
            return raw
        local_is_source = not self._of_packets or any(end[IS_SOURCE_PART])
        place = place_of(raw[FLOW_PART], local_is_source=local_is_source)
        mark = self._marks.get(place)
        return raw if mark is None else raw[:at] + mark + raw[at + IDENTITY.size :]
