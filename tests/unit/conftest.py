# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the unit tests: nothing here needs root or loads a program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from records import ACCEPTED, fixed_clock

from cgnet import features
from cgnet._libbpf import lib
from cgnet.errors import NotPermittedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgnet.events import Clock

ROOT = Path(__file__).resolve().parents[2]

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@pytest.fixture
def clock() -> Clock:
    return fixed_clock()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def built_object() -> Path:
    path = ROOT / "src/cgnet/_bpf/connect.bpf.o"
    assert path.exists(), "run `make bpf` first"
    return path


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a run with status 3 where it would begin to load programs."""

    def refuse() -> None:
        raise NotPermittedError(ACCEPTED)

    monkeypatch.setattr(features, "require_capabilities", refuse)


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
