# SPDX-License-Identifier: BSD-2-Clause
"""Control group hierarchies of v1 and v2: which are mounted, and path ↔ id in each.

An id is unique in its hierarchy only; a key is always (hierarchy id, cgroup id). The kernel's id of a
cgroup is the file handle of its directory. It was not its inode number before Linux kernel commit
67c0496e87d1 "kernfs: convert kernfs_node->id from union kernfs_node_id to u64" (in v5.5).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from cgnet._layouts import CgroupController
from cgnet.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

V2 = "v2"
AT_FDCWD = -100
# linux/exportfs.h: FILEID_KERNFS; before v5.5 kernfs used FILEID_INO32_GEN
HANDLE_TYPES = (0xFE, 1)
HANDLE_BYTES = 8


class Hierarchy(NamedTuple):
    """A mounted hierarchy. ``name`` is "v2" or a v1 controller; ``root`` is what the mount shows."""

    id: int
    name: str
    controllers: tuple[str, ...]
    mount: Path
    root: str

    @property
    def controller(self) -> CgroupController:
        """How the programs find a task's cgroup in it."""
        return CgroupController[f"CONTROLLER_{self.name.upper()}"]

    def inner_path(self, path: Path) -> str:
        """Return the path inside the hierarchy of a directory under the mount."""
        inner = PurePosixPath(self.root) / path.relative_to(self.mount).as_posix()
        return str(inner)

    def told_path(self, path: Path) -> str:
        """Return the same, spelled as the kernel's records are decoded."""
        return decode(os.fsencode(self.inner_path(path)))

    def outer_path(self, inner: str) -> Path:
        """Return the directory, as mounted, of a path inside the hierarchy."""
        try:
            return self.mount / PurePosixPath(inner).relative_to(self.root)
        except ValueError:
            return self.mount / inner.lstrip("/")


class _FileHandle(ctypes.Structure):
    """struct file_handle (fcntl.h) for kernfs."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint32),
        ("handle_type", ctypes.c_int32),
        ("id", ctypes.c_uint64),
    )
    _pack_ = 1


def decode(name: bytes) -> str:
    """Return a name that a stranger chose as text; bytes that aren't UTF-8 are escaped."""
    return name.decode(errors="backslashreplace")


def _is_known(controller: str) -> bool:
    return f"CONTROLLER_{controller.upper()}" in CgroupController.__members__


