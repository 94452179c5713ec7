# SPDX-License-Identifier: BSD-2-Clause
"""Messages about names that don't exist yet: a run would wait for a mistyped one silently."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cgnet.filters.cgroup import CgroupFilter
    from cgnet.filters.names import NameFilter
    from cgnet.owners.runtimes import Known

PROC = Path("/proc")
NAMED = Path("/run/netns")  # of ip-netns(8)


class What(NamedTuple):
    """A kind of name, and the command that lists the host's."""

    name: str
    listed_by: str
    names: Callable[[Known], Iterable[str]] = lambda _known: ()  # from knowledge about a cgroup


def _pods(known: Known) -> Iterator[str]:
    pod, namespace = known.facts.pod, known.facts.pod_namespace
    if pod:
        yield pod
        yield f"{namespace}/{pod}"


CONTAINER = What(
    "container", "cgnet containers", lambda known: [each.name for each in known.inside if each.name]
)
POD = What("pod", "cgnet containers", _pods)
POD_NAMESPACE = What(
    "pod namespace", "cgnet containers", lambda known: filter(None, [known.facts.pod_namespace])
)
UNIT = What("unit", "systemctl list-units", lambda known: filter(None, [known.facts.unit]))
DEVICE = What("network device", "ip link")
UNSEEN_DEVICE = DEVICE._replace(name="network device where processes live")


def sentence(what: What, wanted: str, there: Iterable[str], *, waits: bool = True) -> str:
    """Return the message that a name doesn't exist; ``waits``: the run waits for it."""
    near = did_you_mean(wanted, there)
    yet = " yet; waiting" if waits else ""
    return f"no {what.name} named {wanted}{yet}{near}; {what.listed_by} lists them"


def of_patterns(wanted: CgroupFilter, hierarchy: int, paths: Iterable[str]) -> list[str]:
    """Return a message for each ``--cgroup`` pattern that no cgroup of a hierarchy matches."""
    return [
        f"no cgroup matches {text} yet; waiting; systemd-cgls lists them"
        for text in wanted.unmatched(hierarchy, paths)
    ]


def of_names(wanted: NameFilter, known: list[Known], *, waits: bool = True) -> list[str]:
    """Return a message for each name that none of the cgroups in ``known`` has."""
    said = []
    for what, values, test in wanted.included():
        there = {name for each in known for name in what.names(each)}
        nobodys = [value for value in values if not any(test(each, value) for each in known)]
        said += [sentence(what, _text(value), there, waits=waits) for value in nobodys]
    return said


def _text(value: Any) -> str:
    if isinstance(value, tuple):  # a pod
        return "/".join(filter(None, value))
    return str(value)


def of_devices(wanted: Iterable[str], proc: Path = PROC, named: Path = NAMED) -> list[str]:
    """Return a message for each device that no network namespace of a process has."""
    seen: dict[int, set[str]] = {}
    for place in proc.glob("[0-9]*/ns/net"):
        with suppress(OSError):
            inode = place.stat().st_ino
            if inode not in seen:
                lines = (place.parents[1] / "net/dev").read_text().splitlines()[2:]
                seen[inode] = {line.partition(":")[0].strip() for line in lines}
    there = set().union(*seen.values())
    what = DEVICE
    with suppress(OSError):
        if any(place.stat().st_ino not in seen for place in named.glob("*")):
            what = UNSEEN_DEVICE
    return [sentence(what, each, there) for each in wanted if each not in there]
