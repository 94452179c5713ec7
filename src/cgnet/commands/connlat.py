# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connlat``: how long TCP connections take to be established, or to fail."""

from __future__ import annotations

from typing import Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.connect.attempts import Attempts
from cgnet.errors import UsageError
from cgnet.filters.selection import Selection
from cgnet.kernel.variants import CONNECTIONS, SYNC_ERRORS
from cgnet.options.shared import (
    collect,
    common,
    connections,
    distributed,
    far_end,
    histogram,
)
from cgnet.options.types import a_number
from cgnet.run.session import Session

NSEC_PER_USEC, NSEC_PER_MSEC = 1000, 1_000_000
ANY = Selection()


class Connlat(Attempts):
    """Connection attempts that took long, or histograms of all attempts."""

    name = "connlat"
    # An attempt that fails before a SYN leaves takes no time.
    jobs = tuple(each for each in CONNECTIONS if each != SYNC_ERRORS)
    table = (
        "time", "owner", "pid", "comm", "saddr", "daddr", "dport", "tcp_state", "result", "latency_us",
        "syn_retrans",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "tcp_state", "result", "latency_us", "syn_retrans", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "daddr", "dport", "result", "latency_us", "time")
    then = ("syn_retrans", "comm", "tcp_state", "pid", "saddr")

    def __init__(self, selection: Selection = ANY, min_ns: int = 0) -> None:
        """Show attempts that took ``min_ns`` nanoseconds or longer."""
        super().__init__(selection, min_ns=min_ns)


COMMAND = Connlat()


EPILOG = """\b
Examples:
  cgnet connlat                                   every attempt, and how long it took
  cgnet connlat --min-ms 100                      the slow ones
  cgnet connlat --min-us 500 --container web      in a container
  cgnet connlat --hist                            how long successful attempts took
  cgnet connlat --hist --by container,daddr -i 10
  cgnet connlat --hist --linear 0,1000,50         buckets of 50 µs, up to 1 ms
  cgnet connlat --hist --result '!ok'             how long it took to fail

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
The time runs from the first SYN to the result: with "ok", it is the time to connect. Retransmitted
SYNs are counted beside it: the first is sent after one second, which explains a row of 1.02 s. For an
accepted connection (--inbound) the time is the round trip from its SYN-ACK. Histograms are made in
the kernel, of successful attempts only, unless --result selects others.
"""


def _min_ns(min_ms: float | None, min_us: float | None) -> int:
    if min_ms is not None and min_us is not None:
        raise UsageError("--min-ms and --min-us: give one of them")
    return round((min_ms or 0) * NSEC_PER_MSEC + (min_us or 0) * NSEC_PER_USEC)


@click.command(name="connlat", help=COMMANDS["connlat"].help, epilog=EPILOG)
@click.option(
    "--min-ms",
    type=click.FloatRange(min=0, max=1e9),
    callback=a_number,
    metavar="MS",
    help="Only attempts that took at least this long.",
)
@click.option(
    "--min-us",
    type=click.FloatRange(min=0, max=1e12),
    callback=a_number,
    metavar="US",
    help="The same, in µs.",
)
@histogram
@connections
@far_end
@common
def command(*, min_ms: float | None, min_us: float | None, hist: bool, **values: Any) -> int:
    """Run the command."""
    counting = distributed(values, wanted=hist or values["interval"] is not None, instead="--hist")
    if counting and not values["result"]:
        values["result"] = ("ok",)
    options = collect(values, counting)
    return Session(Connlat(options.selection, _min_ns(min_ms, min_us)), options).run()
