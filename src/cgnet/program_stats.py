# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel counts for each program."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from cgnet._libbpf import lib


class ProgramStats(NamedTuple):
    """What the kernel counted for a program while ``kernel.bpf_stats_enabled`` was on."""

    run_count: int
    run_time_ns: int


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info (linux/bpf.h): its fields have kept their places since 5.1."""

    _fields_ = (("before", ctypes.c_uint8 * 192), ("run_time_ns", ctypes.c_uint64),
                ("run_count", ctypes.c_uint64))  # fmt: skip


def stats_of(fd: int) -> ProgramStats:
    """Return the run count and time of the program that a descriptor refers to."""
    info = _ProgramInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), size)
    return ProgramStats(info.run_count, info.run_time_ns)
