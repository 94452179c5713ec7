# SPDX-License-Identifier: BSD-2-Clause
"""The far end resets connections in the middle of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, End, Lab


def reset(app: App, owners: tuple[End, ...], to: str) -> Trouble:
    app.wait_for("ECONNRESET")
    return Trouble("ECONNRESET", lambda: app.count("ECONNRESET") > 1, owners, (to,), PORT)


@fault("reset-by-peer")
def server_resets(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(reset=True)
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield reset(calls, (client,), server.address)


@fault("reset-by-peer")
def proxy_resets(lab: Lab) -> Iterator[Trouble | None]:
    """Every third request; the server behind the proxy is well."""
    client, _, proxy = lab.routed()
    backend = lab.end("backend", proxy.place, lab.loopback)
    backend.listen(address=lab.loopback, port=PORT + 1)
    proxy.listen("relay", to=lab.loopback, to_port=PORT + 1, resets_after=3)
    yield None
    calls = client.start("call", to=proxy.address, port=PORT)
    yield reset(calls, (client,), proxy.address)


@fault("reset-by-peer")
def beyond_this_host(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart()
    server.listen(reset=True)
    yield None
    keeps = client.start("keep", to=server.address, port=PORT)
    yield reset(keeps, (client,), server.address)


@fault("reset-by-peer", families=(4,))
def in_podman(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.in_podman()
    server.listen(reset=True)
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield reset(calls, (client,), server.address)


@fault("reset-by-peer")
def takes_no_more(lab: Lab) -> Iterator[Trouble | None]:
    """The server answers in the middle of a request, and closes with data unread."""
    client, _, server = lab.routed()
    server.listen("too_large")
    yield None
    calls = client.start("call", to=server.address, port=PORT, size=3_000_000)
    calls.wait_for("ECONNRESET", "EPIPE")
    yield Trouble(
        "ECONNRESET, EPIPE",
        lambda: calls.count("ECONNRESET", "EPIPE") > 2,
        (client,),
        (server.address,),
        PORT,
    )
