# SPDX-License-Identifier: BSD-2-Clause
"""The objects for arm64 beside the BTF of arm64 kernels: does every relocation that is reached resolve?

libbpf puts an invalid instruction where one doesn't, and the verifier of this kernel refuses a program
that may get to it. What it thinks of the rest is the same on every architecture. Needs root.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from apt import ROOT
from kernels import KERNELS, MissingKernelError, fetch_btf

from cgnet.errors import LibbpfError
from cgnet.kernel.variants import TRANSPORT
from cgnet.loader import Object

if TYPE_CHECKING:
    from pathlib import Path


OBJECTS = ROOT / "build/bpf/arm64"
UNUSED = TRANSPORT.variants[0].unused_maps
KINDS = {"raw_tp", "kprobe", "kretprobe"}


def load(path: Path, btf: Path) -> int:
    """Load the programs that are for any kernel; return how many. Raises LibbpfError."""
    with Object(path, btf) as obj:
        names = {each.name for each in obj.programs if each.hook in KINDS}
        obj.keep(names, set(UNUSED))
        obj.load()
        return len(names)


def main() -> int:
    failed = 0
    for kernel in KERNELS:
        try:
            btf = fetch_btf(kernel, "arm64")
        except MissingKernelError as error:
            print(f"arm64 {kernel.name}: {error}")
            failed += 1
            continue
        for path in sorted(OBJECTS.glob("*.raw.bpf.o")):
            try:
                print(f"arm64 {kernel.name}: {path.name}: {load(path, btf)} programs")
            except LibbpfError as error:
                print(f"arm64 {kernel.name}: {path.name}: {error}\n{error.log}")
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
