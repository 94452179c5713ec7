# SPDX-License-Identifier: BSD-2-Clause
"""Nobody listens where a client connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import fault
from lab import PORT
from troubles import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from case import Trouble
    from lab import Lab


@fault("no-listener")
def nobody_listens(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)


@fault("no-listener")
def service_ends(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    service = server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    service.stop()
    yield refused(calls, client, server.address)


@fault("no-listener")
def listens_in_another_namespace(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    lab.lone("service").listen()
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)


@fault("no-listener")
def sidecar_is_not_there(lab: Lab) -> Iterator[Trouble | None]:
    client = lab.lone("client")
    yield None
    calls = client.start("call", to=lab.loopback, port=PORT)
    yield refused(calls, client, lab.loopback)


@fault("no-listener", families=(4,))
def in_podman(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.in_podman()
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)
