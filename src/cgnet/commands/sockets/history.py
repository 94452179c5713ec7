# SPDX-License-Identifier: BSD-2-Clause
"""What listings before tell of a socket: since when it is there, and how full its queue was."""

from __future__ import annotations

import sys
import time

from cgnet.commands.sockets.record import ADDRESS_PART, AGE_PART, with_part
from cgnet.records._layouts import SOCKET_EVENT

FLOW_PART = SOCKET_EVENT.slice("flow")
QUEUE_PART = SOCKET_EVENT.slice("socket.queue")
HIGH_PART = SOCKET_EVENT.slice("socket.queue_high")
NONE = b"\xff" * 4


class History:
    """The sockets of the last listing, by address and flow: addresses are reused."""

    def __init__(self) -> None:
        """Begin before the first listing."""
        self._since: dict[bytes, int] = {}  # of the monotonic clock, in ns; 0: before the start
        self._now: dict[bytes, int] = {}
        self._highs: dict[bytes, bytes] = {}  # of listeners
        self._begun = 0
        self._is_first = True

    def begin(self) -> None:
        """Begin a listing."""
        self._begun = time.monotonic_ns()
        self._now = {}

    def end(self) -> None:
        """Forget the sockets that are gone."""
        self._since, self._now = self._now, {}
        self._highs = {key: high for key, high in self._highs.items() if key in self._since}
        self._is_first = False

    def sample(self, records: list[bytes]) -> None:
        """Remember how full the queues of listeners are."""
        for raw in records:
            key = raw[ADDRESS_PART] + raw[FLOW_PART]
            high = self._highs.get(key, bytes(4))
            self._highs[key] = max(high, raw[QUEUE_PART], key=_number)

    def tell(self, raw: bytes) -> bytes:
        """Return a record with what is known from earlier."""
        key = raw[ADDRESS_PART] + raw[FLOW_PART]
        since = self._since.get(key)
        if since is None:
            since = 0 if self._is_first else self._begun
        self._now[key] = since
        if since:
            raw = with_part(raw, AGE_PART, (time.monotonic_ns() - since) // 1000)
        if raw[QUEUE_PART] != NONE:
            self.sample([raw])
            raw = with_part(raw, HIGH_PART, _number(self._highs[key]))
        return raw


def _number(part: bytes) -> int:
    return int.from_bytes(part, sys.byteorder)
