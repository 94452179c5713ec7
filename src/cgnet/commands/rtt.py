# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet rtt``: round-trip times of TCP connections, as the stack measured them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.sockets.before import KnowsOpenEnds
from cgnet.counting.keys import OF_ENDS
from cgnet.kernel.variants import SOCKETS
from cgnet.options.shared import collect, common, distributed, distribution, far_end, role
from cgnet.options.types import Span
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import FLOW, RTT_EVENT, RTT_SAMPLE, RttConfig, SessionSignal
from cgnet.records.conn_id import conn_id_field
from cgnet.records.fields import FieldGroup, NumberField
from cgnet.records.schema import FLOW_GROUPS, ROLES, tcp_state_name
from cgnet.run.command import remarks_on_roles
from cgnet.run.session import Session

if TYPE_CHECKING:
    from cgnet.kernel.variants import Variant
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField
    from cgnet.run.command import Options

MARKS_PART = RTT_EVENT.slice("sample.tcp_state", "handshake")


def _circumstances(marks: bytes) -> tuple[Any, ...]:
    state, side, _ = marks
    return ROLES.get(side), tcp_state_name(state)


def _handshake(marks: bytes) -> tuple[Any, ...]:
    return (bool(marks[-1]),)


SAMPLE = (
    FieldGroup(("role", "tcp_state"), MARKS_PART, _circumstances, repeats=True),
    NumberField("rtt_us", RTT_EVENT.slice("sample.rtt_us")),
    NumberField("srtt_us", RTT_EVENT.slice("sample.srtt_us")),
    FieldGroup(("handshake",), MARKS_PART, _handshake, repeats=True),
)


class Rtt(KnowsOpenEnds):
    """Samples of round-trip times, or histograms of them."""

    name = object = "rtt"
    signals = SessionSignal.SIGNAL_RTT
    jobs = SOCKETS
    layouts = (RTT_EVENT, FLOW, RTT_SAMPLE)
    identity = RTT_EVENT.slice("identity")
    role = RTT_EVENT.slice("sample.role")
    table = (
        "time", "owner", "pid", "comm", "role", "saddr", "sport", "daddr", "dport", "rtt_us", "srtt_us",
        "tcp_state",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "rtt_us", "srtt_us", "handshake", "tcp_state", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "daddr", "dport", "rtt_us", "srtt_us", "time")
    then = ("role", "sport", "comm", "tcp_state", "pid", "saddr")

    def __init__(
        self, options: Options | None = None, *, slower_ns: int = 0, handshakes: bool = True,
        smoothed: bool = False, milliseconds: bool = False,
    ) -> None:  # fmt: skip
        """Show samples that took longer than ``slower_ns``, or histograms, as the options say."""
        self._options = options
        self._config = RttConfig(
            min_ns=slower_ns, no_handshakes=int(not handshakes), smoothed=int(smoothed)
        )
        self.draws_milliseconds = milliseconds

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        conn_id = conn_id_field(self.identity, self.conn_key)
        return [owner_group(names, runtimes), *FLOW_GROUPS, *SAMPLE, conn_id]

    def config(self, _chosen: list[Variant]) -> list[Packable]:
        """Return the constants that select samples."""
        return [self._config]

    def remarks(self) -> list[str]:
        """Return a remark if one role is excluded."""
        return remarks_on_roles(self._options)


COMMAND = Rtt()


EPILOG = """\b
Examples:
  cgnet rtt --duration 10                  the distribution on the host
  cgnet rtt --by container -i 5            for each container, every five seconds
  cgnet rtt --by daddr/24 --dport 5432     to the networks of the databases
  cgnet rtt --container web --slower 20ms  single samples of a container, above 20 ms
  cgnet rtt --by selected --cgroup /online --cgroup /offline

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
A sample is the time from a segment to its acknowledgement, as the stack measures it, which isn't for
each packet. A side that only receives has no samples. A sample is shown with the socket's next
segment, so the last ones may come late.
"""


@click.command(name="rtt", help=COMMANDS["rtt"].help, epilog=EPILOG)
@click.option(
    "--slower",
    type=Span(),
    help="Print single samples that took longer, as in 20ms; no histogram.",
)
@click.option("--no-handshake", is_flag=True, help="Leave out the samples of handshakes.")
@click.option(
    "--srtt", is_flag=True, help="The stack's smoothed value at each sample, as older tools show."
)
@click.option("--ms", is_flag=True, help="Draw histograms in milliseconds.")
@distribution
@role
@far_end
@common
def command(*, slower: int | None, no_handshake: bool, srtt: bool, ms: bool, **values: Any) -> int:
    """Run the command."""
    counting = distributed(
        values, wanted=slower is None, instead="histograms, not with --slower", usable=OF_ENDS
    )
    options = collect(values, counting, both_roles=True)
    made = Rtt(
        options, slower_ns=slower or 0, handshakes=not no_handshake, smoothed=srtt, milliseconds=ms
    )
    return Session(made, options).run()
