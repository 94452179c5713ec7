# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's own round-trip times: rtt_callback.bpf.c compiled, attached and read."""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import ROOT, need
from kernel_maps import libbpf

from cgnet.kernel._libbpf import lib
from cgnet.loader import Object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = ROOT / "tests/kernel/support/rtt_callback.bpf.c"
KEY = struct.Struct("=IIII")
SOCK_OPS = 3  # enum bpf_attach_type: BPF_CGROUP_SOCK_OPS
Measured = tuple[int, int, int]  # local port, remote port, µs


def build(directory: Path, source: Path = SOURCE) -> Path:
    """Compile the object like those of bpf/ in the Makefile; return its path."""
    make = [need("make"), "-s", "-C", str(ROOT), "-f", "-", "flags"]
    rule = 'include Makefile\nflags:\n\t@echo "$(BPF_CLANG)"\n'
    flags = subprocess.run(make, input=rule, check=True, capture_output=True, text=True).stdout
    target = directory / source.with_suffix(".o").name
    command = [*shlex.split(flags), "-Ibpf", "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True, cwd=ROOT)
    return target


class Callback:
    """The attached program."""

    def __init__(self, obj: Object) -> None:
        self._obj = obj

    def samples(self) -> Counter[Measured]:
        """Return the samples since the start."""
        measured = self._obj.map("measured")
        found: Counter[Measured] = Counter()
        for key in list(measured.keys(KEY.size)):
            local, remote, rtt_us, _ = KEY.unpack(key)
            value = measured.lookup(key, 8)
            found[local, remote, rtt_us] = int.from_bytes(value, sys.byteorder)
        return found


@contextmanager
def measuring(path: Path, cgroup: Path) -> Iterator[Callback]:
    """Measure connections of a v2 cgroup, both connected and accepted."""
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        with Object(path) as obj:
            obj.load()
            (program,) = obj.programs
            fd = lib.bpf_program__fd(program.handle)
            link = libbpf.bpf_link_create(fd, directory, SOCK_OPS, None)
            assert link >= 0, os.strerror(ctypes.get_errno())
            try:
                yield Callback(obj)
            finally:
                os.close(link)
    finally:
        os.close(directory)