def _unescape(text: str) -> str:
    """Undo the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def hierarchies(proc: Path = Path("/proc/self")) -> list[Hierarchy]:
    """Return the mounted hierarchies whose cgroup a program can read of a task, v2 last."""
    ids = {}
    for line in (proc / "cgroup").read_text(errors="surrogateescape").splitlines():
        number, controllers, _ = line.split(":", 2)
        ids.update(dict.fromkeys((controllers or V2).split(","), int(number)))
    found: dict[int, Hierarchy] = {}
    for line in (proc / "mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        root, mount = map(_unescape, fields.split()[3:5])
        fstype, _, options = rest.split()[:3]
        if fstype == "cgroup2":
            names = [V2]
        elif fstype == "cgroup":
            names = [name for name in options.split(",") if _is_known(name)]
        else:
            continue
        if names and names[0] in ids:
            each = Hierarchy(ids[names[0]], names[0], tuple(names), Path(mount), root)
            if each.id not in found or (each.root == "/") > (found[each.id].root == "/"):
                found[each.id] = each  # of several mounts the one that shows everything
    return sorted(found.values(), key=lambda each: (each.name == V2, each.id))


def default_hierarchy(mounted: list[Hierarchy]) -> Hierarchy:
    """Return the hierarchy that names containers: v1 ``memory``, else v2, else the first one."""
    if not mounted:
        raise UnsupportedError("no cgroup hierarchy is mounted under /sys/fs/cgroup")
    for name in ("memory", V2):
        for each in mounted:
            if name in each.controllers:
                return each
    return mounted[0]


def hierarchy_named(name: str, mounted: list[Hierarchy]) -> Hierarchy:
    """Return the hierarchy "v2" or of a v1 controller. Raises UsageError."""
    for each in mounted:
        if name in each.controllers:
            return each._replace(name=name)
    usable = ", ".join(each.name for each in mounted) or "none"
    if name.startswith("name="):
        raise UsageError(
            f"--hierarchy {name!r}: a named hierarchy has no controller, so programs can't read it; "
            f"the nearest usable one is {default_hierarchy(mounted).name} (usable: {usable})"
        )
    raise UsageError(f"--hierarchy {name!r}: not mounted here; one of: {usable}")


def cgroup_id(path: Path) -> int:
    """Return the kernel's id of a cgroup's directory. Raises OSError."""
    handle = _FileHandle(handle_bytes=HANDLE_BYTES)
    mount_id = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.name_to_handle_at(
        AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(handle.id)


def resolve(value: str, mounted: list[Hierarchy], inside: Hierarchy) -> tuple[Hierarchy, Path]:
    """Find the directory of ``--cgroup VALUE``: a path as mounted, or inside a hierarchy.

    Raises UsageError when there is none.
    """
    path = Path(value)
    if path.is_absolute():
        path = Path(os.path.realpath(path))  # co-mounted controllers are links to one mount
        for each in sorted(mounted, key=lambda each: -len(each.mount.parts)):
            if path.is_relative_to(each.mount) and path.is_dir():
                return each, path
        outer = inside.outer_path(os.path.normpath(value))
        if outer.is_dir():
            return inside, outer
        if path.is_dir():
            raise UsageError(
                f"--cgroup {value!r}: lies in no hierarchy that programs can read; "
                f"usable: {', '.join(str(each.mount) for each in mounted)}"
            )
    raise UsageError(
        f"--cgroup {value!r}: no such cgroup; give a directory as mounted "
        f"({inside.mount}/…) or a path inside the hierarchy {inside.name} (/…)"
    )


def subtree(top: Path) -> Iterator[Path]:
    """Yield a cgroup and what is below it. A parent comes before its children are looked up.

    Without recursion: who may make cgroups may nest them deeper than Python's stack.
    """
    waiting = [top]
    while waiting:
        path = waiting.pop()
        yield path
        with suppress(OSError):  # removed meanwhile
            waiting += [
                path / entry.name
                for entry in os.scandir(path)
                if entry.is_dir(follow_symlinks=False)
            ]


class CgroupNames:
    """Paths of cgroups by (hierarchy id, cgroup id), also of those that are gone."""

    LIMIT = 32768  # paths remembered; the oldest are forgotten first

    def __init__(self, watched: list[Hierarchy]) -> None:
        """Resolve ids of these hierarchies."""
        self._hierarchies = {each.id: each for each in watched}
        self._paths: dict[tuple[int, int], str] = {}
        self._mounts: dict[int, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    @property
    def naming(self) -> Hierarchy:
        """The hierarchy that names owners."""
        return next(iter(self._hierarchies.values()))

    def remember(self, hierarchy: int, cgroup: int, path: str) -> None:
        """Keep a path that the kernel told."""
        while len(self._paths) >= self.LIMIT:
            del self._paths[next(iter(self._paths))]
        self._paths[hierarchy, cgroup] = path

    def hierarchy_name(self, hierarchy: int) -> str | None:
        """Return "v2", the controller, or None for a hierarchy that isn't watched."""
        found = self._hierarchies.get(hierarchy)
        return found.name if found else None

    def path(self, hierarchy: int, cgroup: int) -> str | None:
        """Return the path inside the hierarchy, or None when nothing knows it any more."""
        known = self._paths.get((hierarchy, cgroup))
        if known is None and hierarchy in self._hierarchies:
            known = self._look_up(self._hierarchies[hierarchy], cgroup)
            if known is not None:
                self.remember(hierarchy, cgroup, known)
        return known

    def paths(self) -> Iterator[str]:
        """Yield the paths of the cgroups that are there, in the hierarchy that names owners."""
        for path in subtree(self.naming.mount):
            yield self.naming.told_path(path)

    def _look_up(self, hierarchy: Hierarchy, cgroup: int) -> str | None:
        """Open the directory by its handle; without CAP_DAC_READ_SEARCH walk over all of them."""
        if hierarchy.id not in self._mounts:
            self._mounts[hierarchy.id] = os.open(hierarchy.mount, os.O_RDONLY | os.O_DIRECTORY)
        for handle_type in HANDLE_TYPES:
            handle = _FileHandle(HANDLE_BYTES, handle_type, cgroup)
            fd = self._libc.open_by_handle_at(
                self._mounts[hierarchy.id], ctypes.byref(handle), os.O_PATH
            )
            if fd >= 0:
                try:
                    path = hierarchy.inner_path(Path(f"/proc/self/fd/{fd}").readlink())
                    return decode(os.fsencode(path))
                except ValueError:  # outside of what the mount shows
                    return None
                finally:
                    os.close(fd)
            if ctypes.get_errno() == errno.EPERM:
                return self._walk(hierarchy, cgroup)
        return None

    def _walk(self, hierarchy: Hierarchy, cgroup: int) -> str | None:
        """Remember all that are there now, and return the one looked for."""
        for path in subtree(hierarchy.mount):
            with suppress(OSError):  # removed meanwhile
                inner = decode(os.fsencode(hierarchy.inner_path(path)))
                self.remember(hierarchy.id, cgroup_id(path), inner)
        return self._paths.get((hierarchy.id, cgroup))

    def close(self) -> None:
        """Close the mounts' directories."""
        while self._mounts:
            os.close(self._mounts.popitem()[1])
