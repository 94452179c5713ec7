# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel tells of BPF programs: what it counts for each, and which ones a cgroup has."""

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

# linux/bpf.h: enum bpf_attach_type, and BPF_F_QUERY_EFFECTIVE: with those of the cgroups above
INGRESS, EGRESS = 0, 1
EFFECTIVE = 1
MAX_PROGRAMS = 64  # of one cgroup


class ProgramStats(NamedTuple):
    """What the kernel counted for a program while ``kernel.bpf_stats_enabled`` was on."""

    run_count: int
    run_time_ns: int


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info (linux/bpf.h): its fields have kept their places since 5.1."""

    _fields_ = (("before", ctypes.c_uint8 * 64), ("name", ctypes.c_char * 16),
                ("between", ctypes.c_uint8 * 112), ("run_time_ns", ctypes.c_uint64),
                ("run_count", ctypes.c_uint64))  # fmt: skip


def _info_of(fd: int) -> _ProgramInfo:
    info = _ProgramInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), size)
    return info


def name_of(number: int) -> str:
    """Return the name of the program with an id; "" if it has none, or is gone."""
    with suppress(LibbpfError):
        fd = lib.bpf_prog_get_fd_by_id(number)
        try:
            return bytes(_info_of(fd).name).decode(errors="backslashreplace")
        finally:
            os.close(fd)
    return ""


def programs_of_cgroup(cgroup: Path, kind: int) -> dict[int, str] | None:
    """Return the programs that look at packets of a cgroup of v2, by id; None if that can't be told.

    ``kind`` is INGRESS or EGRESS. Those of the cgroups above are among them.
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
    """Return the run count and time of the program that a descriptor refers to."""
    info = _info_of(fd)
    return ProgramStats(info.run_count, info.run_time_ns)


def log_costs(obj: Object) -> None:
    """With -v: what an object's programs cost, if the kernel measured it."""
    for program in obj.attached():
        stats = program.stats()
        if stats.run_count:
            each = stats.run_time_ns / stats.run_count
            log.info("%s: %d runs, %.0f ns each", program.name, stats.run_count, each)
