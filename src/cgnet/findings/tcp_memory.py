# SPDX-License-Identifier: BSD-2-Clause
"""Limits of TCP memory: a cgroup's own limit of v1, a cgroup's of v2, the whole host's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cgnet.owners.cgroups import hierarchies

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
V1 = "memory.kmem.tcp."
NO_LIMIT = 1 << 60  # bytes; the kernel writes a higher number for no limit
NEARLY = 0.9  # of a limit that is reported as hit


class Limit(NamedTuple):
    """A limit that has been hit: advice, and the figures."""

    text: str
    evidence: dict[str, int]


def directory(name: str, pid: int | None, cgroup: str | None, proc: Path = PROC) -> Path | None:
    """Return the directory of a process's cgroup in a hierarchy: "v2" or a controller of v1.

    Without a process, return that of ``cgroup``. None if there is no such directory.
    """
    mount = next((each for each in hierarchies() if name in (each.name, *each.controllers)), None)
    inner = cgroup
    if pid:
        with suppress(OSError):
            for line in (proc / str(pid) / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if name in (controllers.split(",") if controllers else ["v2"]):
                    inner = path
    if not mount or not inner:
        return None
    found = mount.outer_path(inner)
    return found if found.is_dir() else None


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _and_above(found: Path, file: str) -> Iterator[Path]:
    """Yield a cgroup and its ancestors, as long as they have ``file``."""
    while (found / file).exists():
        yield found
        found = found.parent


def limit_of_v1(found: Path) -> Limit | None:
    """Return the limit of TCP memory that a v1 cgroup, or an ancestor, has hit."""
    for each in _and_above(found, f"{V1}limit_in_bytes"):
        names = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
        values = {f"{V1}{name}": _number(each / f"{V1}{name}") for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        limit, most = (known.get(f"{V1}{name}", 0) for name in (names[0], names[2]))
        if 0 < limit < NO_LIMIT and (known.get(f"{V1}failcnt") or most >= limit):
            text = (
                f"the TCP memory of cgroup {each} was at its own limit of {limit} bytes "
                f"({V1}limit_in_bytes; the most was {most}): raise it, or let the application read "
                "faster"
            )
            return Limit(text, known)
    return None


def _lines_of(path: Path) -> dict[str, int]:
    with suppress(OSError, ValueError):
        pairs = (line.split() for line in path.read_text().splitlines())
        return {name: int(value) for name, value in pairs}
    return {}


def limit_of_v2(found: Path) -> Limit | None:
    """Return the memory limit that a v2 cgroup, or an ancestor, has hit."""
    for each in _and_above(found, "memory.max"):
        limit, now = _number(each / "memory.max"), _number(each / "memory.current")
        hit = _lines_of(each / "memory.events").get("max", 0)
        if limit and hit and now is not None and now >= NEARLY * limit:
            text = (
                f"the memory of cgroup {each}, of which TCP's is a part, is at its limit: {now} of "
                f"{limit} bytes (memory.max), which it met {hit} times since it was made"
            )
            sock = _lines_of(each / "memory.stat").get("sock")
            evidence = {"memory.max": limit, "memory.current": now, "memory.events max": hit}
            return Limit(text, evidence | ({} if sock is None else {"memory.stat sock": sock}))
    return None


def limit_of_host(proc: Path = PROC) -> Limit | None:
    """Return the host's limit of TCP memory (tcp_mem, in pages), if it is nearly hit."""
    with suppress(OSError, ValueError, StopIteration):
        least, pressure, most = (
            int(word) for word in (proc / "sys/net/ipv4/tcp_mem").read_text().split()
        )
        lines = (proc / "net/sockstat").read_text().splitlines()
        words = next(line for line in lines if line.startswith("TCP:")).split()
        used = int(words[words.index("mem") + 1])
        if used < least or used < NEARLY * pressure:
            return None
        page = os.sysconf("SC_PAGE_SIZE")
        text = (
            f"TCP has {used} pages of {page} bytes on the whole host; above {pressure} it gives no "
            f"more than it must, above {most} none (net.ipv4.tcp_mem): raise it, or find who "
            "doesn't read"
        )
        figures = {"sockstat TCP mem": used, "tcp_mem pressure": pressure, "tcp_mem max": most}
        return Limit(text, figures)
    return None


def limit_hit(pid: int | None, cgroup: str | None = None) -> Limit | None:
    """Return the limit that keeps a process or a cgroup from more TCP memory, if one is hit."""
    for name, look in (("memory", limit_of_v1), ("v2", limit_of_v2)):
        found = directory(name, pid, cgroup)
        hit = look(found) if found else None
        if hit:
            return hit
    return limit_of_host()
