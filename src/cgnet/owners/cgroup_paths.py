# SPDX-License-Identifier: BSD-2-Clause
"""Parsing of cgroup paths: containers, pod, unit. Pure functions that don't read the host.

A path is only a hint: users with a delegated part of the tree may create directories with any name
in it. runtimes checks the result against the runtimes' own state.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

HEX_ID = re.compile(r"[0-9a-f]{64}")
# Prefixes that runtimes put before the id. Where systemd creates the cgroup, the prefix is the
# second part of cgroupsPath; podman puts libpod-payload- below the unit that it runs in
# (--cgroups=split).
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
# cgroupsPath in the form for systemd, used by a runtime without systemd.
COLON = re.compile(r"[^/]*:([a-z-]+):([0-9a-f]{64})")
# A monitor holds a container's terminal; it runs beside the container, and isn't one of its
# processes.
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
# Namespaces of containerd with names for container ids: those of ctr and nerdctl, and others.
NAMED = re.compile(r"(?:default|k8s\.io|moby)/([A-Za-z0-9][\w.-]{0,75})", re.ASCII)
DOCKER_PARENTS = frozenset({"docker"})
UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
UNIT_NAME_MAX = 255  # systemd.unit(5)
SLICE = ".slice"
CACHED_PATHS = 8192


class Facts(NamedTuple):
    """The fields of a record that describe an owner's container, pod and unit; None if unknown."""

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

    ``runtime`` is the one in the path, if any. ``cgroup`` is the path down to this cgroup,
    inclusive. ``by_place``: only root can create a cgroup there, and no runtime keeps the same id
    elsewhere.
    """

    id: str
    runtime: str | None
    cgroup: str
    by_place: bool = False


class Place(NamedTuple):
    """A parsed path. ``candidates`` are nested, outermost first."""

    candidates: tuple[Candidate, ...] = ()
    pod_uid: str | None = None
    qos: str | None = None
    unit: str | None = None


def parts_of(path: str) -> list[str]:
    """Return the names in a path. Dots, as in paths seen from a cgroup namespace, are dropped."""
    return [part for part in path.split("/") if part not in ("", ".", "..")]


@lru_cache(maxsize=CACHED_PATHS)
def place(path: str) -> Place:
    """Parse a path inside a hierarchy. Any text is a valid argument."""
    names = parts_of(path)
    parts = _above_monitor(names)
    inside = "/".join(parts)
    found = _candidates(parts) or _by_whole_path(inside)
    pods = POD.findall(inside)
    uid = pods[-1].replace("_", "-") if pods else None
    own = {candidate.cgroup for candidate in found}
    return Place(tuple(found), uid, _qos(inside) if uid else None, _unit(names, own))


def _above_monitor(names: list[str]) -> list[str]:
    """Return the names above a monitor's, or all names if there is no monitor.

    podman's cgroupfs driver creates a container below its monitor if the parent is a relative path
    (--cgroup-parent=a): runc resolves it from the cgroup that it runs in.
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
    """Return the runtime of an id without prefix: only docker has a parent cgroup for them."""
    return "docker" if parents and parents[-1] in DOCKER_PARENTS else None


def _by_whole_path(inside: str) -> list[Candidate]:
    """Return the candidate of a form without an id of 64 digits, at the top of the tree only."""
    if match := LXC.match(inside):
        return [Candidate(match[1], "lxc", "/" + match[0], by_place=True)]
    if match := FARGATE.match(inside):
        return [Candidate(match[1], None, "/" + match[0], by_place=True)]
    if match := NAMED.match(inside):
        return [Candidate(match[1], "containerd", "/" + match[0])]
    return []


def _qos(inside: str) -> str | None:
    """Return a pod's quality-of-service class; the kubelet has no cgroup for guaranteed."""
    if match := QOS.search(inside):
        return match[1]
    return "guaranteed" if KUBEPODS.search(inside) else None


def _unit(parts: list[str], own: set[str]) -> str | None:
    """Return the system's unit: the first name below slices, unless it is a container's scope.

    Names below it are the unit's own, even those of another systemd.
    """
    for depth, part in enumerate(parts):
        if part.endswith(SLICE) and part != SLICE:
            continue
        is_own = "/" + "/".join(parts[: depth + 1]) in own
        if is_own or not part.endswith(UNIT_SUFFIXES) or len(part) > UNIT_NAME_MAX:
            return None
        # systemd puts _ before a name that might be one of the kernel's files.
        return part.removeprefix("_")
    return None


def path_of_spec(cgroups_path: str) -> str | None:
    """Return the path that an OCI runtime derives from ``linux.cgroupsPath``; None if unknown here.

    runc's cgroupfs driver uses an absolute path as it is; its systemd driver uses SLICE:PREFIX:NAME
    (libcontainer/cgroups/systemd/common.go of runc 1.1: getUnitName, ExpandSlice), as crun does.
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
    """Return the nested slices of a slice: a-b.slice is in a.slice (systemd.slice(5))."""
    steps = name.removesuffix(SLICE).split("-")
    if not all(steps):  # "-.slice" is the root
        return []
    return ["-".join(steps[: depth + 1]) + SLICE for depth in range(len(steps))]
