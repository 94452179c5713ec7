# SPDX-License-Identifier: BSD-2-Clause
"""Connection attempts: their records, and the ways to see errors before a SYN leaves.

Shared by the commands of the object ``connect``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cgnet.kernel import variants
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import CONNECT_EVENT, FLOW, OUTCOME, ConnectConfig, Role, SyncErrors
from cgnet.records.schema import DECISION, FLOW_GROUPS, LATENCY, SYN_RETRANS
from cgnet.run.command import Command
from cgnet.run.program_sets import ProgramSet

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyGroup

OWN_TIMEOUTS = (
    "time-outs that applications set themselves are aborted, not ETIMEDOUT: --result '!ok' has both"
)
UNSEEN = "what fails before a SYN leaves (no route) isn't shown; --sync-errors on does it"
LATE = "attempts that fail before a SYN leaves are seen by kprobes, which take longer than fexit ({why})"
SLOW = (
    "attempts that fail before a SYN leaves are seen at the connect system call, and every system call "
    "of the host is some 50 ns slower: fexit and kprobes aren't taken ({why})"
)


BY_FEXIT, BY_KPROBE, BY_SYSCALL = (
    ProgramSet(frozenset(feature.name for feature in way.needs))
    for way in variants.SYNC_ERRORS.ways[:3]
)
WAYS = {"fexit": BY_FEXIT, "kprobe": BY_KPROBE, "tracepoint": BY_SYSCALL}
NO_SYNC_ERRORS = ProgramSet()


def explained(ways: list[ProgramSet], results: Collection[str]) -> list[ProgramSet]:
    """Return the ways, with a remark on time-outs if these results exclude some."""
    asked = {each for value in results if value[:1] != "!" for each in value.split(",")}
    if not asked & {"ETIMEDOUT", str(errno.ETIMEDOUT)} or "aborted" in asked:
        return ways
    return [way._replace(remarks=(*way.remarks, OWN_TIMEOUTS)) for way in ways]


def sync_errors(chosen: ProgramSet) -> SyncErrors:
    """Return the hook of errors before a SYN in a set of programs."""
    if not chosen.hooks:
        return SyncErrors.SYNC_ERRORS_UNSEEN
    if chosen.hooks == BY_SYSCALL.hooks:
        return SyncErrors.SYNC_ERRORS_BY_SYSCALL
    return SyncErrors.SYNC_ERRORS_BY_FUNCTION


def sync_error_sets(
    choice: str, roles: Collection[Role], forced: str | None = None
) -> list[ProgramSet]:
    """Return the ways to see errors before a SYN, in the order of trying. Only clients have them.

    ``forced`` is the one of WAYS to use.
    """
    if forced:
        return [WAYS[forced]]
    if choice == "off" or Role.ROLE_CLIENT not in roles:
        return [NO_SYNC_ERRORS]
    last = (BY_SYSCALL, SLOW) if choice == "on" else (NO_SYNC_ERRORS, UNSEEN)
    told = [each._replace(remarks=(remark,)) for each, remark in ((BY_KPROBE, LATE), last)]
    return [BY_FEXIT, *told]


class Attempts(Command):
    """Shows connection attempts, in columns that suit the roles.

    The port listened on is local for servers; with both roles a column shows the role.
    """

    object = "connect"
    layouts = (CONNECT_EVENT, FLOW, OUTCOME)

    def __init__(self, roles: Collection[Role] = (Role.ROLE_CLIENT,), min_ns: int = 0) -> None:
        """Choose the columns. Attempts that took less than ``min_ns`` aren't shown."""
        self._min_ns = min_ns
        if Role.ROLE_SERVER not in roles:
            return
        if Role.ROLE_CLIENT not in roles:
            without = [field for field in self.table if field != "dport"]
            self.table = _after(without, "saddr", "sport")
            self.first = tuple("sport" if field == "dport" else field for field in self.first)
        else:
            self.table = _after(_after(self.table, "comm", "role"), "saddr", "sport")
            self.first, self.then = (*self.first, "role"), ("sport", *self.then)

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyGroup]:
        """Return the groups of a record's fields, in order."""
        return [owner_group(names, runtimes), *FLOW_GROUPS, DECISION, LATENCY, SYN_RETRANS]

    def config(self, chosen: ProgramSet) -> list[Packable]:
        """Return the threshold, and the hook of errors before a SYN."""
        return [ConnectConfig(self._min_ns, sync_errors(chosen))]


def _after(fields: Sequence[str], place: str, field: str) -> tuple[str, ...]:
    at = fields.index(place) + 1
    return (*fields[:at], field, *fields[at:])
