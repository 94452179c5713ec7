# SPDX-License-Identifier: BSD-2-Clause
"""Mounted cgroup hierarchies of v1 and v2, and the mapping of paths and ids in each.

An id is unique in its hierarchy only; a key is always (hierarchy id, cgroup id). The kernel's id of
a cgroup is the file handle of its directory. Before Linux kernel commit 67c0496e87d1 "kernfs:
convert kernfs_node->id from union kernfs_node_id to u64" (in v5.5) it isn't the inode number.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import time
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import UnsupportedError, UsageError
from cgnet.owners.long_paths import PATH_MAX, open_place, tellable_path
from cgnet.records import _layouts
from cgnet.records._layouts import CgroupController, OwnerConfig
from cgnet.text import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("cgnet")  # its name is the prefix of messages to users

V2 = "v2"
INITIAL_NAMESPACE = 0xEFFFFFFB  # include/linux/proc_ns.h: PROC_CGROUP_INIT_INO
SYS_OPEN_TREE, OPEN_TREE_CLONE = 428, 1  # asm-generic/unistd.h, linux/mount.h
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
MAX_PATH = 2 * PATH_MAX  # longest path in a walk, in bytes
SHOWN = 80  # characters of a path in a message
# linux/exportfs.h: FILEID_KERNFS; before v5.5 kernfs used FILEID_INO32_GEN
HANDLE_TYPES = (0xFE, 1)
HANDLE_BYTES = 8
ROOT_IDS = (1, 1 << 32 | 1)  # of every hierarchy's root, by handle type
MAX_RENAMED = 64  # cgroups between two calls of tidy()
WALK_AGAIN_S = 1.0  # events report new cgroups; a walk finds the others


class Hierarchy(NamedTuple):
    """A mounted hierarchy. ``name`` is "v2" or a v1 controller; ``root`` is the mount's root in it.

    In a cgroup namespace, ``mount`` may be private to this process. ``seen`` then has the mounts
    that others see, as (mount, root); ``is_part``: only a part of the hierarchy is visible.
    """

    id: int
    name: str
    controllers: tuple[str, ...]
    mount: Path
    root: str
    seen: tuple[tuple[Path, str], ...] = ()
    is_part: bool = False

    @property
    def place(self) -> Path:
        """The mount point to display."""
        return self.seen[0][0] if self.seen else self.mount

    @property
    def note(self) -> str | None:
        """A note for users about missing paths; None if the whole hierarchy is visible."""
        if not self.is_part:
            return None
        return (
            f"in this cgroup namespace {self.place} shows a part of the hierarchy {self.name}: cgroups "
            "elsewhere have no path or container here, and paths may begin at that part; run it with "
            "CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN, or in the host's namespace (--cgroupns=host)"
        )

    @property
    def controller(self) -> CgroupController:
        """The enum value with which the programs find a task's cgroup in it."""
        return CgroupController[f"CONTROLLER_{self.name.upper()}"]

    def inner_path(self, path: Path) -> str:
        """Return the path inside the hierarchy of a directory under ``mount``."""
        inner = PurePosixPath(self.root) / path.relative_to(self.mount).as_posix()
        return str(inner)

    def told_path(self, path: Path) -> str:
        """Return the same, decoded as paths in records are."""
        return decode(os.fsencode(self.inner_path(path)))

    def told_of_open(self, path: Path) -> str:
        """Return the path inside the hierarchy of a directory that was opened through ``mount``.

        Raises ValueError for a directory outside of it.
        """
        is_our_own = self.mount.is_relative_to(OPENED)
        return decode(os.fsencode(path)) if is_our_own else self.told_path(path)

    def inside(self, path: Path) -> str | None:
        """Return the path inside the hierarchy of a mounted directory; None for others."""
        for mount, root in (*self.seen, (self.mount, self.root)):
            if path.is_relative_to(mount):
                return str(PurePosixPath(root) / path.relative_to(mount).as_posix())
        return None

    def outer_path(self, inner: str) -> Path:
        """Return the directory under ``mount`` for a path inside the hierarchy."""
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


