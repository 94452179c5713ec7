# SPDX-License-Identifier: BSD-2-Clause
"""A listener closes, and with it the connections that wait in its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("listener-closed")
def restarts(lab: Lab) -> Iterator[Trouble | None]:
    """A service that restarts again and again, before it accepts."""
    client, _, server = lab.routed()
    yield None
    server.listen("flap", seconds=1)
    calls = client.start("call", to=server.address, port=PORT, limit=5, workers=6)
    calls.wait_for("ECONNRESET")
    yield Trouble(
        "ECONNRESET soon after connect()",
        lambda: calls.count("ECONNRESET") > 6,
        (server, client),
        (server.address,),
        PORT,
    )
