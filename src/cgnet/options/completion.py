# SPDX-License-Identifier: BSD-2-Clause
"""Shell completion of option values: names that exist on this host now.

A shell inserts a name unquoted, and root runs that line: names with characters special to a shell,
which anyone may give to a cgroup, aren't offered. Unreadable sources give no names.
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem, FishComplete

if TYPE_CHECKING:
    import click

    from cgnet.owners.cgroups import Hierarchy
    from cgnet.run.command import Command

Complete = Callable[["click.Context", "click.Parameter", str], "list[CompletionItem[str]]"]
Names = Callable[["click.Context"], "Iterable[str | tuple[str, str]]"]  # with a description of each

PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=-][A-Za-z0-9_./:@%+=,>-]*")
MOST = 1000  # names
PROC = Path("/proc")
DEVICES = Path("/sys/class/net")
MOUNTS = "/sys/fs/cgroup"


def _items(
    names: Iterable[str | tuple[str, str]], before: str, begun: str
) -> list[CompletionItem[str]]:
    """Return completions for the names that begin with ``begun``, with ``before`` prepended."""
    found: dict[str, str | None] = {}
    for each in names:
        name, said = (each, None) if isinstance(each, str) else each
        if name.casefold().startswith(begun.casefold()) and PLAIN.fullmatch(name):
            found.setdefault(name, said)
    return [CompletionItem(before + name, help=found[name]) for name in sorted(found)[:MOST]]


def _completing(names: Names, *, lists: bool = False) -> Complete:
    """Return a completer of values, which may begin with ``!``; comma-separated if ``lists``."""

    def complete(
        ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        mark = "!" if incomplete.startswith("!") else ""
        text = incomplete.removeprefix("!")
        begin, comma, last = text.rpartition(",") if lists else ("", "", text)
        taken = begin.split(",")
        try:
            known = [each for each in names(ctx) if each not in taken]
        except Exception:  # noqa: BLE001 - a traceback would be in the middle of a command line
            return []
        return _items(known, f"{mark}{begin}{comma}", last)

    return complete


def listed(names: Iterable[str]) -> Complete:
    """Return a completer of comma-separated lists of these names."""
    return _completing(lambda _ctx: names, lists=True)


# -- owners


def _hierarchy(ctx: click.Context) -> Hierarchy:
    from cgnet.owners.cgroups import default_hierarchy, hierarchies, hierarchy_named  # noqa: PLC0415

    mounted = hierarchies()
    named = ctx.params.get("hierarchy")
    return hierarchy_named(named, mounted) if named else default_hierarchy(mounted)


def _containers(ctx: click.Context) -> list[dict[str, str]]:
    from cgnet.owners.runtimes import Runtimes  # noqa: PLC0415 - only if used
    from cgnet.owners.runtimes.listing import containers as list_containers  # noqa: PLC0415

    runtimes = Runtimes()
    try:
        rows = list_containers(_hierarchy(ctx), PROC, runtimes.find)
    finally:
        runtimes.close()
    return [row for row in rows if row["found"] and not row["sandbox"]]


def _container_names(ctx: click.Context) -> Iterable[tuple[str, str]]:
    for row in _containers(ctx):
        said = row["pod"] or row["image"] or row["runtime"] or ""
        yield row["container"] or row["container_id"][:12], said


def _pods(ctx: click.Context) -> Iterable[tuple[str, str]]:
    for row in _containers(ctx):
        if row["pod"]:
            yield row["pod"], row["pod_namespace"] or ""
            if row["pod_namespace"]:
                yield f"{row['pod_namespace']}/{row['pod']}", ""


def _pod_namespaces(ctx: click.Context) -> Iterable[str]:
    return {row["pod_namespace"] for row in _containers(ctx) if row["pod_namespace"]}


def _units(ctx: click.Context) -> Iterable[str]:
    from cgnet.owners.cgroup_paths import place  # noqa: PLC0415
    from cgnet.owners.cgroups import subtree  # noqa: PLC0415 - only if used

    where = _hierarchy(ctx)
    found = (place(where.told_path(path)).unit for path in subtree(where.mount))
    return {unit for unit in found if unit}


def cgroups(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Complete ``--cgroup``: a mounted directory, or a path inside the hierarchy."""
    mark = "!" if incomplete.startswith("!") else ""
    text = incomplete.removeprefix("!") or "/"
    with suppress(Exception):
        where = _hierarchy(ctx)
        mounted = text.startswith(MOUNTS)
        parent = text.rpartition("/")[0]
        top = Path(f"{parent}/") if mounted else where.outer_path(parent or "/")
        names = [f"{parent}/{each.name}" for each in os.scandir(top) if each.is_dir()]
        found = _items(sorted(names), mark, text)
        if len(found) == 1:  # go on: the shell would append a space
            child = found[0].value.removeprefix(mark)
            below = Path(child) if mounted else where.outer_path(child)
            names += [f"{child}/{each.name}" for each in os.scandir(below) if each.is_dir()]
            found = _items(sorted(names), mark, text)
        return found
    return []


