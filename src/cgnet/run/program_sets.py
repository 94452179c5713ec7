# SPDX-License-Identifier: BSD-2-Clause
"""Sets of programs that do a command's work, for launch.py to try in order."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cgnet.records._layouts import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cgnet.kernel.variants import Way


class Look(NamedTuple):
    """One way to emit open connections: its programs, of which an object has some or none."""

    way: Way
    programs: frozenset[str]
    remark: str = ""  # for the user, where the kernel accepts this one


class ProgramSet(NamedTuple):
    """Main programs, and optional programs by hook type."""

    hooks: frozenset[str] = frozenset()
    # For the user, where the kernel accepts this set; {why}: why better ones were refused.
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # prefixes of the names of unwanted programs
    functions: Mapping[str, str] = MappingProxyType({})  # programs at functions: the way to attach
    unseen: Mapping[str, str] | None = None  # stages, and why; None: not applicable
    looks: tuple[Look, ...] = ()  # best first; the first that works is used


BOTH = frozenset({Role.ROLE_CLIENT, Role.ROLE_SERVER})
SIDE_UNKNOWN = (
    "connections from before the start aren't shown with --role: which side they are isn't known"
)


def of_one_role(sets: list[ProgramSet], roles: Collection[Role]) -> list[ProgramSet]:
    """Return the sets of a command that follows connections, with a remark for a single role."""
    if len(roles) > 1:
        return sets
    return [each._replace(remarks=(*each.remarks, SIDE_UNKNOWN)) for each in sets]
