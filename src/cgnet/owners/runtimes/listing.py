# SPDX-License-Identifier: BSD-2-Clause
"""The containers that run on the host, from a walk over its cgroups."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cgnet.owners.cgroup_paths import parts_of
from cgnet.owners.cgroups import cgroup_id, subtree
from cgnet.owners.processes import is_in_namespace
from cgnet.owners.runtimes.found import lives_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cgnet.owners.cgroups import Hierarchy
    from cgnet.owners.runtimes import Known

FIELDS = (
    "container", "container_id", "image", "runtime", "pod", "pod_namespace", "pod_uid", "qos",
    "sandbox", "unit", "labels", "hierarchy", "cgroup", "cgroup_id", "netns", "pid", "found",
)  # fmt: skip


def containers(
    hierarchy: Hierarchy, proc: Path, look_up: Callable[[str], Known]
) -> list[dict[str, Any]]:
    """Return a row for each cgroup that looks like a container's and has processes.

    ``look_up`` returns the knowledge about a cgroup: ``Runtimes.find``, or ``of``, which never
    blocks. In a row that no runtime confirms, ``found`` and the fields from runtimes are None.
    Unconfirmed cgroups with a container inside, such as podman's pods, have no row.
    """
    rows = list(_walk(hierarchy, proc, look_up))
    around = {
        f"/{'/'.join(parts[:depth])}"
        for row in rows
        if row["found"] and (parts := parts_of(row["cgroup"]))
        for depth in range(1, len(parts))
    }
    return [row for row in rows if row["found"] or row["cgroup"] not in around]


def _walk(
    hierarchy: Hierarchy, proc: Path, look_up: Callable[[str], Known]
) -> Iterator[dict[str, Any]]:
    for path in subtree(hierarchy.mount):
        cgroup = hierarchy.told_path(path)
        known = look_up(cgroup)
        candidates = known.place.candidates
        if candidates and candidates[-1].cgroup == cgroup:
            row = row_of(hierarchy, path, proc, known)
            if row:
                yield row


def row_of(hierarchy: Hierarchy, path: Path, proc: Path, known: Known) -> dict[str, Any] | None:
    """Return the row of a cgroup, by its directory; None if it was removed or has no process."""
    cgroup = hierarchy.told_path(path)
    with suppress(OSError):  # removed meanwhile
        pid = _process(known, path, cgroup, proc)
        if pid is not None:
            where = {
                "hierarchy": hierarchy.name,
                "cgroup": cgroup,
                "cgroup_id": str(cgroup_id(path)),
                "netns": _netns(pid, proc) if pid else None,
                "pid": pid or None,
            }
            return _row(known, where)
    return None


def _process(known: Known, path: Path, cgroup: str, proc: Path) -> int | None:
    """Return the container's first process, from its runtime, else any process; None without one.

    0 is a process in a PID namespace that isn't below ours, and has no PID here.
    """
    found = known.inside[0] if known.inside else None
    if found and found.pid and lives_in(found.pid, cgroup, proc):
        return found.pid
    any_process = None
    for below in subtree(path):
        with suppress(OSError):  # removed meanwhile, or threaded
            for line in (below / "cgroup.procs").read_text().splitlines():
                any_process = int(line)
                if any_process:
                    return any_process
    if any_process is None and known.inside and is_in_namespace():
        return 0  # v1 leaves out processes without a PID here
    return any_process


def _netns(pid: int, proc: Path) -> int | None:
    """Return the inode of a process's network namespace; None if it isn't accessible."""
    with suppress(OSError):
        return (proc / str(pid) / "ns/net").stat().st_ino
    return None


def _row(known: Known, where: dict[str, Any]) -> dict[str, Any]:
    innermost = known.place.candidates[-1]
    found = dict(zip(known.ids, known.inside, strict=True)).get(innermost.id)
    facts: dict[str, Any] = known.facts._asdict()
    if known.facts.container_id != innermost.id:  # the container around it has a row of its own
        facts = {**dict.fromkeys(facts), "unit": known.facts.unit}
    if found:
        facts |= {"container_id": innermost.id, "runtime": found.runtime}
    row = {
        **facts,
        **where,
        "pod_uid": known.place.pod_uid if found else None,
        "qos": known.place.qos if found else None,
        "sandbox": found.sandbox if found else None,
        "found": found.source if found else None,
    }
    return {field: row[field] for field in FIELDS}
