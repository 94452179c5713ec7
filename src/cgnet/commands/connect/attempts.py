# SPDX-License-Identifier: BSD-2-Clause
"""Connection attempts: their records, and the ways to see errors before a SYN leaves.

Shared by the commands of the object ``connect``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from cgnet.kernel.variants import CONNECTIONS, LISTENERS, SEEDS, SYNC_ERRORS
from cgnet.owners.pairs import NONE
from cgnet.owners.record_fields import owner_group
from cgnet.records._layouts import CONNECT_EVENT, FLOW, OUTCOME, ConnectConfig, Role, SessionSignal
from cgnet.records.conn_id import conn_id_field
from cgnet.records.schema import DECISION, FLOW_GROUPS, LATENCY, SYN_RETRANS
from cgnet.run.command import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cgnet.filters.selection import Selection
    from cgnet.kernel.variants import Job, Variant
    from cgnet.owners.cgroups import CgroupNames
    from cgnet.owners.runtimes import Runtimes
    from cgnet.records._layouts import Packable
    from cgnet.records.fields import AnyField

OWN_TIMEOUTS = (
    "time-outs that applications set themselves are aborted, not ETIMEDOUT: --result '!ok' has both"
)
# Codes of the ways to see errors before a SYN, for each choice, in the order of trying.
WAYS = ("fexit", "kprobe", "tracepoint")
SYNC_ERRORS_BY = {"auto": ("fexit", "kprobe", "none"), "on": WAYS, "off": ()}
PROGRAMS_OF_ROLES = {
    Role.ROLE_CLIENT: frozenset({"client", "client_again"}),
    Role.ROLE_SERVER: frozenset({"server", "server_again"}),
}
OF_SERVERS = (LISTENERS, SEEDS)


class Attempts(Command):
    """Shows connection attempts, in columns that suit the roles.

    The port listened on is local for servers; with both roles a column shows the role.
    """

    object = "connect"
    signals = SessionSignal.SIGNAL_CONNECT | SessionSignal.SIGNAL_ACCEPT
    jobs: ClassVar[tuple[Job, ...]] = CONNECTIONS
    layouts = (CONNECT_EVENT, FLOW, OUTCOME)
    identity = CONNECT_EVENT.slice("identity")
    tells_ends = False

    def __init__(
        self, selection: Selection, sync_errors: str = "off", by: str | None = None, min_ns: int = 0
    ) -> None:
        """Choose the columns, and the ways to see errors before a SYN leaves: only clients have them.

        ``by`` is the one of WAYS to use. Attempts that took less than ``min_ns`` aren't shown.
        """
        roles = selection.roles
        self._roles, self._results, self._min_ns = roles, selection.result, min_ns
        seen = SYNC_ERRORS_BY[sync_errors] if Role.ROLE_CLIENT in roles else ()
        self._sync_errors = (by,) if by else seen
        if Role.ROLE_SERVER not in roles:
            return
        if Role.ROLE_CLIENT not in roles:
            without = [field for field in self.table if field != "dport"]
            self.table = _after(without, "saddr", "sport")
            self.first = tuple("sport" if field == "dport" else field for field in self.first)
        else:
            self.table = _after(_after(self.table, "comm", "role"), "saddr", "sport")
            self.first, self.then = (*self.first, "role"), ("sport", *self.then)

    def needed(self) -> list[Job]:
        """Return the jobs, without those of servers or clients that aren't shown."""
        both = self.follows_peers or Role.ROLE_SERVER in self._roles
        unwanted = () if both else OF_SERVERS
        sync_errors = [SYNC_ERRORS.only(*self._sync_errors)] if self._sync_errors else []
        others = [each for each in self.jobs if each not in (*unwanted, SYNC_ERRORS)]
        return [*others, *sync_errors]

    def left_out(self) -> frozenset[str]:
        """Return the programs of the role that isn't shown."""
        if self.follows_peers:
            return frozenset()
        unwanted = (names for role, names in PROGRAMS_OF_ROLES.items() if role not in self._roles)
        return frozenset[str]().union(*unwanted)

    def remarks(self) -> list[str]:
        """Return a remark on time-outs if the results exclude those of applications."""
        asked = {each for text in self._results if text[:1] != "!" for each in text.split(",")}
        excluded = asked & {"ETIMEDOUT", str(errno.ETIMEDOUT)} and "aborted" not in asked
        return [OWN_TIMEOUTS] if excluded else []

    def is_end(self, raw: bytes) -> bool:
        """Return whether a connection was established: no other record of it comes."""
        return raw[self.identity] != NONE

    def fields(self, names: CgroupNames, runtimes: Runtimes) -> list[AnyField]:
        """Return the groups of a record's fields, in order."""
        conn_id = conn_id_field(self.identity, self.conn_key)
        return [owner_group(names, runtimes), *FLOW_GROUPS, DECISION, LATENCY, SYN_RETRANS, conn_id]

    def config(self, chosen: list[Variant]) -> list[Packable]:
        """Return the threshold, and the hook of errors before a SYN."""
        return [ConnectConfig(self._min_ns, max((each.sync_errors for each in chosen), default=0))]


def _after(fields: Sequence[str], place: str, field: str) -> tuple[str, ...]:
    at = fields.index(place) + 1
    return (*fields[:at], field, *fields[at:])
