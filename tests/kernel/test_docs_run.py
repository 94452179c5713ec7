# SPDX-License-Identifier: BSD-2-Clause
"""What the READMEs say can be typed runs here. tests/unit/test_docs.py reads those of all pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import CGNET, PATIENCE_S

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from command_lines import ROOT, Line, of_page

# These cgroups and processes are the reader's.
ELSEWHERE = ("--cgroup", "--pid", "--unit")
TRACING = ("connect", "connlat", "rtt", "life", "drop", "trace")
LINES = {
    line.arguments: line
    for page in ("README.md", "README.zh_CN.md")
    for line in of_page(ROOT / page)
    if not set(ELSEWHERE) & set(line.arguments)
}


def test_there_are_lines_of_every_command() -> None:
    assert {*TRACING, "containers", "doctor"} == {arguments[0] for arguments in LINES}


@pytest.mark.parametrize("line", LINES.values(), ids=str)
def test_a_command_line_runs(line: Line) -> None:
    more = ["--duration", "0.2"] if line.arguments[0] in TRACING else []
    done = subprocess.run(
        [CGNET, *line.arguments, *more], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
