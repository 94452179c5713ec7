# SPDX-License-Identifier: BSD-2-Clause
"""The wheel, in an empty environment on a host without libbpf and compiler, and the sdist."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from capturing import assert_sees_a_connection

from cgnet import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

HIDE = str(Path(__file__).with_name("hide.sh"))
WHEEL, SDIST = f"cgnet-{__version__}-*.whl", f"cgnet-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path], run: Callable[..., str]
) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", built(WHEEL))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["clang", "--version"],
        ["/usr/bin/python3", "-c", "import ctypes; ctypes.CDLL('libbpf.so.1')"],
        ["/usr/bin/python3", "-c", "import ctypes; ctypes.CDLL('libelf.so.1')"],
        ["test", "-e", "/usr/include/stdio.h"],
    ],
)
def test_what_is_hidden_is_not_there(command: list[str]) -> None:
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert subprocess.run([HIDE, *command], capture_output=True).returncode != 0


def test_the_installed_wheel_sees_a_connection(environment: Path) -> None:
    assert_sees_a_connection([HIDE, str(environment / "bin/cgnet")])


def test_its_libbpf_is_the_one_in_use(environment: Path, run: Callable[..., str]) -> None:
    told = json.loads(run(HIDE, environment / "bin/cgnet", "doctor", "-o", "json"))
    (own,) = environment.glob("lib/python3*/site-packages/cgnet/_bpf/libbpf.so.1")
    assert told["libbpf"]["path"] == str(own)


def test_the_notices_of_what_is_bundled_are_there(environment: Path) -> None:
    (folder,) = environment.glob("lib/python3*/site-packages/cgnet/_bpf/licences")
    readme = (folder / "README.txt").read_text(encoding="utf-8")
    for name in ("libbpf", "libelf", "zlib"):
        assert name in readme
        assert list(folder.glob(f"{name}.*"))


def test_the_sdist_builds_the_same_wheel(
    tmp_path: Path, built: Callable[[str], Path], run: Callable[..., str]
) -> None:
    run("tar", "-C", tmp_path, "-xf", built(SDIST))
    folder = tmp_path / f"cgnet-{__version__}"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, folder)
    (made,) = tmp_path.glob(WHEEL)
    assert made.name == built(WHEEL).name
    first, second = (hashlib.sha256(each.read_bytes()).digest() for each in (made, built(WHEEL)))
    assert first == second
