# SPDX-License-Identifier: BSD-2-Clause
"""Containers' state on disk, with one function per runtime; None if it has no such container.

Seen with docker 20.10, containerd 1.6 and podman 4.3; CRI-O's from its source. All write this
before they create the cgroup, except the PID.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from cgnet.owners.cgroup_paths import HEX_ID, Candidate, path_of_spec, place
from cgnet.owners.runtimes import bolt, podman
from cgnet.owners.runtimes.files import (
    MAX_NAMES,
    complain,
    folder,
    parse,
    part,
    read,
    read_object,
    regular,
    text,
    texts,
)
from cgnet.owners.runtimes.found import Found, number, with_pod

if TYPE_CHECKING:
    from pathlib import Path

DOCKER = "/var/lib/docker"
DOCKER_SETTINGS = "/etc/docker/daemon.json"
# Directories of containerd's running tasks, and of its database: its package's, docker's own, those
# of k3s and rke2, of k0s, of microk8s.
TASKS = "io.containerd.runtime.v2.task"
METADATA = "io.containerd.metadata.v1.bolt/meta.db"
CONTAINERDS = {
    "/run/containerd": "/var/lib/containerd",
    "/run/docker/containerd/daemon": "/var/lib/docker/containerd/daemon",
    "/run/k3s/containerd": "/var/lib/rancher/k3s/agent/containerd",
    "/run/k0s/containerd": "/var/lib/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd": "/var/snap/microk8s/common/var/lib/containerd",
}
DOCKERS_NAMESPACE = "moby"
WITH_PATHS_OF_IDS = frozenset({DOCKERS_NAMESPACE, "k8s.io"})  # cgroups are named by 64-digit ids
MAX_PATHS = 512  # of a namespace, read with each list
# Of CRI-O and podman: containers/storage, and its directory in memory.
STORAGES = ("/run/containers/storage", "/var/lib/containers/storage")
LAYERS = "-containers"  # suffix of the storage driver's name
MANAGER = "io.container.manager"
MANAGERS = {"libpod": "podman", "cri-o": "cri-o"}
NERDCTL_NAME = "nerdctl/name"
# Valid names for lookups: an id, or a name used as one by containerd (identifiers/validate.go).
SOUND = re.compile(r"[A-Za-z0-9][\w.-]{0,75}", re.ASCII)
POD_LOGS = "/var/log/pods"  # of the kubelet: NAMESPACE_NAME_UID


class Present:
    """The ids of the containers that have state, at the time of its creation.

    ``places`` has containers whose cgroup paths don't look like a container's, by that path:
    containerd's clients choose both, as in ``ctr run --cgroup /corp/x``.
    """

    def __init__(self, root: Path) -> None:
        """List them. If a list is too long, any id may be present."""
        self._ids: set[str] = set()
        self._is_whole = True
        self.places: dict[str, Candidate] = {}
        self._list(root, f"{_docker_top(root)}/containers")
        for each in CONTAINERDS:
            for namespace in folder(root, f"{each}/{TASKS}"):
                names = self._list(root, f"{each}/{TASKS}/{namespace}")
                if namespace not in WITH_PATHS_OF_IDS:
                    self._read_paths(root, f"{each}/{TASKS}/{namespace}", names)
        for top in STORAGES:
            for layers in folder(root, top):
                if layers.endswith(LAYERS):
                    self._list(root, f"{top}/{layers}")

    def _list(self, root: Path, path: str) -> list[str]:
        names = folder(root, path)
        self._ids.update(names)
        self._is_whole &= len(names) < MAX_NAMES
        return names

    def _read_paths(self, root: Path, tasks: str, names: list[str]) -> None:
        for name in filter(SOUND.fullmatch, names[:MAX_PATHS]):
            config = read_object(root, f"{tasks}/{name}/config.json")
            spec = text(part(config, "linux").get("cgroupsPath"))
            path = path_of_spec(spec) if spec else None
            if path and not any(each.cgroup == path for each in place(path).candidates):
                self.places[path] = Candidate(name, "containerd", path)

    def may_have(self, name: str) -> bool:
        """Return whether a lookup may find something."""
        return name in self._ids or not self._is_whole


def has_places(root: Path) -> bool:
    """Return whether containers may have cgroup paths that don't look like a container's."""
    return any(folder(root, f"{each}/{TASKS}") for each in CONTAINERDS)


def _docker_top(root: Path) -> str:
    return text(read_object(root, DOCKER_SETTINGS).get("data-root")) or DOCKER


def look_up(root: Path, name: str, *, in_pod: bool, cgroup: str = "") -> Found | None:
    """Return the state on disk of the container with an id, which alone doesn't confirm it.

    Ids are unique in a containerd namespace only: ``cgroup`` distinguishes them.
    """
    if not SOUND.fullmatch(name):
        return None
    if HEX_ID.fullmatch(name) and (found := docker(root, name, in_pod=in_pod)):
        return found
    if found := containerd(root, name, in_pod=in_pod, cgroup=cgroup):
        return found
    return storage(root, name, in_pod=in_pod) if HEX_ID.fullmatch(name) else None


def docker(root: Path, name: str, *, in_pod: bool) -> Found | None:
    """Return docker's state: containers/ID/config.v2.json, and containerd's task for it."""
    top = _docker_top(root)
    state = read_object(root, f"{top}/containers/{name}/config.v2.json")
    if state.get("ID") != name:
        return None
    config = part(state, "Config")
    labels = texts(config.get("Labels"))
    found = Found(
        "docker",
        "state",
        name=(text(state.get("Name")) or "").removeprefix("/") or None,
        image=text(config.get("Image")),
        labels=labels,
        pid=number(part(state, "State").get("Pid")),
    )
    return (with_pod(found, {}, labels) if in_pod else found).better(_task(root, name))


def _task(root: Path, name: str) -> Found | None:
    for state in CONTAINERDS:
        if found := _bundle(root, f"{state}/{TASKS}/{DOCKERS_NAMESPACE}/{name}", "docker"):
            return found
    return None


def _bundle(root: Path, place: str, runtime: str) -> Found | None:
    """Return a container's state from its OCI bundle, with annotations as labels."""
    config = read_object(root, f"{place}/config.json")
    spec = text(part(config, "linux").get("cgroupsPath"))
    if not config or not spec:
        return None
    tags = texts(config.get("annotations"))
    pid = None
    with suppress(OSError):
        pid = number(read(root, f"{place}/init.pid", 16))
    return Found(runtime, "state", labels=tags, pid=pid, spec=spec)


