# SPDX-License-Identifier: BSD-2-Clause
"""What the path of a cgroup says: containers, pod, unit. Pure functions, no look at the host.

A path only says what may be: whoever a part of the tree was given to may make directories with any
name in it. runtimes asks the runtimes' own state whether it is so.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

HEX_ID = re.compile(r"[0-9a-f]{64}")
# What runtimes put before the id. The prefix is the second part of cgroupsPath where systemd makes
# the cgroup; podman puts libpod-payload- below the unit that it runs in (--cgroups=split).
RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
    "libpod-payload": "podman",
    "podman": "podman",
}
COMPONENT = re.compile(rf"(?:({'|'.join(RUNTIMES)})-)?([0-9a-f]{{64}})(?:\.scope)?")
# cgroupsPath as it was meant for systemd, made by a runtime that doesn't use systemd.
COLON = re.compile(r"[^/]*:([a-z-]+):([0-9a-f]{64})")
# The process that holds a container's terminal runs beside it, and is none of its processes.
MONITOR = re.compile(r"(?:(?:crio|libpod)-conmon-.*|conmon)", re.DOTALL)
BELOW_MONITOR = re.compile(r"libpod-[0-9a-f]{64}")
# The kubelet's name of a pod's cgroup; a static pod's uid is a hash without dashes.
POD = re.compile(
    r"(?:^|[-/])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[./:]|$)"
)
QOS = re.compile(r"(?:^|[-/])kubepods[-/](burstable|besteffort)(?=[-./]|$)")
KUBEPODS = re.compile(r"(?:^|[-/])kubepods(?=[-./]|$)")
LXC = re.compile(r"(?:lxc/|lxc\.payload[./])([^/]+)")
FARGATE = re.compile(r"ecs/[^/]+/([0-9a-f]{32}-\d+)")
# Namespaces of containerd that have containers with names for ids: ctr's and nerdctl's, and others'.
NAMED = re.compile(r"(?:default|k8s\.io|moby)/([A-Za-z0-9][\w.-]{0,75})", re.ASCII)
DOCKER_PARENTS = frozenset({"docker"})
UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
UNIT_NAME_MAX = 255  # systemd.unit(5)
SLICE = ".slice"
CACHED_PATHS = 8192


class Facts(NamedTuple):
    """The fields of a record about where an owner lives; None where the host doesn't tell."""

    container: str | None = None
    container_id: str | None = None
    image: str | None = None
    runtime: str | None = None
    pod: str | None = None
    pod_namespace: str | None = None
    unit: str | None = None
    labels: dict[str, str] | None = None


class Candidate(NamedTuple):
    """A cgroup that looks like a container's.

    ``runtime`` is as far as the path tells. ``cgroup`` is the path down to it, inclusive. ``by_place``
    is true where only root can have made a cgroup there, and no runtime keeps the same id elsewhere.
    """

    id: str
    runtime: str | None
    cgroup: str
    by_place: bool = False


class Place(NamedTuple):
    """What a path says. ``candidates`` are nested, the outermost first."""

    candidates: tuple[Candidate, ...] = ()
    pod_uid: str | None = None
    qos: str | None = None
    unit: str | None = None


def parts_of(path: str) -> list[str]:
    """Return the names in a path. One as seen from a cgroup namespace may begin with dots: dropped."""
    return [part for part in path.split("/") if part not in ("", ".", "..")]


@lru_cache(maxsize=CACHED_PATHS)
def place(path: str) -> Place:
    """Return what a path inside a hierarchy says. It is never wrong to call it with any text."""
    names = parts_of(path)
    parts = _above_monitor(names)
    inside = "/".join(parts)
    found = _candidates(parts) or _by_whole_path(inside)
    pods = POD.findall(inside)
    uid = pods[-1].replace("_", "-") if pods else None
    own = {candidate.cgroup for candidate in found}
    return Place(tuple(found), uid, _qos(inside) if uid else None, _unit(names, own))


