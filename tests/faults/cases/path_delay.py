# SPDX-License-Identifier: BSD-2-Clause
"""The way is long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab


def _slow(keeps: App, client: End, server: End) -> Trouble:
    keeps.wait_for("ok", count=keeps.count("ok") + 8)
    return Trouble(
        "each request takes 0.3 s",
        lambda: keeps.reports[-1]["seconds"] > 0.29,
        (client, server),
        (server.address, client.address),
        None,
    )


@fault("path-delay")
def constant(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart(0.15)
    server.listen()
    yield None
    yield _slow(client.start("keep", to=server.address, port=PORT), client, server)


@fault("path-delay")
def grows(lab: Lab) -> Iterator[Trouble | None]:
    client, line, server = lab.apart(0.005)
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=20)
    yield None
    line.set(delay_s=0.15)
    yield _slow(keeps, client, server)
