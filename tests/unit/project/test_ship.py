# SPDX-License-Identifier: BSD-2-Clause
"""The tools that make packages."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
# Without apt-get: as on a system of RPMs.
TOOLS = (
    "bash", "sh", "dirname", "realpath", "mkdir", "mktemp", "rm", "mv", "cat", "sha256sum",
)  # fmt: skip
NAME, DATA = "it_1.0.orig.tar.gz", b"sources"


def check_wheel() -> Any:
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools/check_wheel.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def library(folder: Path, code: str) -> Path:
    made = folder / "lib.so"
    command = ["clang", "-shared", "-fPIC", "-x", "c", "-", "-o", made]
    subprocess.run(command, input=code, text=True, check=True)
    return made


def test_symbols_that_the_c_library_lacks_are_found(tmp_path: Path) -> None:
    code = "char *gzgets(void *, char *, int); int puts(const char *); "
    code += "int f(void) { return puts(gzgets(0, 0, 0)); }"
    assert check_wheel().foreign_symbols(library(tmp_path, code)) == ["gzgets"]


def test_symbols_of_the_c_library_and_weak_ones_are_none(tmp_path: Path) -> None:
    code = "int puts(const char *); extern int w(void) __attribute__((weak)); "
    code += 'int f(void) { return puts("") + (w ? w() : 0); }'
    assert check_wheel().foreign_symbols(library(tmp_path, code)) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a folder on the loopback; yields its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / NAME).write_bytes(DATA)
    (folder / "other").write_bytes(b"another version")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.fixture
def sources(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run tools/sources.sh where there is no apt-get, with the addresses of one archive."""
    path = tmp_path / "bin"
    path.mkdir()
    for each in TOOLS:
        found = shutil.which(each)
        assert found, each
        (path / each).symlink_to(found)

    def run(*addresses: str) -> subprocess.CompletedProcess[str]:
        sums = tmp_path / "sums"
        lines = [f"# {each}" for each in ("what it is", *addresses)]
        sums.write_text("\n".join([*lines, f"{hashlib.sha256(DATA).hexdigest()}  {NAME}", ""]))
        return subprocess.run(
            [ROOT / "tools/sources.sh", tmp_path / "got", sums],
            capture_output=True,
            text=True,
            env={
                "PATH": str(path),
                "PYTHON": sys.executable,
                "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            },
        )

    return run


def test_sources_come_from_the_first_address_that_fits(
    sources: Callable, server: str, tmp_path: Path
) -> None:
    done = sources(
        f"{server}/none", f"{server}/other", f"{server}/{NAME}", "http://127.0.0.1:1/never"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / NAME).read_bytes() == DATA
    assert f"{server}/none: HTTP Error 404" in done.stderr
    assert f"{server}/other: not what its sum says" in done.stderr
    assert "never" not in done.stderr


def test_sources_that_are_there_are_not_got_again(sources: Callable, tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / NAME).write_bytes(DATA)
    done = sources("http://127.0.0.1:1/never")
    assert (done.returncode, done.stderr) == (0, "")


def test_sources_that_cannot_be_had_are_told_with_their_addresses(
    sources: Callable, tmp_path: Path
) -> None:
    address = "http://127.0.0.1:1/archive"
    done = sources(address)
    assert done.returncode == 1
    assert f"Put these archives into {tmp_path / 'got'}:" in done.stderr
    assert f"# {address}\n{hashlib.sha256(DATA).hexdigest()}  {NAME}" in done.stderr


def test_each_archive_has_addresses() -> None:
    addresses: list[str] = []
    for line in (ROOT / "packaging/sources.sha256").read_text(encoding="utf-8").splitlines():
        if line.startswith("# http"):
            addresses.append(line)
        elif not line.startswith("#"):
            assert len(addresses) > 1, line
            addresses = []
