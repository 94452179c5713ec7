# SPDX-License-Identifier: BSD-2-Clause
"""The names of owners in a run: of cgroups, containers and network namespaces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cgnet.filters import absent
from cgnet.owners.cgroups import CgroupNames
from cgnet.owners.netns_owners import ADDRESS_OWNERS, IN_CONTAINERS, NETNS_OWNERS, NetnsOwners
from cgnet.owners.runtimes import Runtimes
from cgnet.run.cgroup_watch import CgroupWatch
from cgnet.run.output import tell

if TYPE_CHECKING:
    from cgnet.filters.selection import Filters
    from cgnet.loader import Object


class OwnerNames:
    """Names cgroups for records, and publishes names and namespace owners to the kernel side."""

    def __init__(self, filters: Filters, shared: OwnerNames | None = None) -> None:
        """Begin to read cgroups and runtimes, or use those of ``shared``, for other filters."""
        self._filters, self._naming = filters, filters.hierarchies[0]
        self.cgroups: CgroupNames = shared.cgroups if shared else CgroupNames(filters.hierarchies)
        self.runtimes: Runtimes = shared.runtimes if shared else Runtimes(hierarchy=self._naming)
        self.watch = CgroupWatch(filters, self.cgroups, self.runtimes, tell)
        self._netns_owners: dict[Object, NetnsOwners] = {}
        self._said_absent = False

    def close(self) -> None:
        """Close the readers of cgroups and runtimes."""
        self.runtimes.close()
        self.cgroups.close()

    def publish(self, obj: Object) -> None:
        """Publish the names of existing cgroups, and the owners of namespaces, to the programs."""
        paths = list(self.cgroups.paths())
        self.runtimes.learn(paths)
        self._filters.named.fill(obj.map("named_cgroups"), self._naming, self.runtimes)
        if not obj.has_map(NETNS_OWNERS):
            return
        addresses, in_containers = (
            obj.map(name) if obj.has_map(name) else None for name in (ADDRESS_OWNERS, IN_CONTAINERS)
        )
        namespaces = obj.map(NETNS_OWNERS)
        owners = NetnsOwners(
            self.runtimes, self._naming, namespaces, addresses, in_containers=in_containers
        )
        for path in paths:
            owners.made(path)
        owners.follow(math.inf)
        self.watch.tell_changes(obj, self._naming.id, owners)
        self._netns_owners[obj] = owners

    def follow(self) -> None:
        """Follow changes since the last call, for some milliseconds at most."""
        self.watch.forget()
        for each in self._netns_owners.values():
            each.follow()
        self.say_absent()

    def say_unmatched(self) -> None:
        """Print the patterns of --cgroup that match nothing yet."""
        paths = self.cgroups.paths()
        for line in absent.of_patterns(self._filters.cgroups, self._naming.id, paths):
            tell(line)

    def say_absent(self, *, waits: bool = True) -> None:
        """Print once the names that match no owner, after the runtimes' names are known.

        ``waits``: the run waits for them.
        """
        if not self._filters.named.use or self._said_absent:
            return
        known = [self.runtimes.of(path) for path in self.cgroups.paths()]
        if not (waits and any(each.expected for each in known)):
            self._said_absent = True
            for line in absent.of_names(self._filters.named, known, waits=waits):
                tell(line)