OPENED = Path("/proc/self/fd")
# Found once per cgroup namespace, by hierarchy id: the descriptor of a mount of the whole
# hierarchy, and the base of the paths in /proc.
_wholes: dict[int, int] = {}
_bases: dict[int, str] = {}


def _is_known(controller: str) -> bool:
    return f"CONTROLLER_{controller.upper()}" in CgroupController.__members__


def _unescape(text: str) -> str:
    """Decode the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of /proc, split at line feeds only. Raises OSError.

    Names in them may contain other characters at which str.splitlines() would split.
    """
    raw = path.read_bytes().removesuffix(b"\n")
    return raw.decode(errors="surrogateescape").split("\n") if raw else []


def _own_lines(path: Path) -> list[str]:
    try:
        return lines_of(path)
    except OSError as error:
        raise UnsupportedError(f"{path}: {error.strerror}; is /proc mounted?") from error


def is_in_namespace(proc: Path = Path("/proc/self")) -> bool:
    """Return whether cgroup paths are those of a cgroup namespace: cgroup_namespaces(7)."""
    with suppress(OSError):
        return (proc / "ns/cgroup").stat().st_ino != INITIAL_NAMESPACE
    return False


def seen_from_host(mounts: list[Hierarchy]) -> Hierarchy:
    """Return a hierarchy with one or more mounts as its host sees it.

    A mount may show a part only, and mountinfo has its root relative to the namespace: the whole
    hierarchy appears as /../.. there. The id of a hierarchy's root is the same everywhere.
    """
    whole = None
    for each in mounts:
        with suppress(OSError):
            if cgroup_id(each.mount) in ROOT_IDS:
                whole = each._replace(root="/")
                break
    if whole is None:
        fd = _wholes.get(mounts[0].id) or _mount_whole(mounts[0].mount)
        if fd is None:
            return mounts[0]._replace(is_part=True)
        _wholes[mounts[0].id] = fd
        whole = mounts[0]._replace(mount=OPENED / str(fd), root="/")
    base = _bases[whole.id] = _base_of_namespace(whole, mounts)
    seen = tuple((each.mount, os.path.normpath(f"{base}/{each.root}")) for each in mounts)
    return whole if whole.mount in [mount for mount, _ in seen] else whole._replace(seen=seen)


def _mount_whole(part: Path) -> int | None:
    """Return the descriptor of a private mount of a whole hierarchy; None if not permitted.

    Opening its root by handle takes CAP_DAC_READ_SEARCH, and mounting it CAP_SYS_ADMIN: Linux
    kernel commit a07b20004793 "vfs: syscall: Add open_tree(2) to reference or clone a mount" (in
    v5.2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    with ExitStack() as cleanup:
        try:
            fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        cleanup.callback(os.close, fd)
        for handle_type, root in zip(HANDLE_TYPES, ROOT_IDS, strict=True):
            handle = _FileHandle(HANDLE_BYTES, handle_type, root)
            opened = libc.open_by_handle_at(fd, ctypes.byref(handle), os.O_PATH | os.O_CLOEXEC)
            if opened >= 0:
                cleanup.callback(os.close, opened)
                flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | os.O_CLOEXEC
                mounted = int(libc.syscall(SYS_OPEN_TREE, opened, b"", ctypes.c_uint(flags)))
                return mounted if mounted >= 0 else None
    return None


def _base_of_namespace(whole: Hierarchy, mounts: list[Hierarchy]) -> str:
    """Return the path of the namespace's root, the base of /proc/PID/cgroup and mountinfo."""
    names = CgroupNames([whole])
    try:
        for each in mounts:
            with suppress(OSError):
                found = names.path(whole.id, cgroup_id(each.mount))
                if found and not each.root.startswith("/.."):
                    return _without(found, each.root)
    finally:
        names.close()
    own = next(path for number, path in _own_paths() if number == whole.id)
    pid = str(os.getpid())
    for path in subtree(whole.mount):
        with suppress(OSError):
            if pid in (path / "cgroup.procs").read_text().split("\n"):
                return _without(whole.told_path(path), own)
    return "/"


