# SPDX-License-Identifier: BSD-2-Clause
"""The server thinks long before it answers."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from case import AFTER, Trouble, fault
from lab import PORT
from troubles import stalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import App, Lab


@fault("slow-server")
def think_time(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(think=0.8)
    yield None
    keeps = client.start("keep", to=server.address, port=PORT, workers=4)
    keeps.wait_for("ok")
    yield Trouble(
        "each request takes 0.8 s",
        lambda: keeps.count("ok") > 2 and keeps.slowest() > 0.75,
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-server")
def in_lockstep(lab: Lab) -> Iterator[Trouble | None]:
    """Clients ask again as soon as they are answered: within one tick of the kernel's clock."""
    client, _, server = lab.routed()
    server.listen(think=0.35)
    yield None
    keeps = client.start("keep", to=server.address, port=PORT, workers=2, pause=0)
    keeps.wait_for("ok")
    yield Trouble(
        "each request takes 0.35 s",
        lambda: keeps.count("ok") > 2 and keeps.slowest() > 0.3,
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-server")
def one_of_two_servers(lab: Lab) -> Iterator[Trouble | None]:
    """A connection a request, and the other server at the same host is fast."""
    client, _, server = lab.routed()
    server.listen(think=1)
    other = lab.end("fast", server.place)
    other.listen(port=PORT + 1)
    yield None
    calls = client.start("call", to=server.address, port=PORT, limit=5)
    client.start("call", to=server.address, port=PORT + 1)
    calls.wait_for("ok")
    yield Trouble(
        "each request takes a second",
        lambda: calls.count("ok") > 2 and calls.slowest() > 0.9,
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-server")
def clients_give_up(lab: Lab) -> Iterator[Trouble | None]:
    """The server never answers; its clients close after a time, and try again."""
    client, _, server = lab.routed()
    server.listen(think=1000)
    yield None
    calls = client.start("call", to=server.address, port=PORT, workers=4, limit=1.5)
    calls.wait_for("timeout")
    yield Trouble(
        "recv() times out",
        lambda: calls.count("timeout") > 2 and not calls.count("ok"),
        (server,),
        (server.address,),
        PORT,
    )


@fault("slow-server", families=(4,))
def in_podman(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.in_podman()
    server.listen(think=0.8)
    yield None
    keeps = client.start("keep", to=server.address, port=PORT, workers=4)
    keeps.wait_for("ok")
    yield Trouble(
        "each request takes 0.8 s",
        lambda: keeps.count("ok") > 2 and keeps.slowest() > 0.75,
        (server,),
        (server.address,),
        PORT,
    )


def _stop(service: App) -> None:
    """Halt a process, as a debugger does, or the freezer."""
    service.process.send_signal(signal.SIGSTOP)


@fault("slow-server")
def stands_still(lab: Lab) -> Iterator[Trouble | None]:
    """The process is halted; requests of open connections are unread."""
    client, _, server = lab.routed()
    service = server.listen()
    keeps = client.start("keep", to=server.address, port=PORT, workers=4)
    keeps.wait_for("ok", count=8)
    yield None
    _stop(service)
    trouble = stalled(lab, keeps, client, server.address)
    trouble.owners = (server,)
    yield trouble


@fault("slow-server", modes=(AFTER,))
def stands_still_and_clients_give_up(lab: Lab) -> Iterator[Trouble | None]:
    """New connections wait in the queue, which isn't full yet."""
    client, _, server = lab.routed()
    service = server.listen(backlog=4000)
    calls = client.start("call", to=server.address, port=PORT, workers=4, limit=1.5)
    calls.wait_for("ok", count=8)
    yield None
    _stop(service)
    calls.wait_for("timeout")
    yield Trouble(
        "recv() times out",
        lambda: calls.count("timeout") > 2,
        (server,),
        (server.address,),
        PORT,
    )
