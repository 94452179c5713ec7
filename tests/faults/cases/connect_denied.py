# SPDX-License-Identifier: BSD-2-Clause
"""connect() itself is refused with EPERM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpf_programs import refusing_connect
from case import Trouble, fault
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab


@fault("connect-denied")
def cgroup_program(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen()
    calls = client.start("call", to=server.address, port=PORT)
    calls.wait_for("ok")
    yield None
    lab.enter(refusing_connect(client.v2, lab.family))
    calls.wait_for("EPERM")
    yield Trouble("EPERM", lambda: calls.count("EPERM") > 2, (client,), (server.address,), PORT)


@fault(
    "connect-denied",
    not_run=lambda: (
        "connect() of TCP takes no EPERM from nft's output hook: its SYN is lost, and it "
        "times out (firewall-drop/nft-output)"
    ),
)
def nft_output(lab: Lab) -> Iterator[Trouble | None]:
    raise NotImplementedError
