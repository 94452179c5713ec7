# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet connect``: every outbound TCP connection attempt, and how it was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cgnet._layouts import CONNECT_EVENT, FLOW, OUTCOME, RecordKind, Role, SyncErrors
from cgnet.attribution import owner_group
from cgnet.command import Command
from cgnet.events import DECISION, LATENCY, LOCAL_PORT, SERVICE
from cgnet.launch import Extra
from cgnet.options import collect, common, connections, counting
from cgnet.session import Session

if TYPE_CHECKING:
    from cgnet.cgroups import CgroupNames
    from cgnet.events import Group
    from cgnet.runtimes import Runtimes

TABLE = (
    "time", "owner", "pid", "comm", "saddr", "daddr", "dport", "result", "latency_us",
    "syn_retrans",
)  # fmt: skip
WIDE = (
    "time", "owner", "pid", "uid", "comm", "family", "saddr", "sport", "daddr", "dport", "result",
    "latency_us", "syn_retrans", "netns", "owner_source", "cgroup",
)  # fmt: skip


def groups(names: CgroupNames, runtimes: Runtimes) -> list[Group]:
    """Return the groups of a record, in order."""
    return [owner_group(names, runtimes), SERVICE, LOCAL_PORT, DECISION, LATENCY]


COMMAND = Command(
    "connect",
    "connect",
    (CONNECT_EVENT, FLOW, OUTCOME),
    RecordKind.RECORD_CONNECT,
    {"table": TABLE, "wide": WIDE},
    groups,
)

UNSEEN = (
    "attempts that fail before a SYN leaves (no route, not permitted) aren't shown: this kernel "
    "lets no program see the return of tcp_v4_connect; --sync-errors on finds them at the "
    "connect system call"
)
BY_FEXIT = Extra(frozenset({"fentry", "fexit"}), SyncErrors.SYNC_ERRORS_BY_FUNCTION)
BY_KPROBE = Extra(frozenset({"kprobe", "kretprobe"}), SyncErrors.SYNC_ERRORS_BY_FUNCTION)
BY_SYSCALL = Extra(frozenset({"tracepoint"}), SyncErrors.SYNC_ERRORS_BY_SYSCALL)
NOT_AT_ALL = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)


def sync_error_ways(choice: str) -> list[Extra]:
    """Return the ways to see errors before a SYN, in the order of trying."""
    if choice == "off":
        return [NOT_AT_ALL]
    last = BY_SYSCALL if choice == "on" else NOT_AT_ALL._replace(remarks=(UNSEEN,))
    return [BY_FEXIT, BY_KPROBE, last]


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
  cgnet connect -c --by container,result -i 5     counts, every five seconds
  cgnet connect -c --by selected --cgroup /online --cgroup /offline

Repeats of an option are OR, different options are AND; a value that begins with ! excludes.

\b
RESULT is "ok", the name of the errno that the attempt failed with (ECONNREFUSED,
ETIMEDOUT, EHOSTUNREACH, …), or "aborted" when the local side gave up: it closed,
disconnected or was killed while the attempt was under way.
"""


@click.command(name="connect", help=HELP, epilog=EPILOG)
@connections
@counting
@common
@click.option(
    "--sync-errors",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Errors before a SYN leaves, such as no route: auto shows them where the kernel allows it "
    "for little; on also where it takes the system call's tracepoints, which make every system "
    "call of the host some 50 ns slower.",
)
def command(sync_errors: str, **values: Any) -> int:
    """Run the command."""
    options = collect(values)
    if Role.ROLE_CLIENT not in options.selection.roles:
        sync_errors = "off"
    return Session(COMMAND, options, sync_error_ways(sync_errors)).run()