def _own_paths() -> Iterator[tuple[int, str]]:
    for line in _own_lines(Path("/proc/self/cgroup")):
        number, _, path = line.split(":", 2)
        yield int(number), path


def _without(path: str, end: str) -> str:
    """Return ``path`` without the trailing names of ``end``."""
    below = [name for name in end.split("/") if name not in ("", "..")]
    names = PurePosixPath(path).parts
    return str(PurePosixPath(*names[: len(names) - len(below)] or "/"))


def from_namespace(hierarchy: int, path: str) -> str:
    """Return a path of /proc/PID/cgroup as the host sees it."""
    return os.path.normpath(f"{_bases[hierarchy]}/{path}") if hierarchy in _bases else path


def hierarchies(proc: Path = Path("/proc/self")) -> list[Hierarchy]:
    """Return the mounted hierarchies in which programs can read a task's cgroup, v2 last.

    Raises UnsupportedError without /proc.
    """
    ids = {}
    for line in _own_lines(proc / "cgroup"):
        number, controllers, _ = line.split(":", 2)
        ids.update(dict.fromkeys((controllers or V2).split(","), int(number)))
    found: dict[int, list[Hierarchy]] = {}
    for line in _own_lines(proc / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        root, mount = map(_unescape, fields.split(" ")[3:5])
        fstype, _, options = rest.split(" ")[:3]  # the source between them may be empty
        if fstype == "cgroup2":
            names = [V2]
        elif fstype == "cgroup":
            names = [name for name in options.split(",") if _is_known(name)]
        else:
            continue
        if names and names[0] in ids:
            each = Hierarchy(ids[names[0]], names[0], tuple(names), Path(mount), root)
            found.setdefault(each.id, []).append(each)
    if is_in_namespace(proc):
        chosen = [seen_from_host(mounts) for mounts in found.values()]
    else:  # prefer the mount that shows everything
        chosen = [min(mounts, key=lambda each: each.root != "/") for mounts in found.values()]
    return sorted(chosen, key=lambda each: (each.name == V2, each.id))


def default_hierarchy(mounted: list[Hierarchy]) -> Hierarchy:
    """Return the hierarchy that names containers: v1 ``memory``, else v2, else the first one.

    Raises UnsupportedError if none is mounted.
    """
    if not mounted:
        raise UnsupportedError("no cgroup hierarchy is mounted under /sys/fs/cgroup")
    for name in ("memory", V2):
        for each in mounted:
            if name in each.controllers:
                return each
    return mounted[0]


def hierarchy_named(name: str, mounted: list[Hierarchy]) -> Hierarchy:
    """Return the hierarchy "v2" or that of a v1 controller. Raises UsageError."""
    for each in mounted:
        if name in each.controllers:
            return each._replace(name=name)
    usable = ", ".join(each.name for each in mounted) or "none"
    if name.startswith("name="):
        raise UsageError(
            f"--hierarchy {name!r}: a named hierarchy has no controller, so programs can't read "
            f"it; the nearest usable one is {default_hierarchy(mounted).name} (usable: {usable})"
        )
    raise UsageError(f"--hierarchy {name!r}: not mounted here; one of: {usable}")


def cgroup_id(path: Path) -> int:
    """Return the kernel's id of a cgroup, by its directory. Raises OSError."""
    raw = os.fsencode(path)
    if len(raw) < PATH_MAX:
        return _id_at(AT_FDCWD, raw)
    fd = open_place(path)
    try:
        return _id_at(fd, b"")
    finally:
        os.close(fd)


def _id_at(fd: int, path: bytes) -> int:
    handle = _FileHandle(handle_bytes=HANDLE_BYTES)
    mount_id = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = 0 if path else AT_EMPTY_PATH
    if libc.name_to_handle_at(fd, path, ctypes.byref(handle), ctypes.byref(mount_id), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), decode(path))
    return int(handle.id)


