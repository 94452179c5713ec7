# SPDX-License-Identifier: BSD-2-Clause
"""Debian's cloud kernels, from its packages: fetched and unpacked, never installed."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from apt import BUILD, MIRROR, SECURITY, Apt, Sources, last_words, run

if TYPE_CHECKING:
    from pathlib import Path

META = "linux-image-cloud-{arch}"
# What a kernel is made of. sid cuts it into three packages.
PARTS = re.compile(r"linux-(image|binary|modules|base)-\d\S*-cloud-\w+")
BTF_MAGIC = b"\x9f\xeb\x01\x00" + struct.pack("<I", 24)  # linux/btf.h: struct btf_header
ZBOOT = b"zimg"  # at byte 4: an image that unpacks itself, with the payload's place and size behind


class Kernel(NamedTuple):
    """A line of kernels, by Debian's release that has it."""

    name: str
    sources: Sources


KERNELS = (
    Kernel("5.10", ((MIRROR, "bullseye"), (SECURITY, "bullseye-security"))),
    Kernel("6.1", ((MIRROR, "bookworm"), (SECURITY, "bookworm-security"))),
    Kernel("6.12", ((MIRROR, "trixie"), (SECURITY, "trixie-security"))),
    Kernel("7.x", ((MIRROR, "sid"),)),
)


class Unpacked(NamedTuple):
    """A kernel that can be booted."""

    release: str
    image: Path
    modules: Path


class MissingKernelError(Exception):
    """The mirror doesn't have it, or no mirror answers."""


def fetch(kernel: Kernel, arch: str = "amd64") -> Unpacked:
    """Return a kernel, from an earlier run if it is there. Raises MissingKernelError."""
    place = BUILD / "kernels" / f"{kernel.name}-{arch}"
    if not (place / "ready").exists():
        try:
            _fetch(kernel, arch, place)
        except MissingKernelError:
            if len(kernel.sources) == 1:
                raise
            # The newest may be listed, and not be there; the release itself keeps its own.
            _fetch(kernel._replace(sources=kernel.sources[:1]), arch, place)
    modules = max((place / "lib/modules").iterdir())
    images = (place / f"boot/vmlinuz-{modules.name}", modules / "vmlinuz")  # the latter in sid
    image = next((each for each in images if each.exists()), None)
    if image is None:
        raise MissingKernelError(f"no kernel image in {place}")
    return Unpacked(modules.name, image, modules)


def fetch_btf(kernel: Kernel, arch: str) -> Path:
    """Return the BTF of another architecture's kernel. Raises MissingKernelError."""
    place = BUILD / "btf" / f"{kernel.name}-{arch}.btf"
    if not place.exists():
        image = fetch(kernel, arch).image.read_bytes()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(cut_btf(image))
    return place


def cut_btf(image: bytes) -> bytes:
    """Find BTF in the image of a kernel, without running it. Raises MissingKernelError."""
    if image[4:8] == ZBOOT:
        start, size = struct.unpack_from("<II", image, 8)
        image = image[start : start + size]
    if image.startswith(b"\x1f\x8b"):
        image = gzip.decompress(image)
    at = image.find(BTF_MAGIC)
    if at < 0:
        raise MissingKernelError("this kernel has no BTF")
    length, types, types_size, strings, strings_size = struct.unpack_from("<IIIII", image, at + 4)
    end = max(types + types_size, strings + strings_size)
    return image[at : at + length + end]


def _fetch(kernel: Kernel, arch: str, place: Path) -> None:
    meta = META.format(arch=arch)
    try:
        apt = Apt(f"{kernel.name}-{arch}", kernel.sources, arch)
        apt.update()
        found = packages(apt, meta)
        if not found:
            raise MissingKernelError(f"{kernel.sources[0][1]} has no {meta}")
        apt.unpack(found, place)
    except subprocess.CalledProcessError as error:
        raise MissingKernelError(last_words(error)) from error
    if not (place / "lib").exists():  # of a package whose files are below /usr
        (place / "lib").symlink_to("usr/lib")
    elif not (place / "lib/modules").exists():
        (place / "lib/modules").symlink_to("../usr/lib/modules")
    for modules in (place / "lib/modules").iterdir():
        run("depmod", "-b", place, modules.name)
    (place / "ready").touch()


def packages(apt: Apt, meta: str) -> list[str]:
    """Return those of the newest kernel, found from the one that stands for it."""
    found: set[str] = set()
    wanted = {meta}
    while wanted:
        new = {name for name in apt.depends(wanted.pop()) if PARTS.fullmatch(name)} - found
        found |= new
        wanted |= new
    return sorted(found)
