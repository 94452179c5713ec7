# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet sockets``: what TCP is open, by container, over all network namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.sockets.counting import Ports, States
from cgnet.commands.sockets.record import Shared, groups
from cgnet.commands.sockets.session import Session
from cgnet.counting.keys import OF_LISTINGS
from cgnet.errors import UsageError, did_you_mean
from cgnet.filters.values import choose
from cgnet.kernel.variants import HOLDERS, NETWORKS, WALK
from cgnet.options import completion
from cgnet.options.groups import select
from cgnet.options.shared import collect, far_end, keys_of, listing, need, role
from cgnet.records._layouts import FLOW, OPEN_SOCKET, SOCKET_EVENT, SocketsConfig
from cgnet.records.schema import TCP_STATES
from cgnet.run.command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cgnet.counting.keys import Key
    from cgnet.loader import Object
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records.fields import AnyField
    from cgnet.records.schema import Schema

# Requests are SYN_RECV, and a socket that is closed is in none of the kernel's tables.
STATES = {
    name: number
    for number, name in enumerate(TCP_STATES)
    if name not in ("", "CLOSE", "NEW_SYN_RECV", "BOUND_INACTIVE")
}
LISTEN = 1 << STATES["LISTEN"]
DEFAULT_BY = "container,state"


class Sockets(Command):
    """Open sockets, or sums of them."""

    name = object = "sockets"
    jobs = (WALK, HOLDERS, NETWORKS)
    layouts = (SOCKET_EVENT, FLOW, OPEN_SOCKET)
    table: tuple[str, ...] = (
        "owner", "pid", "comm", "state", "saddr", "sport", "daddr", "dport", "recv_q", "send_q",
        "timer", "timer_us", "retrans", "srtt_us", "cwnd", "limited_by",
    )  # fmt: skip
    wide: tuple[str, ...] = (
        "owner", "pid", "uid", "comm", "role", "state", "family", "saddr", "sport", "daddr", "dport",
        "recv_q", "send_q", "unsent", "timer", "timer_us", "retrans", "cwnd", "ssthresh", "mss",
        "srtt_us", "min_rtt_us", "limited_by", "last_sent_us", "last_received_us", "delivery_rate",
        "busy_us", "rwnd_limited_us", "sndbuf_limited_us", "age_us", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first: tuple[str, ...] = ("owner", "state", "daddr", "dport", "recv_q", "send_q", "sport")
    then: tuple[str, ...] = (
        "saddr", "timer", "comm", "pid", "retrans", "srtt_us", "timer_us", "limited_by", "cwnd",
    )  # fmt: skip

    def __init__(
        self, *, states: int = 0, keys: list[Key] | None = None, ports: bool = False
    ) -> None:
        """List sockets in ``states``, as bits; or count them by ``keys``, or their ``ports``."""
        self.listeners_alone = states == LISTEN
        self.shared = Shared()
        self._states, self._keys, self._ports = states, keys, ports
        self.namespaces = self.missed = 0  # of the last listing; of all

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        return groups(names, runtimes, self.shared, self.conn_key)

    def constants(self, *, repeats: bool) -> SocketsConfig:
        """Return the constants that select sockets, and say whether queues are followed."""
        return SocketsConfig(by_state=self._states, watches=repeats and self.listeners_alone)

    def summary(self, _obj: Object) -> dict[str, int]:
        """Return the network namespaces, and what listings missed."""
        return {"namespaces": self.namespaces, "missed": self.missed}

    def sums(self, schema: Schema, given: Sequence[str]) -> States | Ports | None:
        """Return how sockets are summed up; None: each has a row."""
        if self._ports:
            return Ports(schema)
        return States(self._keys, schema, given) if self._keys else None


class Listeners(Sockets):
    """Listening sockets alone."""

    table = (
        "owner", "pid", "comm", "saddr", "sport", "queue", "backlog", "queue_high", "drops", "netns",
    )  # fmt: skip
    wide = (
        "owner", "pid", "uid", "comm", "family", "saddr", "sport", "queue", "backlog",
        "queue_high", "drops", "age_us", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "sport", "queue", "backlog", "drops", "saddr", "queue_high")
    then = ("comm", "pid", "netns")


COMMAND = Sockets()


EPILOG = """\b
Examples:
  cgnet sockets                                 every socket of every network namespace
  cgnet sockets --container web -o wide         a container's, with all values of each
  cgnet sockets --state CLOSE_WAIT              who doesn't close what its peers have closed
  cgnet sockets --container web --peers         and who is at the other end of each
  cgnet sockets --listeners                     backlogs: how full, and what they dropped
  cgnet sockets --listeners -i 1                also how full they have been since the start
  cgnet sockets --states                        counts by container and state
  cgnet sockets --states --by container,daddr/24
  cgnet sockets --ports                         ephemeral ports used and left, by destination

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
It is what is open now, in all network namespaces, also what no process holds: TIME_WAIT, SYN_RECV,
and what was closed and still sends. Queues are in bytes; those of a listener are connections.
"""


def _read_states(text: str) -> Iterator[int]:
    for part in text.split(","):
        name = part.strip().upper().replace("-", "_")
        if name not in STATES:
            raise ValueError(
                f"no such state{did_you_mean(name, STATES)}; one of: {', '.join(STATES)}"
            )
        yield STATES[name]


def _state_bits(given: tuple[str, ...]) -> int:
    chosen = choose("--state", given, _read_states)
    return sum(1 << number for number in chosen.chosen(STATES.values())) if chosen.use else 0


@click.command(name="sockets", help=COMMANDS["sockets"].help, epilog=EPILOG)
@select("state", "STATE", "In this TCP state, as in CLOSE_WAIT.", completion.listed(STATES))
@click.option("--listeners", is_flag=True, help="Listening sockets alone, and their queues.")
@click.option("--states", is_flag=True, help="Counts of sockets, by container and state.")
@click.option("--ports", is_flag=True, help="Ephemeral ports in use and left, by where they lead.")
@listing
@role
@far_end
def command(*, listeners: bool, states: bool, ports: bool, **values: Any) -> int:
    """Run the command."""
    bits = _state_bits(values.pop("state"))
    if ports and (listeners or states):
        raise UsageError("--ports: not with --listeners or --states")
    if listeners:
        if bits and not bits & LISTEN:
            raise UsageError("--listeners: their state is LISTEN, which --state leaves out")
        bits = LISTEN
        if values["peer"]:
            raise UsageError("--listeners: they have no other end that --peer could select")
    if not states:
        need("--states", values, ("by",))
    keys = keys_of(values, DEFAULT_BY, OF_LISTINGS) if states else None
    made = (Listeners if listeners else Sockets)(states=bits, keys=keys, ports=ports)
    return Session(made, collect(values, both_roles=True)).run()
