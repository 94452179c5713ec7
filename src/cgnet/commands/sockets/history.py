# SPDX-License-Identifier: BSD-2-Clause
"""What listings before tell of a socket: since when it is there."""

from __future__ import annotations

import time

from cgnet.commands.sockets.record import ADDRESS_PART, AGE_PART, with_part
from cgnet.records._layouts import SOCKET_EVENT

FLOW_PART = SOCKET_EVENT.slice("flow")


class History:
    """The sockets of the last listing, by address and flow: addresses are reused."""

    def __init__(self) -> None:
        """Begin before the first listing."""
        self._since: dict[bytes, int] = {}  # of the monotonic clock, in ns; 0: before the start
        self._now: dict[bytes, int] = {}
        self._begun = 0
        self._is_first = True

    def begin(self) -> None:
        """Begin a listing."""
        self._begun = time.monotonic_ns()
        self._now = {}

    def end(self) -> None:
        """Forget the sockets that are gone."""
        self._since, self._now = self._now, {}
        self._is_first = False

    def tell(self, raw: bytes) -> bytes:
        """Return a record with what is known from earlier."""
        key = raw[ADDRESS_PART] + raw[FLOW_PART]
        since = self._since.get(key)
        if since is None:
            since = 0 if self._is_first else self._begun
        self._now[key] = since
        return with_part(raw, AGE_PART, (time.monotonic_ns() - since) // 1000) if since else raw
