# SPDX-License-Identifier: BSD-2-Clause
"""A Python program in a network namespace, which the test steps through by lines."""

from __future__ import annotations

import select
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness import PATIENCE_S, PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator


class Background:
    """The test's side of the program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def say(self) -> None:
        """Let its input() return."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait(self, text: str) -> str:
        """Wait for a line that begins with ``text``; return it."""
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert ready, text
        line = self._process.stdout.readline()
        assert line.startswith(text), line
        return line


@contextmanager
def background(netns: str, code: str, cgroups: tuple[Path, ...] = ()) -> Iterator[Background]:
    """Run the program until the block ends; it may end itself when its last input() returned."""
    command = [PYTHON, "-c", code]
    if netns:
        command = ["nsenter", f"--net={Path('/run/netns') / netns}", *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(process.pid))
        yield Background(process)
        process.communicate(timeout=PATIENCE_S)  # ends its input
    finally:
        process.kill()
        process.wait()
