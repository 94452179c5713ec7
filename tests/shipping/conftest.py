# SPDX-License-Identifier: BSD-2-Clause
"""Tests of what is shipped: run as root, by `make test-wheel` and `make test-rpm`, which build it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "build/dist"


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """Return the one file of build/dist, or a folder below it, that a pattern names."""

    def find(pattern: str) -> Path:
        (found,) = DIST.glob(pattern)
        return found

    return find


@pytest.fixture(scope="session")
def run() -> Callable[..., str]:
    """Run a command that has to succeed; return what it printed."""

    def execute(*command: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    return execute
