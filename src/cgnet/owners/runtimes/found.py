# SPDX-License-Identifier: BSD-2-Clause
"""A runtime's data about a container, and the check that it is the one in a cgroup."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from cgnet.owners.cgroup_paths import parts_of, path_of_spec
from cgnet.owners.cgroups import from_namespace

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.owners.cgroup_paths import Candidate

MAX_PID = 1 << 22  # include/linux/threads.h: PID_MAX_LIMIT
# Keys of the same properties in annotations of containerd (pkg/cri/annotations, v1.6) and CRI-O
# (pkg/annotations), and in labels of the kubelet (pkg/kubelet/types/labels.go) and of cri-dockerd.
IN_ANNOTATIONS = {
    "name": ("io.kubernetes.cri.container-name",),
    "image": ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"),
    "pod": ("io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName"),
    "pod_namespace": ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri-o.Namespace"),
    "sandbox_id": ("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"),
    "kind": ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"),
}
IN_LABELS = {
    "name": ("io.kubernetes.container.name",),
    "pod": ("io.kubernetes.pod.name",),
    "pod_namespace": ("io.kubernetes.pod.namespace",),
    "sandbox_id": ("io.kubernetes.sandbox.id",),
    "kind": ("io.kubernetes.docker.type",),
}
SANDBOXES = ("sandbox", "podsandbox")


class Found(NamedTuple):
    """A runtime's data about a container; None where it has none."""

    runtime: str | None
    source: str  # "state" of files, "socket", or "path" alone
    name: str | None = None
    image: str | None = None
    pod: str | None = None
    pod_namespace: str | None = None
    labels: dict[str, str] | None = None
    sandbox: bool = False  # it only holds a pod's namespaces
    sandbox_id: str | None = None
    pid: int | None = None  # its first process
    spec: str | None = None  # linux.cgroupsPath of its OCI configuration
    cgroup: str | None = None  # or the path itself

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to find."""
        return self.sandbox or self.name is not None or self.source == "path"

    def better(self, other: Found | None) -> Found:
        """Return it with missing values filled from another source."""
        if other is None:
            return self
        pairs: list[tuple[Any, Any]] = list(zip(self, other, strict=True))
        return Found(*[new if old is None else old for old, new in pairs])


def with_pod(found: Found, annotations: dict[str, str], labels: dict[str, str]) -> Found:
    """Add the names given by Kubernetes. Call it only for containers in a pod's cgroup.

    Annotations are the runtime's own. An image may have labels with any name, but the kubelet's
    labels replace them; so each name is looked up only where it is set.
    """
    told: dict[str, str] = {}
    for tags, names in ((labels, IN_LABELS), (annotations, IN_ANNOTATIONS)):
        told |= {
            what: tags[name] for what, keys in names.items() for name in keys if tags.get(name)
        }
    sandbox = told.get("kind") in SANDBOXES
    return found._replace(
        name=None if sandbox else told.get("name", found.name),
        image=told.get("image", found.image),
        pod=told.get("pod", found.pod),
        pod_namespace=told.get("pod_namespace", found.pod_namespace),
        sandbox=sandbox,
        sandbox_id=told.get("sandbox_id"),
    )


def is_there(found: Found, candidate: Candidate, proc: Path) -> bool:
    """Return whether a container is in the candidate's cgroup, by its configuration or process.

    The id alone proves nothing: a directory with a container's id may be created elsewhere.
    """
    if candidate.by_place or found.cgroup == candidate.cgroup:
        return True
    if found.spec and path_of_spec(found.spec) == candidate.cgroup:
        return True
    return found.pid is not None and lives_in(found.pid, candidate.cgroup, proc)


def lives_in(pid: int, cgroup: str, proc: Path) -> bool:
    """Return whether a process is in a cgroup of any hierarchy, or below it."""
    if not 0 < pid <= MAX_PID:
        return False
    wanted = parts_of(cgroup)
    with suppress(OSError, ValueError):
        lines = (proc / str(pid) / "cgroup").read_bytes().decode(errors="backslashreplace")
        for line in lines.split("\n"):  # names may contain other line boundaries
            hierarchy, _, path = line.split(":", 2)
            if parts_of(from_namespace(int(hierarchy), path))[: len(wanted)] == wanted:
                return True
    return False


def number(value: object) -> int | None:
    """Return a PID as written by a runtime; None for no process, which some write as 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 < value <= MAX_PID else None
    if isinstance(value, str | bytes):
        digits = value.strip()
        return number(int(digits)) if digits.isdigit() and len(digits) < 10 else None
    return None
