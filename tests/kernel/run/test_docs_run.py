# SPDX-License-Identifier: BSD-2-Clause
"""Every command line that is written somewhere runs here, each once, and ends with 0.

tests/unit/project/test_docs.py lists the lines of other programs. docs_fixtures.py makes what the
reader's names stand for. No line runs longer than ``DURATION``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docs_fixtures import Had, readers
from harness import CGNET, FORCED, PATIENCE_S

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from command_lines import NAMES, Line, all_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from two_containers import TwoContainers

DURATION = ("--duration", "0.2")
FOUND = 10
ELSEWHERE = ("--cgroup", "--container", "--pid", "--unit")
TRACING = ("connect", "connlat", "rtt", "life", "drop", "retrans", "trace", "why")
LISTING = "sockets"
AT_ONCE = ("--help", "--list-reasons")  # with these, nothing is traced
LINES = {line.arguments: line for line in all_lines()}


@pytest.fixture(scope="module")
def had(containers: TwoContainers) -> Iterator[Had]:
    """What the reader has."""
    with readers(containers) as had:
        yield had


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where it is typed: with the file that lines read."""
    shutil.copy("/sys/kernel/btf/vmlinux", tmp_path / "vmlinux.btf")
    return tmp_path


def here(arguments: tuple[str, ...], had: Had) -> list[str]:
    """Return a line as it can be typed on this host. A name that readers.py hasn't is an error."""
    words: list[str] = []
    before = ""
    for word in arguments:
        words.append(had[before, word] if before in ELSEWHERE else word)
        before = word
    return words


def shortened(words: list[str]) -> list[str]:
    """Return a tracer's line that ends soon; a command that it runs does nothing."""
    run = ["--", "true"] if "--" in words else []
    words = words[: words.index("--")] if run else words
    if "--duration" in words:
        at = words.index("--duration")
        words = words[:at] + words[at + 2 :]
    return [*words, *DURATION, *(FORCED if words[0] in TRACING else ()), *run]


def test_there_are_lines_of_every_command() -> None:
    assert {arguments[0] for arguments in LINES} == {*NAMES, "--help"}
    assert {*TRACING, LISTING, "containers", "doctor"} == set(NAMES)


@pytest.mark.parametrize("line", LINES.values(), ids=str)
def test_a_command_line_runs(line: Line, had: Had, folder: Path) -> None:
    words = here(line.arguments, had)
    repeats = words[0] == LISTING and "-i" in words  # else it lists once
    traces = repeats or (words[0] in TRACING and not {*AT_ONCE} & {*words})
    done = subprocess.run(
        [CGNET, *(shortened(words) if traces else words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=folder,
    )
    # Others' connections on this host may be in trouble.
    found = "--fail-on" in words and done.returncode == FOUND
    assert done.returncode == 0 or found, done.stderr
    assert "Traceback" not in done.stderr
    assert any(each.startswith("cgnet: tracing") for each in done.stderr.splitlines()) == traces
    if "json" in words:
        assert [json.loads(each) for each in done.stdout.splitlines()]
