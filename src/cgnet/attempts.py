# SPDX-License-Identifier: BSD-2-Clause
"""Connection attempts: their records, and the ways to see errors before a SYN leaves.

What the commands of the object ``connect`` have in common.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cgnet import features
from cgnet._layouts import CONNECT_EVENT, FLOW, OUTCOME, RecordKind, Role, SyncErrors
from cgnet.attribution import owner_group
from cgnet.command import Command
from cgnet.events import DECISION, FLOW_GROUPS, LATENCY, SYN_RETRANS
from cgnet.launch import Extra

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cgnet.cgroups import CgroupNames
    from cgnet.groups import AnyGroup
    from cgnet.runtimes import Runtimes

OWN_TIMEOUTS = (
    "time-outs that applications set themselves are aborted, not ETIMEDOUT: --result '!ok' has both"
)
UNSEEN = "what fails before a SYN leaves (no route) isn't shown; --sync-errors on does it"
LATE = "attempts that fail before a SYN leaves are seen by kprobes, which take longer than fexit ({why})"
SLOW = (
    "attempts that fail before a SYN leaves are seen at the connect system call, and every system call "
    "of the host is some 50 ns slower: fexit and kprobes aren't taken ({why})"
)


def _by(way: features.Way, how: SyncErrors) -> Extra:
    return Extra(frozenset(feature.name for feature in way.needs), how)


FEXIT, KPROBE, SYSCALL, _ = features.SYNC_ERRORS.ways
BY_FEXIT = _by(FEXIT, SyncErrors.SYNC_ERRORS_BY_FUNCTION)
BY_KPROBE = _by(KPROBE, SyncErrors.SYNC_ERRORS_BY_FUNCTION)
BY_SYSCALL = _by(SYSCALL, SyncErrors.SYNC_ERRORS_BY_SYSCALL)
WAYS = {"fexit": BY_FEXIT, "kprobe": BY_KPROBE, "tracepoint": BY_SYSCALL}
NOT_AT_ALL = Extra(frozenset(), SyncErrors.SYNC_ERRORS_UNSEEN)


def explained(ways: list[Extra], results: Collection[str]) -> list[Extra]:
    """Return the ways, with what there is to say to somebody who asks for these results."""
    asked = {each for value in results if value[:1] != "!" for each in value.split(",")}
    if not asked & {"ETIMEDOUT", str(errno.ETIMEDOUT)} or "aborted" in asked:
        return ways
    return [way._replace(remarks=(*way.remarks, OWN_TIMEOUTS)) for way in ways]


def sync_error_ways(choice: str, roles: Collection[Role], forced: str | None = None) -> list[Extra]:
    """Return the ways to see errors before a SYN, in the order of trying. Clients alone have them.

    ``forced`` is the one of WAYS that must be taken.
    """
    if forced:
        return [WAYS[forced]]
    if choice == "off" or Role.ROLE_CLIENT not in roles:
        return [NOT_AT_ALL]
    last = (BY_SYSCALL, SLOW) if choice == "on" else (NOT_AT_ALL, UNSEEN)
    told = [each._replace(remarks=(remark,)) for each, remark in ((BY_KPROBE, LATE), last)]
    return [BY_FEXIT, *told]


def groups(names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
    """Return the groups of a record, in order."""
    return [owner_group(names, runtimes), *FLOW_GROUPS, DECISION, LATENCY, SYN_RETRANS]


def for_roles(command: Command, roles: Collection[Role]) -> Command:
    """Return the command with columns that tell what these roles' connections are.

    What is listened at is the local port, and both roles' rows are told apart.
    """

    def changed(kind: str, fields: tuple[str, ...]) -> tuple[str, ...]:
        if Role.ROLE_SERVER not in roles or kind == "wide":
            return fields
        if Role.ROLE_CLIENT not in roles:
            without = [field for field in fields if field != "dport"]
            return _after(without, "saddr", "sport")
        return _after(_after(fields, "comm", "role"), "saddr", "sport")

    columns = {kind: changed(kind, fields) for kind, fields in command.columns.items()}
    first, then = command.first, command.then
    if Role.ROLE_CLIENT not in roles:
        first = tuple("sport" if field == "dport" else field for field in first)
    elif Role.ROLE_SERVER in roles:
        first, then = (*first, "role"), ("sport", *then)
    return command._replace(columns=columns, first=first, then=then)


def _after(fields: Sequence[str], place: str, field: str) -> tuple[str, ...]:
    at = fields.index(place) + 1
    return (*fields[:at], field, *fields[at:])


def command_of_attempts(
    name: str,
    table: tuple[str, ...],
    wide: tuple[str, ...],
    first: tuple[str, ...],
    then: tuple[str, ...],
) -> Command:
    """Return a command that shows attempts, with these columns: see command.Command."""
    return Command(
        name,
        "connect",
        (CONNECT_EVENT, FLOW, OUTCOME),
        RecordKind.RECORD_CONNECT,
        {"table": table, "wide": wide},
        groups,
        first=first,
        then=then,
    )
