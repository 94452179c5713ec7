# SPDX-License-Identifier: BSD-2-Clause
"""A server listens, at another address than its clients call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import fault
from lab import PORT
from troubles import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from case import Trouble
    from lab import Lab


@fault("wrong-bind-address")
def loopback_alone(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(address=lab.loopback)
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)


@fault("wrong-bind-address")
def other_family_alone(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(address="::" if lab.family == 4 else "0.0.0.0")
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)


@fault("wrong-bind-address")
def other_device_alone(lab: Lab) -> Iterator[Trouble | None]:
    """It listens on all addresses, of the loopback device alone."""
    client, _, server = lab.routed()
    server.listen(device="lo")
    yield None
    calls = client.start("call", to=server.address, port=PORT)
    yield refused(calls, client, server.address)
