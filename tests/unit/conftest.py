# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the unit tests: nothing here needs root or loads a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import FakeKernel
from hypothesis import settings
from records import ACCEPTED, fixed_clock

from cgnet.errors import NotPermittedError
from cgnet.filters.cgroup import CgroupFilter
from cgnet.kernel import variants
from cgnet.kernel._libbpf import lib
from cgnet.owners import cgroups
from cgnet.owners.cgroups import Hierarchy
from cgnet.run import signal as run_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgnet.records.schema import Clock

ROOT = Path(__file__).resolve().parents[2]

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture
def clock() -> Clock:
    return fixed_clock()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals do after a test what they did before: a run that one ended ignores further ones."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def built_object() -> Path:
    path = ROOT / "src/cgnet/_bpf/connect.typed.bpf.o"
    assert path.exists(), "run `make bpf` first"
    return path


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Hierarchy]:
    """Six made-up hierarchies, the memory one first; each has the groups /a, /a/b and /c."""
    found = []
    names = ("memory", "cpu", "pids", "blkio", "freezer", "v2")
    for number, name in enumerate(names):
        (tmp_path / name / "a/b").mkdir(parents=True)
        (tmp_path / name / "c").mkdir()
        found.append(Hierarchy(number + 1, name, (name,), tmp_path / name, "/"))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    monkeypatch.setattr(cgroups, "cgroup_id", lambda path: path.stat().st_ino)
    return found


@pytest.fixture
def made(mounted: list[Hierarchy]) -> Callable[..., CgroupFilter]:
    """Make the filter of some --cgroup, with paths inside the memory hierarchy, whose id is 1."""
    return lambda *values: CgroupFilter(values, mounted, mounted[0])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """Have runs start with a made-up kernel side."""
    found = FakeKernel()
    monkeypatch.setattr(run_signal, "Launch", found.launch)
    return found


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a run with status 3 where it would begin to load programs."""

    def refuse() -> None:
        raise NotPermittedError(ACCEPTED)

    monkeypatch.setattr(variants, "require_capabilities", refuse)


@pytest.fixture
def cgnet() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed command in a process of its own."""
    command = Path(sys.executable).parent / "cgnet"

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
        )

    return run


@pytest.fixture
def python() -> Callable[[str], Any]:
    """Run lines of Python in a process of its own."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.fixture
def libbpf_path() -> Path:
    """Where the library lies that the dynamic linker found."""
    assert lib.libbpf_version_string()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return Path(next(line.split()[-1] for line in maps if "/libbpf.so" in line))
