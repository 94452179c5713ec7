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
WHEEL, SDIST = f"cgnet_ebpf-{__version__}-*.whl", f"cgnet_ebpf-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path], run: Callable[..., str]
) -> Path:
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", built(WHEEL))
    return folder


def links_zlib(python: Path) -> bool:
    """Whether an interpreter brings libz, which would give a library symbols that it lacks."""
    code = "print('libz.so' in open('/proc/self/maps').read())"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    return done.stdout != "False\n"


def pythons() -> list[Path]:
    """Return the interpreters here that the wheel takes, one of each version."""
    found = [
        *Path("/root/.pyenv/versions").glob("3.*/bin/python3"),
        *Path("/usr/bin").glob("python3.??"),
    ]
    found += Path("/usr/local/bin").glob("python3.??")
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    return [
        each
        for each in found
        if subprocess.run([each, "-c", code], capture_output=True).returncode == 0
    ]


OTHERS = [each for each in pythons() if not links_zlib(each)]


def test_its_libbpf_finds_all_symbols_in_the_c_library(environment: Path) -> None:
    """The loader binds all of them, with nothing else around; Debian's Python has libz."""
    (own,) = environment.glob("lib/python3*/site-packages/cgnet/_bpf/libbpf.so.1")
    done = subprocess.run(["ldd", "-r", own], capture_output=True, text=True)
    assert (done.returncode, "undefined" in done.stdout + done.stderr) == (0, False), done
    names = {line.split()[0].rpartition("/")[2] for line in done.stdout.splitlines()}
    assert {name for name in names if not name.startswith(("linux-vdso", "ld-linux"))} == {
        "libc.so.6"
    }


@pytest.mark.skipif(not OTHERS, reason="each Python here links libz; ldd -r stands for the others")
@pytest.mark.parametrize("python", OTHERS, ids=str)
def test_it_runs_in_a_python_that_has_no_libz(
    tmp_path: Path, built: Callable[[str], Path], run: Callable[..., str], python: Path
) -> None:
    folder = tmp_path / "environment"
    run(python, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", built(WHEEL))
    assert_sees_a_connection([HIDE, str(folder / "bin/cgnet")])


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
    folder = tmp_path / f"cgnet_ebpf-{__version__}"
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, folder)
    (made,) = tmp_path.glob(WHEEL)
    assert made.name == built(WHEEL).name
    first, second = (hashlib.sha256(each.read_bytes()).digest() for each in (made, built(WHEEL)))
    assert first == second
