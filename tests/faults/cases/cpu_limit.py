# SPDX-License-Identifier: BSD-2-Clause
"""A CPU quota halts the server in the middle of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from case import Trouble, fault
from harness import V2
from lab import CPU, PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import End, Lab


def limit_cpu(end: End, share: float) -> None:
    """Give a container a share of a CPU, in the hierarchy that has the controller."""
    quota = int(share * 100_000)
    if CPU.is_dir():
        (end.cgroup(CPU) / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (V2 / "cgroup.subtree_control").write_text("+cpu")
        (end.v2 / "cpu.max").write_text(f"{quota} 100000")


def throttled(end: End) -> int:
    """Return how many periods were throttled."""
    group = end.cgroup(CPU) if CPU.is_dir() else end.v2
    values = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(values["nr_throttled"])


@fault("cpu-limit")
def server(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen(work_s=0.02)
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    limit_cpu(server, 0.05)
    before = throttled(server)
    lab.wait("throttling", lambda: throttled(server) > before + 2)
    yield Trouble(
        "requests take ten times as long; nr_throttled grows",
        lambda: throttled(server) > before + 5 and keeps.slowest() > 0.2,
        (server,),
        (server.address,),
        PORT,
    )


@fault("cpu-limit")
def limit_of_a_cgroup_above(lab: Lab) -> Iterator[Trouble | None]:
    """The limit is a pod's, the process in a cgroup below it."""
    client, _, server = lab.routed()
    inner = server.below("inner")
    inner.listen(work_s=0.02)
    keeps = client.start("keep", to=server.address, port=PORT)
    keeps.wait_for("ok", count=4)
    yield None
    limit_cpu(server, 0.05)
    before = throttled(server)
    yield Trouble(
        "requests take ten times as long; nr_throttled grows",
        lambda: throttled(server) > before + 5 and keeps.slowest() > 0.2,
        (inner,),
        (server.address,),
        PORT,
    )


@fault("cpu-limit", families=(4,))
def reader(lab: Lab) -> Iterator[Trouble | None]:
    client, _, server = lab.routed()
    server.listen("sink", chunk=2048)
    sends = client.start("upload", to=server.address, port=PORT, workers=2)
    sends.wait_for("sent")
    yield None
    limit_cpu(server, 0.02)
    before = throttled(server)
    yield Trouble(
        "sending stalls; nr_throttled grows",
        lambda: throttled(server) > before + 5,
        (server,),
        (server.address,),
        PORT,
    )
