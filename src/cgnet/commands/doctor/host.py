# SPDX-License-Identifier: BSD-2-Clause
"""This host: its kernel, BTF, libbpf, cgroups, container runtimes, and our capabilities on it."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from cgnet import loader
from cgnet.errors import UnsupportedError
from cgnet.kernel import variants
from cgnet.kernel.btf import KERNEL_BTF, is_kernel_btf
from cgnet.owners.cgroups import V2, default_hierarchy, hierarchies
from cgnet.text import decode

# The default paths of the runtimes' sockets and state. CRI-O keeps its images where podman does.
RUNTIMES = {
    "docker": ("/run/docker.sock", "/var/lib/docker"),
    "containerd": ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
    "cri-o": ("/run/crio/crio.sock",),
    "podman": ("/run/podman/podman.sock", "/var/lib/containers/storage"),
}
OWNER = 0  # files of other users don't belong to the host's runtimes


def kernel() -> dict[str, Any]:
    """Return the running kernel's release, for people, and its architecture."""
    return {"release": platform.release(), "machine": platform.machine()}


def btf(given: Path | None) -> dict[str, Any]:
    """Return the BTF in use, its size in bytes, and ``problem``: None if it can be used."""
    path = given or KERNEL_BTF
    found = {"path": decode(os.fsencode(path)), "given": given is not None, "size": None}
    try:
        variants.require_btf(given)
        found["size"] = path.stat().st_size
        usable = is_kernel_btf(path)
    except OSError as error:
        return {**found, "problem": f"{found['path']}: {error.strerror}"}
    except UnsupportedError as error:
        return {**found, "problem": str(error)}
    return {**found, "problem": None if usable else f"{found['path']} is no BTF of a kernel"}


def libbpf() -> dict[str, Any]:
    """Return libbpf's version and file, and ``problem``: None if it can be used."""
    try:
        version, path = loader.libbpf()
    except UnsupportedError as error:
        return {"version": None, "path": None, "problem": str(error)}
    return {"version": version, "path": path, "problem": None}


def cgroups() -> dict[str, Any]:
    """Return the layout, the hierarchies that programs can read, and the one that names owners."""
    try:
        mounted, problem = hierarchies(), None
    except UnsupportedError as error:
        mounted, problem = [], str(error)
    kinds = {each.name == V2 for each in mounted}
    layout = {(): None, (False,): "v1", (True,): "v2"}.get(tuple(kinds), "hybrid")
    shown = [
        {
            "name": each.name,
            "controllers": [name for name in each.controllers if name != V2],
            "id": each.id,
            "mount": decode(os.fsencode(each.place)),
        }
        for each in mounted
    ]
    owners = None
    try:
        owners = default_hierarchy(mounted).name
    except UnsupportedError as error:
        problem = problem or str(error)
    return {"layout": layout, "owners": owners, "hierarchies": shown, "problem": problem}


def runtimes(root: Path = Path("/")) -> list[dict[str, Any]]:
    """Return the container runtimes with files of root's on this host. Opens no file."""
    found = []
    for name, places in RUNTIMES.items():
        paths = []
        for place in places:
            with suppress(OSError):  # missing, or not readable
                if (root / place.lstrip("/")).lstat().st_uid == OWNER:
                    paths.append(place)
        if paths:
            found.append({"name": name, "paths": paths})
    return found


def rights() -> list[dict[str, Any]]:
    """Return the relevant capabilities, whether they are held, and the cost of missing ones."""
    held = variants.effective_capabilities()
    last = variants.last_capability()
    return [
        {
            "capability": each.name,
            "held": each.number in held,
            "cost": None if each.number in held else variants.cost_without(each, held),
        }
        for each in variants.CAPABILITIES
        if each.number <= last
    ]
