# SPDX-License-Identifier: BSD-2-Clause
"""Reading of BTF, the type information of BPF objects and of kernels.

The last of four checks of the generated layouts compares them with an object's BTF at load: records
of an object from another build would be decoded into nonsense. The comparison takes about 0.2 ms.
"""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnet.errors import LayoutError, LibbpfError
from cgnet.kernel._libbpf import lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cgnet.loader import Object
    from cgnet.records._layouts import Layout

KIND_STRUCT, KIND_ENUM, KIND_TYPEDEF, KIND_DATASEC = 4, 6, 8, 15  # linux/btf.h
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")
# Other places of a kernel's BTF, by release: files made for cgnet, then images that contain BTF.
PLACES = (
    "usr/lib/cgnet/btf/{}.btf", "boot/vmlinux-{}", "lib/modules/{}/vmlinux",
    "lib/modules/{}/build/vmlinux", "usr/lib/debug/boot/vmlinux-{}",
    "usr/lib/debug/lib/modules/{}/vmlinux",
)  # fmt: skip
KERNEL_STRUCT = "super_block"  # in every kernel, and in none of our objects


class _Type(ctypes.Structure):
    """struct btf_type; ``size`` is also the type id that a pointer or typedef refers to."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32))


class _Member(ctypes.Structure):
    """struct btf_member; without bitfields, ``offset`` is a plain number of bits."""

    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class _Enumerator(ctypes.Structure):
    """struct btf_enum."""

    _fields_ = (("name", ctypes.c_uint32), ("value", ctypes.c_int32))


class _Variable(ctypes.Structure):
    """struct btf_var_secinfo."""

    _fields_ = (("type", ctypes.c_uint32), ("offset", ctypes.c_uint32), ("size", ctypes.c_uint32))


def variables(btf: Any, section: str) -> dict[str, tuple[int, int]]:
    """Return (offset, size) of the variables in a section of an object, by name, in bytes."""
    found = lib.btf__find_by_name_kind(btf, section.encode(), KIND_DATASEC)
    if found < 0:
        return {}
    address = lib.btf__type_by_id(btf, found)
    head = _Type.from_address(address)
    array = (_Variable * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
    types = (_Type.from_address(lib.btf__type_by_id(btf, each.type)) for each in array)
    names = (lib.btf__name_by_offset(btf, each.name).decode() for each in types)
    return {name: (each.offset, each.size) for name, each in zip(names, array, strict=True)}


def read_layout(btf: Any, name: str) -> tuple[int, dict[str, tuple[int, int]]] | None:
    """Return a struct's size and its members in an object's BTF, or None when it isn't there.

    The members are (offset, size) by name, in bytes.
    """
    found = lib.btf__find_by_name_kind(btf, name.encode(), KIND_STRUCT)
    if found < 0:
        return None
    address = lib.btf__type_by_id(btf, found)
    head = _Type.from_address(address)
    array = (_Member * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
    members = {}
    for each in array:
        member = lib.btf__name_by_offset(btf, each.name).decode()
        members[member] = each.offset // 8, lib.btf__resolve_size(btf, each.type)
    return head.size, members


def _values_of_enum(btf: Any, name: str) -> dict[int, str]:
    """Return the names of an enum's values, by value; empty if there is no such enum."""
    found = lib.btf__find_by_name_kind(btf, name.encode(), KIND_ENUM)
    if found < 0:
        return {}
    address = lib.btf__type_by_id(btf, found)
    head = _Type.from_address(address)
    array = (_Enumerator * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
    return {
        each.value & 0xFFFFFFFF: lib.btf__name_by_offset(btf, each.name).decode() for each in array
    }


@contextmanager
def _parsed(path: Path) -> Iterator[Any]:
    """Parse a BTF file, and free it on exit. Raises LibbpfError."""
    btf = lib.btf__parse(os.fsencode(path), None)
    try:
        yield btf
    finally:
        lib.btf__free(btf)


def enum_of_kernel(name: str, path: Path = KERNEL_BTF) -> dict[int, str]:
    """Return the names of an enum's values in a kernel's BTF; empty if it has no such enum."""
    try:
        with _parsed(path) as btf:
            return _values_of_enum(btf, name)
    except LibbpfError:
        return {}


def enum_of_module(name: str, modules: Path) -> dict[int, str]:
    """Return the names of an enum's values in the first module's BTF that has it; else empty."""
    try:
        with _parsed(KERNEL_BTF) as kernel:
            for path in sorted(modules.glob("*")):
                if path.name == KERNEL_BTF.name:
                    continue
                with suppress(LibbpfError):
                    module = lib.btf__parse_split(os.fsencode(path), kernel)
                    try:
                        values = _values_of_enum(module, name)
                    finally:
                        lib.btf__free(module)
                    if values:
                        return values
    except LibbpfError:
        return {}
    return {}


def missing_tracepoints(names: Iterable[str], path: Path = KERNEL_BTF) -> frozenset[str]:
    """Return the names of tracepoints that a kernel lacks; empty if its BTF can't be read."""
    try:
        with _parsed(path) as btf:
            return frozenset(name for name in names if _tracepoint(btf, name) < 0)
    except LibbpfError:
        return frozenset()


def _tracepoint(btf: Any, name: str) -> int:
    return int(lib.btf__find_by_name_kind(btf, f"btf_trace_{name}".encode(), KIND_TYPEDEF))


def tracepoint_arguments(name: str, path: Path = KERNEL_BTF) -> int:
    """Return the number of a tracepoint's arguments; 0 if the kernel has no such tracepoint."""
    try:
        with _parsed(path) as btf:
            found = _tracepoint(btf, name)
            if found < 0:
                return 0
            typedef = _Type.from_address(lib.btf__type_by_id(btf, found))
            pointer = _Type.from_address(lib.btf__type_by_id(btf, typedef.size))
            function = _Type.from_address(lib.btf__type_by_id(btf, pointer.size))
            return int(function.info & 0xFFFF) - 1  # the first is the BPF program's context
    except LibbpfError:
        return 0


def has_type(name: str, path: Path) -> bool:
    """Return whether a kernel's BTF file has a type. Raises OSError."""
    return b"\0%b\0" % name.encode() in path.read_bytes()


@contextmanager
def without_type(name: str, path: Path) -> Iterator[Path]:
    """Yield a copy of a BTF file with a type renamed, as of a kernel that lacks it. For tests."""
    from tempfile import NamedTemporaryFile  # noqa: PLC0415 - only here

    hidden = name.upper().encode()
    with NamedTemporaryFile(suffix=".btf") as file:
        file.write(path.read_bytes().replace(b"\0%b\0" % name.encode(), b"\0%b\0" % hidden))
        file.flush()
        yield Path(file.name)


def is_kernel_btf(path: Path) -> bool:
    """Return whether a file, raw or ELF, has a kernel's types. Raises OSError if unreadable."""
    with path.open("rb"):  # libbpf would report only "invalid argument"
        pass
    try:
        btf = lib.btf__parse(os.fsencode(path), None)
    except LibbpfError:
        return False
    try:
        return read_layout(btf, KERNEL_STRUCT) is not None
    finally:
        lib.btf__free(btf)


def find_kernel_btf(root: Path = Path("/")) -> Path | None:
    """Return a BTF file for a kernel without its own, from the usual places.

    None if the kernel has its own BTF, or if there is no such file.
    """
    if KERNEL_BTF.exists():
        return None
    for place in PLACES:
        path = root / place.format(platform.release())
        with suppress(OSError):  # missing, or not readable
            if is_kernel_btf(path):
                return path
    return None


def damaged(path: object, layout: Layout, detail: str) -> LayoutError:
    """Return the error for a file that isn't a readable object."""
    first = layout.members[0]
    return LayoutError(
        f"{path}: struct {layout.name}: field {first.name}: cgnet has offset {first.offset} size "
        f"{first.size}, the object can't be read ({detail}); reinstall cgnet"
    )


def check_layouts(obj: Object, layouts: Iterable[Layout]) -> None:
    """Raise LayoutError for the first field that the object lacks, or has at another place."""
    btf = lib.bpf_object__btf(obj.handle)
    for layout in layouts:
        found = read_layout(btf, layout.name)
        size, members = found or (None, {})
        for member in layout.members:
            theirs = members.get(member.name)
            if theirs == (member.offset, member.size):
                continue
            has = "offset {} size {}".format(*theirs) if theirs else "no such field"
            raise LayoutError(
                f"{obj.path}: struct {layout.name}: field {member.name}: the object has {has}, "
                f"cgnet has offset {member.offset} size {member.size}; reinstall cgnet"
            )
        if size != layout.size:
            last = layout.members[-1]
            raise LayoutError(
                f"{obj.path}: struct {layout.name}: after field {last.name}: the object has size "
                f"{size}, cgnet has {layout.size}; reinstall cgnet"
            )
