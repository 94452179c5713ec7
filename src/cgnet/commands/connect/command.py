# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connect``: every outbound TCP connection attempt, and its result."""

from __future__ import annotations

from typing import Any

import click

from cgnet.commands import COMMANDS
from cgnet.commands.connect.attempts import WAYS, Attempts
from cgnet.filters.selection import Selection
from cgnet.options.shared import collect, common, connections, counted, counting, far_end
from cgnet.options.types import OneOf
from cgnet.run.session import Session

ANY = Selection()


class Connect(Attempts):
    """Every attempt, with the ways to see errors before a SYN leaves."""

    name = "connect"
    table = (
        "time", "owner", "pid", "comm", "saddr", "daddr", "dport", "result", "latency_us",
        "syn_retrans",
    )  # fmt: skip
    wide = (
        "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
        "result", "latency_us", "syn_retrans", "netns", "owner_source", "cgroup",
    )  # fmt: skip
    first = ("owner", "daddr", "dport", "result", "latency_us", "time")
    then = ("comm", "syn_retrans", "pid", "saddr")

    def __init__(
        self, selection: Selection = ANY, sync_errors: str = "auto", by: str | None = None
    ) -> None:
        """Show the selected attempts; ``sync_errors`` chooses whether errors before a SYN are seen."""
        super().__init__(selection, sync_errors, by)


COMMAND = Connect()


EPILOG = """\b
Examples:
  cgnet connect                                   every attempt on the host
  cgnet connect --cgroup /sys/fs/cgroup/system.slice/nginx.service
  cgnet connect --cgroup /kubepods -o wide        one pod after the other, with ports and users
  cgnet connect --container web --result '!ok'    what fails in a container
  cgnet connect --pid 4711 --limit 10             the next ten of a process
  cgnet connect -o json --duration 60 > attempts.jsonl
  cgnet connect --fields time,comm,daddr,dport,result -o csv
  cgnet connect --result '!ok' --port 443         what fails on a port
  cgnet connect --all --peers                     who connects to whom
  cgnet connect --inbound --cgroup '/kubepods/*'  what the pods accept
  cgnet connect -i 5 --by container,result        counts, every five seconds
  cgnet connect -c --by selected --cgroup /online --cgroup /offline

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
RESULT is "ok", the name of the errno that the attempt failed with (ECONNREFUSED,
ETIMEDOUT, EHOSTUNREACH, …), or "aborted" when the local side closed, disconnected or was
killed before any answer came. So end the time-outs that applications set themselves (curl
--connect-timeout, a driver's connectTimeout): LATENCY is how long they waited, RETRANS how often
the SYN was sent again. ETIMEDOUT is the kernel's own, after minutes; --result '!ok' has both.
"""


@click.command(name="connect", help=COMMANDS["connect"].help, epilog=EPILOG)
@connections
@counting
@far_end
@common
@click.option(
    "--sync-errors",
    type=OneOf(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Errors before a SYN is sent, such as no route. auto: only if the kernel has a cheap hook "
    "for them. on: else by the tracepoints of system calls, which make each system call on the "
    "host some 50 ns slower.",
)
@click.option("--sync-errors-by", type=OneOf([*WAYS]), hidden=True)
def command(sync_errors: str, sync_errors_by: str | None, **values: Any) -> int:
    """Run the command."""
    options = collect(values, counted(values))
    return Session(Connect(options.selection, sync_errors, sync_errors_by), options).run()
