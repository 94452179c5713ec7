# SPDX-License-Identifier: BSD-2-Clause
"""Perf events for classic tracepoints, even if tracefs isn't mounted.

libbpf finds a tracepoint's id only in a mounted tracefs. Mounting one would change the host; here
it gets a detached mount, visible to nobody else, with the calls of Linux kernel commit 93766fbd2696
"vfs: syscall: Add fsmount() to create a mount for a superblock" (in v5.2).
"""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cgnet.errors import CgnetError, NotPermittedError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
# asm-generic/unistd.h, the same on every architecture
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
FSCONFIG_CMD_CREATE = 6
SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
PERF_TYPE_TRACEPOINT = 2
PERF_FLAG_FD_CLOEXEC = 8


class _PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr (linux/perf_event.h), its first published size."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    )


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


@contextmanager
def _detached_mount() -> Iterator[Path]:
    with ExitStack() as fds:
        context = _syscall(SYS_FSOPEN, b"tracefs", 0)
        fds.callback(os.close, context)
        _syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        mounted = _syscall(SYS_FSMOUNT, context, 0, 0)
        fds.callback(os.close, mounted)
        yield Path(f"/proc/self/fd/{mounted}")


@contextmanager
def directory() -> Iterator[Path]:
    """Yield the directory of tracefs: an existing mount, else a detached one. Raises OSError."""
    mounted = next((each for each in MOUNTS if (each / "events").exists()), None)
    with nullcontext(mounted) if mounted else _detached_mount() as found:
        yield found


def tracepoint_id(name: str) -> int:
    """Return the id of ``category/event``. Raises UnsupportedError, NotPermittedError."""
    try:
        with directory() as tracefs:
            return int((tracefs / "events" / name / "id").read_text())
    except PermissionError as error:
        raise NotPermittedError(
            f"reading the id of the tracepoint {name} needs CAP_SYS_ADMIN, and CAP_DAC_READ_SEARCH "
            "for who isn't root: run it as root"
        ) from error
    except OSError as error:
        raise UnsupportedError(f"no tracepoint {name} in this kernel: {error.strerror}") from error


def open_tracepoint(name: str) -> int:
    """Open a perf event for a tracepoint and one BPF program; return its fd. Raises CgnetError."""
    number = SYS_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise UnsupportedError(f"tracepoints aren't supported on {platform.machine()}")
    attr = _PerfEventAttr(
        PERF_TYPE_TRACEPOINT, ctypes.sizeof(_PerfEventAttr), tracepoint_id(name), sample_period=1
    )
    try:
        # pid -1 and one CPU: a tracepoint's programs run on all CPUs, whatever the event's CPU is.
        return _syscall(number, ctypes.byref(attr), -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
    except OSError as error:
        raise CgnetError(f"perf_event_open on {name}: {error.strerror}") from error
