# SPDX-License-Identifier: BSD-2-Clause
"""The commands that trace, and the Command objects of their runs."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from command_lines import NAMES

from cgnet.cli import _run
from cgnet.commands import COMMANDS
from cgnet.run.command import Command

TRACING = [name for name in NAMES if name not in {"containers", "doctor", "why"}]


def command_of(name: str) -> Command:
    """Return the Command that a command's run is created with."""
    made: list[Any] = []

    class Session:
        def __init__(self, *arguments: Any, **_: Any) -> None:
            made.append(arguments[0])

        def run(self) -> int:
            return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(COMMANDS[name].module), "Session", Session)
        assert _run([name]) == 0
    (found,) = made
    assert isinstance(found, Command)
    return found