def resolve(value: str, mounted: list[Hierarchy], inside: Hierarchy) -> tuple[Hierarchy, Path]:
    """Return the directory of ``--cgroup VALUE``, a mounted path or one inside a hierarchy.

    Raises UsageError if there is none.
    """
    path = Path(value)
    if path.is_absolute():
        with suppress(OSError):  # not readable
            path = Path(os.path.realpath(path))  # co-mounted controllers are links to one mount
        for each in sorted(mounted, key=lambda each: -len(each.place.parts)):
            inner = each.inside(path)
            if inner is not None and _is_there(path):
                return each, each.outer_path(inner)
        outer = inside.outer_path(os.path.normpath(value))
        if _is_there(outer):
            return inside, outer
        if _is_there(path):
            raise UsageError(
                f"--cgroup {value!r}: lies in no hierarchy that programs can read; usable: "
                f"{', '.join(str(each.place) for each in mounted)}"
            )
    raise UsageError(
        f"--cgroup {value!r}: no such cgroup{_why_not(path)}; give a directory as mounted "
        f"({inside.place}/…) or a path inside the hierarchy {inside.name} (/…)"
    )


def _is_there(path: Path) -> bool:
    """Return whether it is an accessible directory."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir() raises ENAMETOOLONG, EACCES


def _why_not(path: Path) -> str:
    """Return the reason, in parentheses, why a path isn't accessible; "" if it doesn't exist."""
    try:
        path.stat()
    except OSError as error:
        return "" if error.errno == errno.ENOENT else f" ({error.strerror})"
    return ""


def subtree(top: Path) -> Iterator[Path]:
    """Yield a cgroup and its descendants. A parent is yielded before its children are listed.

    It isn't recursive: cgroups may be nested deeper than Python's stack. Paths end at MAX_PATH
    bytes, so that nobody can fill the memory with them; that is logged.
    """
    waiting = [top]
    while waiting:
        path = waiting.pop()
        yield path
        if len(os.fsencode(path)) >= MAX_PATH:
            log.error("cgroups below %s… are nested too deep, and left out", str(path)[:SHOWN])
            continue
        with suppress(OSError):  # removed meanwhile
            waiting += [path / name for name in _children(path)]


def _children(path: Path) -> list[str]:
    """Return the names of a directory's subdirectories. Raises OSError."""
    if len(os.fsencode(path)) < PATH_MAX:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    fd = open_place(path)
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    try:
        with os.scandir(opened) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(opened)


def config(used: list[Hierarchy]) -> OwnerConfig:
    """Return the constants of the hierarchies in use; the first one names owners."""
    pairs = (_layouts.Hierarchy(each.id, each.controller) for each in used)
    return OwnerConfig(hierarchies=len(used), hierarchy=tuple(pairs))


