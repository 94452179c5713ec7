# SPDX-License-Identifier: BSD-2-Clause
"""io_uring by bare system calls (linux/io_uring.h): a connect(), and a file that it keeps."""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct

IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
IORING_REGISTER_FILES = 2
IORING_OP_CONNECT = 16
IORING_ENTER_GETEVENTS, IORING_ENTER_SQ_WAKEUP = 1, 2
IORING_SETUP_SQPOLL = 2
IOSQE_ASYNC = 1 << 4
IORING_OFF_CQ_RING, IORING_OFF_SQES = 0x8000000, 0x10000000
PARAMS = struct.Struct("10I")  # io_uring_params up to the offsets
OFFSETS = struct.Struct("10I")
ENTRIES = 4


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"syscall {number}")
    return result


def keep_by_ring(fd: int) -> int:
    """Register a file with a new ring, which keeps it when it is closed; return the ring."""
    ring = _syscall(IO_URING_SETUP, ENTRIES, ctypes.create_string_buffer(120))
    _syscall(IO_URING_REGISTER, ring, IORING_REGISTER_FILES, struct.pack("i", fd), 1)
    return ring


def connect_by_ring(fd: int, address: str, port: int, flags: int) -> int:
    """Connect, and return the result; ``flags`` is 0, 16 (IOSQE_ASYNC) or 2 (SQPOLL thread)."""
    setup = IORING_SETUP_SQPOLL if flags == IORING_SETUP_SQPOLL else 0
    params = ctypes.create_string_buffer(120)
    PARAMS.pack_into(params, 0, 0, 0, setup, 0, 10, 0, 0, 0, 0, 0)
    ring = _syscall(IO_URING_SETUP, ENTRIES, params)
    sq_off = OFFSETS.unpack_from(params, 40)
    cq_off = OFFSETS.unpack_from(params, 80)
    sq = mmap.mmap(ring, sq_off[6] + ENTRIES * 4, offset=0)
    cq = mmap.mmap(ring, cq_off[5] + 2 * ENTRIES * 16, offset=IORING_OFF_CQ_RING)
    sqes = mmap.mmap(ring, ENTRIES * 64, offset=IORING_OFF_SQES)
    target = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET)
        + struct.pack("!H", port)
        + socket.inet_aton(address)
        + bytes(8)
    )
    sqe_flags = flags if flags == IOSQE_ASYNC else 0
    # opcode, flags, ioprio, fd, off (the address's length), addr, …
    struct.pack_into(
        "=BBHiQQ", sqes, 0, IORING_OP_CONNECT, sqe_flags, 0, fd, 16, ctypes.addressof(target)
    )
    struct.pack_into("I", sq, sq_off[6], 0)  # array[0] = sqe 0
    struct.pack_into("I", sq, sq_off[1], 1)  # tail
    enter = IORING_ENTER_GETEVENTS | (IORING_ENTER_SQ_WAKEUP if setup else 0)
    _syscall(IO_URING_ENTER, ring, 1, 1, enter, None, 0)
    return int(struct.unpack_from("=Qi", cq, cq_off[5])[1])
