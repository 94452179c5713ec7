# SPDX-License-Identifier: BSD-2-Clause
"""Sets of programs that do a command's work: launch.py tries one after the other."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cgnet.records._layouts import Role, SyncErrors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cgnet.kernel.variants import Way


class Look(NamedTuple):
    """One way to show what is open now: programs, of which an object may have some or none."""

    way: Way
    programs: frozenset[str]
    remark: str = ""  # for the user, when it is what the kernel takes


class ProgramSet(NamedTuple):
    """The main programs, those beside them by kind of hook, and what the kernel side is told of them."""

    hooks: frozenset[str] = frozenset()
    sync_errors: SyncErrors = SyncErrors.SYNC_ERRORS_UNSEEN
    # For the user, when this is what the kernel takes; {why}: of better ones.
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # how names begin of programs that aren't wanted
    functions: Mapping[str, str] = MappingProxyType({})  # programs at functions: the way to attach
    unseen: Mapping[str, str] | None = None  # stages, and why; None: it has none
    looks: tuple[Look, ...] = ()  # the best first; the first one that works is taken


BOTH = frozenset({Role.ROLE_CLIENT, Role.ROLE_SERVER})
SIDE_UNKNOWN = (
    "connections from before the start aren't shown with --role: which side they are isn't known"
)


def of_one_role(sets: list[ProgramSet], roles: Collection[Role]) -> list[ProgramSet]:
    """Return the sets, of a command that follows connections, with what a choice of roles hides."""
    if len(roles) > 1:
        return sets
    return [each._replace(remarks=(*each.remarks, SIDE_UNKNOWN)) for each in sets]