def _processes() -> Iterable[tuple[str, str]]:
    for each in PROC.iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                yield each.name, (each / "comm").read_text(errors="replace").strip()


# -- the rest


class _Nobody:
    """A substitute for cgroups and runtimes, without names."""

    def __getattr__(self, name: str) -> None:
        """Return None."""


def _fields(ctx: click.Context) -> Iterable[str]:
    from cgnet.records.schema import Clock, Schema  # noqa: PLC0415 - only if used
    from cgnet.render import DERIVED  # noqa: PLC0415

    command = _command(ctx)
    nobody: Any = _Nobody()
    groups = command.fields(nobody, nobody)
    schema = Schema(command.name, Clock(), groups, command.layouts[0].size, command.min_record_size)
    return (*schema.fields, *DERIVED)


def _command(ctx: click.Context) -> Command:
    module: Any = sys.modules[str(ctx.command.callback.__module__)]
    made: Command = module.COMMAND
    return made


def _results(_ctx: click.Context) -> Iterable[str]:
    from cgnet.filters.values import ERRNOS, RESULTS  # noqa: PLC0415 - only if used

    return (*RESULTS, *ERRNOS)


def _roles(_ctx: click.Context) -> Iterable[str]:
    from cgnet.filters.values import ROLES  # noqa: PLC0415

    return ROLES


def _reasons(_ctx: click.Context) -> Iterable[str]:
    from cgnet.kernel.symbols import Symbols  # noqa: PLC0415

    return Symbols().drop_reasons.values()


def _hierarchies(_ctx: click.Context) -> Iterable[str]:
    from cgnet.owners.cgroups import hierarchies as mounted  # noqa: PLC0415

    return (each.name for each in mounted())


def _namespaces(_ctx: click.Context) -> Iterable[str]:
    from cgnet.owners.netns import NAMED  # noqa: PLC0415

    return (each.name for each in NAMED.iterdir())


def _stages(_ctx: click.Context) -> Iterable[str]:
    from cgnet.records.packet import IN_SUMS_ONLY, STAGES  # noqa: PLC0415

    return (f"{name}>" for name in STAGES.values() if name not in IN_SUMS_ONLY)


containers = _completing(_container_names)
pods = _completing(_pods)
pod_namespaces = _completing(_pod_namespaces)
units = _completing(_units)
pids = _completing(lambda _ctx: _processes())
comms = _completing(lambda _ctx: {name for _, name in _processes()})
users = _completing(lambda _ctx: (each.pw_name for each in pwd.getpwall()))
netns = _completing(_namespaces)
results = _completing(_results, lists=True)
roles = _completing(_roles, lists=True)
hierarchies = _completing(_hierarchies)
fields = _completing(_fields, lists=True)
reasons = _completing(_reasons, lists=True)
devices = _completing(lambda _ctx: (each.name for each in DEVICES.iterdir()))
stages = _completing(_stages)


class Fish(FishComplete):
    """Completion for fish; click's cuts values and descriptions at the first comma."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split -m 1 ","'
    )
