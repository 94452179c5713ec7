# SPDX-License-Identifier: BSD-2-Clause
"""Helpers for tests of ``cgnet trace``: the stages of packets, and their delays."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import Row, Tracer, tracing, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_python import RemotePython
    from two_containers import Place

SENT = ["tcp_transmit", "dev_queue", "dev_xmit", "netif_rx", "netif_receive"]
SENT_ON = ["dev_queue", "dev_xmit", "netif_rx", "netif_receive"]
TAKEN = ["tcp_receive", "app_read"]
HOOKS = {
    f"nf_{hook}"
    for hook in ("netdev", "bridge", "prerouting", "input", "forward", "output", "postrouting")
}
OF_FUNCTIONS = {"ip_out", "ip_rcv", "tcp_rcv", "tcp_backlog", "sock_queue", *HOOKS}


class PacketTraces:
    """A running ``cgnet trace -o json``."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def of(self, **wanted: Any) -> list[Row]:
        """Return the rows with these values."""
        return [row for row in self.tracer.rows() if wanted.items() <= row.items()]

    def one(self, **wanted: Any) -> Row:
        """Wait for a row with these values, and return it."""

        def told() -> str:
            seen = [(row["end"], row["dport"], *brief(row)) for row in self.tracer.rows()[-12:]]
            return f"{wanted} among {seen} {self.tracer.said}"

        row: Row = wait_until(told, lambda: self.of(**wanted))[0]
        check_times(row)
        return row


def every_name(row: Row) -> list[str]:
    """Return the stages of a packet, in order."""
    return [stage["at"] for stage in row["stages"]]


def names(row: Row) -> list[str]:
    """Return the stages that every kernel reports, in order."""
    return [name for name in every_name(row) if name not in OF_FUNCTIONS]


def brief(row: Row) -> tuple[Any, ...]:
    """Return values that distinguish packets."""
    return (row["tcp_flags"], row["payload"], [(each["at"], each["dev"]) for each in row["stages"]])


def check_times(row: Row) -> None:
    """Assert that delays are those from stage to stage, and add up."""
    deltas = [stage["delta_ns"] for stage in row["stages"]]
    assert deltas[0] == 0
    assert min(deltas) >= 0
    assert sum(deltas) == row["total_ns"]


def delay(row: Row, stage: str) -> int:
    """Return the longest delay of a stage."""
    return max(each["delta_ns"] for each in row["stages"] if each["at"] == stage)


def slowest(row: Row) -> str:
    """Return the stage that took longest."""
    return str(max(row["stages"], key=lambda stage: stage["delta_ns"])["at"])


def joined(client: RemotePython, server: RemotePython, address: str, source: str = "") -> int:
    """Connect two remote processes, ``client.client`` and ``server.served``; return the port."""
    port = server.listen(address)
    assert client.connect(source or address, port, timeout=30) == "ok"
    server.do("served = server.accept()[0]")
    return port


def hand_over(client: RemotePython, server: RemotePython, size: int, pause: float = 0) -> None:
    """Send ``size`` bytes, which are read after a pause."""
    client.do(f"client.sendall(bytes({size}))")
    server.do(f"time.sleep({pause}); left = {size}")
    server.do("while left: left -= len(served.recv(left))")


def devices(row: Row, place: Place) -> list[str]:
    """Return the devices of a place that a packet passed, without repeats."""
    found = [each["dev"] for each in row["stages"] if each["netns"] == place.inode and each["dev"]]
    return list(dict.fromkeys(found))


def wait_for_bytes(traces: PacketTraces, port: int, size: int) -> list[Row]:
    """Wait until ``size`` bytes were delivered to a port; return their packets."""

    def delivered() -> list[Row]:
        found = traces.of(dport=port, end="delivered")
        return found if sum(row["payload"] for row in found) >= size else []

    return list(wait_until(lambda: f"{size} bytes: {traces.tracer}", delivered))


@contextmanager
def tracing_packets(*arguments: str, **how: Any) -> Iterator[PacketTraces]:
    with tracing(*arguments, command="trace", **how) as tracer:
        yield PacketTraces(tracer)
