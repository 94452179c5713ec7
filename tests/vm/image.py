# SPDX-License-Identifier: BSD-2-Clause
"""Boot any kernel for x86-64, run the tests of commands in it: `make test-kernel-image KERNEL=IMAGE`.

It needs virtio (PCI, console), 9p or virtiofs, and tmpfs: built in, or as MODULES. It takes a guest
for each layout of cgroups. The table is printed, and written nowhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
from pathlib import Path

import boot
from apt import BUILD, run
from kernels import MissingKernelError, Unpacked
from run import results_of, try_one
from subset import LAYOUTS, PARTS
from table import HEADER, lines_of, rows

# Documentation/arch/x86/boot.rst: the header's mark, and where the version's place is, less 0x200.
HEADER_MARK, VERSION_AT, SETUP = slice(0x202, 0x206), 0x20E, 0x200


def release_of(image: bytes) -> str:
    """Return what `uname -r` will say. Raises MissingKernelError for what isn't a bzImage."""
    if image[HEADER_MARK] != b"HdrS":
        raise MissingKernelError("no bzImage, as arch/x86/boot/bzImage or /boot/vmlinuz-* is")
    (place,) = struct.unpack_from("<H", image, VERSION_AT)
    words = image[place + SETUP :].partition(b"\0")[0].split()
    if not place or not words:
        raise MissingKernelError("this image doesn't tell its version")
    return words[0].decode()


def unpack(path: Path, modules: Path | None) -> Unpacked:
    """Lay out an image as a package would. Raises MissingKernelError, or OSError."""
    release = release_of(path.read_bytes())
    place = BUILD / "images" / release
    shutil.rmtree(place, ignore_errors=True)
    (place / "boot").mkdir(parents=True)
    image = place / f"boot/vmlinuz-{release}"
    shutil.copy(path, image)
    there = place / f"lib/modules/{release}"
    if modules:
        shutil.copytree(modules, there, symlinks=True)
    else:
        there.mkdir(parents=True)
    run("depmod", "-b", place, release)
    return Unpacked(release, image, there)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--modules", type=Path, help="its /lib/modules/RELEASE, if it needs any")
    parser.add_argument("--layout", action="append", choices=LAYOUTS, help="all by default")
    parser.add_argument("--part", choices=PARTS, default=next(iter(PARTS)))
    parser.add_argument(
        "--name", default="image", help="what results are called in build/vm/shared"
    )
    given = parser.parse_args()
    try:
        kernel = unpack(given.image, given.modules)
    except (MissingKernelError, OSError) as error:
        print(f"{given.image}: {error}", file=sys.stderr)
        return 1
    boot.prepare()
    wrong, told = [], []
    for layout in given.layout or LAYOUTS:
        wrong.append(try_one(given.name, kernel, layout, given.part))
        told += rows(json.loads(results_of(given.name, layout, given.part).read_text()))
    print(lines_of(HEADER, told))
    said = [each for each in wrong if each]
    print(*said, sep="\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
