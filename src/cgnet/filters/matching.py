# SPDX-License-Identifier: BSD-2-Clause
"""The filters applied to decoded rows: for what the kernel side gives of everybody."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cgnet.records._layouts import FilterUse

if TYPE_CHECKING:
    from cgnet.filters.selection import Filters
    from cgnet.filters.values import Choice
    from cgnet.owners.runtimes import Runtimes


def _passes(choice: Choice[Any], holds: bool, excluded: bool) -> bool:  # noqa: FBT001
    return not excluded and (holds or not choice.use & FilterUse.FILTER_INCLUDES)


class Matcher:
    """Decides about rows as the kernel side does about records."""

    def __init__(self, filters: Filters, runtimes: Runtimes) -> None:
        """Match the rows of a run."""
        self._filters, self._runtimes = filters, runtimes
        uses = (filters.cgroups.use, filters.named.use, filters.pids.use, filters.comms.use)
        self.by_owner = any((*uses, filters.uids.use))
        ends = [each.use for each in filters.addresses] + [each.use for each in filters.ports]
        self.by_flow = any((*ends, filters.netns.use)) or len(filters.families) == 1

    def owner(self, row: dict[str, Any]) -> bool:
        """Return whether a row's owner is selected."""
        filters, path = self._filters, row.get("cgroup")
        if not self.by_owner:
            return True
        if filters.named.use and not (path and filters.named.matches(self._runtimes.of(path))):
            return False
        if filters.cgroups.use and not self._cgroup(path):
            return False
        for choice, name in ((filters.pids, "pid"), (filters.comms, "comm"), (filters.uids, "uid")):
            value = row.get(name)
            given = [_plain(each) for each in choice.includes]
            excluded = [_plain(each) for each in choice.excludes]
            if choice.use and not _passes(choice, value in given, value in excluded):
                return False
        return True

    def _cgroup(self, path: str | None) -> bool:
        filters = self._filters
        hierarchy = filters.hierarchies[0].id
        return path is not None and filters.cgroups.decide(0, hierarchy, path) is not None

    def flow(self, row: dict[str, Any], *, either_way: bool = False) -> bool:
        """Return whether a row's addresses, ports and namespace are selected.

        ``either_way``: the row is a packet's, whose source may be the remote side.
        """
        if not self.by_flow:
            return True
        if len(self._filters.families) == 1 and row["family"] not in self._filters.families:
            return False
        netns, where = self._filters.netns, row["netns"]
        holds = any(each.inode == where for each in netns.includes)
        if not _passes(netns, holds, any(each.inode == where for each in netns.excludes)):
            return False
        there = {"s": row["saddr"], "d": row["daddr"]}, {"s": row["sport"], "d": row["dport"]}
        back = ({"s": there[0]["d"], "d": there[0]["s"]}, {"s": there[1]["d"], "d": there[1]["s"]})
        return self._ends(*there) or (either_way and self._ends(*back))

    def _ends(self, addresses: dict[str, str], ports: dict[str, int]) -> bool:
        for sides, by_address, by_port in zip(
            ("s", "d", "sd"), self._filters.addresses, self._filters.ports, strict=True
        ):
            found = [ip_address(addresses[side]) for side in sides if by_address.use]
            numbers = [ports[side] for side in sides if by_port.use]
            if by_address.use and not _any_in(by_address, found):
                return False
            if by_port.use and not _any_in(by_port, numbers):
                return False
        return True


def _any_in(choice: Choice[Any], values: list[Any]) -> bool:
    holds = any(value in each for value in values for each in choice.includes)
    return _passes(
        choice, holds, any(value in each for value in values for each in choice.excludes)
    )


def _plain(value: Any) -> Any:
    """Return a filter's value as rows have it: a PID, a name, a user."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode(errors="backslashreplace")
    return getattr(value, "pid", value)
