# SPDX-License-Identifier: BSD-2-Clause
"""Guests for arm64 that bring no results end, with the last that they said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import arm64_guests
import pytest
from kernels import Unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Machine = Callable[[str], None]

NAME, PART = "5.10", "commands"
FOUND: dict[str, Any] = {
    "release": "5.10.0", "layout": "v2", "lacks": "", "doctor": None,
    "tests": [{"test": "test_everywhere.py::test_drop", "outcome": "failed", "transport": "ring"}],
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What a machine does, as a script of the shell, in half a second at most."""
    (tmp_path / "arm64").mkdir()
    (tmp_path / "image").write_bytes(bytes(16))
    kernel = Unpacked("5.10.0", tmp_path / "image", tmp_path)
    monkeypatch.setattr(arm64_guests, "BUILD", tmp_path)
    monkeypatch.setattr(arm64_guests, "PATIENCE_S", 0.5)
    monkeypatch.setattr(arm64_guests, "fetch", lambda _kernel, _arch: kernel)
    monkeypatch.setattr(arm64_guests, "make_root", lambda *_: None)

    def make(script: str) -> None:
        monkeypatch.setattr(arm64_guests, "MACHINE", ("sh", "-c", script))

    return make


def test_one_that_hangs_is_ended(machine: Machine) -> None:
    machine("echo booting; echo here it hangs; exec sleep 60")
    rows, wrong = arm64_guests.try_one(NAME, PART)
    assert rows == []
    assert "not ended after 0.5 s" in wrong
    assert wrong.endswith("\n  booting\n  here it hangs")


@pytest.mark.parametrize("results", ["", f"{arm64_guests.BEGIN}\n\n{arm64_guests.END}\n"])
def test_one_without_results_is_told(machine: Machine, results: str) -> None:
    machine(f"echo Kernel panic; printf '{results.encode('unicode_escape').decode()}' | cat -")
    _, wrong = arm64_guests.try_one(NAME, PART)
    assert "no results" in wrong
    assert "\n  Kernel panic" in wrong


def test_failures_are_counted(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"noise\n{arm64_guests.BEGIN}\n{json.dumps(FOUND)}\n{arm64_guests.END}"
    machine(f"cat <<'X'\n{text}\nX")
    rows, wrong = arm64_guests.try_one(NAME, PART)
    assert wrong.startswith("arm64 5.10: 1 failed")
    assert "failed: test_everywhere.py::test_drop" in capsys.readouterr().out
    assert [row[-1] for row in rows] == ["**1 failed**: `test_drop`"]
