# SPDX-License-Identifier: BSD-2-Clause
"""Kernels for guests: the packages that one is made of, and the BTF in an image."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import apt
import pytest
from guest import why
from image import SETUP, VERSION_AT, release_of
from kernels import KERNELS, MissingKernelError, cut_btf, packages

if TYPE_CHECKING:
    from pathlib import Path

TYPES, STRINGS = b"t" * 12, b"\0name\0"
BTF = (
    struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(TYPES), len(TYPES), len(STRINGS))
    + TYPES
    + STRINGS
)
IMAGE = b"MZ" + bytes(61) + BTF + b"what comes behind"


def test_btf_is_cut_out_of_an_image() -> None:
    assert cut_btf(IMAGE) == BTF


def test_btf_is_cut_out_of_a_compressed_image() -> None:
    assert cut_btf(gzip.compress(IMAGE)) == BTF


def test_btf_is_cut_out_of_an_image_that_unpacks_itself() -> None:
    packed = gzip.compress(IMAGE)
    head = b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed))
    assert cut_btf(head.ljust(64, b"\0") + packed + b"behind") == BTF


def test_an_image_without_btf_is_told() -> None:
    with pytest.raises(MissingKernelError, match="no BTF"):
        cut_btf(bytes(4096))


DEPENDS = {
    "linux-image-cloud-amd64": "linux-image-7.2.13+deb14-cloud-amd64",
    "linux-image-7.2.13+deb14-cloud-amd64": "linux-binary-7.2.13+deb14-cloud-amd64 "
    "linux-modules-7.2.13+deb14-cloud-amd64 initramfs-tools",
    "linux-binary-7.2.13+deb14-cloud-amd64": "linux-base-7.2.13+deb14-cloud-amd64 linux-base",
}


def test_a_kernel_is_all_packages_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(*command: object, **_: object) -> str:
        names = DEPENDS.get(str(command[-1]), "").split()
        return "".join(f"  Depends: {name}\n" for name in names)

    monkeypatch.setattr(apt, "BUILD", tmp_path)
    monkeypatch.setattr(apt, "run", say)
    found = apt.Apt("7.x-amd64", KERNELS[-1].sources, "amd64")
    parts = ("image", "binary", "modules", "base")
    assert packages(found, "linux-image-cloud-amd64") == sorted(
        f"linux-{part}-7.2.13+deb14-cloud-amd64" for part in parts
    )
    assert "/etc/apt" not in " ".join(found.options)
    assert "sid main" in (found.place / "sources.list").read_text()


class Report:
    outcome = "failed"
    longrepr = "x.py:3: in test\n    assert rows\nE   AssertionError: no rows\nE   assert []\n"


def test_a_failures_reason_is_what_pytest_marks() -> None:
    assert why(Report()) == "AssertionError: no rows | assert []"  # type: ignore[arg-type]


def bz_image(version: bytes) -> bytes:
    """The header of an image, and its version behind it."""
    head = bytearray(1024)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, VERSION_AT, 1024 - SETUP)
    return bytes(head) + version + b"\0the rest"


def test_an_image_tells_its_release() -> None:
    image = bz_image(b"5.4.119-1-tlinux4 (me@here) #1 SMP")
    assert release_of(image) == "5.4.119-1-tlinux4"


@pytest.mark.parametrize("image", [b"", b"\x7fELF" + bytes(4096), bz_image(b"")], ids=len)
def test_what_is_no_image_is_told(image: bytes) -> None:
    with pytest.raises(MissingKernelError, match=r"bzImage|version"):
        release_of(image)
