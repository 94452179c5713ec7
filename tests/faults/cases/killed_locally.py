# SPDX-License-Identifier: BSD-2-Clause
"""Somebody on this host kills connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("killed-locally")
def client_side(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.repeat(1, lambda: client.place.run("ss", "-K", "state", "established", "dport", f":{PORT}"))
    keeps.wait_for("ECONNABORTED")
    yield Trouble(
        "ECONNABORTED", lambda: keeps.count("ECONNABORTED") > 1, (client,), (server.address,), PORT
    )


@fault("killed-locally")
def server_side(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    lab.repeat(1, lambda: server.place.run("ss", "-K", "state", "established", "sport", f":{PORT}"))
    keeps.wait_for("ECONNRESET")
    yield Trouble(
        "ECONNRESET",
        lambda: keeps.count("ECONNRESET") > 1,
        (server, client),
        (server.address, client.address),
        None,
    )
