# SPDX-License-Identifier: BSD-2-Clause
"""Processes, as in /proc: proc(5)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.owners import cgroups
from cgnet.records._layouts import CGNET_COMM_LEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cgnet.owners.cgroups import Hierarchy

PROC = Path("/proc")
INITIAL_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
START_FIELD = 22  # of /proc/PID/stat
COMM_BYTES = CGNET_COMM_LEN


class Process(NamedTuple):
    """A process. A reused PID has another start."""

    pid: int
    start: int  # clock ticks since boot


class Facts(NamedTuple):
    """Facts about a process, as the programs would see them."""

    process: Process
    leader: int  # the process's PID, also if ``process`` is one of its threads
    uid: int  # real
    comm: bytes  # zero-padded, as the kernel stores it
    paths: tuple[tuple[Hierarchy, str], ...]  # its cgroups, inside the hierarchies

    def cgroup_id(self) -> int:
        """Return the id of its cgroup in the first hierarchy; 0 if it was removed."""
        hierarchy, path = self.paths[0]
        try:
            return cgroups.cgroup_id(hierarchy.outer_path(path))
        except OSError:
            return 0


def is_in_namespace() -> bool:
    """Return whether PIDs here differ from those that the programs see, which are the host's."""
    with suppress(OSError):
        return (PROC / "self/ns/pid").stat().st_ino != INITIAL_NAMESPACE
    return False


def facts(pid: int, hierarchies: Iterable[Hierarchy] = ()) -> Facts:
    """Return the facts about a process or thread. Raises OSError if there is none."""
    place = PROC / str(pid)
    # The name in parentheses may contain anything; numbers follow the last parenthesis.
    stat = (place / "stat").read_bytes().rpartition(b")")[2].split()
    status: dict[str, list[str]] = {}
    for line in cgroups.lines_of(place / "status"):
        name, _, value = line.partition(":")
        status.setdefault(name, value.split())
    by_id: dict[int, str] = {}
    for line in cgroups.lines_of(place / "cgroup"):
        number, _, path = line.split(":", 2)
        by_id[int(number)] = cgroups.from_namespace(int(number), path)
    comm = (place / "comm").read_bytes().removesuffix(b"\n")
    return Facts(
        Process(pid, int(stat[START_FIELD - 3])),
        int(status["Tgid"][0]),
        int(status["Uid"][0]),
        comm[: COMM_BYTES - 1].ljust(COMM_BYTES, b"\0"),
        tuple((each, by_id[each.id]) for each in hierarchies if each.id in by_id),
    )
