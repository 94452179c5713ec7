# SPDX-License-Identifier: BSD-2-Clause
"""From the options that select owners to the maps of select.bpf.h."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cgnet import cgroups
from cgnet._layouts import CGROUP_KEY, CONFIG, SyncErrors
from cgnet.errors import CgnetError, LibbpfError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cgnet.cgroups import Hierarchy
    from cgnet.loader import Map, Object

log = logging.getLogger(__name__)

HIERARCHIES = 4  # CGNET_HIERARCHIES of events.h
SELECTED_CGROUPS = 32768  # entries of the map, when the filter is used
ONE = (1).to_bytes(4, sys.byteorder)


def _pid(value: int) -> int:
    try:
        status = Path(f"/proc/{value}/status").read_text(errors="replace")
    except OSError as error:
        raise UsageError(
            f"--pid {value}: no such process; give the PID of a running one"
        ) from error
    (process,) = (line.split()[1] for line in status.splitlines() if line.startswith("Tgid:"))
    if int(process) != value:
        raise UsageError(f"--pid {value}: a thread of process {process}; give the process's PID")
    return value


class Filters:
    """Who is selected. Without any value given, everybody is, and no map is looked at."""

    def __init__(
        self, cgroup: Iterable[str] = (), pid: Iterable[int] = (), hierarchy: str | None = None
    ) -> None:
        """Check the values. Raises UsageError for a cgroup or process that doesn't exist."""
        mounted = cgroups.hierarchies()
        named = hierarchy and cgroups.hierarchy_named(hierarchy, mounted)
        inside = named or cgroups.default_hierarchy(mounted)
        self.cgroups = [cgroups.resolve(value, mounted, inside) for value in cgroup]
        self.pids = [_pid(value) for value in pid]
        # Who selects by paths of one hierarchy wants to read that hierarchy's paths.
        naming = inside if named or not self.cgroups else self.cgroups[0][0]
        self.hierarchies: list[Hierarchy] = [naming]
        for each, _ in self.cgroups:
            if all(each.id != other.id for other in self.hierarchies):
                self.hierarchies.append(each)
        if len(self.hierarchies) > HIERARCHIES:
            raise UsageError(f"--cgroup: paths of more than {HIERARCHIES} hierarchies in one run")

    def config(self, sync_errors: SyncErrors) -> bytes:
        """Return struct config."""
        pairs = [(each.id, int(each.controller)) for each in self.hierarchies]
        pairs += [(0, 0)] * (HIERARCHIES - len(pairs))
        return CONFIG.packed.pack(
            len(self.hierarchies),
            bool(self.cgroups),
            bool(self.pids),
            sync_errors,
            *(number for pair in pairs for number in pair),
        )

    def resize(self, obj: Object) -> None:
        """Before loading: keep the maps of unused filters small."""
        obj.resize("selected_cgroups", SELECTED_CGROUPS if self.cgroups else 1)
        obj.resize("selected_pids", max(len(self.pids), 1))

    def fill(self, obj: Object) -> None:
        """After the program on cgroup_mkdir is attached: mark what exists.

        A group is marked before its children are listed. A child that is made before is listed, one
        that is made after gets its mark from the kernel.
        """
        for pid in self.pids:
            obj.map("selected_pids").update(pid.to_bytes(4, sys.byteorder), ONE)
        for hierarchy, top in self.cgroups:
            _mark(obj.map("selected_cgroups"), hierarchy.id, top)

    def follow(self, obj: Object, hierarchy: int, path: str, tell: Callable[[str], None]) -> None:
        """Take up a path that was given and is made again: a service that restarts."""
        for each, top in self.cgroups:
            if each.id == hierarchy and _told(each, top) == path:
                _mark(obj.map("selected_cgroups"), hierarchy, top)
                tell(f"--cgroup {top}: it is there again")

    def is_given(self, hierarchy: int, path: str) -> Path | None:
        """Return the directory if an option named just this path."""
        for each, top in self.cgroups:
            if each.id == hierarchy and _told(each, top) == path:
                return top
        return None


def _told(hierarchy: Hierarchy, top: Path) -> str:
    """Return the path as the kernel's records of births and removals are decoded."""
    return cgroups.decode(os.fsencode(hierarchy.inner_path(top)))


def cgroup_key(hierarchy: int, cgroup: int) -> bytes:
    """Return struct cgroup_key."""
    return CGROUP_KEY.packed.pack(cgroup, hierarchy, 0)


def _mark(selected: Map, hierarchy: int, top: Path) -> None:
    for path in cgroups.subtree(top):
        try:
            selected.update(cgroup_key(hierarchy, cgroups.cgroup_id(path)), ONE)
        except LibbpfError as error:
            raise CgnetError(
                f"--cgroup {top}: more than {SELECTED_CGROUPS} cgroups ({os.strerror(error.errno)})"
            ) from error
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:  # nested deeper than a path can say
            # No traceback: a line for the user, who can do nothing about it.
            log.error(  # noqa: TRY400
                "--cgroup %s: a cgroup below it isn't selected: %s", top, error.strerror
            )
