# SPDX-License-Identifier: BSD-2-Clause
"""What is read of BTF, the description of types: an object's own, and a kernel's.

The last of four locks on the generated layouts compares them with an object's BTF at load. An object
from another build would put fields elsewhere, and its records would be decoded into nonsense. The
walk takes about 0.2 ms.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from cgnet._layouts import Layout, Member
from cgnet._libbpf import lib
from cgnet.errors import LayoutError, LibbpfError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cgnet.loader import Object

KIND_STRUCT = 4  # linux/btf.h
KERNEL_STRUCT = "super_block"  # every kernel has it, and no object of ours


class _Type(ctypes.Structure):
    """struct btf_type."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32))


class _Member(ctypes.Structure):
    """struct btf_member; without bitfields ``offset`` is plain bits."""

    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


def read_layout(btf: Any, name: str) -> tuple[int, dict[str, Member]] | None:
    """Return size and members of a struct in an object's BTF, or None when it isn't there."""
    found = lib.btf__find_by_name_kind(btf, name.encode(), KIND_STRUCT)
    if found < 0:
        return None
    address = lib.btf__type_by_id(btf, found)
    head = _Type.from_address(address)
    array = (_Member * (head.info & 0xFFFF)).from_address(address + ctypes.sizeof(_Type))
    members = {}
    for each in array:
        member = lib.btf__name_by_offset(btf, each.name).decode()
        members[member] = Member(member, each.offset // 8, lib.btf__resolve_size(btf, each.type))
    return head.size, members


def is_kernel_btf(path: Path) -> bool:
    """Tell whether a file, raw or ELF, has the types of a kernel. Raises OSError: it can't be read."""
    with path.open("rb"):  # libbpf has no better word for it than "invalid argument"
        pass
    try:
        btf = lib.btf__parse(os.fsencode(path), None)
    except LibbpfError:
        return False
    try:
        return read_layout(btf, KERNEL_STRUCT) is not None
    finally:
        lib.btf__free(btf)


def damaged(path: object, layout: Layout, detail: str) -> LayoutError:
    """Make the error for a file that is no readable object at all."""
    first = layout.members[0]
    return LayoutError(
        f"{path}: struct {layout.name}: field {first.name}: cgnet has offset {first.offset} size "
        f"{first.size}, the object can't be read ({detail}); reinstall cgnet"
    )


def check_layouts(obj: Object, layouts: Iterable[Layout]) -> None:
    """Raise LayoutError for the first field that the object has elsewhere, or not at all."""
    btf = lib.bpf_object__btf(obj.handle)
    for layout in layouts:
        found = read_layout(btf, layout.name)
        size, members = found or (None, {})
        for member in layout.members:
            theirs = members.get(member.name)
            if theirs == member:
                continue
            has = f"offset {theirs.offset} size {theirs.size}" if theirs else "no such field"
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
