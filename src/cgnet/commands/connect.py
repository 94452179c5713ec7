# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connect``: every outbound TCP connection attempt, and how it was decided."""

from __future__ import annotations

from typing import Any

import click

from cgnet.attempts import WAYS, command_of_attempts, explained, for_roles, sync_error_ways
from cgnet.option_types import OneOf
from cgnet.options import collect, common, connections, counted, counting
from cgnet.session import Session

TABLE = (
    "time", "owner", "pid", "comm", "saddr", "daddr", "dport", "result", "latency_us",
    "syn_retrans",
)  # fmt: skip
WIDE = (
    "time", "owner", "pid", "uid", "comm", "role", "family", "saddr", "sport", "daddr", "dport",
    "result", "latency_us", "syn_retrans", "netns", "owner_source", "cgroup",
)  # fmt: skip
# On a terminal: what a narrow one keeps, and what comes then; the most important first.
FIRST = ("owner", "daddr", "dport", "result", "latency_us", "time")
THEN = ("comm", "syn_retrans", "pid", "saddr")
COMMAND = command_of_attempts("connect", TABLE, WIDE, FIRST, THEN)

HELP = "Every outbound TCP connection attempt, and how it was decided."
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


@click.command(name="connect", help=HELP, epilog=EPILOG)
@connections
@counting
@common
@click.option(
    "--sync-errors",
    type=OneOf(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Errors before a SYN leaves, such as no route: auto shows them where the kernel allows it "
    "for little; on also where it takes the system call's tracepoints, which make every system "
    "call of the host some 50 ns slower.",
)
@click.option("--sync-errors-by", type=OneOf(list(WAYS)), hidden=True)
def command(sync_errors: str, sync_errors_by: str | None, **values: Any) -> int:
    """Run the command."""
    options = collect(values, counted(values))
    roles, results = options.selection.roles, options.selection.result
    ways = explained(sync_error_ways(sync_errors, roles, sync_errors_by), results)
    return Session(for_roles(COMMAND, roles), options, ways).run()
