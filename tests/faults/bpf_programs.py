# SPDX-License-Identifier: BSD-2-Clause
"""BPF programs at a cgroup or a device that refuse everything, by bpf(2) itself."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cgnet.owners.netns import inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from two_containers import Place

SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PROG_LOAD, PROG_ATTACH, PROG_DETACH, LINK_CREATE = 5, 8, 9, 28
SCHED_CLS, XDP, CGROUP_SKB, CGROUP_SOCK_ADDR = 3, 6, 8, 18  # enum bpf_prog_type
INGRESS, EGRESS, CONNECT4, CONNECT6 = 0, 1, 10, 11  # enum bpf_attach_type
AT_XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47
XDP_DROP, TC_ACT_SHOT = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_libc.syscall(SYS_BPF, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


def _load(program_type: int, attach_type: int, verdict: int) -> int:
    """Load a program that returns a number."""
    instructions = struct.pack("<BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0)
    code = ctypes.create_string_buffer(instructions)
    text = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "<IIQQIIQII16sII", program_type, 2, ctypes.addressof(code), ctypes.addressof(text),
        0, 0, 0, 0, 0, b"deny", 0, attach_type,
    )  # fmt: skip
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with suppress(ValueError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)  # before 5.11 programs count
    return _bpf(PROG_LOAD, load)


@contextmanager
def _attached(cgroup: Path, program_type: int, attach_type: int) -> Iterator[None]:
    program = _load(program_type, attach_type, 0)
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


@contextmanager
def dropping_at(place: Place, device: str, hook: str) -> Iterator[None]:
    """Drop each packet at a device: "xdp", or "ingress" or "egress" of traffic control."""
    kind, attach_type, verdict = {
        "xdp": (XDP, AT_XDP, XDP_DROP),
        "ingress": (SCHED_CLS, TCX_INGRESS, TC_ACT_SHOT),
        "egress": (SCHED_CLS, TCX_EGRESS, TC_ACT_SHOT),
    }[hook]
    program = _load(kind, 0, verdict)

    def attach() -> int:
        index = socket.if_nametoindex(device)
        return _bpf(LINK_CREATE, struct.pack("<IIII", program, index, attach_type, 0))

    try:
        link = inside(place.path, attach)
        assert link, f"no program at {device}"
        try:
            yield
        finally:
            os.close(link)
    finally:
        os.close(program)
