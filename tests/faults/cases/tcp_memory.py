# SPDX-License-Identifier: BSD-2-Clause
"""TCP may have no more memory: the container's, or the host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from counters import tcp_counters
from harness import V1
from lab import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Lab

LIMIT = "memory.kmem.tcp.limit_in_bytes"
MAX_USED = "memory.kmem.tcp.max_usage_in_bytes"  # the file failcnt stays 0 on 6.18
MAX_BYTES = 65536


@fault(
    "tcp-memory",
    not_run=lambda: "" if (V1 / LIMIT).exists() else "this host has no v1 memory hierarchy",
)
def container_limit(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.apart(0.01)
    group = server.cgroup(V1)
    (group / LIMIT).write_text(str(MAX_BYTES))  # sockets that are older aren't counted
    server.listen("sink")
    yield None
    client.start("upload", to=server.address, port=PORT, workers=8)

    def pruned() -> int:
        return tcp_counters(server.place.netns)["TcpExtPruneCalled"]

    lab.wait("full buffers", lambda: pruned() > 5)
    before = pruned()
    yield Trouble(
        "slow; max_usage_in_bytes is at the limit, TcpExtPruneCalled grows",
        lambda: pruned() > before + 5 and int((group / MAX_USED).read_text()) >= MAX_BYTES,
        (server,),
        (server.address,),
        PORT,
    )


@fault(
    "tcp-memory",
    not_run=lambda: "net.ipv4.tcp_mem is the host's: to lower it stalls everybody's connections",
)
def tcp_mem(lab: Lab) -> Iterator[Trouble | None]:
    raise NotImplementedError
