# SPDX-License-Identifier: BSD-2-Clause
"""The objects are the same bytes from every folder and at every time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = {path.name.partition(".")[0] for path in ROOT.glob("bpf/*.bpf.c")} - {"probe"}
RAW_ALONE, TYPED_ALONE = {"sockets"}, {"session"}
TYPED = {name for name in SOURCES - RAW_ALONE if not name.endswith("_functions")}
RAW = SOURCES - TYPED_ALONE
NAMES = {"probe.bpf.o"} | {
    f"{name}.{way}.bpf.o" for way, names in (("typed", TYPED), ("raw", RAW)) for name in names
}


def built_in(folder: Path, *arguments: str) -> dict[str, bytes]:
    for name in ("bpf", "packaging", "Makefile"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    subprocess.run(["make", "-s", "-C", folder, "bpf", *arguments], check=True)
    return {path.name: path.read_bytes() for path in folder.rglob("*.bpf.o")}


def test_objects_built_twice_are_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "another" / "place"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = map(built_in, folders)
    assert set(first) == NAMES
    assert first == second


def test_objects_name_no_folder_of_the_build(tmp_path: Path) -> None:
    assert not [name for name, data in built_in(tmp_path).items() if bytes(tmp_path) in data]


def test_objects_build_for_arm64_too(tmp_path: Path) -> None:
    assert set(built_in(tmp_path, "ARCH=arm64")) == NAMES
