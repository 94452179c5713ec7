# SPDX-License-Identifier: BSD-2-Clause
"""Access to the maps of another process, by the kernel's ids."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)

ARRAY = 2  # linux/bpf.h: BPF_MAP_TYPE_ARRAY


class MapInfo(ctypes.Structure):
    """struct bpf_map_info up to the name."""

    _fields_ = (("head", ctypes.c_uint32 * 6), ("name", ctypes.c_char * 16))


def open_map(pid: int, name: str) -> tuple[int, int, int, int]:
    """Return (descriptor, type, key size, value size) of a map that a process holds."""
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found = re.search(r"^map_id:\s*(\d+)", info.read_text(), re.MULTILINE)
        except FileNotFoundError:
            continue
        if not found:
            continue
        fd = libbpf.bpf_map_get_fd_by_id(int(found[1]))
        assert fd >= 0
        detail, size = MapInfo(), ctypes.c_uint32(ctypes.sizeof(MapInfo))
        assert libbpf.bpf_obj_get_info_by_fd(fd, ctypes.byref(detail), ctypes.byref(size)) == 0
        if detail.name.decode() == name[:15]:
            return fd, detail.head[0], detail.head[2], detail.head[3]
        os.close(fd)
    raise AssertionError(f"process {pid} has no map {name}")


def entries(pid: int, name: str) -> int:
    """Count the entries of a map that a process holds; in an array, those that aren't all zeros."""
    fd, kind, key_size, value_size = open_map(pid, name)
    value = ctypes.create_string_buffer(value_size)
    try:
        count, key = 0, None
        following = ctypes.create_string_buffer(key_size)
        while libbpf.bpf_map_get_next_key(fd, key, following) == 0:
            key = ctypes.create_string_buffer(following.raw, key_size)
            used = kind != ARRAY
            if kind == ARRAY and libbpf.bpf_map_lookup_elem(fd, key, value) == 0:
                used = any(value.raw[:8])  # struct attempt: slot_key
            count += used
        return count
    finally:
        os.close(fd)


def rewrite(pid: int, name: str, change: Callable[[bytearray], bool]) -> int:
    """Pass all values of a process's map to ``change``; return how many were changed."""
    fd, _, key_size, value_size = open_map(pid, name)
    value = ctypes.create_string_buffer(value_size)
    following, key, count = ctypes.create_string_buffer(key_size), None, 0
    try:
        while libbpf.bpf_map_get_next_key(fd, key, following) == 0:
            key = ctypes.create_string_buffer(following.raw, key_size)
            if libbpf.bpf_map_lookup_elem(fd, key, value) == 0:
                changed = bytearray(value.raw)
                if change(changed):
                    assert libbpf.bpf_map_update_elem(fd, key, bytes(changed), 0) == 0
                    count += 1
        return count
    finally:
        os.close(fd)
