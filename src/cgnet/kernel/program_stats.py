# SPDX-License-Identifier: BSD-2-Clause
"""BPF programs' statistics, and the programs attached to a cgroup, from the kernel."""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cgnet.errors import LibbpfError
from cgnet.kernel._libbpf import lib

if TYPE_CHECKING:
    from pathlib import Path

    from cgnet.loader import Object

log = logging.getLogger(__name__)

# linux/bpf.h: enum bpf_attach_type, and BPF_F_QUERY_EFFECTIVE: includes ancestors' programs
INGRESS, EGRESS = 0, 1
EFFECTIVE = 1
MAX_PROGRAMS = 64  # per cgroup


class ProgramStats(NamedTuple):
    """A program's statistics, counted while ``kernel.bpf_stats_enabled`` was on; time in ns."""

    run_count: int
    run_time_ns: int


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info (linux/bpf.h); these fields' offsets are unchanged since 5.1."""

    _fields_ = (("before", ctypes.c_uint8 * 64), ("name", ctypes.c_char * 16),
                ("between", ctypes.c_uint8 * 112), ("run_time_ns", ctypes.c_uint64),
                ("run_count", ctypes.c_uint64))  # fmt: skip


def _info_of(fd: int) -> _ProgramInfo:
    info = _ProgramInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), size)
    return info


def name_of(number: int) -> str:
    """Return a program's name by its id; "" if it has none, or is unloaded."""
    with suppress(LibbpfError):
        fd = lib.bpf_prog_get_fd_by_id(number)
        try:
            return bytes(_info_of(fd).name).decode(errors="backslashreplace")
        finally:
            os.close(fd)
    return ""


def programs_of_cgroup(cgroup: Path, kind: int) -> dict[int, str] | None:
    """Return the programs that see packets of a v2 cgroup, {id: name}; None if unknown.

    ``kind`` is INGRESS or EGRESS. Programs of the cgroup's ancestors are included.
    """
    numbers, count = (ctypes.c_uint32 * MAX_PROGRAMS)(), ctypes.c_uint32(MAX_PROGRAMS)
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        lib.bpf_prog_query(fd, kind, EFFECTIVE, None, numbers, count)
    except LibbpfError:
        return None
    finally:
        os.close(fd)
    return {number: name_of(number) for number in numbers[: count.value]}


def stats_of(fd: int) -> ProgramStats:
    """Return the run count and time of the program with a descriptor. Raises LibbpfError."""
    info = _info_of(fd)
    return ProgramStats(info.run_count, info.run_time_ns)


def log_costs(obj: Object) -> None:
    """Log the run time of an object's programs (-v), if the kernel measured it."""
    for program in obj.attached():
        stats = program.stats()
        if stats.run_count:
            each = stats.run_time_ns / stats.run_count
            log.info("%s: %d runs, %.0f ns each", program.name, stats.run_count, each)
