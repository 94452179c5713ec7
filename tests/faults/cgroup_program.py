# SPDX-License-Identifier: BSD-2-Clause
"""BPF programs at a cgroup that refuse everything, by bpf(2) itself."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
CGROUP_SKB, CGROUP_SOCK_ADDR = 8, 18  # enum bpf_prog_type
INGRESS, EGRESS, CONNECT4, CONNECT6 = 0, 1, 10, 11  # enum bpf_attach_type
REFUSE = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # return 0
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_libc.syscall(SYS_BPF, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


@contextmanager
def _attached(cgroup: Path, program_type: int, attach_type: int) -> Iterator[None]:
    code = ctypes.create_string_buffer(REFUSE)
    text = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "<IIQQIIQII16sII", program_type, 2, ctypes.addressof(code), ctypes.addressof(text),
        0, 0, 0, 0, 0, b"deny", 0, attach_type,
    )  # fmt: skip
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with suppress(ValueError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)  # before 5.11 programs count
    program = _bpf(PROG_LOAD, load)
    group = os.open(cgroup, os.O_RDONLY)
    attach = struct.pack("<IIII", group, program, attach_type, 0)
    try:
        _bpf(PROG_ATTACH, attach)
        try:
            yield
        finally:
            _bpf(PROG_DETACH, attach)
    finally:
        os.close(group)
        os.close(program)


def refusing_packets(cgroup: Path, direction: str) -> contextmanager[None]:
    """Drop each packet at a cgroup v2, "ingress" or "egress"."""
    return _attached(cgroup, CGROUP_SKB, {"ingress": INGRESS, "egress": EGRESS}[direction])


def refusing_connect(cgroup: Path, family: int) -> contextmanager[None]:
    """Have connect() fail with EPERM."""
    return _attached(cgroup, CGROUP_SOCK_ADDR, {4: CONNECT4, 6: CONNECT6}[family])