def containerd(root: Path, name: str, *, in_pod: bool, cgroup: str = "") -> Found | None:
    """Return containerd's state: the bundle of a task, and labels from its database."""
    bundles = []
    for state, lasting in CONTAINERDS.items():
        for namespace in folder(root, f"{state}/{TASKS}"):
            runtime = "docker" if namespace == DOCKERS_NAMESPACE else "containerd"
            found = _bundle(root, f"{state}/{TASKS}/{namespace}/{name}", runtime)
            if found:
                is_elsewhere = path_of_spec(found.spec or "") != cgroup
                bundles.append((is_elsewhere, found, f"{lasting}/{METADATA}", namespace))
    if not bundles:
        return None
    _, found, database, namespace = min(bundles, key=lambda bundle: bundle[0])
    return _named(root, found, database, namespace, name, in_pod=in_pod)


def _named(
    root: Path, found: Found, database: str, namespace: str, name: str, *, in_pod: bool
) -> Found:
    """Add the image and labels from containerd's database."""
    if found.runtime == "docker":
        return found._replace(labels=None)  # docker has its name
    annotations = found.labels or {}
    where = ("v1", namespace, "containers", name)
    labels = _strings(root, database, *where, "labels")
    image = _strings(root, database, *where).get("image")
    found = found._replace(labels=labels or None, image=image)
    if in_pod:
        found = with_pod(found, annotations, labels)
        if found.sandbox_id and found.sandbox_id != name:
            where = ("v1", namespace, "containers", found.sandbox_id)
            labels = {**_strings(root, database, *where, "labels"), **labels}
            found = found._replace(labels=labels or None)
        return found
    return found._replace(name=labels.get(NERDCTL_NAME) or name)


def _strings(root: Path, database: str, *keys: str) -> dict[str, str]:
    """Return the strings in a bucket of containerd's database (metadata/buckets.go)."""
    with suppress(OSError), regular(root, database) as fd:
        try:
            found = bolt.get(fd, *(key.encode() for key in keys))
        except ValueError as error:
            complain(database, error)
            return {}
        if isinstance(found, dict):
            return {
                key.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
                for key, value in found.items()
            }
    return {}


def storage(root: Path, name: str, *, in_pod: bool) -> Found | None:
    """Return CRI-O's or podman's state: userdata/config.json of containers/storage."""
    for top in STORAGES:
        for layers in folder(root, top):
            if not layers.endswith(LAYERS):
                continue
            found = _bundle(root, f"{top}/{layers}/{name}/userdata", "podman")
            if found is None:
                continue
            tags = found.labels or {}
            runtime = MANAGERS.get(tags.get(MANAGER, ""))
            if runtime == "podman":
                return _podman(root, found, name, layers)
            if runtime == "cri-o":
                found = found._replace(runtime=runtime, labels=None)
                return _crio(root, found, tags, f"{top}/{layers}") if in_pod else found
    return None


def _podman(root: Path, found: Found, name: str, layers: str) -> Found:
    """Add the data from podman's database and from the list of its storage."""
    for top in STORAGES:
        with suppress(OSError):
            place = f"{top}/{layers}/{name}/userdata/pidfile"
            found = found._replace(pid=number(read(root, place, 16)))
    known = podman.configuration(root, name)
    found = found._replace(
        name=known.name, image=known.image, labels=known.labels, pod=known.pod, sandbox=known.infra
    )
    if found.name:
        return found
    kept, image = podman.stored(root, name, layers)
    return found._replace(name=kept, image=image)


def _crio(root: Path, found: Found, tags: dict[str, str], top: str) -> Found:
    """Add the pod's names and labels, which are JSON in an annotation."""
    labels = texts(parse(tags.get("io.kubernetes.cri-o.Labels", "")))
    found = with_pod(found, tags, labels)
    if found.sandbox_id and HEX_ID.fullmatch(found.sandbox_id):
        sandbox = read_object(root, f"{top}/{found.sandbox_id}/userdata/config.json")
        outer = texts(sandbox.get("annotations")).get("io.kubernetes.cri-o.Labels", "")
        labels = {**texts(parse(outer)), **labels}
    return found._replace(labels=labels or None)


def pod_by_logs(root: Path, uid: str) -> tuple[str | None, str | None]:
    """Return a pod's namespace and name from the kubelet's directory for its logs."""
    for each in folder(root, POD_LOGS):
        fields = each.split("_")  # neither name may contain "_"
        if len(fields) == 3 and fields[2] == uid:
            return fields[0], fields[1]
    return None, None