def _above_monitor(names: list[str]) -> list[str]:
    """Return the names above a monitor's, all of them where there is none.

    podman's cgroupfs driver makes a container below its monitor where the parent is given as a relative
    path (--cgroup-parent=a): runc takes that from the cgroup that it runs in.
    """
    for depth, name in enumerate(names):
        is_around = name == "conmon" and any(map(BELOW_MONITOR.fullmatch, names[depth + 1 :]))
        if MONITOR.fullmatch(name) and not is_around:
            return names[:depth]
    return names


def _candidates(parts: list[str]) -> list[Candidate]:
    """Return the candidates by single names."""
    found: list[Candidate] = []
    for depth, part in enumerate(parts):
        runtime = None
        if match := COMPONENT.fullmatch(part):
            name, hex_id = match.groups()
            runtime = RUNTIMES[name] if name else _by_parent(parts[:depth])
            if name == "libpod" and found and HEX_ID.fullmatch(parts[depth - 1]):
                found.pop()  # podman's pod, which its cgroupfs driver names by the bare id
        elif match := COLON.fullmatch(part):
            name, hex_id = match.groups()
            runtime = RUNTIMES.get(name)
        else:
            continue
        found.append(Candidate(hex_id, runtime, "/" + "/".join(parts[: depth + 1])))
    return found


def _by_parent(parents: list[str]) -> str | None:
    """Return the runtime of a bare id: only docker has cgroups of its own for them."""
    return "docker" if parents and parents[-1] in DOCKER_PARENTS else None


def _by_whole_path(inside: str) -> list[Candidate]:
    """Return the candidate of a form that has no id of 64 digits; at the top of the tree only."""
    if match := LXC.match(inside):
        return [Candidate(match[1], "lxc", "/" + match[0], by_place=True)]
    if match := FARGATE.match(inside):
        return [Candidate(match[1], None, "/" + match[0], by_place=True)]
    if match := NAMED.match(inside):
        return [Candidate(match[1], "containerd", "/" + match[0])]
    return []


def _qos(inside: str) -> str | None:
    """Return the quality-of-service class of a pod's path; the kubelet has no cgroup for guaranteed."""
    if match := QOS.search(inside):
        return match[1]
    return "guaranteed" if KUBEPODS.search(inside) else None


def _unit(parts: list[str], own: set[str]) -> str | None:
    """Return the system's unit: the first name below the slices. A container's own scope is none.

    What the names below it mean is the unit's affair, also where it is somebody's own systemd.
    """
    for depth, part in enumerate(parts):
        if part.endswith(SLICE) and part != SLICE:
            continue
        is_own = "/" + "/".join(parts[: depth + 1]) in own
        if is_own or not part.endswith(UNIT_SUFFIXES) or len(part) > UNIT_NAME_MAX:
            return None
        # systemd puts _ before a name that the kernel could take for a file of its own.
        return part.removeprefix("_")
    return None


def path_of_spec(cgroups_path: str) -> str | None:
    """Return the path that an OCI runtime makes of ``linux.cgroupsPath``, None if only it knows.

    runc's cgroupfs driver takes an absolute path as it is; its systemd driver takes SLICE:PREFIX:NAME
    (libcontainer/cgroups/systemd/common.go of runc 1.1: getUnitName, ExpandSlice), crun likewise.
    """
    if cgroups_path.startswith("/"):
        return "/" + "/".join(parts_of(cgroups_path))
    fields = cgroups_path.split(":")
    if len(fields) != 3:
        return None
    parent, prefix, name = fields
    if not name.endswith(SLICE):
        name = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return "/" + "/".join([*_slices(parent or "system.slice"), name])


def _slices(name: str) -> list[str]:
    """Return the nested slices of one: a-b.slice lies in a.slice (systemd.slice(5))."""
    steps = name.removesuffix(SLICE).split("-")
    if not all(steps):  # "-.slice" is the root
        return []
    return ["-".join(steps[: depth + 1]) + SLICE for depth in range(len(steps))]
