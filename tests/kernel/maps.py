# SPDX-License-Identifier: BSD-2-Clause
"""Look into the maps of another process, by the kernel's ids."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from functools import cache
from pathlib import Path

from harness import ROOT

libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
libbpf.bpf_object__open_file.restype = ctypes.c_void_p
libbpf.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
libbpf.bpf_object__load.argtypes = [ctypes.c_void_p]
libbpf.bpf_object__close.argtypes = [ctypes.c_void_p]
libbpf.bpf_object__next_program.restype = ctypes.c_void_p
libbpf.bpf_object__next_program.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
libbpf.bpf_program__attach_iter.restype = ctypes.c_void_p
libbpf.bpf_program__attach_iter.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
libbpf.bpf_link__fd.argtypes = [ctypes.c_void_p]
libbpf.bpf_link__destroy.argtypes = [ctypes.c_void_p]

SK_STORAGE = 24  # linux/bpf.h: BPF_MAP_TYPE_SK_STORAGE


class IterOptions(ctypes.Structure):
    """struct bpf_iter_attach_opts."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("link_info", ctypes.c_void_p),
        ("link_info_len", ctypes.c_uint32),
    )


class MapInfo(ctypes.Structure):
    """struct bpf_map_info up to the name."""

    _fields_ = (("head", ctypes.c_uint32 * 6), ("name", ctypes.c_char * 16))


def open_map(pid: int, name: str) -> tuple[int, int, int]:
    """Return (descriptor, type, key size) of a map that a process holds."""
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
            return fd, detail.head[0], detail.head[2]
        os.close(fd)
    raise AssertionError(f"process {pid} has no map {name}")


def entries(pid: int, name: str) -> int:
    """Count the entries of a map that a process holds."""
    fd, kind, key_size = open_map(pid, name)
    try:
        if kind == SK_STORAGE:
            return count_storage(fd)
        count, key = 0, None
        following = ctypes.create_string_buffer(key_size)
        while libbpf.bpf_map_get_next_key(fd, key, following) == 0:
            count, key = count + 1, ctypes.create_string_buffer(following.raw, key_size)
        return count
    finally:
        os.close(fd)


@cache
def counter() -> Path:
    source = Path(__file__).with_name("count_storage.bpf.c")
    target = ROOT / "build/count_storage.bpf.o"
    target.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["clang", "-g", "-O2", "-target", "bpf", f"-I{ROOT / 'bpf'}", "-c", source, "-o", target],
        check=True,
    )
    return target


def count_storage(fd: int) -> int:
    """Count by an iterator: a socket storage map can't be walked from user space."""
    obj = libbpf.bpf_object__open_file(bytes(counter()), None)
    assert obj
    try:
        assert libbpf.bpf_object__load(obj) == 0
        info = ctypes.c_uint32(fd)
        options = IterOptions(
            ctypes.sizeof(IterOptions), ctypes.addressof(info), ctypes.sizeof(info)
        )
        link = libbpf.bpf_program__attach_iter(
            libbpf.bpf_object__next_program(obj, None), ctypes.byref(options)
        )
        assert link
        with open(libbpf.bpf_iter_create(libbpf.bpf_link__fd(link)), "rb") as walk:  # noqa: PTH123
            count = len(walk.read())
        libbpf.bpf_link__destroy(link)
        return count
    finally:
        libbpf.bpf_object__close(obj)
