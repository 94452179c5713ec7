# SPDX-License-Identifier: BSD-2-Clause
"""``cgnet why``: which connections fail, are slow or lose packets, and why."""

from __future__ import annotations

from typing import Any

import click

from cgnet.commands import COMMANDS
from cgnet.counting.sums import MAX_OWNERS
from cgnet.errors import UsageError
from cgnet.filters.selection import Filters
from cgnet.findings.finding import SEVERITIES
from cgnet.findings.thresholds import Thresholds, read
from cgnet.kernel.variants import CONNECTIONS, HOLDERS, LIVING, SOCKETS, STACKS, WALK
from cgnet.options.shared import collect, watching
from cgnet.options.types import OneOf

DURATION_S = 30.0
# Of all its signals, as `cgnet doctor` shows them; what follows all sockets comes last, and stands.
JOBS = tuple(
    {job.name: job for job in (*CONNECTIONS, *SOCKETS, STACKS, LIVING, WALK, HOLDERS)}.values()
)

EPILOG = """\b
Examples:
  cgnet why                                    the whole host, for 30 seconds
  cgnet why --container web                    what is wrong with a container's connections
  cgnet why --port 5432 --duration 2m          with whatever talks to, or serves, a port
  cgnet why -- curl -sS https://example.org/   run a command, and tell what went wrong
  cgnet why -o json --fail-on error            for a script: exits with 10 if something fails

\b
A finding has a sentence, its evidence, a fix, and the command that shows more. "certain": the cause
was seen; "likely" and "possible": the evidence fits. docs/why.md lists all findings.
"""


@click.command(
    name="why", help=COMMANDS["why"].help, epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
)  # fmt: skip
@watching
@click.option(
    "--fail-on",
    type=OneOf([*SEVERITIES]),
    help="Exit with 10 if there is a finding of this severity, or worse.",
)
@click.option(
    "--sync-errors",
    type=OneOf(["auto", "on", "off"]),
    default="on",
    show_default=True,
    help="Errors before a SYN is sent, such as no route. on: where the kernel has no cheap hook "
    "for them, by the tracepoints of system calls, which make each system call on the host some 50 "
    "ns slower meanwhile.",
)
@click.option(
    "--threshold", "given", multiple=True, metavar="NAME=NUMBER",
    help="Another threshold than the usual one: " + ", ".join(
        f"{name}={number:g}" for name, number in Thresholds()._asdict().items()
    ) + ".",
)  # fmt: skip
@click.option(
    "--max-owners", type=click.IntRange(1, 1_000_000), default=MAX_OWNERS, show_default=True,
    metavar="N",
    help="Sum up so many owners each by itself; those that come later are summed up together, as other.",
)  # fmt: skip
@click.option("--user", metavar="USER", help="Run COMMAND as this user.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
def command(
    *, fail_on: str | None, sync_errors: str, given: tuple[str, ...], max_owners: int,
    user: str | None, words: tuple[str, ...], **values: Any,
) -> int:  # fmt: skip
    """Run the command."""
    from cgnet.commands.why.session import Session  # noqa: PLC0415 - after --help

    options, limits = collect(values, both_roles=True), read(given)
    if user and not words:
        raise UsageError("--user: goes with a COMMAND to watch")
    if not words:
        options = options._replace(duration=options.duration or DURATION_S)
        return Session(options, sync_errors, fail_on, limits, max_owners=max_owners).run()
    from cgnet.commands.why.child import Child  # noqa: PLC0415

    hierarchy = Filters(options.selection).hierarchies[0]
    child = Child(words, hierarchy, user, quiet=options.output in ("json", "csv"))
    try:
        chosen = options.selection._replace(cgroup=(str(child.cgroup),))
        options = options._replace(selection=chosen)
        session = Session(options, sync_errors, fail_on, limits, child, max_owners=max_owners)
    except BaseException:
        child.close()
        raise
    return session.run()