class CgroupNames:
    """Paths of cgroups by (hierarchy id, cgroup id), including removed cgroups."""

    LIMIT = 32768  # paths kept of each kind; the oldest are dropped first

    def __init__(self, watched: list[Hierarchy]) -> None:
        """Resolve ids of these hierarchies; the first one names owners."""
        self._hierarchies = {each.id: each for each in watched}
        self._paths: dict[tuple[int, int], str] = {}  # in records
        self._told: dict[tuple[int, int], str] = {}  # of any new cgroup: anybody may create many
        self._mounts: dict[int, int] = {}
        self._next_walk = 0.0
        # (hierarchy id, old prefix of paths, new prefix); None if the new prefix is unknown.
        self._renamed: list[tuple[int, str, str | None]] = []
        self.version = 0  # incremented when paths change that were returned before
        self._libc = ctypes.CDLL(None, use_errno=True)

    @property
    def naming(self) -> Hierarchy:
        """The hierarchy that names owners."""
        return next(iter(self._hierarchies.values()))

    def remember(self, hierarchy: int, cgroup: int, path: str) -> None:
        """Keep a path that the kernel reported."""
        key = hierarchy, cgroup
        self._keep(self._paths if key in self._paths else self._told, key, path)

    def _keep(self, paths: dict[tuple[int, int], str], key: tuple[int, int], path: str) -> None:
        while len(paths) >= self.LIMIT and key not in paths:
            del paths[next(iter(paths))]
        paths[key] = path

    def rename(self, hierarchy: int, cgroup: int, path: str) -> str | None:
        """Keep the new path of a cgroup; return the old one if known.

        ``tidy`` updates the paths of its descendants.
        """
        key = hierarchy, cgroup
        old = self._paths.get(key) or self._told.get(key)
        self.remember(hierarchy, cgroup, path)
        self.version += 1
        if len(self._renamed) >= MAX_RENAMED:  # too many: look all paths up again
            self._renamed = [(each, "/", None) for each in self._hierarchies]
        elif old:
            self._renamed.append((hierarchy, f"{old}/", f"{path}/"))
        else:
            self._renamed.append((hierarchy, path[: path.rfind("/") + 1], None))
        return old

    def tidy(self) -> None:
        """Update the paths below renamed cgroups, or drop them."""
        if not self._renamed:
            return
        for paths in (self._paths, self._told):
            for key, path in list(paths.items()):
                known = self._path_now(key[0], path)
                if known is None:
                    del paths[key]
                else:
                    paths[key] = known
        self._renamed.clear()
        self.version += 1

    def _path_now(self, hierarchy: int, path: str) -> str | None:
        for each, old, new in self._renamed:
            if each == hierarchy and path.startswith(old):
                if new is None:
                    return None
                path = new + path.removeprefix(old)
        return path

    def hierarchy_name(self, hierarchy: int) -> str | None:
        """Return "v2", the controller, or None for a hierarchy that isn't watched."""
        found = self._hierarchies.get(hierarchy)
        return found.name if found else None

    def path(self, hierarchy: int, cgroup: int) -> str | None:
        """Return the path inside the hierarchy, or None if it can't be found any more."""
        key = hierarchy, cgroup
        known = self._paths.get(key)
        if known is not None:
            return known
        known = self._told.pop(key, None)
        if known is None and hierarchy in self._hierarchies:
            known = self._look_up(self._hierarchies[hierarchy], cgroup)
        if known is not None:
            self._keep(self._paths, key, known)
        return known

    def paths(self) -> Iterator[str]:
        """Yield the paths of existing cgroups in the hierarchy that names owners."""
        for path in subtree(self.naming.mount):
            yield self.naming.told_path(path)

    def _look_up(self, hierarchy: Hierarchy, cgroup: int) -> str | None:
        """Open the directory by its handle; without CAP_DAC_READ_SEARCH, walk over all of them."""
        if hierarchy.id not in self._mounts:
            try:
                fd = os.open(hierarchy.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:  # unmounted since, or not accessible
                return None
            self._mounts[hierarchy.id] = fd
        for handle_type in HANDLE_TYPES:
            handle = _FileHandle(HANDLE_BYTES, handle_type, cgroup)
            fd = self._libc.open_by_handle_at(
                self._mounts[hierarchy.id], ctypes.byref(handle), os.O_PATH
            )
            if fd >= 0:
                try:
                    return hierarchy.told_of_open(tellable_path(fd))
                except (OSError, ValueError):  # removed meanwhile; outside of the mount
                    return None
                finally:
                    os.close(fd)
            if ctypes.get_errno() == errno.EPERM:
                return self._walk(hierarchy, cgroup)
        return None

    def _walk(self, hierarchy: Hierarchy, cgroup: int) -> str | None:
        """Keep the paths of all existing cgroups, and return the one looked for."""
        if time.monotonic() < self._next_walk:
            return None
        for path in subtree(hierarchy.mount):
            with suppress(OSError):  # removed meanwhile
                self.remember(hierarchy.id, cgroup_id(path), hierarchy.told_path(path))
        self._next_walk = time.monotonic() + WALK_AGAIN_S
        return self._told.pop((hierarchy.id, cgroup), None)

    def close(self) -> None:
        """Close the directories of the mounts."""
        while self._mounts:
            os.close(self._mounts.popitem()[1])
